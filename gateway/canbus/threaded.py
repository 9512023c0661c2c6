"""Any interface of python-can, read by a thread."""

import asyncio
import contextlib
import importlib
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gateway.canbus.frames import EXTENDED, EXTENDED_BITS, REMOTE, STANDARD_BITS, BusHealth, Frames
from gateway.canbus.settings import Settings
from gateway.clock import Clock
from gateway.model import DeviceProblem

if TYPE_CHECKING:
    import can

_LOOK_S = 0.1
"""So soon a thread notices that it has to end."""
_PATIENCE_S = 10.0
_MOST_FRAMES = 100_000
"""So many wait at most; what comes beyond is dropped and counted."""
_STATES = {"ACTIVE": "error-active", "PASSIVE": "error-passive", "ERROR": "bus-off"}


class ThreadedBus:
    """An open interface of python-can."""

    def __init__(self, settings: Settings, device: str, clock: Clock, batch_ms: int) -> None:
        self.health = BusHealth()
        self._settings = settings
        self._name = f"device {device}: {settings.interface} {settings.channel}"
        self._clock = clock
        self._batch_s = batch_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._frames = Frames()
        self._arrived = asyncio.Event()
        self._stop = threading.Event()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._fetched_ns = 0
        self._bus: can.BusABC | None = None
        self._ended: asyncio.Future[None]

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, settings: Settings, device: str, clock: Clock, filters: Sequence[tuple[int, int]], batch_ms: int
    ) -> AsyncIterator["ThreadedBus"]:
        """Open it in a thread of its own; leaving ends the thread."""
        bus = cls(settings, device, clock, batch_ms)
        thread = ThreadPoolExecutor(1, f"can-{device}")
        bus._ended = bus._loop.run_in_executor(thread, bus._work, filters)
        bus._ended.add_done_callback(lambda _: bus._arrived.set())
        try:
            await bus._until_ready()
            yield bus
        finally:
            bus._stop.set()
            thread.shutdown(wait=False)
            await asyncio.wait([bus._ended], timeout=_PATIENCE_S)

    async def receive(self) -> Frames:
        await self._arrived.wait()
        wait_s = self._batch_s - (self._clock.mono_ns() - self._fetched_ns) / 1e9
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        with self._lock:
            frames, self._frames = self._frames, Frames()
            if not self._ended.done():
                self._arrived.clear()
        self._fetched_ns = self._clock.mono_ns()
        if not frames:
            await self._ended
        self.health.frames += len(frames)
        return frames

    async def send(self, can_id: int, data: bytes) -> None:
        await asyncio.to_thread(self._send, can_id, data)

    async def _until_ready(self) -> None:
        done, _ = await asyncio.wait(
            [self._ready, self._ended], timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise DeviceProblem(f"{self._name}: the interface did not open within {_PATIENCE_S:.0f} s")
        if self._ended in done:
            await self._ended

    # -- in the thread -----------------------------------------------------------------------------

    def _work(self, filters: Sequence[tuple[int, int]]) -> None:
        can = importlib.import_module("can")
        failures = (can.CanError, OSError, ValueError, TypeError, LookupError, ImportError, AttributeError)
        try:
            with can.Bus(**self._arguments(), can_filters=_software(filters) or None) as bus:
                self._bus = bus
                self._loop.call_soon_threadsafe(self._ready.set_result, None)
                while not self._stop.is_set():
                    message = bus.recv(_LOOK_S)
                    if message is not None:
                        self._take(message)
        except failures as error:
            raise DeviceProblem(f"{self._name}: {error}") from error

    def _arguments(self) -> dict[str, Any]:
        asked = {
            "interface": self._settings.interface,
            "channel": self._settings.channel,
            "bitrate": self._settings.bitrate,
            "data_bitrate": self._settings.data_bitrate,
            "fd": self._settings.fd or None,
            "host": self._settings.host,
            "port": self._settings.port or (29536 if self._settings.interface == "socketcand" else None),
            **self._settings.options,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _take(self, message: "can.Message") -> None:
        if message.is_error_frame:
            return
        can_id = message.arbitration_id
        can_id |= (EXTENDED if message.is_extended_id else 0) | (REMOTE if message.is_remote_frame else 0)
        with self._lock:
            frames = self._frames
            if len(frames) >= _MOST_FRAMES:
                self.health.dropped += 1
                return
            frames.ts.append(int(message.timestamp * 1e6))
            frames.ids.append(can_id)
            frames.data.append(bytes(message.data))
            first = len(frames) == 1
        if first:
            self._loop.call_soon_threadsafe(self._arrived.set)

    def _send(self, can_id: int, data: bytes) -> None:
        can = importlib.import_module("can")
        extended = bool(can_id & EXTENDED)
        message = can.Message(
            arbitration_id=can_id & (EXTENDED_BITS if extended else STANDARD_BITS),
            is_extended_id=extended,
            is_remote_frame=bool(can_id & REMOTE),
            is_fd=len(data) > 8,
            bitrate_switch=len(data) > 8,
            data=data,
            check=True,
        )
        assert self._bus is not None
        try:
            self._bus.send(message, timeout=1.0)
        except (can.CanError, OSError, ValueError) as error:
            raise DeviceProblem(f"{self._name}: a frame cannot be sent: {error}") from error


def _software(filters: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the filters as python-can takes them."""
    return [
        {
            "can_id": can_id & EXTENDED_BITS,
            "can_mask": mask & EXTENDED_BITS,
            **({"extended": bool(can_id & EXTENDED)} if mask & EXTENDED else {}),
        }
        for can_id, mask in filters
    ]
