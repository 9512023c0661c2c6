"""The store as the rest of the gateway sees it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from gateway.clock import Clock
from gateway.model import Batch, Gap, Receipt, RunRecord, Sample, SeriesInfo, Ticket
from gateway.store import outbox
from gateway.store.budget import MemoryBudget
from gateway.store.commit import Counters
from gateway.store.deletes import Deletes
from gateway.store.flash import FlashState
from gateway.store.history import History
from gateway.store.hotfile import HotFile
from gateway.store.outbox import Transaction
from gateway.store.past import Damage
from gateway.store.reader import Readers
from gateway.store.recorder import Recorder
from gateway.store.room import RoomState
from gateway.store.schema import DiskRefuses
from gateway.store.series import SeriesTable
from gateway.store.settings import StoreSettings
from gateway.store.values import Checked, checked, row_problem
from gateway.store.work import Intake, Ride
from gateway.store.writer import Writer

_log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 1.0
_CLOSE_S = 3.5
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class StoreState:
    """How the store is, for /v1/state and /metrics."""

    bytes_used: int
    bytes_budget: int
    history_bytes: int
    segments: int
    """Files of the history."""
    blocks: int
    oldest_seq: int
    newest_seq: int
    pending_samples: int
    pending_bytes: int
    refusing: str
    """A sentence while the disk refuses; nothing is acknowledged then."""
    counters: dict[str, int]
    last_commit_mono_ns: int
    wal_bytes: int
    disk: RoomState
    flash: FlashState
    salvaging: str
    """The damaged file whose samples are being taken in."""
    tombstones: int
    """Deletions that hold still."""


class Store(Deletes, Recorder):
    """One directory: one writer thread with the only connection that writes, and read-only readers."""

    def __init__(self, folder: Path, settings: StoreSettings, clock: Clock) -> None:
        """Use `Store.open`."""
        self.folder = folder
        self._settings = settings
        self._clock = clock
        self._series = SeriesTable()
        self._hot = HotFile(folder)
        self._history = History(folder, settings.max_bytes, settings.keep_days, clock)
        self.budget = MemoryBudget(settings.memory_bytes)
        super().__init__()
        self.boot = ""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        settings: StoreSettings,
        clock: Clock,
        refuses: Callable[[str], None] = lambda _sentence: None,
    ) -> AsyncIterator["Store"]:
        """Open the store in `folder`, made where it is missing. StoreProblem: locked, unusable or too new.

        While the disk refuses it is tried again each second: ending would only begin a loop of restarts.
        `refuses` is told why, and "" once it does not.
        """
        store = cls(folder, settings, clock)
        await _until_the_disk_lets(store._hot.lock, clock, refuses)
        try:
            boot = await asyncio.to_thread(_boot_id)
            store.boot = str(boot)
            store._writer = Writer(
                store._hot, store._history, settings, clock, store._series, store.budget, boot.bytes,
                store._adopt,
            )  # fmt: skip
            await _until_the_disk_lets(store._writer.load, clock, refuses)
            store._run_id = store._writer.next_run_id
            store._readers = Readers(
                store._hot.path, lambda: store._writer.generation, store._history, store._writer.suspect
            )
            store._writer.start()
            try:
                yield store
            finally:
                await store._close()
        finally:
            store._hot.unlock()

    _writer: Writer
    _history: History
    _run_id: int

    async def _close(self) -> None:
        self._writer.stop(_CLOSE_S)
        await asyncio.shield(asyncio.to_thread(self._end))

    def _end(self) -> None:
        self._readers.close()
        self._writer.join()

    @property
    def epoch(self) -> str:
        """Random, made with the hot file: part of every delivery key."""
        return self._writer.epoch

    @property
    def newest_own_us(self) -> int:
        """Newest stamp in the store that the gateway made itself."""
        return self._writer.newest.own_us

    @property
    def turned_ns(self) -> int:
        """Monotonic time of the writer's last turn: idle turns and refused commits count."""
        return self._writer.turned_ns

    # Series.

    def series(self, device: str, tag: str, unit: str | None = "") -> int:
        """Return the series of a tag, made on first use; another unit counts from the next commit on."""
        number = self._series.get(device, tag, unit)
        if self._series.unsaved:
            rows, self._series.unsaved = self._series.unsaved, []
            self._writer.submit(lambda work: work.series.extend(rows))
        return number

    def _adopt(self, found: dict[int, SeriesInfo], known: Callable[[dict[int, int]], None]) -> None:
        """Give the series of a damaged file their numbers, and tell them."""
        known(self._series.adopt(found))
        if self._series.unsaved:
            rows, self._series.unsaved = self._series.unsaved, []
            self._writer.submit(lambda work: work.series.extend(rows))

    def find_series(self, device: str, tag: str) -> int | None:
        return self._series.find(device, tag)

    def series_of(self, device: str, configured: Collection[str] = ()) -> dict[str, int]:
        """Return tag to series: of tags configured or in use, and of those that there are samples of."""
        newest, used = self._writer.newest, self._series.used
        return {
            tag: series
            for tag, series in self._series.of(device).items()
            if tag in configured or series in used or series in newest
        }

    def info(self, series: int) -> SeriesInfo:
        return self._series.info(series)

    # Intake.

    async def put(self, batch: Batch) -> Ticket:
        """Take a batch for the next commit; waits only while the memory budget is full."""
        rows = self._checked(batch)
        if not self.budget.try_take(rows.size):
            self._writer.hurry()
            await self.budget.take(rows.size)
        return self._accept(rows)

    def try_put(self, batch: Batch) -> Ticket | None:
        """Take a batch, or None where the memory budget is full."""
        rows = self._checked(batch)
        if not self.budget.try_take(rows.size):
            self._writer.hurry()
            return None
        return self._accept(rows)

    def _accept(self, rows: Checked) -> Ticket:
        ticket = Ticket()
        if not len(rows):
            self.budget.give(rows.size)
            ticket.resolve(Receipt(0, 0, 0))
            return ticket

        self._writer.submit(lambda work: work.take(Intake(rows, ticket)))
        return ticket

    def _checked(self, batch: Batch) -> Checked:
        """Return what of a batch can be stored; the rest becomes gap records."""
        try:
            return checked(batch)
        except (ValueError, OverflowError, TypeError):
            pass
        fit = Batch()
        for row in zip(*batch.columns(), strict=True):
            if (problem := row_problem(*row)) is None:
                fit.add(*row)
            else:
                self._refuse(row[0], problem)
        return checked(fit)

    def _refuse(self, series: object, problem: str) -> None:
        known = isinstance(series, int) and series in self._series
        device, tag, _ = self._series.info(series) if known else ("", f"series {series}", "")  # type: ignore[arg-type]
        now = self._clock.wall_us()
        reason = f"tag {tag} of {device or 'an unknown device'}: a sample was not stored: {problem}"

        self._writer.submit(lambda work: work.refuse(device, reason, now))

    # Rows that ride on the group commit.

    async def ride(self, job: Callable[[Transaction], T]) -> T:
        """Run a job inside the next group commit, after its block, in a savepoint; returns after COMMIT.

        Raises what the job raised; NotStored where the store closes while the disk refuses. A job may
        run again where a commit failed: it must not change anything but the transaction.
        """
        return await self.riding(job)

    def riding(self, job: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """Have a job run like `ride`; the future is what `ride` awaits."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.submit(lambda work: work.rides.append(Ride(job, future)))
        return future

    def post(self, job: Callable[[Transaction], object]) -> None:
        """Run a job like `ride`; nobody waits, its failure is logged."""
        self._writer.submit(lambda work: work.rides.append(Ride(job)))

    async def flush(self) -> None:
        """Commit what is pending now."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writer.submit(lambda work: work.rides.append(Ride(_nothing, future, last=True)))
        self._writer.hurry()
        await future

    def hurry(self) -> None:
        """Have the next commit not wait for its tick."""
        self._writer.hurry()

    def gap(self, gap: Gap) -> None:
        """Record a hole with the next commit."""
        self._writer.submit(lambda work: work.gaps.append(gap))

    def run_ended(self, run: RunRecord) -> None:
        """Record a run with the next commit."""
        self._writer.submit(lambda work: work.runs.append(run))

    def next_run_id(self) -> int:
        number, self._run_id = self._run_id, self._run_id + 1
        return number

    def pin(self, upload_ids: Sequence[str]) -> None:
        """Say which uploads there are: retention spares what they have not acknowledged as long as it can.

        An upload that is new begins with what is still in blocks, not with the history; one that is gone is
        forgotten after a gap record of what it never got.
        """
        known = self._writer.uploads = tuple(upload_ids)
        self.post(lambda tx: outbox.keep_only(tx, known))

    def last(self, series: int) -> Sample | None:
        """Return the newest committed sample, from RAM."""
        return self._writer.newest.get(series)

    def _damaged(self, seqs: list[int], damage: list[Damage]) -> None:
        if seqs or damage:
            self._writer.submit(lambda work: work.note(seqs, damage))

    def state(self) -> StoreState:
        """Return how the store is now."""
        writer = self._writer
        return StoreState(
            bytes_used=writer.bytes_used,
            bytes_budget=writer.disk.room.budget_bytes,
            history_bytes=self._history.bytes_used,
            segments=len(self._history.segments),
            blocks=writer.blocks,
            oldest_seq=writer.oldest_seq,
            newest_seq=writer.next_seq - 1,
            pending_samples=writer.waiting(),
            pending_bytes=self.budget.used_bytes,
            refusing=writer.refusing,
            counters={name: getattr(writer.counters, name) for name in Counters.__slots__},
            last_commit_mono_ns=writer.last_commit_ns,
            wal_bytes=writer.disk.wal.bytes_used,
            disk=writer.disk.room.state,
            flash=writer.disk.flash.state(),
            salvaging=writer.mender.busy,
            tombstones=len(self._history.deleted),
        )


async def _until_the_disk_lets(
    step: Callable[[], None], clock: Clock, refuses: Callable[[str], None]
) -> None:
    told = ""
    while True:
        try:
            await asyncio.to_thread(step)
        except DiskRefuses as error:
            if str(error) != told:
                told = str(error)
                _log.error("%s; it is tried again each second", error)
            refuses(str(error))
            await clock.sleep(_RETRY_S)
        else:
            refuses("")
            return


def _nothing(_: Transaction) -> None:
    """Ride along only to learn of the commit."""


def _boot_id() -> UUID:
    try:
        return UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    except (OSError, ValueError):
        return UUID(int=0)
