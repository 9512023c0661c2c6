"""Min, max, average, count per series and bucket: of blocks by samples, of chunks by slices or whole."""

import sqlite3
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

from gateway.model import Batch
from gateway.store.blocks import seqs_overlapping
from gateway.store.chunk import PackedChunk
from gateway.store.codec import CorruptBlock, Packed
from gateway.store.past import Past
from gateway.store.reader import unfolded
from gateway.store.segment import Fold, Segment
from gateway.store.tombstones import Tombstones

_TURN_S = 0.2


class Bucket(NamedTuple):
    """Numbers of one series within [start_us, start_us + width); status Good or Uncertain only."""

    series: int
    start_us: int
    min: float
    max: float
    avg: float
    n: int


def fold(into: dict[tuple[int, int], list[float]], batch: Batch, width_us: int) -> None:
    """Add samples to buckets: (start, series) to [min, max, sum, count]."""
    for series, ts, value, status, _ in zip(*batch.columns(), strict=True):
        if status >> 31 or type(value) not in (float, int) or value != value:
            continue
        number: float = value  # type: ignore[assignment]
        key = (ts - ts % width_us, series)
        if (bucket := into.get(key)) is None:
            into[key] = [number, number, number, 1]
        else:
            bucket[0] = min(bucket[0], number)
            bucket[1] = max(bucket[1], number)
            bucket[2] += number
            bucket[3] += 1


def finished(into: dict[tuple[int, int], list[float]]) -> list[Bucket]:
    return [
        Bucket(series, start, low, high, total / count, int(count))
        for (start, series), (low, high, total, count) in sorted(into.items())
    ]


class Folder:
    """Adds what lies in a window to buckets, in turns of a reader thread.

    The folds of the history are those there are at the beginning; blocks that they have are passed over. Who
    uses it holds the history, so that blocks folded later are not deleted meanwhile: each sample counts once.
    """

    def __init__(self, series: Sequence[int], from_us: int, to_us: int, width_us: int) -> None:
        self._series = sorted(set(series))
        self._from_us, self._to_us, self._width_us = from_us, to_us, width_us
        self._folds: list[tuple[Segment, Fold]] | None = None
        self._deleted = Tombstones()
        self._folded: list[tuple[int, int]] = []
        self._into: dict[tuple[int, int], list[float]] = {}
        self._blocks: list[int] = []
        self._chunks_at = 0

    def turn(self, conn: sqlite3.Connection, past: Past, bad: list[int]) -> bool:
        """Do some of the work, for about 0.2 s; say whether that was all."""
        deadline = time.monotonic() + _TURN_S
        self._deleted = past.deleted
        if self._folds is None:
            self._folds, self._folded = past.folds_and_folded(self._from_us, self._to_us)
            self._blocks = self._seqs(conn)
        while self._blocks:
            self._take_block(conn, self._blocks.pop(), bad)
            if time.monotonic() > deadline:
                return False
        while self._chunks_at < len(self._folds):
            where, fold = self._folds[self._chunks_at]
            self._chunks_at += 1
            self._take_fold(past, where, fold)
            if time.monotonic() > deadline:
                return False
        return True

    def buckets(self) -> list[Bucket]:
        return finished(self._into)

    def _seqs(self, conn: sqlite3.Connection) -> list[int]:
        return unfolded(seqs_overlapping(conn, self._from_us, self._to_us), self._folded)

    def _take_block(self, conn: sqlite3.Connection, seq: int, bad: list[int]) -> None:
        row = conn.execute("SELECT data FROM block WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return  # retention took it meanwhile
        try:
            packed = Packed(row[0])
            wanted = set(self._series)
            chosen = [
                series in wanted and self._from_us <= ts <= self._to_us
                for series, ts in zip(packed.series, packed.ts, strict=True)
            ]
            if self._deleted:
                self._deleted.strike(chosen, packed.series, packed.ts, seq)
            if True not in chosen:
                return
            columns = packed.batch().columns()
        except CorruptBlock:
            bad.append(seq)
            return
        rows = (list(compress(column, chosen)) for column in columns)
        fold(self._into, Batch(*rows), self._width_us)  # type: ignore[arg-type]

    def _take_fold(self, past: Past, where: Segment, part: Fold) -> None:
        """Add the chunks of a fold: those within one bucket by what their headers say."""
        unpack = []
        for number, header in past.headers(where, part, self._series):
            if header.t1 < self._from_us or header.t0 > self._to_us:
                continue
            start = header.t0 - header.t0 % self._width_us
            whole = header.t1 < start + self._width_us
            inside = self._from_us <= header.t0 and header.t1 <= self._to_us
            sums = header.bucket() if whole and inside else None
            if sums is None:
                unpack.append(number)
            elif sums[3]:
                self._add((start, header.series), sums)
        for number in unpack:
            packed = past.one(where, part, number)
            if packed is not None:
                self._take_chunk(packed)

    def _take_chunk(self, packed: PackedChunk) -> None:
        series, ts, batch, width_us = packed.header.series, packed.ts, packed.batch(), self._width_us
        at, end = bisect_left(ts, self._from_us), bisect_right(ts, self._to_us)
        plain = set(map(type, batch.values)) <= {float, int} and not max(batch.statuses) >> 31
        while at < end:
            start = ts[at] - ts[at] % width_us
            until = bisect_left(ts, start + width_us, at, end)
            values: list[Any] = batch.values[at:until]
            if plain and (total := sum(values)) == total:
                self._add((start, series), [min(values), max(values), total, len(values)])
            else:
                fold(self._into, Batch(*(c[at:until] for c in batch.columns())), width_us)  # type: ignore[arg-type]
            at = until

    def _add(self, key: tuple[int, int], sums: list[float]) -> None:
        if (bucket := self._into.get(key)) is None:
            self._into[key] = list(sums)
            return
        bucket[0] = min(bucket[0], sums[0])
        bucket[1] = max(bucket[1], sums[1])
        bucket[2] += sums[2]
        bucket[3] += sums[3]
