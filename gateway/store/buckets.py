"""Min, max, average, count per series and bucket: of blocks by samples, of chunks by slices or whole."""

import sqlite3
import time
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.model import Batch
from gateway.store.blocks import seqs_overlapping
from gateway.store.past import Past
from gateway.store.planes import highest
from gateway.store.reader import unfolded
from gateway.store.segment import Fold, Segment
from gateway.store.stretch import Stretch, merged
from gateway.store.taking import LAST_SERIES, Memory, Taker, grouped

BUCKET_BYTES = 650
"""Memory of one while it is made, roughly."""
_TURN_S = 0.2
_NARROW = 4
"""Where buckets are so much narrower than a fold its chunks are unpacked without a look at their headers."""


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

    def __init__(self, memo: Memory, series: Sequence[int], from_us: int, to_us: int, width_us: int) -> None:
        self._memo = memo
        self._series = sorted(set(series))
        self._from_us, self._to_us, self._width_us = from_us, to_us, width_us
        self._low, self._high = (from_us, -1), (to_us, LAST_SERIES)
        self._folds: list[tuple[Segment, Fold]] | None = None
        self._folded: list[tuple[int, int]] = []
        self._into: dict[tuple[int, int], list[float]] = {}
        self._blocks: list[Sequence[int]] = []
        self._chunks_at = 0

    def turn(self, conn: sqlite3.Connection, past: Past, bad: list[int]) -> bool:
        """Do some of the work, for about 0.2 s; say whether that was all."""
        deadline = time.monotonic() + _TURN_S
        if self._folds is None:
            self._folds, self._folded = past.folds_and_folded(self._from_us, self._to_us)
            self._blocks = self._seqs(conn)
        taker = Taker(conn, past, self._memo, self._series, bad)
        while self._blocks:
            for part in taker.of_blocks(self._blocks.pop(), self._low, self._high, alone=True):
                self._take(part)
            if time.monotonic() > deadline:
                return False
        while self._chunks_at < len(self._folds):
            where, fold = self._folds[self._chunks_at]
            self._chunks_at += 1
            self._take_fold(taker, past, where, fold)
            if time.monotonic() > deadline:
                return False
        return True

    def buckets(self) -> list[Bucket]:
        return finished(self._into)

    def _seqs(self, conn: sqlite3.Connection) -> list[Sequence[int]]:
        return list(grouped(unfolded(seqs_overlapping(conn, self._from_us, self._to_us), self._folded)))

    def _take_fold(self, taker: Taker, past: Past, where: Segment, part: Fold) -> None:
        """Add the chunks of a fold: those within one bucket by what their headers say."""
        if self._width_us * _NARROW < part.t1 - part.t0:
            for found in taker.of_chunks(where, part, self._low, self._high):
                self._take(found)
            return
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
            for found in taker.of_chunk(where, part, number, self._low, self._high):
                self._take(found)

    def _take(self, part: Stretch | Batch) -> None:
        """Add samples: those of one series and plain a bucket at a time."""
        if isinstance(part, Batch):
            fold(self._into, part, self._width_us)
            return
        series, ts, column, statuses, _ = part
        values: list[Any] = column.tolist() if isinstance(column, array) else column
        if not set(map(type, values)) <= {float, int} or highest(statuses) >> 31:
            fold(self._into, merged([part], Batch()), self._width_us)
            return
        at, end, width_us = 0, len(ts), self._width_us
        while at < end:
            start = ts[at] - ts[at] % width_us
            until = bisect_left(ts, start + width_us, at, end)
            numbers = values[at:until]
            if (total := sum(numbers)) == total:
                self._add((start, series), [min(numbers), max(numbers), total, until - at])
            else:
                fold(self._into, merged([part.cut(at, until)], Batch()), width_us)
            at = until

    def _add(self, key: tuple[int, int], sums: list[float]) -> None:
        if (bucket := self._into.get(key)) is None:
            self._into[key] = sums
            return
        bucket[0] = min(bucket[0], sums[0])
        bucket[1] = max(bucket[1], sums[1])
        bucket[2] += sums[2]
        bucket[3] += sums[3]
