"""Keeps the hot file within its bytes: oldest blocks go first, delivered before unsent, none silently."""

import sqlite3
from dataclasses import dataclass

from gateway.store import gap_list, outbox, shares
from gateway.store.pages import PAGE_BYTES
from gateway.store.schema import put_meta

_MORE_BYTES = 256 * 1024
_MOST_BLOCKS = 256
_UNSENT = "the store was full before these samples were delivered"
_VACUUM_PAGES = 512
_ROWS_KEPT = 100_000
"""Run, gap, quarantine and deletion rows."""
_GAPS_PART, _GAP_BYTES = 50, 400
"""Gap records have one part in so many of the budget, too."""


@dataclass(slots=True)
class Freed:
    """What one slice of retention removed."""

    blocks: int = 0
    samples_lost: int = 0
    """Removed before an upload had them, counted once per upload."""
    used_bytes: int = 0
    """Of the file, after it."""


def _pages(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return how many pages the file has, and how many of them are free."""
    pages, free = (conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    return pages, free


def used_bytes(conn: sqlite3.Connection) -> int:
    """Return the bytes of the file's pages that hold something."""
    pages, free = _pages(conn)
    return (pages - free) * PAGE_BYTES


def trim(
    conn: sqlite3.Connection, max_bytes: int, written: int, newest_seq: int, *, budget_bytes: int, spare: bool
) -> Freed:
    """Remove one slice where the file is over its `max_bytes`, inside the running commit.

    A slice is twice what this commit wrote and some more, so that the budget is reached soon and no
    commit is held up. First runs and dead letters go that are beyond their shares of the whole budget.
    The newest block stays. `spare`: something older makes room soon, blocks stay.
    """
    pages, free = _pages(conn)
    freed = Freed(used_bytes=(pages - free) * PAGE_BYTES)
    over = freed.used_bytes - max_bytes
    if over > 0:
        slice_bytes = 2 * written + _MORE_BYTES
        excess, freed.samples_lost = shares.keep(conn, budget_bytes, slice_bytes, newest_seq)
        if over > excess and not spare:
            _drop_blocks(conn, min(over - excess, slice_bytes), newest_seq, freed)
        freed.used_bytes = used_bytes(conn)
    if pages * PAGE_BYTES > max_bytes:
        _shrink(conn, max_bytes)
    return freed


def _shrink(conn: sqlite3.Connection, max_bytes: int) -> None:
    """Give free pages back to the disk where the file itself is larger than its budget."""
    pages, free = _pages(conn)
    for _ in range(min(pages - max_bytes // PAGE_BYTES, free, _VACUUM_PAGES)):
        conn.execute("PRAGMA incremental_vacuum(1)")  # sqlite3 steps a pragma once: a page at a time


def trim_rows(conn: sqlite3.Connection, newest_seq: int, budget_bytes: int, kept: int = _ROWS_KEPT) -> int:
    """Keep run, gap, quarantine and deletion rows to a bounded number; return how many refused samples went.

    Called now and then. Dead letters are samples: they go with a gap record each upload.
    """
    lost = shares.trim(conn, newest_seq, kept)
    gaps = min(kept, shares.share(budget_bytes, _GAPS_PART) // _GAP_BYTES)
    gap_list.trim(conn, gaps, delivered(conn, outbox.uploads(conn), 2**62))
    return lost


def _drop_blocks(conn: sqlite3.Connection, want: int, newest_seq: int, freed: Freed) -> None:
    uploads = outbox.uploads(conn)
    want -= _drop_delivered(conn, uploads, want, newest_seq, freed)
    if want > 0 and uploads:
        _drop_unsent(conn, uploads, want, newest_seq, freed)
    put_meta(conn, "seq_floor", newest_seq)


def _drop_delivered(
    conn: sqlite3.Connection, uploads: list[str], want: int, newest_seq: int, freed: Freed
) -> int:
    got = 0
    for start, end in delivered(conn, uploads, newest_seq - 1):
        rows = _oldest(conn, start, end, want - got)
        _delete(conn, rows)
        freed.blocks += len(rows)
        got += sum(row[1] for row in rows)
        if got >= want or freed.blocks >= _MOST_BLOCKS:
            break
    return got


def delivered(conn: sqlite3.Connection, uploads: list[str], to_seq: int) -> list[tuple[int, int]]:
    """Return the seq ranges that every upload has acknowledged; all where there is none."""
    ranges = [(0, to_seq)]
    for upload in uploads:
        ranges = _common(ranges, outbox.acked(conn, upload))
    return ranges


def _common(ones: list[tuple[int, int]], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    pairs = ((max(a, c), min(b, d)) for a, b in ones for c, d in others if a <= d and c <= b)
    return sorted(pairs)


def _drop_unsent(
    conn: sqlite3.Connection, uploads: list[str], want: int, newest_seq: int, freed: Freed
) -> None:
    rows = _oldest(conn, 0, newest_seq - 1, want)
    if not rows:
        return
    first, last = rows[0][0], rows[-1][0]
    for upload in uploads:
        start, end = _closed_units(conn, upload, first, last)
        for a, b in list(outbox.unacked(outbox.acked(conn, upload), start, end)):
            freed.samples_lost += outbox.record_unsent(conn, upload, a, b, newest_seq, _UNSENT)
            outbox.acknowledge(conn, upload, a, b)
    _delete(conn, rows)
    freed.blocks += len(rows)


def _closed_units(conn: sqlite3.Connection, upload: str, first: int, last: int) -> tuple[int, int]:
    """Drop units in flight that touch the range; return the range widened by them."""
    touched = conn.execute(
        "DELETE FROM unit WHERE upload = ? AND from_seq <= ? AND to_seq >= ? RETURNING from_seq, to_seq",
        (upload, last, first),
    ).fetchall()
    return min([first, *(row[0] for row in touched)]), max([last, *(row[1] for row in touched)])


def _oldest(conn: sqlite3.Connection, from_seq: int, to_seq: int, want: int) -> list[tuple[int, int]]:
    rows, size = [], 0
    for seq, size_bytes in conn.execute(
        "SELECT seq, size_bytes FROM block WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
        (from_seq, to_seq, _MOST_BLOCKS),
    ):
        rows.append((seq, size_bytes))
        size += size_bytes
        if size >= want:
            break
    return rows


def _delete(conn: sqlite3.Connection, rows: list[tuple[int, int]]) -> None:
    if rows:
        conn.executemany("DELETE FROM block WHERE seq = ?", [(seq,) for seq, _ in rows])
