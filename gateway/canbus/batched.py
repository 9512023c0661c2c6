"""What every bus has in common: frames are fetched in batches, and the bus is looked after meanwhile."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass

from gateway.canbus.frames import BusHealth, Frames
from gateway.canbus.load import LoadMeter
from gateway.canbus.problems import BusProblem
from gateway.canbus.settings import Settings
from gateway.canbus.stamping import Stamp, Stamping
from gateway.clock import Clock

_TEND_NS = 500_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a bus is opened with (see `opened`)."""

    settings: Settings
    device: str
    clock: Clock
    filters: tuple[tuple[int, int], ...]
    batch_ms: int
    stamp: Stamp | None

    @property
    def name(self) -> str:
        """How the bus is called in sentences."""
        settings = self.settings
        interface = "" if settings.interface == "socketcan" else f"{settings.interface} "
        return f"device {self.device}: {interface}{settings.channel}"


class BatchedBus(ABC):
    """An open bus."""

    def __init__(self, opening: Opening) -> None:
        self.health = BusHealth()
        self.name = opening.name
        self._clock = opening.clock
        self._batch_s = opening.batch_ms / 1000
        self._stamping = Stamping(opening.clock, opening.stamp)
        self._load = LoadMeter(opening.settings.bitrate, opening.settings.data_bitrate)
        self._arrived = asyncio.Event()
        """Set from elsewhere when there is something to fetch."""
        self._problem: BusProblem | None = None
        """Why the bus is lost; raised once the frames that are there were fetched."""
        self._over = False
        """They were."""
        self._fetched_ns = 0
        self._tended_ns = opening.clock.mono_ns()

    async def receive(self) -> Frames:
        """Wait for frames and return all that are there. BusProblem: the bus is lost."""
        while not self._over:
            wait_s = self._batch_s - (self._clock.mono_ns() - self._fetched_ns) / 1e9
            if wait_s > 0:
                await self._clock.sleep(wait_s)
            self._tended()
            frames = self._fetch()
            if frames:
                self._fetched_ns = self._clock.mono_ns()
                self.health.frames += len(frames)
                self._load.seen(frames)
                self._over = self._problem is not None  # a busy bus always has more
                return frames
            self._over = self._problem is not None
            if not self._over:
                await self._wait(_TEND_NS / 1e9)
        assert self._problem is not None
        raise self._problem

    @abstractmethod
    async def send(self, can_id: int, data: bytes) -> None:
        """Send a frame. BusProblem: it cannot be."""

    @abstractmethod
    def _fetch(self) -> Frames:
        """Return what is there, nothing too."""

    async def _wait(self, timeout_s: float) -> None:
        """Wait until there is something to fetch, or for so long."""
        if not self._arrived.is_set():
            handle = asyncio.get_running_loop().call_later(timeout_s, self._arrived.set)
            await self._arrived.wait()
            handle.cancel()
        self._arrived.clear()

    def _tended(self) -> None:
        now_ns = self._clock.mono_ns()
        elapsed_ns = now_ns - self._tended_ns
        if elapsed_ns >= _TEND_NS:
            self._tended_ns = now_ns
            self._tend()
            self.health.load_percent = self._load.percent(elapsed_ns / 1e9)

    def _tend(self) -> None:  # noqa: B027  # not every bus has something to look after
        """Begin to look after the bus, twice a second; what takes longer sets `_arrived` when it is done."""
