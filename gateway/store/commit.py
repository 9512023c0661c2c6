"""The transaction of one group commit: samples, series, gaps, runs, riding jobs, retention."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.clock import Clock
from gateway.model import Flag, Gap, Receipt, RunRecord
from gateway.store import deletions, retention, shares
from gateway.store.blocks import cut, insert_block, mark_bad
from gateway.store.codec import BlockHeader, Kind
from gateway.store.compact import delete_folded
from gateway.store.keys import resolve
from gateway.store.late import ADDED, MOVED, SAME, Resolved
from gateway.store.newest import Newest, Struck
from gateway.store.outbox import Transaction, insert_gap
from gateway.store.past import Damage, Past
from gateway.store.records import storable
from gateway.store.schema import put_meta
from gateway.store.series import save_series
from gateway.store.snapshot import save_snapshot
from gateway.store.values import Checked, stored
from gateway.store.work import Ride, Work


@dataclass(slots=True)
class Counters:
    """Samples since start (but `bad_blocks`)."""

    added: int = 0
    same: int = 0
    moved: int = 0
    implausible: int = 0
    refused: int = 0
    """Could not be stored: a gap record names tag and reason."""
    lost: int = 0
    """Removed by retention before an upload had them (once per upload), in damaged blocks, or given up."""
    bad_blocks: int = 0
    salvaged: int = 0
    """Taken in again from damaged files."""

    def add(self, other: "Counters") -> None:
        for name in Counters.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Books:
    """What a commit needs to know from the writer."""

    clock: Clock
    boot: bytes
    newest: Newest
    next_seq: int
    max_bytes: int
    """Of the hot file: what the history leaves."""
    spare: bool
    """The history has something older, which goes first: before the next commit."""
    snapshot_due: bool
    kept: Sequence[tuple[str, object]]
    """What is counted over the gateway's own running time, where it is due to be written."""
    tight: bool
    """The disk is nearly full: what can be done without goes."""
    token: int
    """Tells by which commit without a block the file was last written."""
    turned: Callable[[], None]
    run_job: Callable[[Ride, Transaction], None]
    past: Past
    folded: list[tuple[int, int]]
    """Seq ranges of blocks to delete, some of them now."""
    released: list[int]
    """Tombstones to drop."""
    synced_us: int
    """Newest wall time of a synchronised clock that an earlier run wrote down."""
    budget_bytes: int
    """Of the whole store."""


@dataclass(slots=True)
class Done:
    """What a commit changed, for the state in RAM."""

    first_seq: int
    next_seq: int
    token: int
    change: Newest = field(default_factory=Newest)
    receipts: list[Receipt] = field(default_factory=list)
    salvaged: Receipt | None = None
    blocks: int = 0
    removed: int = 0
    folded: list[tuple[int, int]] = field(default_factory=list)
    """What is left of the blocks to delete."""
    oldest_seq: int = 0
    bytes_used: int = 0
    snapshot: bool = False
    running: bool = False
    deleted: list[Struck] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    counted: Counters = field(default_factory=Counters)


def run_commit(conn: sqlite3.Connection, work: Work, books: Books) -> Done:
    """Write everything inside an open transaction; COMMIT is the caller's."""
    wall_us = books.clock.wall_us()
    done, written = write(conn, work, books, wall_us)
    done.released = books.released
    if books.released:
        deletions.release(conn, books.released)
    _housekeeping(conn, books, done, written, wall_us)
    return done


def write(conn: sqlite3.Connection, work: Work, books: Books, wall_us: int) -> tuple[Done, int]:
    """Write what waits; return what that changed, and the bytes of the blocks."""
    done = Done(books.next_seq, books.next_seq, books.token)
    books.newest.tails.begin()
    bad = list(work.bad)
    parts: list[Checked] = []
    batches = [intake.batch for intake in work.intakes]
    if len(work.salvaged):
        batches.append(stored(work.salvaged))
    if batches:
        # An unsynchronised clock may stand in 1970: nothing is the far future only because of that.
        known_us = max(books.newest.own_us, books.synced_us)
        now_us = wall_us if books.clock.synchronised() else max(wall_us, known_us)
        resolved = resolve(conn, batches, books.newest, now_us, books.turned, books.past)
        _count(done, work, resolved)
        bad += resolved.bad
        parts = cut(resolved.kept)
    gaps = _gaps(conn, work, bad, done)
    if work.series:
        save_series(conn, work.series, done.first_seq)
    if gaps and not parts:
        parts = [Checked()]
    written = _blocks(conn, parts, books, done, wall_us)
    tx = Transaction(conn, done.next_seq - 1, wall_us)
    for gap in gaps:
        insert_gap(conn, gap, tx.newest_seq)
    _runs(conn, work.runs)
    if work.tombstones:
        deletions.keep(conn, work.tombstones)
    for ride in work.rides:
        books.run_job(ride, tx)
    done.deleted = tx.deleted
    return done, written


