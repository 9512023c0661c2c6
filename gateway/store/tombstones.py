"""What was deleted on request: a series, a range of time, and up to which block it counts.

A tombstone covers the samples of its series and times that were in the store when it was committed: those in
blocks up to its `seq`, and in chunks that were folded from such blocks alone. A chunk folded later was folded
without them. So what is sent again under the same key afterwards is a new sample.

The record is found by scanning raw bytes, as blocks are:

    magic 4s | version u8 | 3 bytes reserved | id u64 | seq u64 | series u32 | from i64 | to i64 | at i64
    | CRC32 u32
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gateway.model import Batch
from gateway.store.columns import CorruptBlock

MAGIC = b"\xeeGWt"
VERSION = 1
_RECORD = struct.Struct("<4sB3xQQIqqq")
_CRC = struct.Struct("<I")
RECORD_BYTES = _RECORD.size + _CRC.size
FIRST_US, LAST_US = -(2**63), 2**63 - 1
"""Of a whole series."""


class Tombstone(NamedTuple):
    """One deletion; the times are inclusive."""

    id: int
    seq: int
    series: int
    from_us: int
    to_us: int
    at_us: int

    def has(self, ts: int) -> bool:
        return self.from_us <= ts <= self.to_us


def encode(tombstone: Tombstone) -> bytes:
    """Pack a tombstone as the record that it is kept as."""
    body = _RECORD.pack(MAGIC, VERSION, *tombstone)
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes) -> Tombstone:
    """Read a record; raise CorruptBlock where a single bit differs from what was written."""
    if len(data) != RECORD_BYTES:
        raise CorruptBlock("no deletion of this size")
    magic, version, *fields = _RECORD.unpack_from(data)
    if zlib.crc32(data[: _RECORD.size]) != _CRC.unpack_from(data, _RECORD.size)[0]:
        raise CorruptBlock("the checksum of the deletion does not hold")
    if magic != MAGIC or version != VERSION:
        raise CorruptBlock(f"a deletion of version {version} is not known here")
    return Tombstone(*fields)


class Tombstones:
    """All that hold now; never changed, replaced as a whole. False where there are none."""

    def __init__(self, them: Iterable[Tombstone] = ()) -> None:
        self._of: dict[int, list[Tombstone]] = {}
        for each in them:
            self._of.setdefault(each.series, []).append(each)
        self._newest_seq = max((each.seq for each in self), default=-1)

    def __bool__(self) -> bool:
        return bool(self._of)

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[Tombstone]:
        return (each for them in self._of.values() for each in them)

    def __contains__(self, series: int) -> bool:
        return series in self._of

    def of(self, series: int) -> Sequence[Tombstone]:
        return self._of.get(series, ())

    def changed(self, added: Iterable[Tombstone], gone: Iterable[int] = ()) -> "Tombstones":
        """Return these with some added, and without those of some ids."""
        ids = frozenset(gone)
        return Tombstones([*(each for each in self if each.id not in ids), *added])

    def up_to(self, last_id: int) -> "Tombstones":
        """Return those that a unit honours which was cut when the newest one was `last_id`."""
        return Tombstones(each for each in self if each.id <= last_id) if self else self

    def ranges(self, series: int, seq: int, t0: int, t1: int) -> list[tuple[int, int]]:
        """Return what is deleted between two times in a block, or a chunk of blocks up to `seq`."""
        return [
            (each.from_us, each.to_us)
            for each in self._of.get(series, ())
            if each.seq >= seq and each.from_us <= t1 and each.to_us >= t0
        ]

    def strike(self, chosen: list[bool], series: Sequence[int], ts: Sequence[int], seq: int) -> None:
        """Unset the places of a block's samples that are deleted."""
        if seq > self._newest_seq or not len(ts):
            return
        t0, t1 = min(ts), max(ts)
        for number in self._of.keys() & set(series):
            ranges = self.ranges(number, seq, t0, t1)
            for place, (s, t) in enumerate(zip(series, ts, strict=True)) if ranges else ():
                if s == number and any(a <= t <= b for a, b in ranges):
                    chosen[place] = False

    def filtered(self, batch: Batch, seq: int) -> Batch:
        """Return what is left of the samples of block `seq`."""
        chosen = [True] * len(batch)
        self.strike(chosen, batch.series, batch.ts, seq)
        return batch if all(chosen) else batch.chosen(chosen)
