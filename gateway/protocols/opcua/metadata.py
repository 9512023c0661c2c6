"""What a server says of variables beside their values: type, unit, ranges, texts of enumerations.

Part 8, 5.3.2 (AnalogItemType, AnalogUnitType) and 5.3.3 (discrete items).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from asyncua import ua

from gateway.controls.devices import TagAbout
from gateway.model import Value
from gateway.protocols.opcua.browsing import properties, read_each
from gateway.protocols.opcua.datatypes import ENUM_TEXTS, DataTypes, enum_texts, held, text
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.structures import AsJson
from gateway.protocols.opcua.values import reading

_ACCESS = {0: "", 1: "r", 2: "w", 3: "rw"}
"""The two lowest bits of an AccessLevel (Part 3, 8.57)."""
_LOOKED_AT = (ua.AttributeIds.UserAccessLevel, ua.AttributeIds.DataType, ua.AttributeIds.Value)
_ANALOG = {"EngineeringUnits", "EURange", "InstrumentRange"}


class Look(NamedTuple):
    """A variable as it is now. `access` is "r", "w", "rw", or "" where nobody may use it."""

    about: TagAbout
    access: str
    value: Value
    status: int


async def looked_at(session: Session, nodes: Sequence[ua.NodeId], types: DataTypes) -> list[Look]:
    """Look at variables; `types` learns what it did not know."""
    asked = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in nodes for attribute in _LOOKED_AT]
    data = await session.chunked("read", asked, lambda chunk: read_each(session, chunk))
    levels, kinds, values = (data[place :: len(_LOOKED_AT)] for place in range(len(_LOOKED_AT)))
    of_type = [value if isinstance(value, ua.NodeId) else None for value in map(held, kinds)]
    await types.learn(session, [kind for kind in of_type if kind is not None])
    as_json = AsJson(structures=types.by_encoding)
    looks = []
    for about, level, found in zip(
        await described(session, nodes, of_type, types), map(held, levels), map(reading, values), strict=True
    ):
        looks.append(Look(about, _ACCESS[int(level or 0) & 3], as_json(found.value), found.status))
    return looks


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
