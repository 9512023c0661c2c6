"""A block: the samples of one commit as one packed, versioned, CRC'd row that raw bytes can be scanned for.

    magic 4s | version u8 | kind u8 | compression u8 | clock u8 | body bytes u32 | raw bytes u32 | seq u64
    | boot id 16s | mono_ns u64 | wall_us i64 | n u32 | t0 i64 | t1 i64 | CRC32 u32 | body

The CRC covers everything but itself. The body is packed by zstd.py: the columns series, ts, statuses, flags
and values, or what recording.py makes of the frames of a measurement.
"""

import enum
import struct
import zlib
from array import array
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from typing import Any

from gateway.model import Batch, Value
from gateway.store.columns import (
    CorruptBlock,
    Source,
    decode_array,
    decode_ints,
    decode_values,
    encode_ints,
    encode_times,
    encode_values,
    take_booleans,
    take_codes,
    take_types,
)
from gateway.store.values import BOOL, FLOAT, INT, NONE, stored
from gateway.store.zstd import pack, unpack

__all__ = [
    "MAGIC",
    "BlockHeader",
    "Columns",
    "CorruptBlock",
    "Kind",
    "Packed",
    "decode",
    "decode_columns",
    "decode_header",
    "encode",
]

MAGIC = b"\xeeGWb"
VERSION = 1
_ZSTD = 2
_MAX_RAW_BYTES = 256 * 1024 * 1024
_MAX_ROWS = 1 << 20
_NUMBERS = frozenset((FLOAT, INT, BOOL, NONE))
_HEADER = struct.Struct("<4sBBBBIIQ16sQqIqq")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size


class Kind(enum.IntEnum):
    """What a block holds."""

    SAMPLES = 1
    EMPTY = 2
    """Nothing but its seq: the place in the queue for gap records of a commit without samples."""
    SNAPSHOT = 3
    """The newest sample of each series; not in the queue."""
    RECORDING = 4
    """Frames of a measurement: in a table of its own (recordings.py), not in the queue."""


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """Where and when a block was made. `clock` is 1 where the wall clock was synchronised."""

    kind: Kind
    seq: int
    boot: bytes
    mono_ns: int
    wall_us: int
    clock: int
    n: int = 0
    t0: int = 0
    t1: int = 0


def encode(header: BlockHeader, batch: Batch) -> bytes:
    """Pack samples that can be stored; n, t0 and t1 are taken from them."""
    rows = stored(batch)
    raw = b""
    if len(rows):
        raw = b"".join(
            (
                _series_column(rows.packed_series),
                encode_times(rows.packed_ts),
                encode_ints(rows.statuses),
                encode_ints(rows.flags),
                encode_values(rows.values, (rows.codes, rows.numbers)),
            )
        )
        header = replace(header, n=len(rows), t0=rows.t0, t1=rows.t1)
    return seal(header, raw)


def seal(header: BlockHeader, raw: bytes) -> bytes:
    """Pack a body, and put the header before it."""
    body = pack(raw)
    head = _HEADER.pack(
        MAGIC, VERSION, header.kind, _ZSTD, header.clock, len(body), len(raw), header.seq,
        header.boot, header.mono_ns, header.wall_us, header.n, header.t0, header.t1,
    )  # fmt: skip
    return head + _CRC.pack(zlib.crc32(body, zlib.crc32(head))) + body


@lru_cache(maxsize=4)
def _series_column(series: bytes) -> bytes:
    """A plant sends the same series in the same order again and again."""
    return encode_ints(array("i", series).tolist(), delta=True)


def decode_header(data: bytes) -> BlockHeader:
    """Read a header whose CRC (over the body too) holds; raise CorruptBlock."""
    return _open(data)[0]


def decode(data: bytes, seq: int | None = None) -> tuple[BlockHeader, Batch]:
    """Unpack a block; raise CorruptBlock where a single bit differs from what was written."""
    packed = Packed(data, seq)
    return packed.header, packed.batch()


class Packed:
    """A block whose keys are unpacked and whose other columns wait until they are asked for."""

    def __init__(self, data: bytes, seq: int | None = None) -> None:
        """`seq`: of the row that it stands in; a damaged table may show a block in another's place."""
        self.header, self._source = _columns(data)
        if seq is not None and seq != self.header.seq:
            raise CorruptBlock(f"block {self.header.seq} in the place of block {seq}")
        self.series = decode_ints(self._source, self.header.n)
        self.ts = decode_ints(self._source, self.header.n)

    def batch(self) -> Batch:
        """Unpack the rest; once only."""
        source, n = self._source, self.header.n
        statuses, flags = decode_ints(source, n), decode_ints(source, n)
        values = decode_values(source, n) if n else []
        source.end()
        return Batch(self.series, self.ts, values, statuses, flags)


