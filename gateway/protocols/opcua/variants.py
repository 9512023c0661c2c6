"""Variants as they lie on the wire (Part 6, 5.2.2.16) to values; what is unusual goes to asyncua."""

import math
import struct
from functools import cache
from typing import Any

from asyncua import ua
from asyncua.ua.ua_binary import nodeid_from_binary, variant_from_binary

from gateway.model import Value
from gateway.protocols.opcua.bounded import AT_ONCE, Bounded, Spent, by_asyncua
from gateway.protocols.opcua.values import plain, text_of

FIXED = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d", 19: "I"}
"""Built-in types (Part 6, 5.1.2) to struct codes; a StatusCode is the integer that it is."""
STRING, _DATE_TIME, _BYTES, _LOCALIZED, _EXTENSION = 12, 13, 15, 21, 22
_SCALARS = frozenset((*FIXED, STRING, _DATE_TIME, _BYTES, _LOCALIZED))
_ARRAY, _MATRIX = 0x80, 0xC0
_MOST_ELEMENTS = 400_000
"""Of one array: the store takes no value above 16 MiB, which is some more."""
_ELEMENTS_A_READ = 7
"""2**7 numbers of an array are weighed like one of asyncua's reads."""
_BYTES_A_READ = 256
"""Bytes of a structure that are weighed so: they become JSON."""
_MEMORY = {kind: 8 if code in "?B" else 36 for kind, code in FIXED.items()}
"""Bytes of memory of a number in a list, by its type; Python has all bytes and booleans already."""
_ROOM = 80 * 2**20
"""Bytes of memory of all numbers in arrays of a message: 16 MiB of doubles."""
_MOST_DIMENSIONS = 16
_TEXT_READS = 2
"""A text in an array is weighed like asyncua's reads."""
INT32, UINT32, _INT64 = struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<q")


