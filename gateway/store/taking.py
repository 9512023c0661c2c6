"""The one place where samples leave blocks and chunks to be read: some series, after one key up to another.

Few series are looked for in groups of blocks, taken apart by series once and kept in memory: what is asked
for again and again is what came last, and that is still in blocks.
"""

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from gateway.model import Batch
from gateway.store.chunk import PackedChunk
from gateway.store.codec import CorruptBlock, Kind, Packed
from gateway.store.columns_of_fold import Column, is_plain, ordered, sort_in
from gateway.store.memo import Memo
from gateway.store.past import Past
from gateway.store.segment import Fold, Segment
from gateway.store.stretch import Stretch

Key = tuple[int, int]
"""(ts, series): the order of reading."""

LAST_SERIES = 2**31
"""With a time: the key after all of that time."""

FEW = 64
"""So many series are looked for in groups of blocks."""
_GROUPS = 64, 8
"""Blocks in a group, and in a part of one: the newest group is not complete yet."""
_BLOCKS_BYTES, _CHUNKS_BYTES = 40 * 1024 * 1024, 32 * 1024 * 1024
_IDLE_S = 10.0
_MEMO_SAMPLES = _CHUNKS_BYTES * 9 // 10 // 24
_ROW_BYTES = 160
_GROUP_BYTES = 2_000_000
_PART_SAMPLES = 16_384


class Group(NamedTuple):
    """The samples of some consecutive blocks, by series."""

    seqs: frozenset[int]
    series: dict[int, Stretch]


