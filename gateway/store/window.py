"""Reading the samples of a window in (ts, series) order, some thousands at a time."""

import sqlite3
import time
from bisect import bisect_right
from collections.abc import Collection, Iterator
from itertools import islice
from operator import and_, eq, le, lt, not_
from typing import Any

from gateway.model import Batch
from gateway.store.blocks import ends, seqs_overlapping
from gateway.store.past import Past
from gateway.store.segment import Fold, Segment
from gateway.store.taking import LAST_SERIES, Key, Memory, Taker, grouped

_STEP_BLOCKS = 8
_STEP_BLOCKS_OF_FEW = 512
_STEP_ROWS = 8192
_STEP_ROWS_AGAIN = 65_536
"""Where each step has to unpack the same chunks again."""
_KEPT_ROWS = 65_536
_TURN_S = 0.2


class Window:
    """The samples of some series between two times, ends included, read in turns of a reader thread."""

    def __init__(self, memo: Memory, series: Collection[int], from_us: int, to_us: int) -> None:
        self._memo, self._series, self._from_us, self._to_us = memo, frozenset(series), from_us, to_us

    def turn(
        self, conn: sqlite3.Connection, past: Past, after: Key | None, rows: int, bad: list[int]
    ) -> tuple[Batch, bool]:
        """Return the next samples after a key, up to about `rows`, and whether that was all.

        Time is taken in steps of some blocks; of a step that holds too much only the first part is kept.
        """
        batch, deadline = Batch(), time.monotonic() + _TURN_S
        taker = Taker(conn, past, self._memo, self._series, bad)
        low = after if after is not None and after[0] >= self._from_us else (self._from_us, -1)
        while low[0] <= self._to_us:
            high = self._step_end(conn, past, taker, low[0])
            found, complete = _step(conn, past, taker, low, (high, LAST_SERIES))
            if len(batch):
                batch.extend(found)
            else:
                batch = found
            if not complete:
                return batch, False
            low = high + 1, -1
            if len(batch) >= rows or (len(batch) and time.monotonic() > deadline):
                return batch, low[0] > self._to_us
        return batch, True

    def _step_end(self, conn: sqlite3.Connection, past: Past, taker: Taker, from_us: int) -> int:
        """Return the end of a step that holds some ten thousands of samples."""
        limit = _STEP_BLOCKS_OF_FEW if taker.few else _STEP_BLOCKS
        found = ends(conn, from_us, self._to_us, limit)
        to_us = self._to_us if len(found) < limit else min(found[-1][0], self._to_us)
        return min(to_us, _past_end(past.folds(from_us, to_us), taker, from_us, to_us))


def _past_end(folds: list[tuple[Segment, Fold]], taker: Taker, from_us: int, to_us: int) -> int:
    """Return until when the history should have so many of the samples wanted."""
    if not folds:
        return to_us
    first = min(max(fold.t0, from_us) for _, fold in folds)
    there = [fold for _, fold in folds if fold.t0 <= first]
    rate = sum(taker.share(fold) / (fold.t1 - fold.t0 + 1) for fold in there)
    rows = _STEP_ROWS if all(map(taker.remembers, there)) else _STEP_ROWS_AGAIN
    return first + max(1000, int(rows / max(rate, 1e-12)))


def _step(conn: sqlite3.Connection, past: Past, taker: Taker, low: Key, high: Key) -> tuple[Batch, bool]:
    """Return the samples of a step in order; False where only the first were kept.

    Blocks are read before chunks: what is folded meanwhile is seen twice, never missed.
    """
    kept = _Kept(high)
    for seqs in grouped(seqs_overlapping(conn, low[0], high[0])):
        for part in taker.of_blocks(seqs, low, kept.high):
            kept.add(part)
    for where, fold in sorted(past.folds(low[0], high[0]), key=lambda pair: pair[1].t0):
        if fold.t0 > kept.high[0]:
            break
        for part in taker.of_chunks(where, fold, low, kept.high):
            kept.add(part)
    return kept.finished(), kept.complete


class _Kept:
    """The first samples of a step, one of each key."""

    def __init__(self, high: Key) -> None:
        self._samples = Batch()
        self.high = high
        self.complete = True

    def add(self, part: Batch) -> None:
        """Take some samples that are in the step."""
        self._samples.extend(part)
        if len(self._samples) > 2 * _KEPT_ROWS:
            self._samples = self.finished()
            if len(self._samples) > _KEPT_ROWS:
                self._samples = self._samples.part(0, _KEPT_ROWS)
                self.high = self._samples.ts[-1], self._samples.series[-1]
                self.complete = False

    def finished(self) -> Batch:
        """Return them in order, up to `high`: it may have come down since some were added."""
        batch = in_order(self._samples)
        if not self.complete:
            end = bisect_right(batch.ts, self.high[0])
            while end and (batch.ts[end - 1], batch.series[end - 1]) > self.high:
                end -= 1
            batch = batch.part(0, end)
        return batch


def in_order(batch: Batch) -> Batch:
    """Return samples in the order of (ts, series); of those with one key the last that was there.

    No step visits the samples in Python, and none holds the interpreter for more than some milliseconds.
    """
    series, ts = batch.series, batch.ts
    if all(map(lt, ts, islice(ts, 1, None))):
        return batch
    order = list(range(len(ts)))
    if not all(map(le, series, islice(series, 1, None))):
        order.sort(key=series.__getitem__)
    order.sort(key=ts.__getitem__)
    columns: Iterator[list[Any]] = (_picked(column, order) for column in batch.columns())
    batch = Batch(*columns)
    series, ts = batch.series, batch.ts
    twice = list(map(and_, map(eq, ts, islice(ts, 1, None)), map(eq, series, islice(series, 1, None))))
    if True in twice:
        batch = batch.chosen([*map(not_, twice), True])
    return batch


def _picked(column: list[Any], order: list[int]) -> list[Any]:
    if type(column[0]) is int and column.count(column[0]) == len(column):
        return column  # most statuses and flags
    return list(map(column.__getitem__, order))
