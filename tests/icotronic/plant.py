"""The simulated bus beside the protocol in one process, over python-can's virtual bus."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from gateway.controls.sensor_nodes import Recording, SensorNodes, Stream, StreamFrames
from gateway.demo.bus.bus import SimulatedBus
from gateway.demo.bus.faults import Faults
from gateway.demo.bus.frames import Timed
from gateway.demo.bus.signals import count
from gateway.demo.bus.stu import Stu
from gateway.demo.bus.virtual import attached
from gateway.model import Batch, Device, Ticket
from gateway.protocols import icotronic
from gateway.supervise import Backoff, Keeper, Supervisor
from tests.opcua.recording import RecordingLink

SPINDLE, CHUCK, OLD_TOOL = "Spindle", "Chuck", "OldTool"
MAC_OF = {SPINDLE: "08-6B-D7-01-DE-81", CHUCK: "08-6B-D7-01-DE-82", OLD_TOOL: "08-6B-D7-01-DE-83"}
MASKS = [(bool(n & 4), bool(n & 2), bool(n & 1)) for n in range(1, 8)]


class Link(RecordingLink):
    """Drops while its budget is full, as the gateway's does."""

    def try_emit(self, batch: Batch) -> Ticket | None:
        if not self.full.is_set():
            return None
        ticket = Ticket()
        self.emitted.extend(batch)
        asyncio.get_running_loop().call_later(self.commit_s, self._commit, batch, ticket)
        return ticket


@dataclass
class Plant:
    """A simulated bus with an STU, and its virtual channel."""

    stu: Stu
    bus: SimulatedBus
    channel: str

    def settings(self, **others: Any) -> icotronic.Settings:
        return icotronic.Settings(interface="virtual", channel=self.channel, **others)

    def node(self, name: str) -> Any:
        return next(node for node in self.stu.nodes if node.name == name.encode())

    def asked(self, block: int, command: int) -> list[bytes]:
        """Return the payloads of the requests of a command that the STU heard."""
        what = block << 8 | command
        return [data for _, can_id, data in self.stu.heard if (can_id >> 14 & 0x3FFF) == what]

    @property
    def streaming(self) -> list[str]:
        return [node.name.decode() for node in self.stu.nodes if node.streams is not None]


@asynccontextmanager
async def plant() -> AsyncIterator[Plant]:
    """Enter a plant of its own."""
    stu = Stu(faults=Faults(find_s=0.03, connect_s=0.05))
    bus, channel = SimulatedBus([stu]), f"test-{secrets.token_hex(8)}"
    async with attached(bus, channel):
        passing = asyncio.create_task(bus.run())
        try:
            yield Plant(stu, bus, channel)
        finally:
            passing.cancel()
            with suppress(asyncio.CancelledError):
                await passing


@asynccontextmanager
async def collecting(
    link: Link, settings: icotronic.Settings, tags: dict[str, icotronic.TagSettings] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Enter while the protocol runs once; a failure of it fails the test at the end."""
    task = asyncio.create_task(icotronic.run(Device(link.device, tags or {}), settings, link))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def supervised(link: Link, settings: icotronic.Settings) -> AsyncIterator[Keeper]:
    """Enter while the protocol is kept running as in the daemon."""

    async def run(keeper: Keeper) -> None:
        link.keeper = keeper
        await icotronic.run(Device(link.device), settings, link)

    keeper = Supervisor(link.clock).keep(link.device, run, backoff=Backoff(0.05, 0.1))
    try:
        yield keeper
    finally:
        await keeper.stop()


async def nodes(link: Link) -> SensorNodes:
    """Return the control once it is offered."""
    await link.until(lambda: link.controls)
    control = link.controls[0]
    assert isinstance(control, SensorNodes)
    return control


def recording(control: SensorNodes) -> Recording:
    assert isinstance(control, Recording)
    return control


async def take(stream: Stream, frames: int) -> StreamFrames:
    """Return at least so many frames of a stream as one."""
    whole: StreamFrames | None = None
    async for part in stream:
        if whole is None:
            whole = part
        else:
            whole.ts += part.ts
            whole.counters += part.counters
            whole.counts += part.counts
            whole.lost += part.lost
        if len(whole) >= frames:
            return whole
    raise AssertionError("a stream ends with an error only")


def expected(channels: Sequence[bool], sensors: Sequence[int], numbers: Sequence[int]) -> list[int]:
    """Return the counts that frames of these numbers have to hold."""
    active = [sensor for sensor, yes in zip(sensors, channels, strict=True) if yes]
    sets = 3 if len(active) == 1 else 1
    return [count(sensor, n * sets + k) for n in numbers for k in range(sets) for sensor in active]


class Foreign(list[Timed]):
    """Something else on the bus that keeps what it hears."""

    def __call__(self, frames: Sequence[Timed], _wall_us: int) -> None:
        self.extend(frames)


class Stopwatch:
    """Counts time as the event loop has it: on a machine that is late everywhere, this is late too."""

    _TICK_S = 0.05

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __aenter__(self) -> "Stopwatch":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._TICK_S)
            self.seconds += self._TICK_S
