"""A chunk: samples of one series, in the order of their times, as one packed, versioned, CRC'd BLOB.

    magic 4s | version u8 | stats u8 | reserved u16 | body bytes u32 | series u32 | n u32 | numbers u32
    | seq u64 | t0 i64 | t1 i64 | min f64 | max f64 | sum f64 | CRC32 of the body u32
    | CRC32 of the header u32 | body

The body is the columns ts, statuses, flags, values (planes.py). The header can be used without the body: its
own CRC covers it. `stats` says how min, max, sum and `numbers` may be used: they are of the numbers with the
status Good or Uncertain, as buckets are.
"""

import math
import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import reduce
from itertools import islice, repeat
from operator import add, le, truediv
from typing import Any, NamedTuple

from gateway.model import Batch, Value
from gateway.store.columns import CorruptBlock, Source, decode_values, encode_values
from gateway.store.planes import (
    MAX_COUNT,
    decimals,
    decode_doubles,
    decode_integers,
    decode_wholes,
    encode_doubles,
    encode_integers,
    encode_wholes,
    highest,
    squeezed,
    stretched,
)
from gateway.store.stretch import Stretch, narrow

MAGIC = b"\xeeGWc"
VERSION = 1
MOST_POINTS = 4096
_HEADER = struct.Struct("<4sBBH4IQ2q3dI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_TYPES: dict[str, type] = {"d": float, "q": int}
_INTS, _DECIMALS, _DOUBLES, _MIXED = range(4)
_UNKNOWN, _FLOATS, _WHOLE = range(3)
_EXACT = 2.0**53


class ChunkHeader(NamedTuple):
    """What is known of a chunk without unpacking it."""

    stats: int
    series: int
    n: int
    numbers: int
    seq: int
    """The newest block that it was folded from: deletions tell before from after by it."""
    t0: int
    t1: int
    low: float
    high: float
    total: float

    def without_sums(self) -> "ChunkHeader":
        return self._replace(stats=_UNKNOWN)

    def bucket(self) -> list[float] | None:
        """Return [min, max, sum, count] of the numbers; None: they have to be looked at."""
        if self.stats == _UNKNOWN:
            return None
        found: list[float] = [self.low, self.high, self.total]
        return [*(map(int, found) if self.stats == _WHOLE else found), self.numbers]


def encode(
    series: int,
    ts: Sequence[int],
    values: Sequence[Value],
    statuses: Sequence[int],
    flags: Sequence[int],
    *,
    seq: int = 0,
) -> bytes:
    """Pack 1 to MOST_POINTS samples, in the order of their times, of blocks up to `seq`.

    Arrays are packed fastest.
    """
    if isinstance(values, array):
        kinds, column = {_TYPES[values.typecode]}, values.tolist()
    else:
        kinds, column = set(map(type, values)), list(values)
    body = b"".join(
        (
            encode_integers(ts),
            encode_integers(statuses),
            encode_integers(flags),
            _encode_values(kinds, column),
        )
    )
    statistics = _statistics(series, ts, kinds, column, statuses, len(body), seq)
    head = _HEADER.pack(MAGIC, VERSION, *statistics, zlib.crc32(body))
    return head + _CRC.pack(zlib.crc32(head)) + body


def decode_header(data: bytes) -> ChunkHeader:
    """Read a header whose own CRC holds; raise CorruptBlock."""
    return _open(data)[0]


def check(data: bytes) -> ChunkHeader:
    """Read the header of a chunk both of whose checksums hold, and unpack nothing; raise CorruptBlock."""
    header, body_bytes, crc = _open(data)
    body = memoryview(data)[HEADER_BYTES:]
    if len(body) != body_bytes or zlib.crc32(body) != crc:
        raise CorruptBlock("the checksum of the body does not hold")
    return header


def decode(data: bytes) -> tuple[ChunkHeader, Batch]:
    """Unpack a chunk; raise CorruptBlock where a single bit differs from what was written."""
    packed = PackedChunk(data)
    return packed.header, packed.batch()


class PackedChunk:
    """A chunk whose times are unpacked and whose other columns wait until they are asked for."""

    def __init__(self, data: bytes) -> None:
        self.header = check(data)
        self._source = Source(data[HEADER_BYTES:])
        self.ts = decode_integers(self._source, self.header.n)
        self._kept: list[tuple[int, int]] | None = None

    def leave_out(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Leave samples between two times each out of `ts` and `batch`; the header stays as it is."""
        kept, at, end = [], 0, 0
        for start_us, end_us in sorted(ranges):
            end = bisect_left(self.ts, start_us)
            if end > at:
                kept.append((at, end))
            at = max(at, bisect_right(self.ts, end_us))
        self._kept = [*kept, (at, len(self.ts))]
        self.ts = self._left(self.ts)

    def _left(self, column: Any) -> Any:
        """Return what is kept of an array or a list."""
        return reduce(add, (column[a:b] for a, b in self._kept or ()))

    def stretch(self) -> Stretch:
        """Unpack the rest of a chunk of which something is left; once only."""
        n, source = self.header.n, self._source
        try:
            statuses, flags = (narrow(code, decode_integers(source, n)) for code in ("I", "B"))
        except OverflowError as error:
            raise CorruptBlock(f"an integer too large for its column: {error}") from error
        values = _decode_values(source, n)
        source.end()
        if self._kept is not None:
            values, statuses, flags = map(self._left, (values, statuses, flags))
        return Stretch(self.header.series, self.ts, values, statuses, flags)

    def batch(self) -> Batch:
        """Do the same for who wants lists."""
        series, *columns = self.stretch()
        return Batch([series] * len(self.ts), *map(list, columns))


def _open(data: bytes) -> tuple[ChunkHeader, int, int]:
    if not isinstance(data, bytes):  # a damaged page can turn a column into any type
        raise CorruptBlock("no bytes")
    if len(data) < HEADER_BYTES:
        raise CorruptBlock("shorter than a header")
    fields: tuple[Any, ...] = _HEADER.unpack_from(data)
    if zlib.crc32(data[: _HEADER.size]) != _CRC.unpack_from(data, _HEADER.size)[0]:
        raise CorruptBlock("the checksum of the header does not hold")
    magic, version, stats, _, body_bytes, series, n, numbers, seq, t0, t1, low, high, total, crc = fields
    if magic != MAGIC or version != VERSION or stats > _WHOLE:
        raise CorruptBlock(f"a chunk of version {version} is not known here")
    if not 0 < n <= MAX_COUNT:
        raise CorruptBlock(f"{n} samples in a chunk")
    return ChunkHeader(stats, series, n, numbers, seq, t0, t1, low, high, total), body_bytes, crc


def _statistics(
    series: int, ts: Sequence[int], kinds: set[type], values: Sequence[Value], statuses: Sequence[int],
    body_bytes: int, seq: int,
) -> tuple[Any, ...]:  # fmt: skip
    numbers: Sequence[Any] = values
    if kinds - {float, int} or highest(statuses) >> 31:
        numbers = [
            value
            for value, status in zip(values, statuses, strict=True)
            if (type(value) is float or type(value) is int) and not status >> 31 and value == value
        ]
    stats, low, high, total = _FLOATS, 0.0, 0.0, 0.0
    if numbers:
        stats, low, high, total = _sums(numbers)
    return stats, 0, body_bytes, series, len(ts), len(numbers), seq, ts[0], ts[-1], low, high, total


def _sums(numbers: Sequence[Any]) -> tuple[int, float, float, float]:
    kinds, low, high, total = set(map(type, numbers)), min(numbers), max(numbers), sum(numbers)
    if kinds == {float} and math.isfinite(total):
        return _FLOATS, low, high, total
    if kinds == {int} and max(abs(low), abs(high), abs(total)) < _EXACT:
        return _WHOLE, float(low), float(high), float(total)
    return _UNKNOWN, 0.0, 0.0, 0.0


def _encode_values(kinds: set[type], values: Sequence[Any]) -> bytes:
    if kinds == {float}:
        column = array("d", values)
        if (scaled := decimals(column)) is not None:
            return bytes([_DECIMALS, scaled[0]]) + encode_wholes(scaled[1])
        return bytes([_DOUBLES]) + encode_doubles(column)
    if kinds == {int} and max(values) < 2**63:
        return bytes([_INTS]) + encode_integers(values)
    raw = encode_values(values)
    return bytes([_MIXED]) + struct.pack("<I", len(raw)) + squeezed(raw)


def _decode_values(source: Source, count: int) -> "array[Any] | list[Value]":
    kind = source.byte()
    if kind == _INTS:
        return decode_integers(source, count)
    if kind == _DECIMALS:
        digits = source.byte()
        return list(map(truediv, decode_wholes(source, count), repeat(10.0**digits)))
    if kind == _DOUBLES:
        return decode_doubles(source, count)
    if kind != _MIXED:
        raise CorruptBlock(f"unknown value column {kind}")
    inner = Source(stretched(source, struct.unpack("<I", source.take(4))[0]))
    values = decode_values(inner, count)
    inner.end()
    return values


def in_order(ts: Sequence[int]) -> bool:
    return all(map(le, ts, islice(ts, 1, None)))
