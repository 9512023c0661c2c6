"""Where a DataValue ends on the wire, whatever it holds (Part 6, 5.2.2), to go on after it."""

import struct

_NULL, _STRING, _BYTES, _XML = 0, 12, 15, 16
_NODE_ID, _EXPANDED, _QUALIFIED, _LOCALIZED, _EXTENSION, _DATA_VALUE, _VARIANT, _DIAGNOSTIC = (
    17, 18, 20, 21, 22, 23, 24, 25,
)  # fmt: skip
_SIZES = {
    _NULL: 0, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 4, 11: 8, 13: 8, 14: 16, 19: 4,
}  # fmt: skip
"""Bytes of the built-in types (Part 6, 5.1.2) of a fixed size."""
_RESERVED = range(26, 32)
"""Types to come: they are read as ByteStrings (Part 6, 5.2.2.16)."""
_SIZED = frozenset((_STRING, _BYTES, _XML, *_RESERVED))
_NODE_IDS = {0: 2, 1: 4, 2: 7, 4: 19}
"""Bytes of a NodeId by its encoding; 3 and 5 are three bytes and a text."""
_DEEPEST = 32
_MOST_STEPS = 300_000
"""Some tenths of a second, on a thread."""
_INT32 = struct.Struct("<i")
_NONE = _INT32.pack(-1)


def data_value_end(data: bytes, at: int, end: int) -> int:
    """Return where the DataValue at `at` ends, at most `end`. ValueError: its lengths do not tell."""
    return _Walker(data, end).data_value(at)


class _Walker:
    """Goes from part to part of data[:end] and looks at lengths only."""

    def __init__(self, data: bytes, end: int) -> None:
        self._data = data
        self._end = end
        self._steps = 0
        self._depth = 0

    def data_value(self, at: int) -> int:
        mask = self._byte(at)
        at += 1
        if mask & 1:
            at = self._variant(at)
        for bit, size in ((2, 4), (4, 8), (8, 8), (16, 2), (32, 2)):
            at += size * bool(mask & bit)
        return self._inside(at)

    def _variant(self, at: int) -> int:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("values within values, too deep")
        encoding = self._byte(at)
        kind = encoding & 0x3F
        count, at = self._count(at + 1) if encoding & 0x80 else (1, at + 1)
        if kind in _SIZES:
            at = self._inside(at + count * _SIZES[kind])
        else:
            for _ in range(count):
                at = self._one(kind, at)
        if encoding & 0x40:
            rank, at = self._count(at)
            at = self._inside(at + 4 * rank)
        self._depth -= 1
        return at

    def _one(self, kind: int, at: int) -> int:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise ValueError("it holds more parts than are looked at")
        if kind in _SIZED:
            return self._sized(at)
        if kind in (_NODE_ID, _EXPANDED):
            return self._node_id(at)
        if kind == _QUALIFIED:
            return self._sized(at + 2)
        if kind == _LOCALIZED:
            return self._localized(at)
        if kind == _EXTENSION:
            return self._extension(self._node_id(at))
        if kind == _DATA_VALUE:
            return self.data_value(at)
        if kind == _VARIANT:
            return self._variant(at)
        if kind == _DIAGNOSTIC:
            return self._diagnostic(at)
        raise ValueError(f"a built-in type {kind}, which there is not")

    def _node_id(self, at: int) -> int:
        encoding = self._byte(at)
        if (size := _NODE_IDS.get(encoding & 0x3F)) is not None:
            at += size
        elif encoding & 0x3F in (3, 5):
            at = self._sized(at + 3)
        else:
            raise ValueError("a NodeId of an encoding that there is not")
        if encoding & 0x80:
            at = self._sized(at)
        return self._inside(at + 4 * bool(encoding & 0x40))

    def _extension(self, at: int) -> int:
        if not self._byte(at):
            return at + 1
        if self._data[at + 1 : at + 5] == _NONE:
            raise ValueError("a structure whose length is not told")  # old servers: it goes on to the end
        return self._sized(at + 1)

    def _localized(self, at: int) -> int:
        mask = self._byte(at)
        at += 1
        for bit in (1, 2):
            if mask & bit:
                at = self._sized(at)
        return at

    def _diagnostic(self, at: int) -> int:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("diagnostics within diagnostics, too deep")
        mask = self._byte(at)
        at += 1 + 4 * (mask & 0x0F).bit_count()
        if mask & 0x10:
            at = self._sized(at)
        at += 4 * bool(mask & 0x20)
        if mask & 0x40:
            at = self._diagnostic(at)
        self._depth -= 1
        return self._inside(at)

    def _sized(self, at: int) -> int:
        size, at = self._count(at)
        return self._inside(at + size)

    def _count(self, at: int) -> tuple[int, int]:
        """Return a length, where -1 is none, and where it ends."""
        stop = self._inside(at + 4)
        (count,) = _INT32.unpack_from(self._data, at)
        if count < -1:
            raise ValueError(f"a length of {count}")
        return max(count, 0), stop

    def _byte(self, at: int) -> int:
        self._inside(at + 1)
        return self._data[at]

    def _inside(self, at: int) -> int:
        if at > self._end:
            raise ValueError("it ends too early")
        return at
