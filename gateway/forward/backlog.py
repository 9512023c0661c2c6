"""Counts what an upload has not acknowledged, over a store of any size, by looking at little of it."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.forward.status import Backlog
from gateway.store import outbox

_WIDE = 1024
_MOST_COUNTED = 64
"""Stretches counted in one go, so that the reader thread is soon free again."""


@dataclass(slots=True)
class BacklogCounter:
    """Remembers stretches of 1024 unacknowledged seqs; only those at an edge are read again."""

    upload: str
    _stretches: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def count(self, conn: sqlite3.Connection, newest_seq: int) -> tuple[Backlog, bool]:
        """Return the backlog and whether all of it is counted already; False: ask again."""
        blocks = samples = size = fresh = 0
        seen: dict[int, tuple[int, int, int]] = {}
        oldest: int | None = None
        for start, end in outbox.unacked(outbox.acked(conn, self.upload), 0, newest_seq):
            oldest = oldest if oldest is not None else _oldest(conn, start, end)
            for first, last in _stretches(start, end):
                whole = last - first == _WIDE - 1
                known = self._stretches.get(first) if whole else None
                if known is None:
                    fresh += 1
                    if fresh > _MOST_COUNTED:
                        continue
                    known = _sums(conn, first, last)
                if whole:
                    seen[first] = known
                blocks, samples, size = blocks + known[0], samples + known[1], size + known[2]
        self._stretches = seen
        return Backlog(blocks, samples, size, oldest), fresh <= _MOST_COUNTED


def _stretches(start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    while at <= end:
        last = min(at - at % _WIDE + _WIDE - 1, end)
        yield at, last
        at = last + 1


def _sums(conn: sqlite3.Connection, first: int, last: int) -> tuple[int, int, int]:
    row = conn.execute(
        "SELECT count(*), total(n), total(size_bytes) FROM block WHERE seq BETWEEN ? AND ?", (first, last)
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def _oldest(conn: sqlite3.Connection, start: int, end: int) -> int | None:
    row = conn.execute(
        "SELECT wall_us FROM block WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT 1", (start, end)
    ).fetchone()
    return row and int(row[0])