@dataclass(frozen=True, slots=True)
class Columns:
    """A block of numbers, booleans and nulls as arrays: what folding needs of most blocks."""

    layout: bytes
    """The series, packed: the same for the same series in the same order."""
    n: int
    ts: "array[int]"
    statuses: "array[int]"
    flags: "array[int]"
    codes: bytes
    """Of each value's type."""
    numbers: "dict[int, array[Any]]"
    """By code the doubles, integers and booleans (of a byte) among the values."""

    def series(self) -> "array[int]":
        return _series(self.layout, self.n)

    def batch(self) -> Batch:
        nexts: list[Any] = [None] * 9
        for code, column in self.numbers.items():
            nexts[code] = iter(map(bool, column) if code == BOOL else column.tolist()).__next__
        nexts[NONE] = repeat(None).__next__
        values: list[Value] = [nexts[code]() for code in self.codes]
        columns = (column.tolist() for column in (self.series(), self.ts, self.statuses, self.flags))
        series, ts, statuses, flags = columns
        return Batch(series, ts, values, statuses, flags)


def decode_columns(data: bytes) -> Columns | None:
    """Unpack a block of numbers, booleans and nulls; None: there are other values, or none. CorruptBlock."""
    header, source = _columns(data)
    n = header.n
    if not n:
        return None
    layout, ts = source.integers(n), decode_array(source, n, "q")
    statuses, flags = decode_array(source, n, "I"), decode_array(source, n, "B")
    present = take_types(source, n)
    if not _NUMBERS.issuperset(present):
        return None
    codes = take_codes(source, n, present)
    numbers: dict[int, array[Any]] = {}
    for code in present:
        count = codes.count(code)
        if code == FLOAT:
            numbers[code] = source.numbers("d", count)
        elif code == INT:
            numbers[code] = decode_array(source, count, "q")
        elif code == BOOL:
            numbers[code] = array("B", take_booleans(source, count))
    source.end()
    return Columns(layout, n, ts, statuses, flags, codes, numbers)


@lru_cache(maxsize=4)
def _series(layout: bytes, count: int) -> "array[int]":
    return decode_array(Source(layout), count, "i")


def _columns(data: bytes) -> tuple[BlockHeader, Source]:
    header, raw = unseal(data)
    if header.kind == Kind.RECORDING:
        raise CorruptBlock("it holds frames, not samples")
    return header, Source(raw)


def unseal(data: bytes) -> tuple[BlockHeader, bytes]:
    """Return header and unpacked body; raise CorruptBlock."""
    header, raw_bytes = _open(data)
    return header, unpack(data[HEADER_BYTES:], raw_bytes)


def _open(data: bytes) -> tuple[BlockHeader, int]:
    if not isinstance(data, bytes):  # a damaged page can turn a column into any type
        raise CorruptBlock("no bytes")
    if len(data) < HEADER_BYTES:
        raise CorruptBlock("shorter than a header")
    fields: tuple[Any, ...] = _HEADER.unpack_from(data)
    magic, version, kind, compression, clock, body_bytes, raw_bytes, *rest = fields
    if magic != MAGIC:
        raise CorruptBlock("no block begins here")
    if len(data) != HEADER_BYTES + body_bytes:
        raise CorruptBlock("longer or shorter than its header says")
    body = memoryview(data)[HEADER_BYTES:]
    if zlib.crc32(body, zlib.crc32(data[: _HEADER.size])) != _CRC.unpack_from(data, _HEADER.size)[0]:
        raise CorruptBlock("the checksum does not hold")
    if version != VERSION or compression != _ZSTD or raw_bytes > _MAX_RAW_BYTES:
        raise CorruptBlock(f"version {version} with compression {compression} is not known here")
    if kind not in Kind.__members__.values():
        raise CorruptBlock(f"kind {kind} is not known here")
    seq, boot, mono_ns, wall_us, n, t0, t1 = rest
    if n > _MAX_ROWS:
        raise CorruptBlock("more samples than its body can hold")
    return BlockHeader(Kind(kind), seq, boot, mono_ns, wall_us, clock, n, t0, t1), raw_bytes
