"""What each upload has acknowledged and has in flight: SQL only, run inside `Store.ride` and `Store.read`."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.model import Batch, Gap, Sample
from gateway.store import deletions
from gateway.store.codec import BlockHeader, Kind, decode, encode
from gateway.store.newest import Struck
from gateway.store.records import row_crc, storable
from gateway.store.schema import put_meta

_NEVER_SENT_TO = "never_sent_to"


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a riding job is given: the connection, inside the group commit and a savepoint of its own."""

    conn: sqlite3.Connection
    newest_seq: int
    """Of the newest block, this commit's included."""
    now_us: int = 0
    deleted: list[Struck] = field(default_factory=list)
    """What this commit deletes."""


class UnitRow(NamedTuple):
    """A persisted unit, in flight or to be sent again."""

    lane: str
    from_seq: int
    to_seq: int
    encoding: str
    created_us: int
    deletion: int
    """The newest deletion that its body honours: later ones do not change it."""


class RefusedRow(NamedTuple):
    """One sample that a target refused for good."""

    sample: Sample
    reason: str


class QuarantineRow(NamedTuple):
    """A dead letter as stored."""

    id: int
    upload: str
    at_us: int
    reason: str
    sample: Sample


def register(tx: Transaction, upload: str, since_seq: int = 0) -> None:
    """Make an upload known; blocks before `since_seq` are none of its business."""
    tx.conn.execute(
        "INSERT OR IGNORE INTO upload(id, since_seq, crc) VALUES (?, ?, ?)",
        (upload, since_seq, row_crc(upload, since_seq)),
    )
    if since_seq > 0 and not acked(tx.conn, upload):
        acknowledge(tx.conn, upload, 0, since_seq - 1)


def cut(tx: Transaction, upload: str, lane: str, from_seq: int, to_seq: int, encoding_json: str) -> UnitRow:
    """Persist a unit before its first byte is sent. IntegrityError: the lane has one in flight."""
    unit = UnitRow(lane, from_seq, to_seq, encoding_json, tx.now_us, deletions.newest_id(tx.conn))
    tx.conn.execute(
        "INSERT INTO unit(upload, lane, from_seq, to_seq, encoding, created_us, deletion, crc) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (upload, *unit, row_crc(upload, *unit)),
    )
    return unit


def settle(tx: Transaction, upload: str, lane: str, refused: Iterable[RefusedRow] = ()) -> bool:
    """Acknowledge the unit in flight and keep what was refused; False: a gap has closed it meanwhile."""
    row = tx.conn.execute(
        "DELETE FROM unit WHERE upload = ? AND lane = ? RETURNING from_seq, to_seq", (upload, lane)
    ).fetchone()
    if row is None:
        return False
    acknowledge(tx.conn, upload, *row)
    for sample, reason in refused:
        _quarantine(tx, upload, sample, reason)
    return True


def amend(tx: Transaction, upload: str, lane: str, from_seq: int, encoding_json: str) -> None:
    """Note more about the unit in flight, if it still is."""
    where = "WHERE upload = ? AND lane = ? AND from_seq = ?", (upload, lane, from_seq)
    row = tx.conn.execute(f"SELECT to_seq, created_us, deletion FROM unit {where[0]}", where[1]).fetchone()
    if row is not None:
        crc = row_crc(upload, lane, from_seq, row[0], encoding_json, *row[1:])
        tx.conn.execute(f"UPDATE unit SET encoding = ?, crc = ? {where[0]}", (encoding_json, crc, *where[1]))


def acknowledge(conn: sqlite3.Connection, upload: str, from_seq: int, to_seq: int) -> None:
    """Add a range of seqs, merged with those that it overlaps or touches."""
    touching = conn.execute(
        "DELETE FROM acked WHERE upload = ? AND from_seq <= ? AND to_seq >= ? RETURNING from_seq, to_seq",
        (upload, to_seq + 1, from_seq - 1),
    ).fetchall()
    start = min([from_seq, *(row[0] for row in touching)])
    end = max([to_seq, *(row[1] for row in touching)])
    conn.execute(
        "INSERT INTO acked(upload, from_seq, to_seq, crc) VALUES (?, ?, ?, ?)",
        (upload, start, end, row_crc(upload, start, end)),
    )


