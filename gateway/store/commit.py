"""One group commit: what waits for it, and the transaction that writes it."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import Clock
from gateway.model import Batch, Gap, Receipt, RunRecord, Ticket
from gateway.store import retention
from gateway.store.blocks import CORRUPT, cut, insert_block
from gateway.store.codec import BlockHeader, Kind
from gateway.store.hotfile import is_disk, mark_bad
from gateway.store.keys import MOVED, SAME, Resolved, resolve
from gateway.store.newest import Newest, save_snapshot
from gateway.store.outbox import Transaction, insert_gap
from gateway.store.series import save_series

Job = Callable[[Transaction], Any]


@dataclass(slots=True)
class Intake:
    """A batch waiting for its commit."""

    batch: Batch
    ticket: Ticket
    size: int


@dataclass(slots=True)
class Ride:
    """A job waiting for its commit, and who waits for it."""

    job: Job
    future: asyncio.Future[Any] | None
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Work:
    """What one commit takes along."""

    intakes: list[Intake] = field(default_factory=list)
    rides: list[Ride] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    series: list[tuple[int, str, str, str, bool]] = field(default_factory=list)
    refused: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """Samples that cannot be stored: (device, reason) to first and last wall time and their number."""
    bad: list[int] = field(default_factory=list)
    """Seqs of blocks found unreadable."""
    samples: int = 0

    def __bool__(self) -> bool:
        return bool(self.intakes or self.rides or self.gaps or self.runs or self.bad or self.refused)

    def absorb(self, other: "Work", most_samples: int) -> None:
        """Take over from `other`: all but the samples beyond the limit."""
        taken = 0
        for intake in other.intakes:
            if self.samples and self.samples + len(intake.batch) > most_samples:
                break
            self.samples += len(intake.batch)
            taken += 1
        self.intakes += other.intakes[:taken]
        del other.intakes[:taken]
        other.samples = sum(len(intake.batch) for intake in other.intakes)
        for mine, theirs in (
            (self.rides, other.rides), (self.gaps, other.gaps), (self.runs, other.runs),
            (self.series, other.series), (self.bad, other.bad),
        ):  # fmt: skip
            mine.extend(theirs)  # type: ignore[arg-type]
            theirs.clear()
        for key, (start, end, count) in other.refused.items():
            known = self.refused.get(key, (start, end, 0))
            self.refused[key] = known[0], end, known[2] + count
        other.refused.clear()


@dataclass(slots=True)
class Counters:
    """Samples since start."""

    added: int = 0
    same: int = 0
    moved: int = 0
    implausible: int = 0
    refused: int = 0
    """Could not be stored: a gap record names tag and reason."""
    lost: int = 0
    """Removed by retention before an upload had them, or in damaged blocks or files."""
    bad_blocks: int = 0


@dataclass(slots=True)
class Done:
    """What a commit changed, for the state in RAM."""

    first_seq: int
    next_seq: int
    change: Newest
    receipts: list[Receipt]
    blocks: int = 0
    removed: int = 0
    oldest_seq: int = 0
    bytes_used: int = 0
    snapshot: bool = False
    running: bool = False
    counted: Counters = field(default_factory=Counters)


@dataclass(slots=True)
class Bookkeeping:
    """What a commit needs to know from the writer."""

    clock: Clock
    boot: bytes
    newest: Newest
    next_seq: int
    max_bytes: int
    snapshot_due: bool
    running_s: float | None
    """To be written where it is due."""
    token: int
    turn: Callable[[], None]


def run_commit(conn: sqlite3.Connection, work: Work, books: Bookkeeping) -> Done:
    """Write everything inside an open transaction; COMMIT is the caller's."""
    now_us = books.clock.wall_us()
    done = Done(books.next_seq, books.next_seq, Newest(), [])
    gaps = mark_bad(conn, work.bad, CORRUPT) if work.bad else []
    batch = _joined(work.intakes)
    parts: list[Batch] = []
    if len(batch):
        resolved = resolve(conn, batch, books.newest, now_us, books.turn)
        gaps += mark_bad(conn, resolved.bad, CORRUPT)
        _count(done, work, resolved)
        parts = cut(resolved.kept) if len(resolved.kept) else []
    gaps += work.gaps
    gaps += [Gap(a, b, why, device or None, count=n) for (device, why), (a, b, n) in work.refused.items()]
    if work.series:
        save_series(conn, work.series, done.first_seq)
    if gaps and not parts:
        parts = [Batch()]
    written = _blocks(conn, parts, books, done, now_us)
    for gap in gaps:
        insert_gap(conn, gap, done.next_seq - 1)
    done.counted.lost += sum(gap.count or 0 for gap in gaps if "damaged" in gap.reason)
    done.counted.bad_blocks = len(set(work.bad))
    _runs(conn, work.runs)
    _rides(conn, work.rides, Transaction(conn, done.next_seq - 1, now_us))
    _housekeeping(conn, books, done, written, now_us)
    return done


