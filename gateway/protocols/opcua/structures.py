"""Structures as they lie on the wire (Part 6, 5.2.6) to JSON, by tables that the server's definitions fill.

No code is made of what a server says: its names become keys of a JSON object, its definitions a table.
"""

import base64
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

import orjson
from asyncua import ua
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary

from gateway.model import Value
from gateway.protocols.opcua.bounded import BROKEN, Bounded, Spent, by_asyncua
from gateway.protocols.opcua.values import plain
from gateway.protocols.opcua.variants import FIXED, STRING, VariantReader
from gateway.scaling import Scaling

_GUID, _XML, _NODE_ID, _EXPANDED, _QUALIFIED, _EXTENSION, _DATA_VALUE, _VARIANT, _DIAGNOSTIC = (
    14, 16, 17, 18, 20, 22, 23, 24, 25,
)  # fmt: skip
_DEEPEST = 32
_DIMENSIONS = 8
_MOST_PARTS = 20_000
"""Of one structure: some ten milliseconds."""
_MOST_PARTS_OF_ALL = 100_000
"""Of an array of structures."""
_NUMBERS_A_PART = 16
_BODY = struct.Struct("<i")
_MASK = struct.Struct("<I")
_NAME_INDEX = struct.Struct("<H")

Json: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a structure."""

    name: str
    kind: "int | Structure"
    """A built-in type (Part 6, 5.1.2), or the structure that lies there without a header."""
    rank: int = -1
    """-1: a scalar, 1: an array, more: a matrix of so many dimensions."""
    optional: bool = False


@dataclass(slots=True, eq=False)
class Structure:
    """A structure's definition (Part 3, 8.48). Filled after it was made: it may hold itself."""

    name: str
    union: bool = False
    masked: bool = False
    """A mask before the fields tells which of the optional ones are there."""
    fields: list[Field] = field(default_factory=list)


Structures: TypeAlias = Mapping[ua.NodeId, Structure]
"""By the node id of the encoding, which stands before a body."""


@dataclass(frozen=True, slots=True)
class AsJson(Scaling):
    """Turns structures into JSON text, and leaves what it cannot read as the bytes that it is."""

    structures: Structures = field(default_factory=dict)

    @property
    def identity(self) -> bool:
        return False

    def __call__(self, value: Value) -> Value:
        return self._turned(value, [_MOST_PARTS_OF_ALL])

    def _turned(self, value: Value, parts: list[int]) -> Value:
        if isinstance(value, list):
            return [self._turned(each, parts) for each in value]
        return json_text(value, self.structures, parts) if isinstance(value, bytes) else value


def json_text(raw: bytes, structures: Structures, parts: list[int] | None = None) -> Value:
    """Return an ExtensionObject as JSON text; None for an empty one, its bytes where it cannot be read.

    `parts`: how many more may be read, which is counted down.
    """
    reader = _BodyReader(raw, len(raw), structures)
    most = reader.reads = min(_MOST_PARTS, _MOST_PARTS if parts is None else parts[0])
    try:
        found, _ = reader.extension(0, known=True)
        return None if found is None else orjson.dumps(found).decode()
    except (*BROKEN, orjson.JSONEncodeError):
        return raw
    finally:
        if parts is not None:
            parts[0] = max(0, parts[0] - (most - reader.reads))


