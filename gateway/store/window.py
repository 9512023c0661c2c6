"""Reading the samples of a window in (ts, series) order, some thousands at a time."""

import sqlite3
import time
from bisect import bisect_right
from collections.abc import Collection

from gateway.model import Batch
from gateway.store.blocks import end_of, nth_end, seqs_overlapping
from gateway.store.past import Past
from gateway.store.segment import Fold, Segment
from gateway.store.stretch import Stretch, merged
from gateway.store.taking import LAST_SERIES, Key, Memory, Taker, grouped

_STEP_BLOCKS = 8
_STEP_BLOCKS_OF_FEW = 4096
_STEP_ROWS_OF_FEW = 32_768
"""Of these blocks, where each has a sample of each series."""
_STEP_ROWS = 8192
"""Sorting more at a time lets the event loop wait."""
_STEP_ROWS_OF_SERIES = 16
"""With less of each, most of the time goes into looking for them."""
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
            high = self._step_end(conn, past, taker, low[0], rows)
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

    def _step_end(self, conn: sqlite3.Connection, past: Past, taker: Taker, from_us: int, rows: int) -> int:
        """Return the end of a step that holds a little more than some samples, or some thousands."""
        if taker.few:
            blocks = min(_STEP_BLOCKS_OF_FEW, _STEP_ROWS_OF_FEW // max(len(self._series), 1))
            end_us = nth_end(conn, from_us, self._to_us, blocks)
        else:
            end_us = end_of(conn, from_us, self._to_us, _STEP_BLOCKS, _STEP_ROWS)
        to_us = self._to_us if end_us is None else min(end_us, self._to_us)
        return min(to_us, _past_end(past.folds(from_us, to_us), taker, (from_us, to_us), rows))


def _past_end(folds: list[tuple[Segment, Fold]], taker: Taker, window: tuple[int, int], rows: int) -> int:
    """Return until when the history should have so many of the samples wanted."""
    from_us, to_us = window
    if not folds:
        return to_us
    first = min(max(fold.t0, from_us) for _, fold in folds)
    there = [fold for _, fold in folds if fold.t0 <= first]
    rate = sum(taker.share(fold) / (fold.t1 - fold.t0 + 1) for fold in there)
    rows = min(rows + rows // 8, max(_STEP_ROWS, _STEP_ROWS_OF_SERIES * taker.series_n))
    if not all(map(taker.remembers, there)):
        rows = _STEP_ROWS_AGAIN
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
        self._parts: list[Stretch] = []
        self._others = Batch()
        self._n = 0
        self.high = high
        self.complete = True

    def add(self, part: Stretch | Batch) -> None:
        """Take some samples that are in the step."""
        if isinstance(part, Stretch):
            self._parts.append(part)
            self._n += len(part.ts)
        else:
            self._others.extend(part)
            self._n += len(part)
        if self._n > 2 * _KEPT_ROWS:
            first = self.finished()
            if len(first) > _KEPT_ROWS:
                first = first.part(0, _KEPT_ROWS)
                self.high = first.ts[-1], first.series[-1]
                self.complete = False
            self._parts, self._others, self._n = [], first, len(first)

    def finished(self) -> Batch:
        """Return them in order, up to `high`: it may have come down since some were added."""
        batch = merged(self._parts, self._others)
        if not self.complete:
            end = bisect_right(batch.ts, self.high[0])
            while end and (batch.ts[end - 1], batch.series[end - 1]) > self.high:
                end -= 1
            batch = batch.part(0, end)
        return batch
