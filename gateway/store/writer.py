"""The writer thread: group commit with the only connection that writes or checkpoints.

Nothing is acknowledged before COMMIT. Where the disk refuses, the connection is closed and opened again and
the same work tried again, about each second, for as long as it takes.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from gateway.clock import Clock
from gateway.model import Gap, NotStored, Receipt
from gateway.store.budget import MemoryBudget
from gateway.store.commit import Bookkeeping, Counters, Done, Intake, Work, run_commit
from gateway.store.hotfile import HotFile, Loaded, is_corrupt, is_disk
from gateway.store.series import SeriesTable
from gateway.store.settings import StoreSettings

_log = logging.getLogger(__name__)

_COMMIT_SAMPLES = 65_536
_RETRY_NS = 1_000_000_000
_IDLE_S = 0.5
_SNAPSHOT_NS = 300_000_000_000
_RUNNING_NS = 60_000_000_000


class Writer(threading.Thread):
    """Methods before `run` are for the event loop; the rest happens on this thread."""

    def __init__(
        self,
        hot: HotFile,
        settings: StoreSettings,
        clock: Clock,
        series: SeriesTable,
        budget: MemoryBudget,
        boot: bytes,
    ) -> None:
        super().__init__(name="store-writer", daemon=True)
        self._hot = hot
        self._clock = clock
        self._interval_ns = int(settings.commit_interval_s * 1e9)
        self._max_bytes = settings.max_bytes
        self._series = series
        self._budget = budget
        self._boot = boot
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._pending = Work()
        self._work = Work()
        self._hurry = False
        self._stop_by_ns: int | None = None
        self._conn: sqlite3.Connection | None = None
        self._doubt: Done | None = None
        self._token = 0
        self.turned_ns = clock.mono_ns()
        self.refusing = ""
        self.generation = 0
        self.counters = Counters()
        self.last_commit_ns = 0

    def load(self) -> None:
        """Open the file and rebuild the state in RAM; before `start`, on a thread that may block."""
        self._conn, loaded = self._hot.open(self._series, self._clock.wall_us())
        self._take_over(loaded)

    def _take_over(self, loaded: Loaded) -> None:
        now = self._clock.mono_ns()
        self.epoch = loaded.epoch
        self.newest = loaded.newest
        self.next_seq = loaded.next_seq
        self.next_run_id = loaded.next_run_id
        self.blocks, self.oldest_seq = loaded.blocks, loaded.oldest_seq
        self.bytes_used = 0
        self._running_s, self._running_ns = loaded.running_s, now
        self._running_saved_ns = self._snapshot_ns = now
        self._pending.bad += loaded.bad
        self._pending.gaps += self._hot.gaps
        self._hot.gaps = []

    def submit(self, add: Callable[[Work], None]) -> None:
        """Add to what the next commit takes along."""
        with self._changed:
            add(self._pending)
            self._changed.notify()

    def hurry(self) -> None:
        """Commit now, not at the next tick."""
        with self._changed:
            self._hurry = True
            self._changed.notify()

    def waiting(self) -> tuple[int, int]:
        """Return samples and jobs not committed yet."""
        with self._changed:
            samples = self._pending.samples + self._work.samples
            return samples, len(self._pending.rides) + len(self._work.rides)

    def stop(self, patience_s: float) -> None:
        """Commit what waits and end; what the disk still refuses after `patience_s` is given up."""
        with self._changed:
            self._stop_by_ns = self._clock.mono_ns() + int(patience_s * 1e9)
            self._changed.notify()

    # The thread.

    def run(self) -> None:
        next_ns = 0
        while True:
            next_ns = self._wait(next_ns)
            self.turned_ns = now = self._clock.mono_ns()
            stopping = self._stop_by_ns is not None
            if (self._work or stopping) and (now >= next_ns or self._hurry or stopping):
                self._hurry = False
                ended = self._turn(stopping)
                next_ns = now + (_RETRY_NS if self.refusing else self._interval_ns)
                if ended:
                    break
                if stopping and self.refusing:
                    with self._changed:
                        self._changed.wait(0.2)

    def _wait(self, next_ns: int) -> int:
        """Wait for work and its tick, at most the idle time; return when the next tick is."""
        with self._changed:
            now = self._clock.mono_ns()
            due = next_ns <= now and bool(self._pending or self._work)
            if not (due or self._hurry or self._stop_by_ns is not None):
                busy = bool(self._pending or self._work)
                self._changed.wait(min(max((next_ns - now) / 1e9, 0.001), _IDLE_S) if busy else _IDLE_S)
            if not self.refusing or not self._work:
                self._work.absorb(self._pending, _COMMIT_SAMPLES)
            return next_ns

    def _turn(self, stopping: bool) -> bool:
        """Try one commit; say whether the thread is to end."""
        try:
            self._commit(closing=stopping)
        except Exception as error:  # noqa: BLE001  # the writer's boundary: it never exits
            self._refused(error)
            if not (stopping and self._clock.mono_ns() > (self._stop_by_ns or 0)):
                return False
            self._give_up(f"the store was closed while the disk refused: {self.refusing}")
            self._close()
            return True
        with self._changed:
            more = bool(self._pending)
            backlog = self._pending.samples > _COMMIT_SAMPLES
            self._hurry = self._hurry or backlog
        if stopping and not more and not self._work:
            self._close()
            return True
        return False

    def _commit(self, *, closing: bool = False) -> None:
        conn = self._open()
        if self._doubt is not None and self._was_committed(conn):
            self._committed(self._doubt)
            return
        self._doubt = None
        now = self._clock.mono_ns()
        self._token += 1
        running_s = self._running_s + (now - self._running_ns) / 1e9
        books = Bookkeeping(
            self._clock, self._boot, self.newest, self.next_seq, self._max_bytes,
            closing or now - self._snapshot_ns > _SNAPSHOT_NS,
            running_s if closing or now - self._running_saved_ns > _RUNNING_NS else None,
            self._token, self._turned,
        )  # fmt: skip
        conn.execute("BEGIN IMMEDIATE")
        try:
            done = run_commit(conn, self._work, books)
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
        self._doubt = done
        conn.execute("COMMIT")
        self._committed(done)

    def _turned(self) -> None:
        self.turned_ns = self._clock.mono_ns()

    def _open(self) -> sqlite3.Connection:
        if self._conn is None:
            self._conn = self._hot.connect()
        return self._conn

    def _was_committed(self, conn: sqlite3.Connection) -> bool:
        """Settle a COMMIT that failed: look whether what it wrote is there."""
        done = self._doubt
        assert done is not None
        if done.blocks:
            found = conn.execute("SELECT 1 FROM block WHERE seq = ?", (done.first_seq,)).fetchone()
            return found is not None
        row = conn.execute("SELECT value FROM meta WHERE key = 'token'").fetchone()
        return row is not None and row[0] == self._token

    def _committed(self, done: Done) -> None:
        self._doubt = None
        now = self._clock.mono_ns()
        self.newest.merge(done.change)
        self.next_seq = done.next_seq
        self.blocks += done.blocks - done.removed
        self.oldest_seq = done.oldest_seq or self.oldest_seq
        self.bytes_used = done.bytes_used
        self._snapshot_ns = now if done.snapshot else self._snapshot_ns
        self._running_saved_ns = now if done.running else self._running_saved_ns
        for name in Counters.__slots__:
            setattr(self.counters, name, getattr(self.counters, name) + getattr(done.counted, name))
        self.last_commit_ns = now
        if self.refusing:
            _log.warning("the store takes samples again")
            self.refusing = ""
        work, self._work = self._work, Work()
        self._tell(_settle, work, done.receipts, self._budget)

    def _refused(self, error: Exception) -> None:
        """Close the connection, say so once, and leave the work for the next try."""
        sentence = f"the disk refuses the store's samples: {error}"
        if is_corrupt(error) and self.refusing:
            self._begin_anew(error)
            return
        if not is_disk(error):
            sentence = f"the store could not write a commit: {type(error).__name__}: {error}"
            self._single_out()
        if sentence != self.refusing:
            _log.error("%s", sentence, exc_info=None if is_disk(error) else error)
        self.refusing = sentence
        self._disconnect()

    def _single_out(self) -> None:
        """Give up the batch that cannot be written: halve the work until it is alone."""
        work = self._work
        if len(work.intakes) <= 1:
            self._give_up("it cannot be written")
            return
        rest = work.intakes[len(work.intakes) // 2 :]
        del work.intakes[len(work.intakes) // 2 :]
        work.samples = sum(len(intake.batch) for intake in work.intakes)
        with self._changed:
            self._pending.intakes[:0] = rest
            self._pending.samples += sum(len(intake.batch) for intake in rest)

    def _begin_anew(self, error: Exception) -> None:
        """Set a malformed file aside and go on with a new one; what waits goes there."""
        self._disconnect()
        self._doubt = None
        self._hot.set_aside(str(error), self._clock.wall_us())
        rows = self._series.rows()
        newest, run_id, seq = self.newest, self.next_run_id, self.next_seq
        self._conn, loaded = self._hot.open(SeriesTable(), self._clock.wall_us())
        self._take_over(loaded)
        self.newest, self.next_run_id, self.next_seq = newest, run_id, seq
        self.generation += 1
        with self._changed:
            self._work.series[:0] = rows

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._work.absorb(self._pending, 2**62)
            work, self._work = self._work, Work()
        lost = sum(len(intake.batch) for intake in work.intakes)
        self.counters.lost += lost
        if lost:
            _log.error("%d samples were given up: %s", lost, reason)
            stamps = [ts for intake in work.intakes for ts in intake.batch.ts]
            self._pending.gaps.append(Gap(min(stamps), max(stamps), f"given up: {reason}", count=lost))
        self._tell(_fail, work, NotStored(reason), self._budget)

    def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(sqlite3.Error):
                conn.close()

    def _close(self) -> None:
        if self._conn is not None:
            with contextlib.suppress(sqlite3.Error):
                self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._disconnect()

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *args)


def _settle(work: Work, receipts: list[Receipt], budget: MemoryBudget) -> None:
    for intake, receipt in zip(work.intakes, receipts, strict=True):
        intake.ticket.resolve(receipt)
    _release(work.intakes, budget)
    for ride in work.rides:
        if ride.future is None:
            if ride.error is not None:
                _log.error("a job of the store failed: %s", ride.error, exc_info=ride.error)
        elif not ride.future.done():
            if ride.error is None:
                ride.future.set_result(ride.result)
            else:
                ride.future.set_exception(ride.error)


def _fail(work: Work, error: NotStored, budget: MemoryBudget) -> None:
    for intake in work.intakes:
        intake.ticket.fail(error)
    _release(work.intakes, budget)
    for ride in work.rides:
        if ride.future is not None and not ride.future.done():
            ride.future.set_exception(error)


def _release(intakes: list[Intake], budget: MemoryBudget) -> None:
    budget.give(sum(intake.size for intake in intakes))
