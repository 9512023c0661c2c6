"""A Link that keeps in lists what a protocol hands over, and commits after a settable delay."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.model import Batch, Device, DeviceProblem, Flag, Hole, Receipt, Sample, Ticket
from gateway.protocols import opcua
from gateway.supervise import Backoff, Keeper, Supervisor


@dataclass
class RecordedRun:
    id: int
    kind: str
    samples: int = 0
    heard: int = 0
    problems: list[str] = field(default_factory=list)
    error: str = ""
    ended: bool = False

    def add(self, samples: int, _late_us: int = 0) -> None:
        self.samples += samples
        self.heard += 1

    def problem(self, sentence: str) -> None:
        self.problems.append(sentence)


class RecordingPolls:
    def __init__(self) -> None:
        self.asked: asyncio.Queue[int] = asyncio.Queue()

    async def next(self) -> int:
        return await self.asked.get()


class RecordingLink:
    def __init__(self, device: str, state: Path, *, commit_s: float = 0.0) -> None:
        self.device = device
        self.gateway_id = "test-gateway"
        self.clock = SystemClock()
        self.state = state
        self.polls = RecordingPolls()
        self.commit_s = commit_s
        self.names: dict[str, int] = {}
        self.units: dict[str, str] = {}
        self.emitted: list[Sample] = []
        self.committed: list[Sample] = []
        self.commit_walls: list[float] = []
        self.batches: list[tuple[float, int]] = []
        self.runs: list[RecordedRun] = []
        self.gaps: list[tuple[int, int, str, int | None]] = []
        self.reports: list[tuple[str, str]] = []
        self.controls: list[object] = []
        self.keeper: Keeper | None = None
        self.memory: dict[str, Any] = {}
        self.full = asyncio.Event()
        self.full.set()
        self._changed = asyncio.Condition()

    @property
    def tags(self) -> dict[str, int]:
        return dict(self.names)

    def tag(self, name: str, *, unit: str | None = "") -> int:
        self.units[name] = self.units.get(name, "") if unit is None else unit
        return self.names.setdefault(name, len(self.names) + 1)

    def last(self, series: int) -> Sample | None:
        return max((s for s in self.committed if s.series == series), key=lambda s: s.ts, default=None)

    def mending(self) -> AbstractContextManager[Hole | None]:
        return nullcontext()  # holes are the daemon's: tests/opcua/plant.py has the real ones

    def stamp(self) -> tuple[int, int]:
        return self.clock.wall_us(), Flag.OWN_TIME

    async def emit(self, batch: Batch) -> Ticket:
        await self.full.wait()
        ticket = Ticket()
        self.emitted.extend(batch)
        self.batches.append((asyncio.get_running_loop().time(), len(batch)))
        asyncio.get_running_loop().call_later(self.commit_s, self._commit, batch, ticket)
        return ticket

    def try_emit(self, batch: Batch) -> Ticket | None:
        raise NotImplementedError("OPC UA waits")

    def hurry(self) -> None:
        """Commit at the tick all the same: tests/push/test_push.py has a real store for this."""

    def _commit(self, batch: Batch, ticket: Ticket) -> None:
        self.committed.extend(batch)
        self.commit_walls.append(time.time())
        ticket.resolve(Receipt(len(batch), 0, 0))

    @asynccontextmanager
    async def run(self, kind: str, run_id: int | None = None) -> AsyncIterator[RecordedRun]:
        run = RecordedRun(run_id or len(self.runs) + 1000, kind)
        self.runs.append(run)
        try:
            yield run
        except Exception:
            run.error = traceback.format_exc()
            raise
        finally:
            run.ended = True

    def gap(self, from_us: int, to_us: int, reason: str, count: int | None = None) -> None:
        self.gaps.append((from_us, to_us, reason, count))

    def report(self, state: str, detail: str = "") -> None:
        self.reports.append((state, detail))
        if self.keeper is not None:
            self.keeper.report(state, detail)

    @contextmanager
    def offer(self, *controls: object) -> Iterator[None]:
        self.controls.extend(controls)
        try:
            yield
        finally:
            for control in controls:
                self.controls.remove(control)

    # -- what tests ask ------------------------------------------------------------------------

    def rows(self) -> set[tuple[str, int, Any]]:
        """Return what is committed as (tag, ts, value)."""
        names = {series: name for name, series in self.names.items()}
        return {(names[s.series], s.ts, s.value) for s in self.committed}

    @property
    def report_now(self) -> tuple[str, str]:
        """Return the state and the detail last told, empty before the first."""
        return self.reports[-1] if self.reports else ("", "")

    def newest(self) -> dict[str, Sample]:
        names = {series: name for name, series in self.names.items()}
        return {names[sample.series]: sample for sample in self.emitted}

    async def until(self, condition: Any, timeout: float = 8.0) -> None:
        """Wait until a condition holds, looking every 10 ms."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(
                f"not so within {timeout} s: {len(self.committed)} samples, reports {self.reports[-3:]}, "
                f"gaps {self.gaps[-3:]}"
            ) from None


def tags(nodes: dict[str, str], **extra: Any) -> dict[str, opcua.TagSettings]:
    return {name: opcua.TagSettings(node=node, **extra) for name, node in nodes.items()}


@asynccontextmanager
async def collecting(
    link: RecordingLink, settings: opcua.Settings, configured: dict[str, opcua.TagSettings] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Enter while the protocol runs once, unsupervised; a failure of it fails the test at the end."""
    where = {name: f"gateway.yaml:{line}" for line, name in enumerate(configured or {}, 10)}
    device = Device(link.device, configured or {}, where)
    task = asyncio.create_task(opcua.run(device, settings, link))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def supervised(
    link: RecordingLink, settings: opcua.Settings, configured: dict[str, opcua.TagSettings] | None = None
) -> AsyncIterator[Keeper]:
    """Enter while the protocol is kept running as in the daemon."""
    supervisor = Supervisor(link.clock)
    device = Device(link.device, configured or {})

    async def run(keeper: Keeper) -> None:
        link.keeper = keeper
        await opcua.run(device, settings, link)

    keeper = supervisor.keep(link.device, run, backoff=Backoff(0.2, 1.0))
    try:
        yield keeper
    finally:
        await keeper.stop()


async def failure(
    link: RecordingLink, settings: opcua.Settings, configured: dict[str, opcua.TagSettings] | None = None
) -> DeviceProblem:
    """Return the problem with which one attempt ends."""
    try:
        await opcua.run(Device(link.device, configured or {}), settings, link)
    except DeviceProblem as problem:
        return problem
    raise AssertionError("it ended without a problem")