class _BodyReader(VariantReader):
    """Decodes the fields of structures in data[:end]. Every count is paid for with reads: none is endless."""

    def __init__(self, data: bytes, end: int, structures: Structures, depth: int = 0) -> None:
        super().__init__(data, end)
        self._structures = structures
        self._depth = depth
        self.reads = _MOST_PARTS

    def extension(self, at: int, *, known: bool = False) -> tuple[Json, int]:
        """Decode an ExtensionObject; `known`: ValueError where it is of no known structure."""
        node, at = self._by_asyncua(nodeid_from_binary, at)
        (encoding,) = self.take(at, 1)
        at += 1
        if not encoding:
            return None, at
        (size,) = self.unpack(_BODY, at)
        body = self.take(at + 4, max(size, 0))
        at += 4 + len(body)
        wanted = self._structures.get(ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType))
        if encoding == 1 and wanted is not None:
            inner = _BodyReader(body, len(body), self._structures, self._depth + 1)
            inner.reads = self.reads
            try:
                found, end = inner.structure(wanted, 0)
            finally:
                self.reads = inner.reads
            if end != len(body):
                raise ValueError(f"{wanted.name} takes {end} bytes, there are {len(body)}")
            return found, at
        if known:
            raise ValueError("no structure that is known")
        return {"TypeId": node.to_string(), "Body": base64.b64encode(body).decode()}, at

    def structure(self, kind: Structure, at: int) -> tuple[Json, int]:
        if self._depth > _DEEPEST:
            raise ValueError("structures within structures, too deep")
        self._depth += 1
        found: dict[str, Json] = {}
        mask, bit = -1, 0
        if kind.union or kind.masked:
            (mask,) = self.unpack(_MASK, at)
            at += 4
        if kind.union and mask > len(kind.fields):
            raise ValueError(f"{kind.name} has no field {mask}")
        for place, each in enumerate(kind.fields, 1):
            there = True
            if kind.union:
                there = place == mask
            elif each.optional:
                there, bit = bool(mask >> bit & 1), bit + 1
            if there:
                found[each.name], at = self._field(each, at)
        self._depth -= 1
        return found, at

    def _field(self, each: Field, at: int) -> tuple[Json, int]:
        if each.rank < 0:
            return self._one(each.kind, at)
        (count,) = self.unpack(_BODY, at)
        at += 4
        if each.rank <= 1:
            return (None, at) if count < 0 else self._several(each.kind, count, at)
        if count > _DIMENSIONS:
            raise ValueError(f"a matrix of {count} dimensions")
        dimensions = struct.unpack(f"<{max(count, 0)}i", self.take(at, 4 * max(count, 0)))
        at += 4 * len(dimensions)
        if not dimensions or min(dimensions) < 0:
            return None, at
        flat, at = self._several(each.kind, math.prod(dimensions), at)
        for size in reversed(dimensions[1:]):
            flat = [flat[start : start + size] for start in range(0, len(flat), size)] if size else []
        return flat, at

    def _several(self, kind: "int | Structure", count: int, at: int) -> tuple[list[Json], int]:
        values: list[Json] = []
        if not isinstance(kind, Structure) and (code := FIXED.get(kind)) is not None:
            raw = self.take(at, count * struct.calcsize("<" + code))
            self._spend(count // _NUMBERS_A_PART)
            return _jsonable(list(struct.unpack(f"<{count}{code}", raw))), at + len(raw)
        for _ in range(count):
            value, at = self._one(kind, at)
            values.append(value)
        return values, at

    def _one(self, kind: "int | Structure", at: int) -> tuple[Json, int]:
        self._spend(1)
        if isinstance(kind, Structure):
            return self.structure(kind, at)
        if kind == _EXTENSION:
            return self.extension(at)
        if kind == _VARIANT:
            value, at = self.variant(at)
        elif kind == _GUID:
            value, at = str(UUID(bytes_le=self.take(at, 16))), at + 16
        elif kind == _XML:
            value, at = self._text(STRING, at)
        elif kind == _QUALIFIED:
            (index,) = self.unpack(_NAME_INDEX, at)
            name, at = self._text(STRING, at + 2)
            value = f"{index}:{name}" if index and isinstance(name, str) else name
        elif kind in _ASYNCUA:
            value, at = self._by_asyncua(_ASYNCUA[kind], at)
            value = plain(value)
        else:
            value, at = self._scalar(kind, at)
        return _jsonable(value), at

    def _spend(self, parts: int) -> None:
        self.reads -= parts
        if self.reads < 0:
            raise Spent("it holds more parts than are taken")

    def _by_asyncua(self, decoder: Callable[..., Any], at: int) -> tuple[Any, int]:
        budget = [self.reads]
        buffer = Bounded(self.data, at, self.end - at, budget)
        try:
            return by_asyncua(decoder, buffer), buffer.cur_pos
        finally:
            self.reads = budget[0]


def _jsonable(value: Value) -> Json:
    """Return what JSON can hold (Part 6, 5.4.2): bytes in base64, what is no finite number by its name."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_jsonable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


_ASYNCUA: dict[int, Callable[..., Any]] = {
    _NODE_ID: nodeid_from_binary,
    _EXPANDED: nodeid_from_binary,
    _DATA_VALUE: lambda buffer: struct_from_binary(ua.DataValue, buffer),
    _DIAGNOSTIC: lambda buffer: struct_from_binary(ua.DiagnosticInfo, buffer),
}
