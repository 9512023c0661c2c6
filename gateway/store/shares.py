"""Keeps runs, dead letters and deletions within their rows, and runs and dead letters within their bytes."""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from gateway.model import Gap
from gateway.store import outbox
from gateway.store.schema import LETTER_LENGTH, LONG, RUN_LENGTH

_ROW_BYTES = 400
"""Of a row with short texts, reckoned high; what is longer than `LONG` counts as it is."""
_LEAST_BYTES = 100_000
"""A share, also of the smallest budget."""
_SLICE_ROWS = 1000
_REFUSED = "the quarantine was full: the oldest samples that the target had refused were dropped"
_HEARD = "({0}kind = 'subscription' OR ({0}kind = 'cycle' AND {0}status != 'error'))"
_REMOVABLE = (
    f"NOT ({_HEARD.format('')} AND NOT EXISTS (SELECT 1 FROM run AS later WHERE later.device = run.device "
    f"AND later.id > run.id AND {_HEARD.format('later.')}))"
)
"""Not the newest run in which a device was heard: the hole of one that is silent begins there."""


def share(budget_bytes: int, part: int) -> int:
    """Return what a table may take of the budget: one of so many parts."""
    return max(budget_bytes // part, _LEAST_BYTES)


def _drop_runs(conn: sqlite3.Connection, up_to: int, _newest_seq: int, most: int = -1) -> int:
    oldest = f"SELECT id FROM run WHERE id <= ? AND {_REMOVABLE} ORDER BY id LIMIT ?"
    conn.execute(f"DELETE FROM run WHERE id IN ({oldest})", (up_to, most))
    return 0


def _drop_letters(conn: sqlite3.Connection, up_to: int, newest_seq: int) -> int:
    """Drop the oldest dead letters with a gap record each upload; return how many."""
    lost = 0
    query = "SELECT upload, count(*), min(at_us), max(at_us) FROM quarantine WHERE id <= ? GROUP BY upload"
    for upload, count, start, end in conn.execute(query, (up_to,)).fetchall():
        outbox.insert_gap(conn, Gap(start, end, _REFUSED, upload=upload, count=count), newest_seq + 1)
        lost += count
    conn.execute("DELETE FROM quarantine WHERE id <= ?", (up_to,))
    return lost


class _Table(NamedTuple):
    name: str
    length: str
    part: int
    """One in so many of the budget."""
    removable: str
    drop: Callable[[sqlite3.Connection, int, int], int]
    """Drops up to an id; returns how many samples that loses."""

    def over(self, conn: sqlite3.Connection, budget_bytes: int) -> int:
        """Return by how many bytes it is over its share."""
        (n,) = conn.execute(f"SELECT count(*) FROM {self.name}").fetchone()
        long = f"SELECT total({self.length}) FROM {self.name} WHERE {self.length} > {LONG}"
        size: int = _ROW_BYTES * n + int(conn.execute(long).fetchone()[0])
        return max(0, size - share(budget_bytes, self.part))

    def oldest(self, conn: sqlite3.Connection, want_bytes: int) -> int:
        """Return the last id of the oldest rows that have so many bytes."""
        size, last = 0, 0
        for id_, length in conn.execute(
            f"SELECT id, coalesce({self.length}, 0) FROM {self.name} WHERE {self.removable} ORDER BY id "
            f"LIMIT {_SLICE_ROWS}"
        ).fetchall():
            last = id_
            size += _ROW_BYTES + (length if length > LONG else 0)
            if size >= want_bytes:
                break
        return last


_TABLES = (
    _Table("run", RUN_LENGTH, 50, _REMOVABLE, _drop_runs),
    _Table("quarantine", LETTER_LENGTH, 10, "1", _drop_letters),
)


def excess_bytes(conn: sqlite3.Connection, budget_bytes: int) -> int:
    """Return what runs and dead letters have beyond their shares of the budget: that goes first."""
    return sum(table.over(conn, budget_bytes) for table in _TABLES)


def keep(conn: sqlite3.Connection, budget_bytes: int, slice_bytes: int, newest_seq: int) -> tuple[int, int]:
    """Remove a slice of what is beyond its share; return the excess before, and how many samples went."""
    excess = lost = 0
    for table in _TABLES:
        if (over := table.over(conn, budget_bytes)) > 0:
            excess += over
            some = share(budget_bytes, table.part) // 8  # not a row with each commit
            lost += table.drop(conn, table.oldest(conn, min(max(over, some), slice_bytes)), newest_seq)
    return excess, lost


def trim(conn: sqlite3.Connection, newest_seq: int, kept: int) -> int:
    """Keep run, quarantine and deletion rows to a number; return how many refused samples went."""

    def up_to(table: str) -> int:
        return (conn.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0) - kept

    conn.execute("DELETE FROM deletion WHERE id <= ?", (up_to("deletion"),))
    _drop_runs(conn, up_to("run"), newest_seq)
    return _drop_letters(conn, up_to("quarantine"), newest_seq)


def trim_runs(conn: sqlite3.Connection, kept: int = 1000, most: int = 5000) -> None:
    """Keep the newest runs only, and of each device the newest in which it was heard: a slice."""
    (newest,) = conn.execute("SELECT coalesce(max(id), 0) FROM run").fetchone()
    _drop_runs(conn, newest - kept, 0, most)
