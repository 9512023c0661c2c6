"""What the data types of a server are: their names, the texts of enumerations, the fields of structures.

Read in batches from the DataTypeDefinition (Part 3, 8.48 to 8.52; servers of 1.04 and later); enumerations of
older servers from their EnumStrings or EnumValues.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from gateway.protocols.opcua.browsing import children, local, properties, read_each, related
from gateway.protocols.opcua.faults import readable
from gateway.protocols.opcua.nodes import spelled
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.structures import Field, Structure

_LAST_BUILT_IN = 25
_ENUMERATION, _INT32, _STRUCTURE, _VARIANT = 29, 6, 22, 24
ENUM_TEXTS = frozenset({"EnumValues", "EnumStrings", "FalseState", "TrueState"})
"""Properties that give the integers of a value their texts."""
_MOST_TYPES = 2000
_MOST_TEXTS = 1000
"""Of one enumeration."""
_WITH_SUBTYPES = frozenset(
    {ua.StructureType.StructureWithSubtypedValues, ua.StructureType.UnionWithSubtypedValues}
)
_UNIONS = frozenset({ua.StructureType.Union, ua.StructureType.UnionWithSubtypedValues})
_DEFINED = (ua.AttributeIds.DataTypeDefinition, ua.AttributeIds.BrowseName)


@dataclass(slots=True)
class DataTypes:
    """The data types of one session, as far as they were asked for."""

    names: dict[ua.NodeId, str] = field(default_factory=dict)
    enums: dict[ua.NodeId, dict[int, str]] = field(default_factory=dict)
    by_type: dict[ua.NodeId, Structure] = field(default_factory=dict)
    by_encoding: dict[ua.NodeId, Structure] = field(default_factory=dict)

    async def learn(self, session: Session, kinds: Iterable[ua.NodeId]) -> None:
        """Read these types, and those of the fields of structures."""
        definitions: dict[ua.NodeId, ua.StructureDefinition] = {}
        bases: dict[ua.NodeId, int] = {}
        going = list(dict.fromkeys(kinds))
        while going := [kind for kind in going if kind not in self.names][:_MOST_TYPES]:
            found = await self._read(session, going)
            definitions |= found
            undefined = [kind for kind in going if kind not in found and not _built_in(kind)]
            bases |= await _bases(session, undefined)
            await self._older_enums(session, [kind for kind in undefined if bases.get(kind) == _ENUMERATION])
            if len(self.names) > _MOST_TYPES:
                break
            going = [each.DataType for definition in found.values() for each in definition.Fields or ()]
            going = list(dict.fromkeys(going))
        await self._define(session, definitions, bases)

    async def _read(
        self, session: Session, kinds: Sequence[ua.NodeId]
    ) -> dict[ua.NodeId, ua.StructureDefinition]:
        """Note names and enumerations; return the definitions of structures."""
        asked = []
        for kind in kinds:
            if _built_in(kind):
                self.names[kind] = str(ua.ObjectIdNames.get(kind.Identifier, f"i={kind.Identifier}"))
            else:
                asked.append(kind)
        data = await session.chunked(
            "read",
            [ua.ReadValueId(NodeId=kind, AttributeId=attribute) for kind in asked for attribute in _DEFINED],
            lambda nodes: read_each(session, nodes),
        )
        found: dict[ua.NodeId, ua.StructureDefinition] = {}
        for kind, definition, name in zip(asked, map(held, data[::2]), map(held, data[1::2]), strict=True):
            self.names[kind] = getattr(name, "Name", None) or spelled(kind, session.namespaces)
            if isinstance(definition, ua.StructureDefinition):
                found[kind] = definition
            elif isinstance(definition, ua.EnumDefinition):
                self.enums[kind] = {
                    each.Value: text(each.DisplayName) or each.Name or ""
                    for each in (definition.Fields or ())[:_MOST_TEXTS]
                }
        return found

    async def _older_enums(self, session: Session, kinds: Sequence[ua.NodeId]) -> None:
        wanted = [kind for kind in kinds if kind not in self.enums]
        for kind, told in zip(wanted, await properties(session, wanted, ENUM_TEXTS), strict=True):
            if texts := enum_texts(told):
                self.enums[kind] = texts

    async def _define(
        self,
        session: Session,
        definitions: dict[ua.NodeId, ua.StructureDefinition],
        bases: dict[ua.NodeId, int],
    ) -> None:
        encodings = await _encodings(session, definitions)
        for kind, definition in definitions.items():
            self.by_type[kind] = Structure(
                self.names[kind],
                union=definition.StructureType in _UNIONS,
                masked=definition.StructureType == ua.StructureType.StructureWithOptionalFields,
            )
            for encoding in encodings[kind]:
                self.by_encoding[encoding] = self.by_type[kind]
        for kind, definition in definitions.items():
            subtyped = definition.StructureType in _WITH_SUBTYPES
            self.by_type[kind].fields = [
                Field(
                    each.Name or "",
                    self._kind(each, bases, subtyped=subtyped),
                    each.ValueRank,
                    optional=self.by_type[kind].masked and bool(each.IsOptional),
                )
                for each in definition.Fields or ()
            ]

    def _kind(
        self, each: ua.StructureField, bases: dict[ua.NodeId, int], *, subtyped: bool
    ) -> int | Structure:
        kind = each.DataType
        structure = self.by_type.get(kind)
        if structure is not None:
            # What may be a subtype lies there as an ExtensionObject (Part 6, 5.2.9).
            return _STRUCTURE if subtyped and each.IsOptional else structure
        if kind in self.enums:
            return _INT32
        base = kind.Identifier if _built_in(kind) else bases.get(kind, _VARIANT)
        return _INT32 if base == _ENUMERATION else base if base <= _LAST_BUILT_IN else _VARIANT


def _built_in(kind: ua.NodeId) -> bool:
    number = kind.Identifier
    return kind.NamespaceIndex == 0 and isinstance(number, int) and 0 < number <= _ENUMERATION


async def _bases(session: Session, kinds: Sequence[ua.NodeId]) -> dict[ua.NodeId, int]:
    """Return the built-in type, or 29 for an enumeration, that each is derived from."""
    found: dict[ua.NodeId, int] = {}
    at = {kind: kind for kind in kinds}
    for _ in range(_LAST_BUILT_IN):
        going = list(at)
        if not going:
            break
        above = await children(
            session, [at[kind] for kind in going], related(ua.ObjectIds.HasSubtype, inverse=True)
        )
        for kind, references in zip(going, above, strict=True):
            parent = local(references[0].NodeId) if references else None
            if parent is None:
                del at[kind]
            elif _built_in(parent):
                found[kind] = parent.Identifier
                del at[kind]
            else:
                at[kind] = parent
    return found


async def _encodings(
    session: Session, definitions: dict[ua.NodeId, ua.StructureDefinition]
) -> dict[ua.NodeId, list[ua.NodeId]]:
    """Return the node ids of the binary encodings: the one of the definition, or else those of the type."""
    found = {
        kind: [] if definition.DefaultEncodingId.is_null() else [definition.DefaultEncodingId]
        for kind, definition in definitions.items()
    }
    unsaid = [kind for kind, encodings in found.items() if not encodings]
    below = await children(session, unsaid, related(ua.ObjectIds.HasEncoding))
    for kind, references in zip(unsaid, below, strict=True):
        for reference in references:
            node = local(reference.NodeId)
            if node is not None and reference.BrowseName.Name == "Default Binary":
                found[kind].append(node)
    return found


def held(data: ua.DataValue) -> Any:
    """Return the value in a DataValue as asyncua decodes it; None where there is none or it is bad."""
    bad = data.StatusCode is not None and not data.StatusCode.is_good()
    return None if bad or data.Value is None else data.Value.Value


def text(localized: Any) -> str:
    """Return a LocalizedText's text."""
    return readable(getattr(localized, "Text", None) or "")


def enum_texts(told: dict[str, Any]) -> dict[int, str]:
    """Return the texts of an enumeration's values from its properties (Part 3, 5.8.3; Part 8, 5.3.3)."""
    values, strings = told.get("EnumValues"), told.get("EnumStrings")
    if isinstance(values, list):
        return {
            each.Value: text(each.DisplayName)
            for each in values[:_MOST_TEXTS]
            if isinstance(each, ua.EnumValueType)
        }
    if isinstance(strings, list):
        return dict(enumerate(map(text, strings[:_MOST_TEXTS])))
    states = {number: text(told.get(name)) for number, name in enumerate(("FalseState", "TrueState"))}
    return states if all(states.values()) else {}
