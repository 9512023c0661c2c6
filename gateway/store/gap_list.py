"""Keeps the list of gaps to a number of records: first those delivered go, then neighbours become one."""

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from gateway.store import outbox
from gateway.store.records import row_crc

_SLICE_ROWS = 20_000
_SEVERAL = "several gaps of which only from when to when is known still: the list of gaps was full"


def trim(conn: sqlite3.Connection, kept: int, delivered: Sequence[tuple[int, int]]) -> None:
    """Keep the newest records; `delivered`: the seqs of which every upload has had them.

    What an upload has not had yet is not dropped: the oldest ones are joined, of one reason where there are.
    """
    over = conn.execute("SELECT count(*) FROM gap").fetchone()[0] - kept
    for start, end in delivered:
        if over > 0:
            oldest = "SELECT id FROM gap WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
            over -= conn.execute(f"DELETE FROM gap WHERE id IN ({oldest})", (start, end, over)).rowcount
    for same_reason in (True, False):
        while over > 0 and (joined := _join(conn, over, same_reason=same_reason)):
            over -= joined


def _join(conn: sqlite3.Connection, most: int, *, same_reason: bool) -> int:
    """Join the oldest records by twos; return how many fewer there are.

    Two are, where no upload has had one of them alone. What is in a unit stays: its body must not change.
    """
    units = conn.execute("SELECT from_seq, to_seq FROM unit").fetchall()
    edges = sorted({edge for pair in (*units, *_acked(conn)) for edge in (pair[0], pair[1] + 1)})
    before: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    joined = 0
    for row in conn.execute(
        "SELECT id, seq, device, upload, from_us, to_us, count, reason FROM gap ORDER BY id LIMIT ?",
        (_SLICE_ROWS,),
    ).fetchall():
        if joined >= most:
            break
        if any(start <= row[1] <= end for start, end in units):
            continue
        key = bisect_right(edges, row[1]), *row[2:4], row[7] if same_reason else ""
        if (other := before.pop(key, None)) is None:
            before[key] = row
            continue
        _write_joined(conn, other, row)
        joined += 1
    return joined


def _acked(conn: sqlite3.Connection) -> list[tuple[int, int]]:
    return [pair for upload in outbox.uploads(conn) for pair in outbox.acked(conn, upload)]


def _write_joined(conn: sqlite3.Connection, one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """Write two records as the later one, from the beginning of both to their end."""
    counts = [row[6] for row in (one, other) if row[6] is not None]
    fields = (
        *other[1:4], min(one[4], other[4]), max(one[5], other[5]), sum(counts) if counts else None,
        other[7] if one[7] == other[7] else _SEVERAL,
    )  # fmt: skip
    conn.execute(
        "UPDATE gap SET from_us = ?, to_us = ?, count = ?, reason = ?, crc = ? WHERE id = ?",
        (*fields[3:], row_crc(*fields), other[0]),
    )
    conn.execute("DELETE FROM gap WHERE id = ?", (one[0],))
