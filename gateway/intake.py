"""From the devices' sessions into the store: the Link that each protocol is handed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gateway.clock import Clock
from gateway.controls.devices import Channel, NotPollable
from gateway.model import Batch, BatchListener, Gap, RunRecord, Sample, Ticket
from gateway.own_time import OwnTime
from gateway.run_problems import Problems, Told, trace
from gateway.store import Store
from gateway.supervise import Health, Keeper, describe

C = TypeVar("C")
RUNNING = "running"
"""Status of a run that has not ended; after a power cut, of one that never did."""
_TELL_NS = 10_000_000_000
_ROW_NS = 60_000_000_000  # a row of a subscription's run covers at most a minute
# What the device had from us last was put together a little before it arrived: the hole begins there.
_UNDER_WAY_US = 250_000
_SUBSCRIPTION = "subscription"
_WITHOUT_GAPS = ("poll", "push", "connect", "backfill")


class PollGate:
    """Requests for polls out of cycle; while one is pending or running the next ones join it."""

    def __init__(self, next_run_id: Callable[[], int]) -> None:
        self._next_run_id = next_run_id
        self._asked = asyncio.Event()
        self._open = False
        self._run_id = 0
        self._ended: asyncio.Future[RunRecord] | None = None

    def request(self) -> tuple[int, asyncio.Future[RunRecord]]:
        """Ask for a poll; return its run id and the future of its record. NotPollable: nobody listens."""
        if self._ended is None:
            if not self._open:
                raise NotPollable("the device is not connected, or its protocol cannot be polled")
            self._run_id = self._next_run_id()
            self._ended = asyncio.get_running_loop().create_future()
            self._asked.set()
        return self._run_id, self._ended

    async def next(self) -> int:
        self._open = True
        await self._asked.wait()
        self._asked.clear()
        return self._run_id

    def finished(self, record: RunRecord) -> None:
        if self._ended is not None and record.id == self._run_id:
            if not self._ended.done():
                self._ended.set_result(record)
            self._ended = None

    def close(self, reason: str) -> None:
        """The session ended: a poll that waits is told so."""
        self._open = False
        self._asked.clear()
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(NotPollable(f"the session ended before the poll did: {reason}"))
            self._ended.exception()  # nobody has to wait for a poll
        self._ended = None


class _Run:
    """A run in progress, cut into rows by the session where it is a long one."""

    def __init__(self, session: "DeviceSession", kind: str, run_id: int | None) -> None:
        self._session = session
        self._kind = kind
        self._begin(run_id)

    def _begin(self, run_id: int | None = None) -> None:
        self.id = self._session.store.next_run_id() if run_id is None else run_id
        self._start_us = self._session.clock.wall_us()
        self._start_ns = self._heard_ns = self._session.clock.mono_ns()
        self._told_ns: int | None = None
        self._samples = 0
        self._problems = Problems()

    def add(self, samples: int, late_us: int = 0) -> None:
        self._samples += samples
        self._session.heard(self._kind, late_us)
        now = self._session.clock.mono_ns()
        self._heard_ns = max(now - 1000 * late_us, self._start_ns)
        if self._session.held is not None:
            # A power cut must find the row before the hole: what was missed in it is not fetched yet.
            return
        if now - self._start_ns >= _ROW_NS:
            self.end("", "")
            self._begin()
        elif self._kind == _SUBSCRIPTION and (self._told_ns is None or now - self._told_ns >= _TELL_NS):
            # A power cut leaves this row: until when the device was heard, for the gap of the next start.
            self._told_ns = now
            self._record(RUNNING)

    def problem(self, sentence: str) -> None:
        self._problems.add(sentence)

    def end(self, error: str, gist: str) -> RunRecord:
        return self._record("error" if error else "partial" if self._problems else "ok", error, gist)

    def _record(self, status: str, error: str = "", gist: str = "") -> RunRecord:
        """Write the row over an earlier one, return it in full. A subscription lasts until last heard."""
        until_ns = self._heard_ns if self._kind == _SUBSCRIPTION else self._session.clock.mono_ns()
        record = RunRecord(
            id=self.id,
            device=self._session.id,
            kind=self._kind,
            start_us=self._start_us,
            duration_us=(until_ns - self._start_ns) // 1000,
            samples=self._samples,
            status=status,
            error=error or self._problems.text or None,
        )
        self._session.write(record, gist or self._problems.first)
        return record


class _HeldHole:
    """A hole whose record waits until the protocol has fetched what it can (model.Hole)."""

    def __init__(self, session: "DeviceSession", since_us: int, reason: str) -> None:
        self.since_us, self.reason = since_us, reason
        self.window: tuple[int, int] | None = None
        """From when to when it was, once the device is heard again."""
        self._session = session

    def close(self, left: str = "") -> None:
        if self._session.held is self:
            self._session.release(left)


class DeviceSession:
    """One device for as long as it is configured: the Link of its protocol, and what the API sees of it."""

    def __init__(
        self,
        device: str,
        kind: str,
        *,
        store: Store,
        clock: Clock,
        own_time: OwnTime,
        state: Path,
        gateway_id: str,
        listeners: list[BatchListener],
        url: str = "",
        tags: Collection[str] = (),
    ) -> None:
        """`tags`: those configured; they are shown also where nothing is kept of them."""
        self._configured = frozenset(tags)
        self.id = self.device = device
        self.kind = kind
        self.url = url
        self.store = store
        self.clock = clock
        self.state = state
        self.gateway_id = gateway_id
        self.keeper: Keeper | None = None
        self.last_heard_us: int | None = None
        self.polls = PollGate(store.next_run_id)
        self.stamp = own_time
        self.memory: dict[str, Any] = {}
        self._listeners = listeners
        self._controls: list[object] = []
        self.hole: tuple[int, str] | None = None
        """Since when (wall, microseconds) and why nothing is heard, where the device was heard before."""
        self._collected_us: int | None = None
        """Until when all of its acquisition came; a poll out of cycle and the like say nothing of that."""
        self._collected_ns: int | None = None
        """The same, monotonic; None: in an earlier life."""
        self._subscriptions = 0
        """Runs of subscriptions under way: what is read beside them says nothing of them."""
        self._hole_ns = 0
        self.held: _HeldHole | None = None
        self._attempt_us, self._attempt_ns = 0, 0
        self._runs = 0
        self._last_failure: tuple[str, int] = ("", 0)
        self._told = Told()

    # -- the Link ------------------------------------------------------------------------------

    def tag(self, name: str, *, unit: str | None = "") -> int:
        return self.store.series(self.id, name, unit)

    def last(self, series: int) -> Sample | None:
        return self.store.last(series)

    async def emit(self, batch: Batch) -> Ticket:
        self._tell(batch)
        return await self.store.put(batch)

    def try_emit(self, batch: Batch) -> Ticket | None:
        ticket = self.store.try_put(batch)
        if ticket is not None:
            self._tell(batch)
        return ticket

    def hurry(self) -> None:
        self.store.hurry()

    def run(self, kind: str, run_id: int | None = None) -> AbstractAsyncContextManager[_Run]:
        return self._run(kind, run_id)

    def gap(self, from_us: int, to_us: int, reason: str, count: int | None = None) -> None:
        self.store.gap(Gap(from_us, max(from_us, to_us), reason, device=self.id, count=count))

    @contextlib.contextmanager
    def mending(self) -> Iterator[_HeldHole | None]:
        self.held = held = _HeldHole(self, *self.hole) if self.hole is not None else None
        try:
            yield held
        finally:
            if held is not None and self.held is held:
                if held.window is not None:
                    self.release(held.reason)
                self.held = None

    def report(self, state: str, detail: str = "") -> None:
        if self.keeper is not None:
            self.keeper.report(state, detail)

    def offer(self, *controls: object) -> AbstractContextManager[None]:
        return self._offer(controls)

    # -- what the API sees ---------------------------------------------------------------------

    @property
    def health(self) -> Health:
        return self.keeper.health if self.keeper is not None else Health()

    @property
    def insecure(self) -> str:
        """A sentence where the live session is not secured, or ""."""
        channel = self.control(Channel)
        return channel.insecure if channel is not None else ""

    @property
    def tags(self) -> dict[str, int]:
        return self.store.series_of(self.id, self._configured)

    def control(self, contract: type[C]) -> C | None:
        """Return what the live session offers of that contract (gateway.controls), or None."""
        return next((c for c in self._controls if isinstance(c, contract)), None)

    async def poll(self) -> tuple[int, asyncio.Future[RunRecord]]:
        """Ask for a poll out of cycle, or join the one under way."""
        return self.polls.request()

    # -- the daemon's side -----------------------------------------------------------------------

    def heard(self, kind: str, late_us: int = 0) -> None:
        """A run of that kind had a sign of life; data or a keep-alive of its acquisition also ends a hole."""
        self.last_heard_us = self.clock.wall_us() - late_us
        if kind in _WITHOUT_GAPS or (self._subscriptions and kind != _SUBSCRIPTION):
            return
        if self.hole is not None:
            if self.held is None:
                since_us, reason = self.hole
                self._close_hole(self._window(since_us), reason)
            elif self.held.window is None:
                self.held.window = self._window(self.held.since_us)
        self._collected_us = self.last_heard_us
        self._collected_ns = self.clock.mono_ns() - 1000 * late_us

    def was_heard(self, until_us: int, why_not_since: str) -> None:
        """Take over from before: the device was heard until then, and why it was not since."""
        self.last_heard_us = self._collected_us = until_us
        self._collected_ns = None
        self.lost(why_not_since)

    def follow(self, before: "DeviceSession", why_not_since: str) -> None:
        """Take over from the session before a change of the configuration."""
        self.last_heard_us, self._collected_us = before.last_heard_us, before._collected_us
        self.lost(why_not_since)

    async def take_over(self) -> None:
        """Take over from the gateway's earlier lives: since when the device was not heard."""
        last = await self.store.last_collected(self.id)
        if last is None:
            return
        if last.status == RUNNING:
            ended = "the gateway ended in the middle of this run (killed, or the power went)"
            self.store.run_ended(replace(last, status="error", error=ended))
        self.was_heard(last.start_us + last.duration_us, "the gateway was not running")

    def lost(self, reason: str) -> None:
        """The session ended: tell those who wait, and begin a hole at the last sign of life."""
        self.polls.close(reason)
        if self.hole is None and self._collected_us is not None and self.kind not in _WITHOUT_GAPS:
            self.hole = (self._collected_us - _UNDER_WAY_US, reason)
            self._hole_ns = self.clock.mono_ns()

    def attempt_began(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._attempt_us, self._attempt_ns = self.clock.wall_us(), self.clock.mono_ns()
        self._runs = 0

    def attempt_ended(self, error: BaseException) -> None:
        """The protocol's run ended: begin a hole; record an attempt that ended before any run began.

        The same failure is recorded once a minute: a PLC that is off over the weekend is no news each 10 s.
        """
        reason = "stopped" if isinstance(error, asyncio.CancelledError) else describe(error)
        self.lost(reason)
        now = self.clock.mono_ns()
        told, told_ns = self._last_failure
        if self._runs or reason == "stopped" or (reason == told and now - told_ns < _ROW_NS):
            return
        self._last_failure = (reason, now)
        record = RunRecord(
            id=self.store.next_run_id(),
            device=self.id,
            kind="connect",
            start_us=self._attempt_us,
            duration_us=(now - self._attempt_ns) // 1000,
            samples=0,
            status="error",
            error=trace(error),
        )
        self.write(record, reason)

    def write(self, record: RunRecord, gist: str) -> None:
        """Have the row of a run written; `gist`: its error in one line."""
        text = self._told.words(record.error or "", gist, record.id, self.clock.mono_ns())
        self.store.run_ended(replace(record, error=text or None))

    # -- inner -------------------------------------------------------------------------------

    def _tell(self, batch: Batch) -> None:
        for listener in self._listeners:
            listener(self.id, batch)

    def release(self, left: str) -> None:
        """End the hole that is held back, with a record where something is `left` missing."""
        held, self.held = self.held, None
        if held is not None:
            self._close_hole(held.window or self._window(held.since_us), left)

    def _window(self, since_us: int) -> tuple[int, int]:
        """Return from when to when the hole is that ends now."""
        now_us, now_ns = self.clock.wall_us(), self.clock.mono_ns()
        if self._collected_ns is not None:
            # A clock that was set in between makes the hole no longer nor shorter.
            since_us = now_us - (now_ns - self._collected_ns) // 1000 - _UNDER_WAY_US
        return since_us, max(now_us, since_us + (now_ns - self._hole_ns) // 1000)

    def _close_hole(self, window: tuple[int, int], reason: str) -> None:
        if reason:
            self.gap(*window, reason)
        self.hole = None

    @contextlib.asynccontextmanager
    async def _run(self, kind: str, run_id: int | None) -> AsyncIterator[_Run]:
        self._runs += 1
        self._subscriptions += kind == _SUBSCRIPTION
        run = _Run(self, kind, run_id)
        error = gist = ""
        try:
            yield run
        except asyncio.CancelledError:
            raise
        except BaseException as raised:
            error, gist = trace(raised), describe(raised)
            if kind not in _WITHOUT_GAPS:
                self.lost(gist)
            raise
        finally:
            self._subscriptions -= kind == _SUBSCRIPTION
            self.polls.finished(run.end(error, gist))

    @contextlib.contextmanager
    def _offer(self, controls: tuple[object, ...]) -> Iterator[None]:
        self._controls.extend(controls)
        try:
            yield
        finally:
            for control in controls:
                self._controls.remove(control)
