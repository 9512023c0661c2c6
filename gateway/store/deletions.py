"""The rows of deletions: the tombstones that hold, and the record of who deleted what, which stays."""

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.model import Gap
from gateway.store import tombstones
from gateway.store.codec import CorruptBlock, Kind, Packed
from gateway.store.records import storable
from gateway.store.tombstones import Tombstone, Tombstones

_log = logging.getLogger(__name__)

_MOST_COUNTED = 2048
"""Blocks that are unpacked for a count inside a commit."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """Who deleted what. The times are inclusive and None for a whole series; `count` where it is known."""

    id: int
    at_us: int
    by: str
    device: str
    tag: str
    from_us: int | None
    to_us: int | None
    count: int | None


def insert(
    conn: sqlite3.Connection, tombstone: Tombstone, by: str, names: tuple[str, str], count: int | None
) -> Deletion:
    """Write a tombstone and its record; `names` are device and tag."""
    whole = (tombstone.from_us, tombstone.to_us) == (tombstones.FIRST_US, tombstones.LAST_US)
    start_us, end_us = (None, None) if whole else (tombstone.from_us, tombstone.to_us)
    row = storable(tombstone.id, tombstone.at_us, by, *names, start_us, end_us, count)
    conn.execute(
        "INSERT INTO deletion(id, at_us, by, device, tag, from_us, to_us, count) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )
    keep(conn, [tombstone])
    return Deletion(*row)


def keep(conn: sqlite3.Connection, them: Iterable[Tombstone]) -> None:
    """Write tombstones, of a file that was lost too."""
    rows = [(each.id, tombstones.encode(each)) for each in them]
    conn.executemany("INSERT OR REPLACE INTO tombstone(id, record) VALUES (?, ?)", rows)


def release(conn: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Drop tombstones that cover nothing any more; what they did stays recorded."""
    conn.executemany("DELETE FROM tombstone WHERE id = ?", [(each,) for each in ids])


def newest_id(conn: sqlite3.Connection) -> int:
    """Return the id of the newest deletion, 0 where there is none. Ids only grow."""
    ids = (conn.execute(f"SELECT coalesce(max(id), 0) FROM {name}") for name in ("deletion", "tombstone"))
    return max(int(row.fetchone()[0]) for row in ids)


def load(conn: sqlite3.Connection, gaps: list[Gap] | None = None) -> Tombstones:
    """Read the tombstones of a file; those that are damaged leave a gap record."""
    found = []
    for number, record in conn.execute("SELECT id, record FROM tombstone ORDER BY id").fetchall():
        try:
            found.append(tombstones.decode(record))
        except (CorruptBlock, TypeError) as error:  # a damaged page can turn a column into any type
            if gaps is None:
                continue
            row = conn.execute("SELECT at_us FROM deletion WHERE id = ?", (number,)).fetchone()
            at_us = row[0] if row is not None and isinstance(row[0], int) else 0
            why = f"deletion {number} of the store is damaged ({error}): what it deleted may be served again"
            _log.error("%s; delete it once more", why)
            gaps.append(Gap(at_us, at_us, why))
            release(conn, [number])
    return Tombstones(found)


def deleted_in(conn: sqlite3.Connection, from_seq: int, to_seq: int) -> int:
    """Return how many samples of these blocks were deleted; of a very long range, of its oldest part."""
    deleted, count = load(conn), 0
    if not deleted:
        return 0
    to_seq = min(to_seq, max(each.seq for each in deleted))
    from_us, to_us = min(each.from_us for each in deleted), max(each.to_us for each in deleted)
    rows = conn.execute(
        "SELECT seq, data FROM block WHERE seq BETWEEN ? AND ? AND kind = ? AND t1 >= ? AND t0 <= ? "
        "ORDER BY seq LIMIT ?",
        (from_seq, to_seq, Kind.SAMPLES, from_us, to_us, _MOST_COUNTED),
    )
    for seq, data in rows:
        try:
            packed = Packed(data, seq)
        except CorruptBlock:
            continue  # its reader notes it
        left = [True] * len(packed.ts)
        deleted.strike(left, packed.series, packed.ts, seq)
        count += left.count(False)
    return count


def listed(conn: sqlite3.Connection, device: str | None, before_id: int | None, limit: int) -> list[Deletion]:
    """Return what was deleted, newest first."""
    rows = conn.execute(
        "SELECT id, at_us, by, device, tag, from_us, to_us, count FROM deletion "
        "WHERE id < ? AND device = coalesce(?, device) ORDER BY id DESC LIMIT ?",
        (before_id if before_id is not None else 2**63 - 1, device, limit),
    )
    return [Deletion(*row) for row in rows]
