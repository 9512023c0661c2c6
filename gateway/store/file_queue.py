"""Which measurement files each upload has and is still to get.

SQL only, run inside `Store.ride` and `Store.read`. A row stands for one file and one upload. What is being
sent is noted before its first byte leaves: after a power cut it is known which bytes at the target are ours.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from gateway.model import Gap
from gateway.store.outbox import Transaction, insert_gap
from gateway.store.records import row_crc, storable

GONE, ANNOUNCED, CHANGED = "gone", "announced", "changed"
"""What became of a file at the target by others' doing."""


class FileRow(NamedTuple):
    """One file of one upload."""

    name: str
    revision: int
    """Grows each time it is asked for: only the delivery of the newest one settles it."""
    due: int
    """1: to be sent; 0: settled."""
    since_us: int
    """When it was asked for."""
    replace: str
    """The file at the target that it was asked to take the place of, or ""."""
    intent: str
    """MD5 of what was about to be sent last: the target may hold it, or a part; "" for nothing yet."""
    local: str
    """What the local file looked like (size, time, inode) when the target had it."""
    md5: str
    """Of what the target was seen to have; "" for nothing yet."""
    size: int
    etag: str
    remote_id: str
    stored_us: int
    remote: str = ""
    """GONE, ANNOUNCED or CHANGED: the target was seen to have it no more, without bytes, or with others."""


_COLUMNS = ", ".join(FileRow._fields)
_PLACES = ", ".join("?" * (len(FileRow._fields) + 2))
_INSERT = f"INSERT OR REPLACE INTO file(upload, {_COLUMNS}, crc) VALUES ({_PLACES})"


def rows(conn: sqlite3.Connection, upload: str) -> list[FileRow]:
    """Return all files of an upload, in the order in which they were asked for."""
    found = conn.execute(f"SELECT {_COLUMNS} FROM file WHERE upload = ? ORDER BY since_us, name", (upload,))
    return [FileRow(*row) for row in found]


def find(conn: sqlite3.Connection, upload: str, name: str) -> FileRow | None:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM file WHERE upload = ? AND name = ?", (upload, name)
    ).fetchone()
    return row and FileRow(*row)


def _put(tx: Transaction, upload: str, row: FileRow) -> FileRow:
    kept = FileRow(*storable(*row))
    tx.conn.execute(_INSERT, (upload, *kept, row_crc(upload, *kept)))
    return kept


def enqueue(tx: Transaction, upload: str, name: str, replace: str = "") -> FileRow:
    """Have a file sent, again where it was."""
    found = find(tx.conn, upload, name)
    if found is None:
        return _put(tx, upload, FileRow(name, 1, 1, tx.now_us, replace, "", "", "", 0, "", "", 0))
    since_us = found.since_us if found.due else tx.now_us
    again = found._replace(
        revision=found.revision + 1, due=1, since_us=since_us, replace=replace or found.replace, remote=""
    )
    return _put(tx, upload, again)


def intend(tx: Transaction, upload: str, name: str, md5: str) -> None:
    """Note what is about to be sent."""
    if (found := find(tx.conn, upload, name)) is not None:
        _put(tx, upload, found._replace(intent=md5))


def settle(tx: Transaction, upload: str, sent: FileRow) -> None:
    """Note what the target has; the file stays due where it was asked for again meanwhile."""
    found = find(tx.conn, upload, sent.name)
    if found is None:
        return
    newest = found.revision == sent.revision
    due, replace = (sent.due, "") if newest else (found.due, found.replace)
    _put(
        tx, upload, sent._replace(revision=found.revision, due=due, since_us=found.since_us, replace=replace)
    )


def mark(tx: Transaction, upload: str, row: FileRow, remote: str) -> None:
    """Note what became of a file at the target, unless something was sent or asked for meanwhile."""
    if find(tx.conn, upload, row.name) == row:
        _put(tx, upload, row._replace(remote=remote))


def drop(tx: Transaction, upload: str, name: str, reason: str) -> bool:
    """Forget a file that is gone here; a gap record says so where the upload never got it."""
    found = find(tx.conn, upload, name)
    if found is None:
        return False
    tx.conn.execute("DELETE FROM file WHERE upload = ? AND name = ?", (upload, name))
    if found.due:
        insert_gap(tx.conn, Gap(found.since_us, tx.now_us, reason, upload=upload), tx.newest_seq + 1)
    return bool(found.due)


def uploads_of(conn: sqlite3.Connection, name: str) -> dict[str, bool]:
    """Return the uploads that know a file, and whether it is to be sent there."""
    rows = conn.execute("SELECT upload, due FROM file WHERE name = ? ORDER BY upload", (name,))
    return {upload: bool(due) for upload, due in rows}


def drop_everywhere(tx: Transaction, name: str, reason: str) -> dict[str, bool]:
    """Forget a file that is deleted; return what `uploads_of` did until now."""
    known = uploads_of(tx.conn, name)
    for upload in known:
        drop(tx, upload, name, reason)
    return known


def enqueue_all(tx: Transaction, upload: str, names: Iterable[str]) -> None:
    for name in names:
        enqueue(tx, upload, name)