def _joined(intakes: list[Intake]) -> Batch:
    if len(intakes) == 1:
        return intakes[0].batch
    joined = Batch()
    for intake in intakes:
        joined.extend(intake.batch)
    return joined


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
    done.counted.implausible += resolved.implausible
    done.counted.bad_blocks += len(set(resolved.bad))
    done.change = resolved.change


def _blocks(conn: sqlite3.Connection, parts: list[Batch], books: Bookkeeping, done: Done, now_us: int) -> int:
    written = 0
    clock = books.clock
    for part in parts:
        kind = Kind.SAMPLES if len(part) else Kind.EMPTY
        header = BlockHeader(
            kind, done.next_seq, books.boot, clock.mono_ns(), now_us, int(clock.synchronised())
        )
        written += insert_block(conn, header, part)
        done.next_seq += 1
        done.blocks += 1
    if not parts:
        conn.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('token', ?)", (books.token,))
    return written


def _runs(conn: sqlite3.Connection, runs: list[RunRecord]) -> None:
    conn.executemany(
        "INSERT OR REPLACE INTO run(id, device, kind, start_us, duration_us, samples, status, error) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(r.id, r.device, r.kind, r.start_us, r.duration_us, r.samples, r.status, r.error) for r in runs],
    )


def _rides(conn: sqlite3.Connection, rides: list[Ride], tx: Transaction) -> None:
    for ride in rides:
        ride.error = None
        conn.execute("SAVEPOINT ride")
        try:
            ride.result = ride.job(tx)
        except Exception as error:  # the writer's boundary: a job's failure is its owner's alone
            if is_disk(error) or not conn.in_transaction:
                raise
            ride.error = error
            conn.execute("ROLLBACK TO ride")
        conn.execute("RELEASE ride")


def _housekeeping(
    conn: sqlite3.Connection, books: Bookkeeping, done: Done, written: int, now_us: int
) -> None:
    newest_seq = done.next_seq - 1
    freed = retention.trim(conn, books.max_bytes, written, newest_seq)
    done.removed = freed.blocks
    done.counted.lost += freed.samples_lost
    if freed.blocks:
        done.oldest_seq = conn.execute("SELECT min(seq) FROM block").fetchone()[0] or done.next_seq
    if books.snapshot_due:
        header = BlockHeader(Kind.SNAPSHOT, newest_seq, books.boot, books.clock.mono_ns(), now_us, 0)
        snapshot = Newest(dict(books.newest.last), dict(books.newest.far), books.newest.own_us)
        snapshot.merge(done.change)
        save_snapshot(conn, snapshot, header)
        retention.trim_rows(conn)
        done.snapshot = True
    if books.running_s is not None:
        conn.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('running_s', ?)", (books.running_s,))
        done.running = True
    done.bytes_used = retention.used_bytes(conn)
