"""The writer thread: group commit with the only connection that writes or checkpoints.

Nothing is acknowledged before COMMIT. Where the disk refuses, the connection is closed and opened again and
the same work tried again, about each second, for as long as it takes.
"""

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable
from functools import partial

from gateway.clock import Clock
from gateway.model import NotStored
from gateway.store.budget import MemoryBudget
from gateway.store.commit import Books, Counters, Done, run_commit, was_committed, write
from gateway.store.compact import Compactor
from gateway.store.disk import Disk
from gateway.store.history import History
from gateway.store.hotfile import HotFile, Loaded
from gateway.store.inbox import Inbox
from gateway.store.mender import Mender
from gateway.store.outbox import Transaction, keep_only
from gateway.store.recovery import Mapping, Names
from gateway.store.renew import left_unwritten, renew
from gateway.store.schema import DiskRefuses, is_busy, is_corrupt, is_disk, is_full, read_epoch
from gateway.store.series import SeriesTable
from gateway.store.settings import StoreSettings
from gateway.store.work import Ride, Work, fail, settle

_log = logging.getLogger(__name__)

_COMMIT_SAMPLES = 65_536
_RETRY_NS = 1_000_000_000
_IDLE_S = 0.5
_SLICE_PAUSE_S = 0.002
"""Between slices of a fold: the processor is others' too."""
_SNAPSHOT_NS = 300_000_000_000
_RUNNING_NS = 60_000_000_000
_CORRUPT_TRIES = 2


