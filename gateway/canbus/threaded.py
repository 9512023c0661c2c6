"""Any interface of python-can, read by a thread."""

import asyncio
import contextlib
import importlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gateway.canbus import error_frames
from gateway.canbus.batched import BatchedBus, Opening
from gateway.canbus.frames import EXTENDED, EXTENDED_BITS, REMOTE, STANDARD_BITS, Frames
from gateway.canbus.problems import GAVE_UP, BusProblem
from gateway.canbus.settings import Settings, device_nodes
from gateway.model import Flag
from gateway.own_thread import in_thread

if TYPE_CHECKING:
    import can

_LOOK_S = 0.1
"""So soon the thread notices that it has to end."""
_PATIENCE_S = 10.0
_LEAVE_S = 2.0
_MOST_FRAMES = 50_000
"""So many wait at most; what comes beyond is dropped and counted."""
_STATE_S = 0.5
_MOST_DAMAGED = 50
"""So many messages in a row may be none (a disturbed serial line) before the interface is opened anew."""


class ThreadedBus(BatchedBus):
    """An open interface of python-can."""

    hanging: ClassVar[set[str]] = set()
    """Those whose driver has not come back: no further thread may get stuck there."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._opening = opening
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._stop = threading.Event()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None]
        self._bus: can.BusABC | None = None
        self._error_frames: list[tuple[int, bytes]] = []
        """(id, data) of those that the thread has gathered."""
        self._damaged = 0
        """Messages in a row that were none."""
        self._state = self.health.state
        """As the driver told it last."""

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, opening: Opening) -> AsyncIterator["ThreadedBus"]:
        """Open it in a thread of its own; leaving ends the thread. BusProblem: it does not open."""
        bus = cls(opening)
        if bus.name in cls.hanging:
            raise BusProblem(
                f"{bus.name}: its driver hangs: unplug the adapter and plug it in again, see dmesg", "lost"
            )
        bus._ended = in_thread(f"can-{opening.device}", bus._work)
        bus._ended.add_done_callback(bus._thread_ended)
        try:
            await bus._until_ready()
            yield bus
        finally:
            bus._stop.set()
            await asyncio.wait([bus._ended], timeout=_LEAVE_S)
            if not bus._ended.done():
                cls.hanging.add(bus.name)
                bus._ended.add_done_callback(lambda _: cls.hanging.discard(bus.name))

    async def send(self, can_id: int, data: bytes) -> None:
        if self._problem is not None:
            raise self._problem
        await in_thread(f"can-{self._opening.device}-send", self._send, can_id, data)

    async def _until_ready(self) -> None:
        done, _ = await asyncio.wait(
            [self._ready, self._ended], timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        if self._problem is not None:
            raise self._problem
        if not done:
            raise BusProblem(f"{self.name}: it has not opened within {_PATIENCE_S:.0f} s", "lost")

    def _thread_ended(self, ended: "asyncio.Future[None]") -> None:
        error = ended.exception()
        if error is not None:
            hint = _hint(self._opening.settings, error)
            self._problem = BusProblem(f"{self.name}: {_words(error)}{hint}", "lost")
            self._problem.__cause__ = error
        self._arrived.set()

    def _arrive(self, frames: Frames, errors: Sequence[tuple[int, bytes]], state: str) -> None:
        """Take over what the thread has gathered."""
        room = max(0, _MOST_FRAMES - len(self._frames))
        self.health.dropped += max(0, len(frames) - room)
        self._frames.extend(Frames(frames.ts[:room], frames.ids[:room], frames.data[:room]))
        self._load.count(len(frames), sum(map(len, frames.data)))
        if state != self._state:
            self._state = self.health.state = state
        for can_id, data in errors:
            error_frames.take(self.health, can_id, data)
            self.health.overruns += error_frames.overran(can_id, data)
        if state == "bus-off" or any(can_id & error_frames.BUS_OFF for can_id, _ in errors):
            self._problem = self._problem or BusProblem(
                f"{self.name} is bus-off: {GAVE_UP}; it is opened anew, which starts it again", "bus-off"
            )
        self._arrived.set()

    def _fetch(self) -> Frames:
        frames, self._frames = self._frames, Frames()
        if frames:
            self._stamping.foreign(frames, Flag.OWN_TIME)
        return frames

    # -- in the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        can = importlib.import_module("can")
        logging.getLogger("can").setLevel(logging.CRITICAL)  # what goes wrong is raised too
        filters = [_filter(*each) for each in self._opening.filters]
        with can.Bus(
            **_arguments(self._opening.settings), can_filters=filters or None, ignore_config=True
        ) as bus:
            self._bus = bus
            self._loop.call_soon_threadsafe(self._ready.set_result, None)
            while not self._stop.is_set():
                frames = Frames()
                try:
                    self._gather(bus, frames)
                finally:
                    errors, self._error_frames = self._error_frames, []
                    self._loop.call_soon_threadsafe(self._arrive, frames, errors, self._told(bus))

    def _told(self, bus: "can.BusABC") -> str:
        """Return the state that the driver tells; what python-can calls so is the mode that was asked for."""
        if self._opening.settings.interface != "pcan":
            return "up"
        status: int = bus.status()  # type: ignore[attr-defined]  # of pcan alone
        return next((state for bits, state in _PCAN_STATES if status & bits), "error-active")

    def _gather(self, bus: "can.BusABC", frames: Frames) -> None:
        """Take in the frames of a batch, none where the bus is silent."""
        end_s = time.monotonic() + _STATE_S
        while (left_s := end_s - time.monotonic()) > 0 and not self._stop.is_set():
            try:
                message = bus.recv(min(left_s, _LOOK_S))
            except (ValueError, LookupError):
                self._damaged += 1
                self._error_frames.append(_UNKNOWN)
                if self._damaged > _MOST_DAMAGED:
                    raise
                continue
            if message is None:
                continue
            self._damaged = 0
            if message.is_error_frame:
                linux = self._opening.settings.interface in _AS_LINUX
                told = (message.arbitration_id, bytes(message.data)) if linux else _UNKNOWN
                self._error_frames.append(told)
                continue
            if not frames:
                end_s = time.monotonic() + self._batch_s
            kind = (EXTENDED if message.is_extended_id else 0) | (REMOTE if message.is_remote_frame else 0)
            frames.ts.append(int(message.timestamp * 1e6))
            frames.ids.append(message.arbitration_id | kind)
            frames.data.append(bytes(message.data))

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
        except (can.CanError, OSError) as error:
            raise BusProblem(f"{self.name}: a frame cannot be sent: {_words(error)}", "lost") from error


_AS_LINUX = ("gs_usb", "udp_multicast", "virtual")
"""Interfaces that give error frames as linux/can/error.h has them; others have bits of their own."""
_UNKNOWN = (0, b"")
"""An error frame that says nothing."""
_PCAN_STATES = ((0x10, "bus-off"), (0x40000, "error-passive"), (0x0C, "error-warning"))
"""PCAN-Basic: PCAN_ERROR_BUSOFF, BUSPASSIVE, BUSWARNING with BUSLIGHT."""

_BY_KERNEL = ("gs_usb", "pcan", "kvaser")


def _arguments(settings: Settings) -> dict[str, Any]:
    asked = {
        "interface": settings.interface,
        "channel": settings.channel,
        "bitrate": settings.bitrate,
        "data_bitrate": settings.data_bitrate,
        "fd": settings.fd or None,
        # The default reads a byte a millisecond, also where none comes.
        "timeout": _LOOK_S if settings.interface == "slcan" else None,
        **settings.options,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _filter(can_id: int, mask: int) -> dict[str, Any]:
    """Return a filter as python-can takes it."""
    kind = {"extended": bool(can_id & EXTENDED)} if mask & EXTENDED else {}
    return {"can_id": can_id & EXTENDED_BITS, "can_mask": mask & EXTENDED_BITS, **kind}


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _hint(settings: Settings, error: BaseException) -> str:
    if settings.interface in _BY_KERNEL:
        return "; or let the kernel's own driver reach it: `interface: socketcan` with its name in `ip link`"
    if "module" in str(error):
        return "; install what python-can needs for this interface"
    if any(node.startswith("/dev/") for node in device_nodes(settings)):
        return (
            "; is it plugged in (`ls -l /dev/serial/by-id`)? An installed service is let to it by "
            "`sudo edge-gateway systemd-dropin`"
        )
    return ""