class Memory:
    """What readers keep unpacked. A read goes on from chunk to chunk, and round in recent blocks."""

    def __init__(self) -> None:
        self.groups: Memo[Group] = Memo(_BLOCKS_BYTES * 3 // 4, _IDLE_S)
        self.blocks: Memo[Batch] = Memo(_BLOCKS_BYTES // 4, 0)
        self.chunks: Memo[tuple[Stretch, ...]] = Memo(_CHUNKS_BYTES, 0)


def grouped(seqs: Sequence[int], level: int = 0) -> Iterator[Sequence[int]]:
    """Yield blocks, in order, by the group of a level that they belong to."""
    size, start = (*_GROUPS, 1)[level], 0
    while start < len(seqs):
        end = bisect_left(seqs, (seqs[start] // size + 1) * size, start)
        yield seqs[start:end]
        start = end


@lru_cache(maxsize=4)
def _places(series: bytes) -> dict[int, list[int]]:
    """Return where in a block each series is; a plant sends the same in the same order again and again."""
    places: dict[int, list[int]] = {}
    for place, number in enumerate(array("i", series)):
        places.setdefault(number, []).append(place)
    return places


class Taker:
    """One thread only; `bad` gets the seqs of blocks that cannot be read."""

    def __init__(
        self, conn: sqlite3.Connection, past: Past, memory: Memory, wanted: Collection[int], bad: list[int]
    ) -> None:
        self._conn, self._past, self._memory, self._bad = conn, past, memory, bad
        self._deleted = past.deleted
        """Taken before what it is to filter is read; another one has other keys in the memory."""
        self._series = sorted(set(wanted))
        self._wanted = frozenset(wanted)
        self._newest = -1
        self.series_n = len(self._series)
        self.few = self.series_n <= FEW

    # Blocks.

    def of_blocks(
        self, there: Sequence[int], low: Key, high: Key, *, alone: bool = False, level: int = 0
    ) -> Iterator[Stretch | Batch]:
        """Yield what is wanted of some blocks of one group, after `low`, up to `high`.

        They are all that have samples there; `alone`: or the others are not to be read.
        """
        if self.few and level < len(_GROUPS):
            group = self._group(there, level, alone=alone)
            if group is not None:
                for series in self._wanted & group.series.keys():
                    yield from _cut(group.series[series], low, high)
                return
            for part in grouped(there, level + 1):
                yield from self.of_blocks(part, low, high, alone=alone, level=level + 1)
            return
        for seq in there:
            batch = self._few_of_block(seq, low, high) if self.few else self._many_of_block(seq, low, high)
            if batch is not None:
                yield batch

    def _few_of_block(self, seq: int, low: Key, high: Key) -> Batch | None:
        batch = self._remembered(seq)
        if batch is None:
            return None
        there = _places(array("i", batch.series).tobytes())
        places = [place for series in self._series for place in there.get(series, ())]
        keys = [(batch.ts[place], batch.series[place]) for place in places]
        places = [place for place, key in zip(places, keys, strict=True) if low < key <= high]
        if not places:
            return None
        return Batch(*([column[place] for place in places] for column in batch.columns()))  # type: ignore[arg-type]

    def _many_of_block(self, seq: int, low: Key, high: Key) -> Batch | None:
        packed = self._packed(seq)
        if packed is None or not packed.ts:
            return None
        chosen = list(map(self._wanted.__contains__, packed.series))
        if self._deleted:
            self._deleted.strike(chosen, packed.series, packed.ts, seq)
        if not (low[0] < min(packed.ts) and max(packed.ts) < high[0]):
            pairs = zip(packed.ts, packed.series, strict=True)
            chosen = [yes and low < key <= high for yes, key in zip(chosen, pairs, strict=True)]
        if True not in chosen:
            return None
        batch = self._unpacked(packed, seq)
        return batch and batch.chosen(chosen)

    def _remembered(self, seq: int) -> Batch | None:
        """Return what is not deleted of a block, out of memory where it is there."""
        key = self._past.generation, self._deleted, seq
        batch = self._memory.blocks.get(key)
        if batch is None and (packed := self._packed(seq)) is not None:
            batch = self._left(packed, seq)
            if batch is not None and is_plain(batch):
                self._memory.blocks.put(key, batch, _ROW_BYTES * len(batch))
        return batch

    def _left(self, packed: Packed, seq: int) -> Batch | None:
        batch = self._unpacked(packed, seq)
        return self._deleted.filtered(batch, seq) if batch is not None and self._deleted else batch

    def _unpacked(self, packed: Packed, seq: int) -> Batch | None:
        try:
            return packed.batch()
        except CorruptBlock:
            self._bad.append(seq)
            return None

    def _packed(self, seq: int) -> Packed | None:
        row = self._conn.execute("SELECT data FROM block WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return None  # it was deleted meanwhile
        try:
            return Packed(row[0], seq)
        except CorruptBlock:
            self._bad.append(seq)
            return None

    def _group(self, there: Sequence[int], level: int, *, alone: bool) -> "Group | None":
        """Return the group of some blocks by series; None where the blocks are to be read by themselves.

        So they are where most of the group is not wanted, more may come to it, or it holds long values.
        """
        size = _GROUPS[level]
        first = there[0] // size * size
        if len(there) * 2 <= size or not self._is_complete(first + size):
            return None
        key = self._past.generation, self._deleted, first, size
        group = self._memory.groups.get(key)
        # One that another thread took apart after some of these were deleted may be of others.
        if group is not None and group.seqs.issuperset(there):
            if len(group.seqs) == len(there):
                return group
            if alone:
                return None
            if len(group.seqs) == len(self._seqs(first, size)):
                return group  # none was deleted meanwhile: the others lie outside the window
        if not self._memory.groups.has_room(_GROUP_BYTES):
            return None
        seqs = self._seqs(first, size)
        group = None if alone and len(seqs) > len(there) else self._taken_apart(seqs)
        if group is not None:
            self._memory.groups.put(key, group, sum(part.size_bytes for part in group.series.values()))
        return group

    def _is_complete(self, end: int) -> bool:
        """Say whether no block below this one is still to come."""
        if self._newest < end:
            self._newest = self._conn.execute("SELECT coalesce(max(seq), -1) FROM block").fetchone()[0]
        return self._newest >= end

    def _seqs(self, first: int, size: int) -> list[int]:
        query = "SELECT seq FROM block WHERE seq BETWEEN ? AND ? AND kind = ? ORDER BY seq"
        window = (first, first + size - 1, Kind.SAMPLES)
        return [row[0] for row in self._conn.execute(query, window)]

    def _taken_apart(self, seqs: Sequence[int]) -> "Group | None":
        columns: dict[int, Column] = {}
        for seq in seqs:
            packed = self._packed(seq)
            batch = self._left(packed, seq) if packed is not None else None
            if batch is None or not is_plain(batch):
                return None
            sort_in(batch, columns)
        series = {number: Stretch.of(number, ordered(column)) for number, column in columns.items()}
        return Group(frozenset(seqs), series)

    # Chunks.

    def share(self, fold: Fold) -> float:
        """Return about how many samples of a fold are wanted."""
        return fold.n * min(1.0, len(self._series) / max(fold.series_n, 1))

    def remembers(self, fold: Fold) -> bool:
        """Say whether what is wanted of a fold is kept where a read comes back to it."""
        return fold.n <= _PART_SAMPLES * fold.series_n and self.share(fold) <= _MEMO_SAMPLES

    def of_chunks(self, where: Segment, fold: Fold, low: Key, high: Key) -> Iterator[Stretch]:
        """Yield what is wanted of a fold, after `low`, up to `high`; of one chunk at a time."""
        if (low[0] > fold.t0 or high[0] < fold.t1) and self.remembers(fold):
            for stretch in self._stretches(where, fold):
                yield from _cut(stretch, low, high)
            return
        for packed in self._past.packed(where, fold, self._series, low[0], high[0]):
            yield from _cut_chunk(packed, low, high)

    def of_chunk(self, where: Segment, fold: Fold, number: int, low: Key, high: Key) -> Iterator[Stretch]:
        """Yield what lies after `low`, up to `high`, of the chunk with this id."""
        packed = self._past.one(where, fold, number)
        if packed is not None:
            yield from _cut_chunk(packed, low, high)

    def _stretches(self, where: Segment, fold: Fold) -> Iterator[Stretch]:
        """Yield all that a fold has of what is wanted, out of memory where it is there."""
        missing = []
        key = where.number, where.made, fold.id, self._deleted
        for series in self._series:
            found = self._memory.chunks.get((*key, series))
            if found is None:
                missing.append(series)
            else:
                yield from found
        chunks = self._past.packed(where, fold, missing, fold.t0, fold.t1) if missing else ()
        for series, parts in groupby(chunks, key=lambda packed: packed.header.series):
            stretches = tuple(Stretch.of(series, packed.stretch()[1:]) for packed in parts)
            self._memory.chunks.put((*key, series), stretches, sum(x.size_bytes for x in stretches))
            yield from stretches


def _places_of(series: int, ts: Sequence[int], low: Key, high: Key) -> tuple[int, int]:
    """Return the places of what lies after one key, up to the time of another."""
    after = bisect_left if series > low[1] else bisect_right
    return after(ts, low[0]), bisect_right(ts, high[0])


def _cut_chunk(packed: PackedChunk, low: Key, high: Key) -> Iterator[Stretch]:
    start, end = _places_of(packed.header.series, packed.ts, low, high)
    if start < end:
        yield packed.stretch().cut(start, end)


def _cut(stretch: Stretch, low: Key, high: Key) -> Iterator[Stretch]:
    start, end = _places_of(stretch.series, stretch.ts, low, high)
    if start < end:
        yield stretch.cut(start, end)