class Writer(Inbox, threading.Thread):
    """`submit`, `hurry`, `waiting` and `stop` are for the event loop; the rest happens on this thread."""

    def __init__(
        self, hot: HotFile, history: History, settings: StoreSettings, clock: Clock, series: SeriesTable,
        budget: MemoryBudget, boot: bytes, adopt: Callable[[Names, Callable[[Mapping], None]], None],
    ) -> None:  # fmt: skip
        threading.Thread.__init__(self, name="store-writer", daemon=True)
        Inbox.__init__(self, clock)
        self._hot, self._clock, self._series, self._budget, self._boot = hot, clock, series, budget, boot
        self._history = history
        self.compactor = Compactor(history, series, clock, settings.chunk_minutes, boot)
        self.mender = Mender(
            hot, history, series, lambda found, known: self._tell(lambda: adopt(found, known))
        )
        self.uploads: tuple[str, ...] | None = None
        """Those configured, once that is known."""
        self._interval_ns = int(settings.commit_interval_s * 1e9)
        self.disk = Disk(hot.path, settings, clock)
        self._loop = asyncio.get_running_loop()
        self._conn: sqlite3.Connection | None = None
        self._doubt: Done | None = None
        self._corrupt_tries = 0
        self._unwritten = False
        self._tainted = False
        """Something in the work cannot be written, and that is not the disk's doing."""
        self._token = secrets.randbits(62)
        """That of an earlier life, which the file may hold, is another one."""
        self._next_ns = 0
        self.turned_ns = clock.mono_ns()
        self.refusing = ""
        self.generation = 0
        self.counters = Counters()
        self.last_commit_ns = 0

    def load(self) -> None:
        """Open the file and rebuild the state in RAM; before `start`, on a thread that may block."""
        try:
            self._conn, loaded = self._hot.open(self._clock.wall_us(), self._history, self._boot)
        except DiskRefuses as error:
            if error.__cause__ is not None and is_full(error.__cause__):
                self._history.list_files()
                self._shed(0, busy=True)
            raise
        for series, info in loaded.series:
            self._series.keep(series, info)
        self._series.begin_at(loaded.series_from)
        self._running_s, self._started_ns = loaded.running_s, self._clock.mono_ns()
        self._running_saved_ns = self._snapshot_ns = self._started_ns
        self.disk.flash.load(self._conn)
        self.newest, self.next_seq, self.next_run_id = loaded.newest, loaded.next_seq, loaded.next_run_id
        self._known_us = loaded.synced_us
        self._pending.bad += loaded.bad
        self._take_over(loaded)
        self._work.series += loaded.series_of_history
        self.compactor.load(self._conn)

    def _take_over(self, loaded: Loaded) -> None:
        self.epoch, self.blocks, self.bytes_used = loaded.epoch, loaded.blocks, loaded.bytes_used
        self._hot_bytes = loaded.bytes_used - self._history.bytes_used
        self.oldest_seq = loaded.oldest_seq
        self._history.epoch = loaded.epoch
        self._work.gaps += self._hot.gaps + self._history.gaps
        self._hot.gaps, self._history.gaps = [], []

    def run(self) -> None:
        """Commit at each tick where something waits, until stopped."""
        while not self._ended:
            with self._changed:
                if (pause_s := self.pause_s()) > 0:
                    self._changed.wait(pause_s)
            self.turn()
        self._close()

    def turn(self) -> None:
        """Commit where it is due, fold a little, take in a little of what is damaged."""
        due = self._due()
        self.turned_ns = now = self._clock.mono_ns()
        if self.disk.look(self._history.bytes_used):
            self._bring_log_in(self.disk.wal.look)
        if due:
            self._try_commit()
            self._bring_log_in(self.disk.wal.committed)
            self._next_ns = now + (_RETRY_NS if self.refusing else self._interval_ns)
        if self._stop_by_ns is None and not self.refusing:
            self._compact()
            self._mend()

    def _bring_log_in(self, way: Callable[[sqlite3.Connection], None]) -> None:
        """Run a checkpoint; where it fails the file is written anew before the next commit."""
        if self._conn is None or self.refusing or self._unwritten:
            return
        try:
            way(self._conn)
        except sqlite3.Error as error:
            if not is_disk(error):
                raise
            self._mark_unwritten(error)
            if is_full(error):
                self._shed(self._hot_bytes, busy=self.compactor.unsettled)
            _log.warning("the write-ahead log cannot be brought into hot.db now: %s", error)

    def _mend(self) -> None:
        """Take in a slice of a damaged file where nothing else waits; set aside what is found damaged."""
        if self._work or self._conn is None:
            return
        try:
            work = self.mender.slice(self._conn, self._clock.mono_ns(), self._now_running_s(), self.hurry)
        except Exception as error:  # noqa: BLE001  # the writer's boundary: the damaged file stays as it is
            _log.error("a damaged file cannot be taken in: %s", error, exc_info=error)
            self.mender.abandon(self._clock.mono_ns())
            return
        if self.mender.condemned:
            self._disconnect()
        if work or self.mender.condemned:
            work = work or Work()
            work.series = self._work.series
            self._work = work
            self._try_commit()

    def suspect(self, why: str) -> None:
        """Have the file looked over (any thread): SQLite found it malformed."""
        self.mender.suspicion = why
        self.hurry()

    def _compact(self) -> None:
        if self._conn is None:
            return
        try:
            self.compactor.work(self._conn, self._now_running_s())
            self.bytes_used = self._hot_bytes + self._history.bytes_used
        except Exception as error:  # noqa: BLE001  # the writer's boundary: blocks stay, samples are taken all the same
            _log.error("blocks cannot be folded into the history: %s", error, exc_info=error)
            self.compactor.abandon()

    def pause_s(self) -> float:
        """Return how long there is nothing to do, unless something comes in; at most the idle time."""
        stopping, left_ns = self._stop_by_ns is not None, self._next_ns - self._clock.mono_ns()
        busy = self._busy()
        busy_between = self.compactor.busy or self.mender.busy
        longest_s = _SLICE_PAUSE_S if busy_between and not self.refusing else _IDLE_S
        if stopping and self.refusing:
            return 0.1
        if stopping or (busy and (left_ns <= 0 or (self._hurry and not self.refusing))):
            return 0
        return min(max(left_ns / 1e9, 0.001), longest_s) if busy else longest_s

    def _busy(self) -> bool:
        compactor = self.compactor
        return bool(self._pending or self._work or compactor.wants_commit or compactor.releaser.released)

    def _due(self) -> bool:
        """Say whether to commit now, and take what is to go along."""
        with self._changed:
            busy = self._busy()
            tick = self._clock.mono_ns() >= self._next_ns or (self._hurry and not self.refusing)
            due = self._stop_by_ns is not None or (tick and busy)
            if due:
                self._hurry = False
                if not self._work or not self.refusing:
                    self._work.absorb(self._pending, _COMMIT_SAMPLES)
            return due

    def _try_commit(self) -> None:
        closing = self._stop_by_ns is not None
        try:
            self._commit(closing)
        except Exception as error:  # noqa: BLE001  # the writer's boundary: it never exits
            self._refused(error)
            if self._clock.mono_ns() < (self._stop_by_ns or 2**63):
                return
            closing = True
            self._give_up(f"the store was closed while it could not be written: {self.refusing}")
        with self._changed:
            behind = self._pending.samples >= _COMMIT_SAMPLES or self._budget.full
            self._hurry = self._hurry or behind or any(ride.last for ride in self._pending.rides)
            self._ended = closing and not (self._pending or self._work)

    def run_job(self, ride: Ride, tx: Transaction) -> None:
        """Run a riding job in its savepoint: its failure is its owner's alone, the disk's is everybody's."""
        ride.error = None
        tx.conn.execute("SAVEPOINT ride")
        try:
            ride.result = ride.job(tx)
        except Exception as error:  # the writer's boundary
            if is_disk(error) and not isinstance(error, OSError):
                raise
            ride.error = error
            tx.conn.execute("ROLLBACK TO ride")
        tx.conn.execute("RELEASE ride")

    def _commit(self, closing: bool) -> None:
        conn = self._open()
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        if self._doubt is not None and was_committed(conn, self._doubt):
            self._committed(self._doubt)
            return
        self._doubt = None
        self.compactor.care(conn, self._work, self._hot_bytes, self.disk.room.budget_bytes)
        books = self._books(closing)
        if self._tainted:
            self._single_out(conn, books)
        conn.execute("BEGIN IMMEDIATE")
        self._doubt = done = run_commit(conn, self._work, books)
        conn.execute("COMMIT")
        self._committed(done)

    def _now_running_s(self) -> float:
        return self._running_s + (self._clock.mono_ns() - self._started_ns) / 1e9

    def _books(self, closing: bool) -> Books:
        now = self._clock.mono_ns()
        due = closing or now - self._running_saved_ns > _RUNNING_NS
        self._token += 1
        return Books(
            self._clock, self._boot, self.newest, self.next_seq,
            self.disk.room.budget_bytes - self._history.bytes_used,
            self._history.spare(busy=self.compactor.unsettled),
            closing or now - self._snapshot_ns > _SNAPSHOT_NS,
            self.disk.kept(self._now_running_s()) if due else [], self.disk.room.tight,
            self._token, self._turned, self.run_job, self._history.past, self.compactor.deletable(),
            self.compactor.releaser.released, self._known_us, self.disk.room.budget_bytes,
        )  # fmt: skip

    def _turned(self) -> None:
        self.turned_ns = self._clock.mono_ns()

    def _open(self) -> sqlite3.Connection:
        """Return the connection, opened again after a failure; a malformed file is set aside first."""
        malformed = self._corrupt_tries >= _CORRUPT_TRIES or self.mender.condemned
        if self._unwritten and malformed:
            self._disconnect()
            self._unwritten = False
        elif self._unwritten:
            self._renew()
        if self._conn is not None:
            return self._conn
        if malformed:
            self.mender.set_aside(self.refusing, self.oldest_seq, self.next_seq - 1, self._clock.wall_us())
            self._corrupt_tries = 0
        conn = self._hot.connect()
        self._conn = conn
        if read_epoch(conn) != self.epoch:
            self._doubt = None
            self._take_over(self._hot.load(conn, self._history, running=True))
            self.compactor.abandon()
            self.compactor.pending = []
            self.generation += 1
            self._work.series = self._series.rows()
            self._work.tombstones = list(self._history.deleted)
            if (known := self.uploads) is not None:
                self._work.rides.insert(0, Ride(lambda tx: keep_only(tx, known)))
        return conn

    def _renew(self) -> None:
        renew(self._hot.path, self._conn, self._turned)
        self._disconnect()
        self._unwritten = False
        self.generation += 1

    def _committed(self, done: Done) -> None:
        self._doubt = None
        self._corrupt_tries = 0
        self._tainted = False
        now = self._clock.mono_ns()
        self.newest.merge(done.change)
        self._deleted(done)
        self.next_seq = done.next_seq
        self.blocks += done.blocks - done.removed
        self.oldest_seq = done.oldest_seq or self.oldest_seq
        self.compactor.deleted(done.folded)
        self._hot_bytes = done.bytes_used
        self.bytes_used = self._hot_bytes + self._history.bytes_used
        self._snapshot_ns = now if done.snapshot else self._snapshot_ns
        self._running_saved_ns = now if done.running else self._running_saved_ns
        self.counters.add(done.counted)
        self.mender.committed(done.salvaged)
        self.last_commit_ns = now
        if self.refusing:
            _log.warning("the store takes samples again")
            self._hot.take_reserve()
            self.refusing = ""
        work, self._work = self._work, Work()
        self._tell(lambda: settle(work, done.receipts, self._budget))

    def _deleted(self, done: Done) -> None:
        """Honour what a commit deleted, and forget what nothing is left of."""
        for struck in done.deleted:
            self.newest.strike(struck)
        if done.deleted or done.released:
            added = [struck.tombstone for struck in done.deleted]
            self._history.deleted = self._history.deleted.changed(added, done.released)
            self.compactor.releaser.released = []

    def _mark_unwritten(self, error: Exception) -> None:
        if left_unwritten(error):
            self._unwritten = True
            self._hot.distrust()

    def _refused(self, error: Exception) -> None:
        """Close the connection, say so once, and leave the work for the next try."""
        self._mark_unwritten(error)
        if not (is_full(error) or self._unwritten):  # a full disk would not let a closed file be opened again
            self._disconnect()
        if is_disk(error):
            self._corrupt_tries += is_corrupt(error)
            if is_full(error):
                self._shed(self._hot_bytes, busy=self.compactor.unsettled)
            sentence = f"the disk refuses the store's samples: {self._hot.words(error)}"
        elif not self._tainted:
            _log.error("%s; what cannot be written is looked for", _why(error), exc_info=error)
            self._tainted = True
            self.hurry()
            return
        else:  # it is no record's fault: nothing is given up
            sentence = _why(error)
        if sentence != self.refusing:
            _log.error("%s", sentence)
            if is_disk(error) and not is_busy(error):
                self._hot.give_reserve()
        self.refusing = sentence

    def _shed(self, hot_bytes: int, *, busy: bool) -> None:
        """On a full disk: drop the oldest segment before the next try. To unlink it needs no room."""
        history, disk = self._history, self.disk
        disk.look(history.bytes_used, at_once=True)
        more = hot_bytes + history.bytes_used > disk.room.least_bytes
        if disk.room.short and more and history.shed(busy=busy):
            disk.look(history.bytes_used, at_once=True)

    def _single_out(self, conn: sqlite3.Connection, books: Books) -> None:
        """Give up each record that cannot be written even alone: all others are committed."""

        def why_not(part: Work) -> Exception | None:
            self._turned()
            conn.execute("BEGIN IMMEDIATE")
            try:
                write(conn, part, books, self._clock.wall_us())
            except Exception as error:  # the writer's boundary
                if is_disk(error):
                    raise
                return error
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
            return None

        for part, error in self._work.take_out(why_not):
            reason = _why(error)
            gap = part.given_up(reason, self._clock.wall_us())
            _log.error("%s", gap.reason)
            self.counters.lost += gap.count or 0
            self._work.gaps.append(gap)
            self._tell(partial(fail, part, NotStored(reason), self._budget))

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._work.absorb(self._pending, 2**62)
            work, self._work = self._work, Work()
        lost = sum(len(intake.batch) for intake in work.intakes)
        _log.error("%d samples and %d other records were given up: %s", lost, work.others, reason)
        self.counters.lost += lost
        self._tell(lambda: fail(work, NotStored(reason), self._budget))

    def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(sqlite3.Error):
                conn.close()

    def _close(self) -> None:
        self.mender.close()
        self._bring_log_in(self.disk.wal.empty)
        if self._unwritten:
            with contextlib.suppress(sqlite3.Error, OSError):
                self._renew()
        self._disconnect()
        self._history.close()

    def _tell(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            self._loop.call_soon_threadsafe(call)


def _why(error: Exception) -> str:
    return f"the store could not write a commit: {type(error).__name__}: {error}"
