"""Before a deletion: how many samples it covers, and what is the newest sample that is left of the series.

Looked for on a reader thread, in turns; what is committed meanwhile is added inside the deletion's own
commit, so that the count is exact. Where it takes too long, the deletion goes on without.
"""

import sqlite3
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from gateway.store import deletions
from gateway.store.blocks import seqs_overlapping
from gateway.store.codec import CorruptBlock, Kind, Packed, decode
from gateway.store.deletions import Deletion
from gateway.store.newest import Newest, Row, Struck, not_held
from gateway.store.outbox import Transaction
from gateway.store.past import Past
from gateway.store.reader import unfolded
from gateway.store.segment import Fold, Segment
from gateway.store.taking import Memory
from gateway.store.tombstones import FIRST_US, Tombstone
from gateway.store.window import Window

_TURN_S = 0.2
_SURVEY_S = 5.0
_ROWS = 4096


class Survey:
    """Of the samples of a series between two times. Who uses it holds the history until it is committed."""

    def __init__(self, series: int, from_us: int, to_us: int, now: Callable[[], tuple[int, Newest]]) -> None:
        """`now` gives the newest block, and the newest samples as of it or later."""
        self._series, self._from_us, self._to_us, self._now = series, from_us, to_us, now
        self._memo = Memory()
        self._deadline = time.monotonic() + _SURVEY_S
        self._folds: list[tuple[Segment, Fold]] | None = None
        self._blocks: list[int] = []
        self._newest_seq = 0
        self._counted = 0
        self._blind = False
        """Something could not be read: it may be covered too."""
        self.count: int | None = None
        self._last: Row | None = None
        self._far: Row | None = None

    def turn(self, conn: sqlite3.Connection, past: Past, bad: list[int]) -> bool:
        """Do some of the work, for about 0.2 s; say whether that was all."""
        unread = _unread(past, bad)
        done = self._turn(conn, past, bad)
        self._blind = self._blind or _unread(past, bad) > unread
        if self._blind:
            self.count = None
        return done

    def _turn(self, conn: sqlite3.Connection, past: Past, bad: list[int]) -> bool:
        until = time.monotonic() + _TURN_S
        if self._folds is None:
            # Folds first: no block is in chunks that is newer than the newest one asked for after them.
            self._folds, folded = past.folds_and_folded(self._from_us, self._to_us)
            self._newest_seq, newest = self._now()
            found = unfolded(seqs_overlapping(conn, self._from_us, self._to_us), folded)
            self._blocks = [seq for seq in found if seq <= self._newest_seq]
            self._find_left(conn, past, newest, bad)
        while self._blocks or self._folds:
            if self._blocks:
                self._count_block(conn, past, self._blocks.pop(), bad)
            else:
                self._count_fold(past, *self._folds.pop())
            if (now := time.monotonic()) > until:
                return now > self._deadline
        self.count = self._counted
        return True

    def _count_block(self, conn: sqlite3.Connection, past: Past, seq: int, bad: list[int]) -> None:
        row = conn.execute("SELECT data FROM block WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return  # retention took it meanwhile
        try:
            packed = Packed(row[0], seq)
        except CorruptBlock:
            bad.append(seq)
            return
        hits = self._hits(packed)
        if True in hits:
            past.deleted.strike(hits, packed.series, packed.ts, seq)
            self._counted += hits.count(True)

    def _hits(self, packed: Packed) -> list[bool]:
        if self._series not in packed.series:
            return []
        keys = zip(packed.series, packed.ts, strict=True)
        return [s == self._series and self._from_us <= ts <= self._to_us for s, ts in keys]

    def _count_fold(self, past: Past, where: Segment, fold: Fold) -> None:
        for number, header in past.headers(where, fold, (self._series,)):
            if header.t1 < self._from_us or header.t0 > self._to_us:
                continue
            inside = self._from_us <= header.t0 and header.t1 <= self._to_us
            if inside and not past.deleted.ranges(self._series, header.seq, header.t0, header.t1):
                self._counted += header.n
            elif (packed := past.one(where, fold, number)) is not None:
                ts = packed.ts
                self._counted += bisect_right(ts, self._to_us) - bisect_left(ts, self._from_us)

    def _find_left(self, conn: sqlite3.Connection, past: Past, newest: Newest, bad: list[int]) -> None:
        """Find what will be the newest samples, where the newest ones are to be deleted."""
        last, far = newest.row(self._series), newest.far.get(self._series)
        if last is not None and last[1] < self._from_us:
            self._last = last
        elif last is not None and last[1] <= self._to_us:
            self._last = self._before(conn, past, FIRST_US, bad)
        if far is not None and self._from_us <= far[1][1] <= self._to_us:
            self._far = self._before(conn, past, far[0], bad)

    def _before(self, conn: sqlite3.Connection, past: Past, low_us: int, bad: list[int]) -> Row | None:
        """Return the newest sample before the deletion, in windows that grow."""
        to_us, width_us, unread = self._from_us - 1, 1_000_000, _unread(past, bad)
        while to_us >= low_us:
            from_us = max(low_us, to_us - width_us)
            try:
                found = self._highest(conn, past, from_us, to_us, bad)
            except TimeoutError:
                return not_held(self._series, self._from_us - 1)
            if _unread(past, bad) > unread:
                return not_held(self._series, self._from_us - 1)
            if found is not None:
                return found
            to_us, width_us = from_us - 1, width_us * 8
        return None

    def _highest(
        self, conn: sqlite3.Connection, past: Past, from_us: int, to_us: int, bad: list[int]
    ) -> Row | None:
        found: Row | None = None
        while from_us <= to_us:
            if time.monotonic() > self._deadline:
                raise TimeoutError
            window = Window(self._memo, (self._series,), from_us, to_us)
            batch, done = window.turn(conn, past, None, _ROWS, bad)
            if len(batch):
                found = tuple(column[-1] for column in batch.columns())  # type: ignore[assignment]
                from_us = batch.ts[-1] + 1
            if done:
                break
            middle_us = (from_us + to_us) // 2
            higher = self._highest(conn, past, middle_us + 1, to_us, bad)
            if higher is not None:
                return higher
            to_us = middle_us
        return found

    def commit(self, tx: Transaction, by: str, names: tuple[str, str]) -> Deletion | None:
        """Write the deletion inside a commit; None: there is nothing to delete."""
        number = deletions.newest_id(tx.conn) + 1
        gone = Tombstone(number, tx.newest_seq, self._series, self._from_us, self._to_us, tx.now_us)
        since, last = self._since(tx)
        count = None if self.count is None else self.count + since
        if count == 0:
            return None
        made = deletions.insert(tx.conn, gone, by, names, count)
        tx.deleted.append(Struck(gone, _later(self._last, last), _later(self._far, last)))
        return made

    def _since(self, tx: Transaction) -> tuple[int, Row | None]:
        """Count what came since, and find the newest of it that is before the deletion."""
        count, last = 0, None
        for seq, data in tx.conn.execute(
            "SELECT seq, data FROM block WHERE seq > ? AND kind = ?", (self._newest_seq, Kind.SAMPLES)
        ):
            try:
                batch = decode(data, seq)[1]
            except CorruptBlock:
                continue  # who reads it next notes it
            if self._series not in batch.series:
                continue
            for row in zip(*batch.columns(), strict=True):
                if row[0] != self._series:
                    continue
                count += self._from_us <= row[1] <= self._to_us
                if row[1] < self._from_us:
                    last = _later(last, row)
        return count, last


def _unread(past: Past, bad: list[int]) -> int:
    return past.left_out + len(bad)


def _later(one: Row | None, other: Row | None) -> Row | None:
    if one is None or other is None:
        return one or other
    return other if other[1] > one[1] else one
