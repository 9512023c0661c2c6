"""What a server says of variables beside their values: type, unit, ranges, texts of enumerations.

Part 8, 5.3.2 (AnalogItemType, AnalogUnitType) and 5.3.3 (discrete items).
"""

import math
from collections.abc import Sequence
from typing import Any

from asyncua import ua

from gateway.controls import TagAbout
from gateway.protocols.opcua.browsing import properties, read_each
from gateway.protocols.opcua.datatypes import ENUM_TEXTS, DataTypes, enum_texts, held, text
from gateway.protocols.opcua.session import Session

_ANALOG = {"EngineeringUnits", "EURange", "InstrumentRange"}


async def data_types(session: Session, nodes: Sequence[ua.NodeId]) -> list[ua.NodeId | None]:
    """Return the data type of each variable, None where the server does not tell."""
    asked = [ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.DataType) for node in nodes]
    data = await session.chunked("read", asked, lambda chunk: read_each(session, chunk))
    return [value if isinstance(value, ua.NodeId) else None for value in map(held, data)]


async def described(
    session: Session, nodes: Sequence[ua.NodeId], kinds: Sequence[ua.NodeId | None], types: DataTypes
) -> list[TagAbout]:
    """Return what is said of each variable; `types` knows their types."""
    return [
        TagAbout(
            type=types.names.get(kind, "") if kind is not None else "",
            format="json" if kind in types.by_type else "",
            unit=text(getattr(told.get("EngineeringUnits"), "DisplayName", None)),
            range=_range(told.get("EURange")),
            instrument_range=_range(told.get("InstrumentRange")),
            enum={str(number): name for number, name in _texts(kind, told, types).items()},
        )
        for kind, told in zip(kinds, await properties(session, nodes, _ANALOG | ENUM_TEXTS), strict=True)
    ]


def _texts(kind: ua.NodeId | None, told: dict[str, Any], types: DataTypes) -> dict[int, str]:
    return enum_texts(told) or (types.enums.get(kind, {}) if kind is not None else {})


def _range(told: Any) -> tuple[float, float] | None:
    if not isinstance(told, ua.Range) or not (math.isfinite(told.Low) and math.isfinite(told.High)):
        return None
    return told.Low, told.High