def acked(conn: sqlite3.Connection, upload: str) -> list[tuple[int, int]]:
    """Return the acknowledged seq ranges, in order, inclusive, apart from each other."""
    return conn.execute(
        "SELECT from_seq, to_seq FROM acked WHERE upload = ? ORDER BY from_seq", (upload,)
    ).fetchall()


def units(conn: sqlite3.Connection, upload: str) -> list[UnitRow]:
    """Return the persisted units: at most one a lane."""
    rows = conn.execute(
        "SELECT lane, from_seq, to_seq, encoding, created_us, deletion FROM unit WHERE upload = ? "
        "ORDER BY lane",
        (upload,),
    )
    return [UnitRow(*row) for row in rows]


def uploads(conn: sqlite3.Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT id FROM upload ORDER BY id")]


def forget(tx: Transaction, upload: str) -> None:
    """Drop an upload but its quarantine; what it got stays acknowledged, so that nothing goes twice later."""
    for table, column in (("upload", "id"), ("acked", "upload"), ("unit", "upload"), ("file", "upload")):
        tx.conn.execute(f"DELETE FROM {table} WHERE {column} = ?", (upload,))
    acknowledge(tx.conn, upload, 0, tx.newest_seq)


def keep_only(tx: Transaction, known: Sequence[str]) -> None:
    """Make the configured uploads known, and forget the others after a gap record each."""
    if known and not uploads(tx.conn):
        _note_never_sent(tx.conn, _released_to(tx))
    for upload in known:
        register(tx, upload)
    for upload in uploads(tx.conn):
        if upload in known:
            continue
        for start, end in unacked(acked(tx.conn, upload), 0, tx.newest_seq):
            reason = "the upload was removed from the configuration"
            if record_unsent(tx.conn, upload, start, end, tx.newest_seq, reason) and not known:
                _note_never_sent(tx.conn, end)
        _forget_files(tx, upload, "the upload was removed from the configuration before it had this file")
        forget(tx, upload)


def never_sent_to(conn: sqlite3.Connection) -> int:
    """Return the newest seq of which no upload will ever get something that may be held still; 0: none."""
    row = conn.execute("SELECT value FROM meta WHERE key = ?", (_NEVER_SENT_TO,)).fetchone()
    return int(row[0]) if row else 0


def _note_never_sent(conn: sqlite3.Connection, to_seq: int) -> None:
    if to_seq > never_sent_to(conn):
        put_meta(conn, _NEVER_SENT_TO, to_seq)


def _released_to(tx: Transaction) -> int:
    """Return the newest seq whose block is there no more, or never was in this file."""
    row = tx.conn.execute(
        "SELECT max(seq) - 1 FROM block AS one WHERE NOT EXISTS (SELECT 1 FROM block WHERE seq = one.seq - 1)"
    ).fetchone()
    newest = tx.conn.execute("SELECT max(seq) FROM block").fetchone()[0]
    return int(row[0]) if newest == tx.newest_seq else tx.newest_seq


def _forget_files(tx: Transaction, upload: str, reason: str) -> None:
    due = tx.conn.execute("SELECT name, since_us FROM file WHERE upload = ? AND due = 1", (upload,))
    for name, since_us in due.fetchall():
        insert_gap(tx.conn, Gap(since_us, tx.now_us, f"{name}: {reason}", upload=upload), tx.newest_seq + 1)


def record_unsent(
    conn: sqlite3.Connection, upload: str, from_seq: int, to_seq: int, newest_seq: int, reason: str
) -> int:
    """Record what an upload will never get of a seq range; return the number of its samples.

    The record goes with the next block: the newest one may be in a unit that was sent already, whose
    body must stay the same.
    """
    n, t0, t1 = conn.execute(
        "SELECT total(n), min(t0), max(t1) FROM block WHERE seq BETWEEN ? AND ? AND kind = 1",
        (from_seq, to_seq),
    ).fetchone()
    lost = int(n) - deletions.deleted_in(conn, from_seq, to_seq) if n else 0
    if lost:
        insert_gap(conn, Gap(t0, t1, reason, upload=upload, count=lost), newest_seq + 1)
    return lost


def insert_gap(conn: sqlite3.Connection, gap: Gap, seq: int) -> None:
    """Write a gap row; `seq` is the block that it is uploaded with."""
    row = storable(seq, gap.device, gap.upload, gap.from_us, gap.to_us, gap.count, gap.reason[:1000])
    conn.execute(
        "INSERT INTO gap(seq, device, upload, from_us, to_us, count, reason, crc) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, row_crc(*row)),
    )


def sizes(
    conn: sqlite3.Connection, from_seq: int, to_seq: int, limit: int = 1000
) -> list[tuple[int, int, int]]:
    """Return (seq, bytes, samples) of the blocks of a range, oldest first."""
    return conn.execute(
        "SELECT seq, size_bytes, CASE kind WHEN 1 THEN n ELSE 0 END FROM block "
        "WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
        (from_seq, to_seq, limit),
    ).fetchall()


def backlog(conn: sqlite3.Connection, upload: str) -> tuple[int, int, int, int | None]:
    """Return blocks, bytes and samples not acknowledged yet, and the wall time of the oldest of them."""
    blocks = size = samples = 0
    oldest: int | None = None
    for start, end in unacked(acked(conn, upload), 0, 2**62):
        row = conn.execute(
            "SELECT count(*), total(size_bytes), total(CASE kind WHEN 1 THEN n ELSE 0 END), min(wall_us) "
            "FROM block WHERE seq BETWEEN ? AND ?",
            (start, end),
        ).fetchone()
        blocks, size, samples = blocks + row[0], size + int(row[1]), samples + int(row[2])
        oldest = row[3] if oldest is None else oldest
    return blocks, size, samples, oldest


def unacked(ranges: Sequence[tuple[int, int]], from_seq: int, to_seq: int) -> Iterator[tuple[int, int]]:
    """Yield the inclusive ranges within [from_seq, to_seq] that `ranges` leave out."""
    at = from_seq
    for start, end in ranges:
        if start > at and at <= to_seq:
            yield at, min(start - 1, to_seq)
        at = max(at, end + 1)
    if at <= to_seq:
        yield at, to_seq


def _quarantine(tx: Transaction, upload: str, sample: Sample, reason: str) -> None:
    header = BlockHeader(Kind.SAMPLES, 0, bytes(16), 0, tx.now_us, 0)
    block = encode(header, Batch.of([sample]))
    insert_letter(tx.conn, upload, tx.now_us, reason[:2000], block)


def insert_letter(conn: sqlite3.Connection, upload: str, at_us: int, reason: str, block: bytes) -> None:
    """Write a dead letter; `block` is its sample as a block of its own."""
    upload, reason = storable(upload, reason)
    conn.execute(
        "INSERT INTO quarantine(upload, at_us, reason, block, bytes, crc) VALUES (?, ?, ?, ?, ?, ?)",
        (upload, at_us, reason, block, len(block), row_crc(upload, at_us, reason, len(block))),
    )


def quarantined(
    conn: sqlite3.Connection, upload: str, before_id: int | None = None, limit: int = 100
) -> list[QuarantineRow]:
    """Return dead letters, newest first."""
    rows = conn.execute(
        "SELECT id, upload, at_us, reason, block FROM quarantine WHERE upload = ? AND id < ? "
        "ORDER BY id DESC LIMIT ?",
        (upload, before_id or 2**62, limit),
    )
    return [_letter(row) for row in rows]


def letters(conn: sqlite3.Connection, upload: str, ids: Iterable[int]) -> list[QuarantineRow]:
    """Return the dead letters of these ids that there are, oldest first."""
    query = "SELECT id, upload, at_us, reason, block FROM quarantine WHERE upload = ? AND id = ?"
    rows = (conn.execute(query, (upload, id_)).fetchone() for id_ in sorted(set(ids)))
    return [_letter(row) for row in rows if row is not None]


def discard(tx: Transaction, upload: str, ids: Iterable[int] | None) -> int:
    """Delete dead letters (None: all) and return how many."""
    if ids is None:
        return tx.conn.execute("DELETE FROM quarantine WHERE upload = ?", (upload,)).rowcount
    return sum(
        tx.conn.execute("DELETE FROM quarantine WHERE upload = ? AND id = ?", (upload, id_)).rowcount
        for id_ in set(ids)
    )


def _letter(row: tuple[int, str, int, str, bytes]) -> QuarantineRow:
    id_, upload, at_us, reason, block = row
    return QuarantineRow(id_, upload, at_us, reason, next(iter(decode(block)[1])))
