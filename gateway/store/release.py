"""Lets tombstones go once nothing is left that they cover, in slices on the writer thread."""

import sqlite3
from collections.abc import Generator

from gateway.store.history import History
from gateway.store.segment import Segment
from gateway.store.tombstones import Tombstone


class Releaser:
    """Writer thread only."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._held_by: dict[int, Segment] = {}
        """The file of the history because of which a tombstone still holds."""
        self.released: list[int] = []
        """Tombstones that the next commit drops."""

    def look(self, conn: sqlite3.Connection) -> Generator[None]:
        """Find those that cover nothing: no block that they may count for, and no chunk."""
        if self._history.searching or self._history.lingering:
            return
        deleted, segments = self._history.deleted, frozenset(self._history.segments)
        left_out = self._history.past.left_out
        oldest = conn.execute("SELECT min(seq) FROM block").fetchone()[0]
        self._held_by = {each.id: self._held_by[each.id] for each in deleted if each.id in self._held_by}
        gone: list[int] = []
        for each in deleted:
            if oldest is not None and oldest <= each.seq:
                continue
            if self._within_another(each):
                gone.append(each.id)
                continue
            if self._held_by.get(each.id) in segments:
                continue
            where = yield from self._found_in(each)
            if where is None:
                gone.append(each.id)
            else:
                self._held_by[each.id] = where
        if self._history.past.left_out == left_out:  # else a file that may hold more could not be read
            self.released = gone

    def _within_another(self, one: Tombstone) -> bool:
        """Say whether another covers all its times, of at least its blocks. One restored has an older seq."""
        return any(
            (other.seq, other.id) > (one.seq, one.id)
            and other.from_us <= one.from_us
            and one.to_us <= other.to_us
            for other in self._history.deleted.of(one.series)
        )

    def _found_in(self, one: Tombstone) -> Generator[None, None, Segment | None]:
        past = self._history.past
        for where, fold in past.folds(one.from_us, one.to_us):
            for number, header in past.headers(where, fold, (one.series,)):
                if header.seq > one.seq or header.t1 < one.from_us or header.t0 > one.to_us:
                    continue
                packed = past.one(where, fold, number)
                if packed is None or len(packed.ts) < header.n:
                    return where
            yield
        return None
