"""The store as the rest of the gateway sees it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from gateway.clock import Clock
from gateway.model import Batch, Gap, Receipt, RunRecord, Sample, SeriesInfo, Ticket
from gateway.store import outbox, reader
from gateway.store.budget import MemoryBudget
from gateway.store.commit import Counters, Intake, Ride, Work
from gateway.store.hotfile import HotFile
from gateway.store.outbox import Transaction
from gateway.store.reader import Bucket, Cursor, Readers
from gateway.store.series import SeriesTable
from gateway.store.settings import StoreSettings
from gateway.store.values import batch_bytes, row_problem
from gateway.store.writer import Writer

T = TypeVar("T")

_CLOSE_S = 5.0
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class StoreState:
    """How the store is, for /v1/state and /metrics."""

    bytes_used: int
    bytes_budget: int
    blocks: int
    oldest_seq: int
    newest_seq: int
    pending_samples: int
    pending_bytes: int
    refusing: str
    """A sentence while the disk refuses; nothing is acknowledged then."""
    counters: dict[str, int]
    last_commit_mono_ns: int


class Store:
    """One directory: one writer thread with the only connection that writes, and read-only readers."""

    def __init__(self, folder: Path, settings: StoreSettings, clock: Clock) -> None:
        """Use `Store.open`."""
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._series = SeriesTable()
        self._hot = HotFile(folder)
        self.budget = MemoryBudget(settings.memory_bytes)
        self.boot = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, settings: StoreSettings, clock: Clock) -> AsyncIterator["Store"]:
        """Open the store in `folder`, made where it is missing. StoreProblem: locked, unusable or too new."""
        store = cls(folder, settings, clock)
        await asyncio.to_thread(store._hot.lock)
        try:
            boot = await asyncio.to_thread(_boot_id)
            store.boot = str(boot)
            store._writer = Writer(store._hot, settings, clock, store._series, store.budget, boot.bytes)
            await asyncio.to_thread(store._writer.load)
            store._run_id = store._writer.next_run_id
            store._readers = Readers(store._hot.path, lambda: store._writer.generation)
            store._writer.start()
            try:
                yield store
            finally:
                await store._close()
        finally:
            store._hot.unlock()

    _writer: Writer
    _readers: Readers
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

    def series(self, device: str, tag: str, unit: str = "") -> int:
        """Return the series of a tag, made on first use; another unit counts from the next commit on."""
        number = self._series.get(device, tag, unit)
        if self._series.unsaved:
            rows, self._series.unsaved = self._series.unsaved, []
            self._writer.submit(lambda work: work.series.extend(rows))
        return number

    def find_series(self, device: str, tag: str) -> int | None:
        return self._series.find(device, tag)

    def series_of(self, device: str) -> dict[str, int]:
        """Return tag to series, also of tags no longer configured."""
        return self._series.of(device)

    def info(self, series: int) -> SeriesInfo:
        return self._series.info(series)

    # Intake.

    async def put(self, batch: Batch) -> Ticket:
        """Take a batch for the next commit; waits only while the memory budget is full."""
        batch, size = self._checked(batch)
        if not self.budget.try_take(size):
            self._writer.hurry()
            await self.budget.take(size)
        return self._accept(batch, size)

    def try_put(self, batch: Batch) -> Ticket | None:
        """Take a batch, or None where the memory budget is full."""
        batch, size = self._checked(batch)
        if not self.budget.try_take(size):
            self._writer.hurry()
            return None
        return self._accept(batch, size)

    def _accept(self, batch: Batch, size: int) -> Ticket:
        ticket = Ticket()
        if not len(batch):
            self.budget.give(size)
            ticket.resolve(Receipt(0, 0, 0))
            return ticket

        def add(work: Work) -> None:
            work.intakes.append(Intake(batch, ticket, size))
            work.samples += len(batch)

        self._writer.submit(add)
        return ticket

    def _checked(self, batch: Batch) -> tuple[Batch, int]:
        """Return what of a batch can be stored, and its bytes; the rest becomes gap records."""
        try:
            return batch, batch_bytes(batch)
        except (ValueError, OverflowError, TypeError):
            pass
        fit = Batch()
        for row in zip(*batch.columns(), strict=True):
            if (problem := row_problem(*row)) is None:
                fit.add(*row)
            else:
                self._refuse(row[0], problem)
        return fit, batch_bytes(fit)

    def _refuse(self, series: object, problem: str) -> None:
        known = isinstance(series, int) and series in self._series
        device, tag, _ = self._series.info(series) if known else ("", f"series {series}", "")  # type: ignore[arg-type]
        now = self._clock.wall_us()
        self._writer.counters.refused += 1
        reason = f"tag {tag} of {device or 'an unknown device'}: a sample was not stored: {problem}"

        def add(work: Work) -> None:
            start, _, count = work.refused.get((device, reason), (now, now, 0))
            work.refused[device, reason] = start, now, count + 1

        self._writer.submit(add)

    # Rows that ride on the group commit.

    async def ride(self, job: Callable[[Transaction], T]) -> T:
        """Run a job inside the next group commit, after its block, in a savepoint; returns after COMMIT.

        Raises what the job raised; NotStored where the store closes while the disk refuses. A job may
        run again where a commit failed: it must not change anything but the transaction.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writer.submit(lambda work: work.rides.append(Ride(job, future)))
        result: T = await future
        return result

    def post(self, job: Callable[[Transaction], object]) -> None:
        """Run a job like `ride`; nobody waits, its failure is logged."""
        self._writer.submit(lambda work: work.rides.append(Ride(job, None)))

    async def flush(self) -> None:
        """Commit what is pending now."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writer.submit(lambda work: work.rides.append(Ride(lambda _: None, future)))
        self._writer.hurry()
        await future

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

        An upload that is new begins with all that the store has; one that is gone is forgotten after a
        gap record of what it never got.
        """
        known = tuple(upload_ids)
        self.post(lambda tx: outbox.keep_only(tx, known))

    # Reads.

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a short query on a reader thread, on a connection that can only read."""
        return await self._readers.read(query)

    async def samples(
        self,
        series: Sequence[int],
        from_us: int,
        to_us: int,
        *,
        after: Cursor | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Batch]:
        """Yield committed samples of the window (ends included) in (ts, series) order, some thousands at a time."""
        left, done = limit if limit is not None else 2**62, False
        while not done and left > 0:
            bad: list[int] = []
            rows, cursor = min(left, _ROWS), after
            batch, done = await self.read(
                lambda conn, cursor=cursor, rows=rows, bad=bad: reader.window(  # type: ignore[misc]
                    conn, series, from_us, to_us, cursor, rows, bad
                )
            )
            self._damaged(bad)
            if len(batch) > left:
                batch = Batch(*(column[:left] for column in batch.columns()))  # type: ignore[arg-type]
            left -= len(batch)
            for start in range(0, len(batch), _ROWS):
                part = slice(start, start + _ROWS)
                yield Batch(*(column[part] for column in batch.columns()))  # type: ignore[arg-type]
            if len(batch):
                after = batch.ts[-1], batch.series[-1]

    async def buckets(self, series: Sequence[int], from_us: int, to_us: int, width_us: int) -> list[Bucket]:
        """Return min, max, avg, count per series and bucket, in (start, series) order.

        Buckets begin at multiples of `width_us`; those without numbers are left out.
        """
        folded: dict[tuple[int, int], list[float]] = {}
        after: Cursor | None = None
        done = False
        while not done:
            bad: list[int] = []

            def step(
                conn: sqlite3.Connection, after: Cursor | None = after, bad: list[int] = bad
            ) -> tuple[Cursor | None, bool]:
                batch, done = reader.window(conn, series, from_us, to_us, after, 8 * _ROWS, bad)
                reader.fold(folded, batch, width_us)
                return ((batch.ts[-1], batch.series[-1]) if len(batch) else after), done

            after, done = await self.read(step)
            self._damaged(bad)
        return await self.read(lambda _: reader.finished(folded))

    def last(self, series: int) -> Sample | None:
        """Return the newest committed sample, from RAM."""
        return self._writer.newest.get(series)

    async def runs(
        self,
        *,
        device: str | None = None,
        status: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return runs that touch the window, newest first."""
        where = _conditions(
            {"device = ?": device, "status = ?": status, "start_us + duration_us >= ?": from_us,
             "start_us <= ?": to_us, "id < ?": before_id}
        )  # fmt: skip
        return await self.read(lambda conn: reader.runs(conn, where, limit))

    async def gaps(
        self,
        *,
        device: str | None = None,
        upload: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[tuple[int, Gap]]:
        """Return (id, gap) that touch the window, newest first."""
        where = _conditions(
            {"device = ?": device, "upload = ?": upload, "to_us >= ?": from_us,
             "from_us <= ?": to_us, "id < ?": before_id}
        )  # fmt: skip
        return await self.read(lambda conn: reader.gaps(conn, where, limit))

    async def last_run(self, device: str) -> RunRecord | None:
        found = await self.runs(device=device, limit=1)
        return found[0] if found else None

    # For the forwarder.

    async def unit_samples(self, from_seq: int, to_seq: int) -> Batch:
        """Return the samples of these blocks in arrival order."""
        bad: list[int] = []
        batch = await self.read(lambda conn: reader.unit_samples(conn, from_seq, to_seq, bad))
        self._damaged(bad)
        return batch

    async def unit_gaps(self, from_seq: int, to_seq: int) -> list[Gap]:
        """Return the gaps recorded with these blocks."""
        return await self.read(lambda conn: reader.unit_gaps(conn, from_seq, to_seq))

    async def unit_infos(self, series: Iterable[int], at_seq: int) -> dict[int, SeriesInfo]:
        """Return names and units of measure as valid at a block."""
        numbers = list(series)
        return await self.read(lambda conn: reader.unit_infos(conn, numbers, at_seq))

    def _damaged(self, seqs: list[int]) -> None:
        if seqs:
            self._writer.submit(lambda work: work.bad.extend(seqs))

    def state(self) -> StoreState:
        """Return how the store is now."""
        writer = self._writer
        return StoreState(
            bytes_used=writer.bytes_used,
            bytes_budget=self._settings.max_bytes,
            blocks=writer.blocks,
            oldest_seq=writer.oldest_seq,
            newest_seq=writer.next_seq - 1,
            pending_samples=writer.waiting()[0],
            pending_bytes=self.budget.used_bytes,
            refusing=writer.refusing,
            counters={name: getattr(writer.counters, name) for name in Counters.__slots__},
            last_commit_mono_ns=writer.last_commit_ns,
        )


def _conditions(wanted: dict[str, object]) -> dict[str, object]:
    return {condition: value for condition, value in wanted.items() if value is not None}


def _boot_id() -> UUID:
    try:
        return UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    except (OSError, ValueError):
        return UUID(int=0)
