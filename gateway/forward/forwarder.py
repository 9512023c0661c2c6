"""One upload: its target, its two lanes, what is known of it, and its quarantine."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from gateway import uploaders
from gateway.clock import Clock
from gateway.forward.backlog import BacklogCounter
from gateway.forward.cuts import Limits
from gateway.forward.files import FileLane
from gateway.forward.gate import Gate
from gateway.forward.lane import Lane
from gateway.forward.lanes import BacklogLane, LiveLane
from gateway.forward.quarantine import Quarantine
from gateway.forward.status import Backlog, Counters, UploadStatus
from gateway.forward.upload import FileSource
from gateway.model import Encoding, Outlet, Quarantined, Refusal, Unit, UploadProblem
from gateway.redaction import without_query
from gateway.store import Store, outbox
from gateway.store.outbox import UnitRow
from gateway.supervise import Backoff, Health, Keeper

_log = logging.getLogger(__name__)
C = TypeVar("C")
_COUNT_S = 2.0
_BACKOFF = Backoff(first_s=0.5, cap_s=30.0)
_FILE_PATIENCE = 10
"""So many times longer waits a file that fails again and again: each attempt may send all of it."""
_LIVE_FIRST_S = 0.5


class Forwarder:
    """Takes units from the store to one target, for as long as it is kept running."""

    def __init__(
        self,
        upload: str,
        kind: str,
        settings: Any,
        store: Store,
        clock: Clock,
        gateway_id: str,
        backoff: Backoff = _BACKOFF,
        files: FileSource | None = None,
        lacking: str = "",
    ) -> None:
        self.upload, self.kind, self.gateway_id = upload, kind, gateway_id
        self.store, self.clock = store, clock
        self.gate = Gate(clock, backoff)
        self._live_gate, self._backlog_gate = Gate(clock, backoff), Gate(clock, backoff)
        self.counters = Counters()
        self._settings, self._lacking = settings, lacking
        self._module = uploaders.load(kind)
        self._keeper: Keeper | None = None
        self._outlet: Outlet | None = None
        self._lanes: tuple[Lane, ...] = ()
        self._turned_ns = clock.mono_ns()
        self._backlog = Backlog()
        self._last_error, self._last_error_us = "", None
        self._last_success_us: int | None = None
        self._quarantine = Quarantine(self)
        self.files: FileLane | None = None
        if files is not None and self._module.TAKES_FILES:
            gate = Gate(clock, Backoff(backoff.first_s, backoff.cap_s * _FILE_PATIENCE))
            self.files = FileLane(self, files, gate, automatic=settings.measurements)

    _last_error_us: int | None

    # What is known of it.

    @property
    def url(self) -> str:
        """Where its target is, as it may be shown."""
        return without_query(str(getattr(self._settings, "url", "")))

    @property
    def insecure(self) -> str:
        """A sentence where the way to the target is not secured, or ""."""
        said: str = self._module.insecure(self._settings)
        return said

    @property
    def health(self) -> Health:
        return self._keeper.health if self._keeper else Health()

    @property
    def turned_ns(self) -> int:
        """Last turn of the slower lane, monotonic: idling and back-off turn, a hung send does not."""
        units = min((lane.turned_ns for lane in self._lanes), default=self._turned_ns)
        return min(units, self.files.turned_ns) if self.files is not None else units

    @property
    def outlet(self) -> Outlet | None:
        """The open target."""
        return self._outlet

    @property
    def manage_url(self) -> str:
        """Where people look after the files at the target, or ""."""
        return str(getattr(self._settings, "manage_url", None) or "")

    def control(self, contract: type[C]) -> C | None:
        """Return what the open target offers under this contract of gateway.controls, if anything now."""
        offered = self._outlet.controls if self._outlet else ()
        return next((control for control in offered if isinstance(control, contract)), None)

    def status(self) -> UploadStatus:
        oldest = self._backlog.oldest_us
        return UploadStatus(
            state=self.health.state,
            last_error=self._last_error,
            last_error_us=self._last_error_us,
            last_success_us=self._last_success_us,
            lag_s=0.0 if oldest is None else max(0.0, (self.clock.wall_us() - oldest) / 1e6),
            backlog=self._backlog,
            lanes=tuple(lane.status() for lane in self._lanes),
            counters=self.counters,
            files=self.files.status if self.files is not None else None,
        )

    # Its run.

    async def run(self, keeper: Keeper) -> None:
        """Deliver until cancelled. Only a fault of ours ends it by itself."""
        self._keeper = keeper
        try:
            while True:
                await self.gate.wait(self._turn)
                try:
                    if self._lacking:
                        raise UploadProblem(self._lacking)
                    async with self._module.open(self.upload, self._settings, self.clock) as outlet:
                        self._outlet = outlet
                        self._report_running()
                        if self.files is not None:
                            self.files.wake()
                        try:
                            await self._deliver()
                        finally:
                            await self._close_files()
                except UploadProblem as problem:  # of opening: lanes keep theirs to themselves
                    self.gate.failed(problem)
                    self._note(problem)
        finally:
            self._outlet, self._lanes = None, ()
            self._turn()

    async def _close_files(self) -> None:
        self._outlet = None
        if self.files is not None:
            await self.files.close()

    async def live_first(self) -> None:
        """Wait while live samples are being sent, but not for long: a file has to arrive as well."""
        quiet = next((lane.quiet for lane in self._lanes if isinstance(lane, LiveLane)), None)
        if quiet is not None and self.gate.is_open and self._live_gate.is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LIVE_FIRST_S):
                    await quiet.wait()

    async def _deliver(self) -> None:
        limits = Limits(self._settings.gather_bytes)
        live = LiveLane(self, limits, self._live_gate, self._settings.gather_s)
        backlog = BacklogLane(self, limits, self._backlog_gate, live)
        self._lanes = (live,)  # it alone turns over while the disk refuses
        # Not a read: what an earlier run of this upload left to the writer comes before it.
        flying = {row.lane: row for row in await live.ride(lambda tx: outbox.units(tx.conn, self.upload))}
        backlog.turn()
        self._lanes = live, backlog
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run(flying.get(lane.name)), name=f"upload {self.upload} {lane.name}")
            group.create_task(self._count(), name=f"upload {self.upload} backlog count")

    def _turn(self) -> None:
        self._turned_ns = self.clock.mono_ns()

    async def _count(self) -> None:
        counter = BacklogCounter(self.upload)
        while True:
            newest = self.store.state().newest_seq
            counted, whole = await self.store.read(functools.partial(counter.count, newest_seq=newest))
            if whole:
                self._backlog = counted
            await self.clock.sleep(_COUNT_S if whole else _COUNT_S / 20)

    # What the lanes need.

    @property
    def encoding(self) -> Encoding:
        return self._module.encoding(self._settings)

    def key(self, row: UnitRow) -> str:
        return f"{self.origin}/{row.from_seq}-{row.to_seq}"

    @property
    def origin(self) -> str:
        return f"{self.gateway_id}/{self.store.epoch}/{self.upload}"

    async def send(self, unit: Unit) -> Sequence[Refusal]:
        """Hand a unit to the target. UploadProblem: it is not open now, or it says so."""
        if self._outlet is None:
            raise UploadProblem(f"upload {self.upload} is not running; its last error: {self._last_error}")
        return await self._outlet.send(unit)

    def failed(self, problem: UploadProblem) -> None:
        """Take note of a failure of a lane: everything is kept, and tried again when its gate opens."""
        if problem.retry_after_s is not None:
            self.gate.failed(problem)
        self._note(problem)

    def _note(self, problem: UploadProblem) -> None:
        self.counters.failures += 1
        self._last_error, self._last_error_us = str(problem), self.clock.wall_us()
        if self._keeper is not None:
            self._keeper.report("failed", str(problem))

    def accepted(self, unit: Unit, refused: Sequence[Refusal], stored_bytes: int) -> None:
        """Take note of a unit that the target has taken, but the refused samples."""
        self.counters.units += 1
        self.counters.samples += len(unit.samples) - len(refused)
        self.counters.refused += len(refused)
        self.counters.bytes += stored_bytes
        self._last_success_us = self.clock.wall_us()
        self.gate.passed()
        self._report_running()
        if refused:
            _log.warning(
                "upload %s: the target refused %d samples for good, they are in quarantine; the first: %s",
                self.upload, len(refused), refused[0].reason,
            )  # fmt: skip

    def _report_running(self) -> None:
        """Say that it runs, unless something of it fails."""
        failing = any(gate.failures for gate in (self.gate, self._live_gate, self._backlog_gate))
        if self._keeper is not None and not failing:
            self._keeper.report("running")

    # Its quarantine.

    async def quarantine(self, *, before_id: int | None = None, limit: int = 100) -> Sequence[Quarantined]:
        """List what the target refused for good, newest first."""
        return await self._quarantine.list(before_id, limit)

    async def replay(self, ids: Sequence[int] | None) -> int:
        """Send refused samples again (None: all), oldest first; return how many the target took this time."""
        return await self._quarantine.replay(ids)

    async def discard(self, ids: Sequence[int] | None) -> int:
        """Forget refused samples (None: all); return how many."""
        return await self._quarantine.discard(ids)