def _count(done: Done, work: Work, resolved: Resolved) -> None:
    verdicts, start = resolved.verdicts, 0
    for intake in work.intakes:
        part = verdicts[start : start + len(intake.batch)]
        start += len(intake.batch)
        same, moved = part.count(SAME), part.count(MOVED)
        done.receipts.append(Receipt(len(part) - same - moved, same, moved))
        done.counted.added += len(part) - same - moved
        done.counted.same += same
        done.counted.moved += moved
    part = verdicts[start:]
    done.salvaged = Receipt(part.count(ADDED), part.count(SAME), part.count(MOVED))
    done.counted.salvaged = len(part) - part.count(SAME)
    if resolved.implausible:
        done.counted.implausible = sum(bool(flag & Flag.IMPLAUSIBLE) for flag in resolved.kept.flags)
    done.change = resolved.change


def _gaps(conn: sqlite3.Connection, work: Work, bad: list[int], done: Done) -> list[Gap]:
    damaged = mark_bad(conn, bad) if bad else []
    damaged += [gap for damage in work.damage if (gap := _damaged_chunk(conn, damage)) is not None]
    done.counted.bad_blocks = len(damaged)
    done.counted.lost = sum(gap.count or 0 for gap in damaged)
    refused = [Gap(a, b, why, device or None, count=n) for (device, why), (a, b, n) in work.refused.items()]
    done.counted.refused = sum(gap.count or 0 for gap in refused)
    return damaged + work.gaps + refused


def _damaged_chunk(conn: sqlite3.Connection, damage: Damage) -> Gap | None:
    """Return the gap that a damaged chunk leaves, once."""
    cursor = conn.execute(
        "INSERT OR IGNORE INTO bad_chunk(segment, chunk) VALUES (?, ?)", (damage.segment, damage.chunk)
    )
    return damage.gap if cursor.rowcount else None


def _blocks(conn: sqlite3.Connection, parts: list[Checked], books: Books, done: Done, wall_us: int) -> int:
    written, clock = 0, books.clock
    for part in parts:
        kind = Kind.SAMPLES if len(part) else Kind.EMPTY
        header = BlockHeader(
            kind, done.next_seq, books.boot, clock.mono_ns(), wall_us, int(clock.synchronised())
        )
        written += insert_block(conn, header, part)
        done.next_seq += 1
        done.blocks += 1
    if not parts:
        put_meta(conn, "token", books.token)
    return written


def _runs(conn: sqlite3.Connection, runs: list[RunRecord]) -> None:
    conn.executemany(
        "INSERT OR REPLACE INTO run(id, device, kind, start_us, duration_us, samples, status, error) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            storable(r.id, r.device, r.kind, r.start_us, r.duration_us, r.samples, r.status, r.error)
            for r in runs
        ],
    )


def _housekeeping(conn: sqlite3.Connection, books: Books, done: Done, written: int, wall_us: int) -> None:
    newest_seq = done.next_seq - 1
    folded, done.folded = delete_folded(conn, books.folded, newest_seq)
    freed = retention.trim(
        conn, books.max_bytes, written, newest_seq, budget_bytes=books.budget_bytes, spare=books.spare
    )
    done.removed = freed.blocks + folded
    done.bytes_used = freed.used_bytes
    done.counted.lost += freed.samples_lost
    if done.removed:
        done.oldest_seq = conn.execute("SELECT min(seq) FROM block").fetchone()[0] or done.next_seq
        put_meta(conn, "oldest_seq", done.oldest_seq)
    if books.snapshot_due or done.deleted:  # a start would take deleted samples for the newest ones
        header = BlockHeader(Kind.SNAPSHOT, newest_seq, books.boot, books.clock.mono_ns(), wall_us, 0)
        newest = books.newest.after(done.change)
        for struck in done.deleted:
            newest.strike(struck)
        save_snapshot(conn, newest, header)
        done.counted.lost += retention.trim_rows(conn, newest_seq, books.budget_bytes)
        if books.tight:
            shares.trim_runs(conn)
        done.snapshot = True
    if books.kept:
        synced = [("synced_us", wall_us)] if books.clock.synchronised() else []
        for key, value in [*books.kept, *synced]:
            put_meta(conn, key, value)
        done.running = True


def was_committed(conn: sqlite3.Connection, done: Done) -> bool:
    """Settle a COMMIT that failed: look whether what it wrote is there."""
    if done.blocks:
        return conn.execute("SELECT 1 FROM block WHERE seq = ?", (done.first_seq,)).fetchone() is not None
    row = conn.execute("SELECT value FROM meta WHERE key = 'token'").fetchone()
    return row is not None and row[0] == done.token