class VariantReader:
    """Decodes Variants in data[:end], each where it is told. Spent: it takes more than `reads`."""

    def __init__(self, data: bytes, end: int) -> None:
        self.data = data
        self.end = end
        self.reads = AT_ONCE
        self._room = _ROOM

    def variant(self, at: int) -> tuple[Value, int]:
        (encoding,) = self.take(at, 1)
        kind = encoding & 0x3F
        if encoding == kind and kind in _SCALARS:
            return self._scalar(kind, at + 1)
        if encoding == _EXTENSION and (end := self._extension_end(at + 1)) is not None:
            return self.data[at + 1 : end], end
        if encoding & _ARRAY and (kind in FIXED or kind in (STRING, _BYTES, _EXTENSION)):
            found = self._array(encoding, at + 1)
            if found is not None:
                return found
        return self._unusual(at)

    def _scalar(self, kind: int, at: int) -> tuple[Value, int]:
        if kind in FIXED:
            one = _element(kind)
            return self.unpack(one, at)[0], at + one.size
        if kind == _DATE_TIME:
            return plain(ua.win_epoch_to_datetime(self.unpack(_INT64, at)[0])), at + 8
        if kind == _LOCALIZED:
            return self._localized(at)
        return self._text(kind, at)

    def _localized(self, at: int) -> tuple[Value, int]:
        (mask,) = self.take(at, 1)
        at += 1
        text: Value = None
        if mask & 1:  # the locale is not kept
            _, at = self._text(STRING, at)
        if mask & 2:
            text, at = self._text(STRING, at)
        return text, at

    def _text(self, kind: int, at: int) -> tuple[Value, int]:
        (size,) = self.unpack(INT32, at)
        if size == -1:
            return None, at + 4
        raw = self.take(at + 4, size)
        return raw if kind == _BYTES else text_of(raw), at + 4 + size

    def _array(self, encoding: int, at: int) -> tuple[Value, int] | None:
        """Decode an array or matrix; None where it is no proper matrix."""
        kind = encoding & 0x3F
        (count,) = self.unpack(INT32, at)
        at += 4
        if count < 0:
            return None
        if count > _MOST_ELEMENTS:
            raise ValueError(f"an array of {count} elements, where {_MOST_ELEMENTS} are taken at most")
        values: list[Value]
        if kind in FIXED:
            values, at = self._numbers(kind, at, count)
        elif kind == _EXTENSION:
            extensions = self._extensions(at, count)
            if extensions is None:
                return None
            values, at = extensions
        else:
            values, at = self._texts(kind, at, count)
        if encoding & _MATRIX != _MATRIX:
            return values, at
        (rank,) = self.unpack(INT32, at)
        if rank > _MOST_DIMENSIONS:
            raise ValueError(f"a matrix of {rank} dimensions, where {_MOST_DIMENSIONS} are taken at most")
        dimensions = struct.unpack(f"<{max(rank, 0)}i", self.take(at + 4, rank * 4))
        if not dimensions or min(dimensions) < 1 or math.prod(dimensions) != count:
            return None
        return _folded(values, dimensions), at + 4 + rank * 4

    def _numbers(self, kind: int, at: int, count: int) -> tuple[list[Value], int]:
        stop = at + count * _element(kind).size
        if stop > self.end:
            raise ValueError(f"{count} numbers where {self.end - at} bytes are left")
        self.reads -= count >> _ELEMENTS_A_READ
        size = count * _MEMORY[kind]
        if size > self._room:
            raise ValueError(f"the arrays of one message would take more than {_ROOM >> 20} MiB")
        self._room -= size
        return list(struct.unpack_from(f"<{count}{FIXED[kind]}", self.data, at)), stop

    def _texts(self, kind: int, at: int, count: int) -> tuple[list[Value], int]:
        values: list[Value] = []
        for _ in range(count):
            self.reads -= _TEXT_READS
            if self.reads < 0:
                raise Spent("it holds more texts than are taken")
            value, at = self._text(kind, at)
            values.append(value)
        return values, at

    def _extensions(self, at: int, count: int) -> tuple[list[Value], int] | None:
        values: list[Value] = []
        for _ in range(count):
            self.reads -= _TEXT_READS
            if self.reads < 0:
                raise Spent("it holds more structures than are taken")
            end = self._extension_end(at)
            if end is None:
                return None
            values.append(self.data[at:end])
            at = end
        return values, at

    def _extension_end(self, at: int) -> int | None:
        """Return where an ExtensionObject ends, whatever it holds; None where its length is not told."""
        budget = [self.reads]
        buffer = Bounded(self.data, at, self.end - at, budget)
        by_asyncua(nodeid_from_binary, buffer)
        self.reads = budget[0]
        start: int = buffer.cur_pos + 5
        if self.take(start - 5, 1) == b"\0":
            return start - 4
        (size,) = self.unpack(INT32, start - 4)
        if size < 0:
            return None
        self.reads -= size // _BYTES_A_READ
        return start + len(self.take(start, size))

    def _unusual(self, at: int) -> tuple[Value, int]:
        """Let asyncua decode one Variant."""
        budget = [self.reads]
        buffer = Bounded(self.data, at, self.end - at, budget)
        try:
            return by_asyncua(_plain, buffer), buffer.cur_pos
        finally:
            self.reads = budget[0]

    def unpack(self, what: struct.Struct, at: int) -> tuple[Any, ...]:
        if at + what.size > self.end:
            raise ValueError("it ends too early")
        return what.unpack_from(self.data, at)

    def take(self, at: int, size: int) -> bytes:
        if size < 0 or at + size > self.end:
            raise ValueError(f"a length of {size} where {self.end - at} bytes are left")
        return self.data[at : at + size]


def _plain(buffer: Bounded) -> Value:
    return plain(variant_from_binary(buffer).Value)


@cache
def _element(kind: int) -> struct.Struct:
    return struct.Struct("<" + FIXED[kind])


def _folded(flat: list[Value], dimensions: tuple[int, ...]) -> list[Value]:
    """Return a matrix as nested lists, the last dimension innermost."""
    for size in reversed(dimensions[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat
