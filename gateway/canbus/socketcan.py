"""A CAN network interface of this machine, through a raw socket (linux/can.h, linux/can/raw.h)."""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from itertools import accumulate

from gateway.canbus import error_frames, link_state
from gateway.canbus.batched import BatchedBus, Opening
from gateway.canbus.frames import Frames
from gateway.canbus.link_state import LinkState
from gateway.canbus.problems import BusProblem
from gateway.canbus.records import Records
from gateway.canbus.settings import Settings
from gateway.own_thread import in_thread

_SOL_CAN_RAW = 101
_CAN_RAW_FILTER, _CAN_RAW_ERR_FILTER, _CAN_RAW_FD_FRAMES = 1, 2, 5
_MOST_FILTERS = 512  # CAN_RAW_FILTER_MAX
_FRAME = struct.Struct("=IB3x8s")
_FD_FRAME = struct.Struct("=IBB2x64s")
_BIT_RATE_SWITCH = 0x01  # CANFD_BRS
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 8 << 20
_FRAME_MEMORY_BYTES = 1024
"""What a waiting frame takes of the buffer, about."""
_FULL_BUS_HZ = 18_000
"""Frames a second that no bus exceeds: short ones at 1 Mbit/s, or CAN FD."""
_MOST_AT_ONCE = 8192
_SEND_S = 1.0
_SEND_AGAIN_S = 0.005


def raw_socket(channel: str, filters: Sequence[tuple[int, int]], *, fd: bool) -> socket.socket:
    """Return a raw CAN socket bound to an interface. OSError: there is none."""
    sock = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
    try:
        if filters and len(filters) <= _MOST_FILTERS:
            packed = b"".join(struct.pack("=II", *each) for each in filters)
            sock.setsockopt(_SOL_CAN_RAW, _CAN_RAW_FILTER, packed)
        sock.setsockopt(_SOL_CAN_RAW, _CAN_RAW_ERR_FILTER, struct.pack("=I", error_frames.MASK))
        if fd:
            sock.setsockopt(_SOL_CAN_RAW, _CAN_RAW_FD_FRAMES, 1)
        sock.bind((channel,))
    except OSError:
        sock.close()
        raise
    return sock


class SocketBus(BatchedBus):
    """An open socket whose records are frames."""

    def __init__(self, opening: Opening, sock: socket.socket, state: LinkState) -> None:
        super().__init__(opening)
        self.health.state, self.health.traffic = "error-active", 0
        self._device, self._settings = opening.device, opening.settings
        if self._settings.fd and not state.fd:
            self.health.note = (
                f"{self.name} runs without CAN FD, so such frames do not come: set it down, then "
                f"`sudo ip link set {self._settings.channel} type can dbitrate 2000000 fd on` (with the bit "
                "rate of the bus), and up again"
            )
        self._socket = sock
        self._state = state
        self._looking: asyncio.Future[LinkState] | None = None
        room = _enlarge(sock) / _FRAME_MEMORY_BYTES
        self._batch_s = min(self._batch_s, room / 2 / _FULL_BUS_HZ)
        self._records = Records(sock)
        self._drops = self._records.drops

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, opening: Opening) -> AsyncIterator["SocketBus"]:
        """Open the interface. BusProblem: it is not there, not up, or bus-off."""
        settings = opening.settings
        state = await _look(opening.device, settings)
        try:
            sock = raw_socket(settings.channel, opening.filters, fd=state.fd)
        except OSError as error:
            raise BusProblem(f"{opening.name} cannot be opened: {_why_not(error)}", "absent") from error
        with sock:
            yield cls(opening, sock, state)

    async def send(self, can_id: int, data: bytes) -> None:
        record = (
            _FRAME.pack(can_id, len(data), data)
            if len(data) <= 8
            else _FD_FRAME.pack(can_id, len(data), _BIT_RATE_SWITCH, data)
        )
        deadline_ns = self._clock.mono_ns() + int(_SEND_S * 1e9)
        while True:
            try:
                self._socket.send(record)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    raise self._lost(error) from error
                if self._clock.mono_ns() >= deadline_ns:
                    raise BusProblem(
                        f"{self.name}: nothing can be sent, for nobody acknowledges: check that another "
                        "node is on the bus, its bit rate and the wiring",
                        self.health.state,
                    ) from error
            else:
                return
            await self._clock.sleep(_SEND_AGAIN_S)

    def _fetch(self) -> Frames:
        frames, count = self._read()
        records = count
        while count == self._records.MOST and records < _MOST_AT_ONCE:
            more, count = self._read()
            frames.extend(more)
            records += count
        drops = self._records.drops
        self.health.dropped += (drops - self._drops) % 2**32
        self._drops = drops
        if frames:
            if not self.health.frames:  # the kernel begins to stamp a little after it was asked to
                frames.ts = [*accumulate(reversed(frames.ts), min)][::-1]
            self._stamping.own(frames)
        return frames

    def _read(self) -> tuple[Frames, int]:
        """Return frames, and of how many records with those of error frames."""
        try:
            frames, errors = self._records.read()
        except OSError as error:
            # The kernel tells of the error once, and before the frames that came before it.
            first, self._problem = self._problem is None, self._problem or self._lost(error)
            return self._read() if first else (Frames(), 0)
        if errors:  # a bus that has nothing else is fetched no more often
            self._fetched_ns = self._clock.mono_ns()
        for can_id, data in errors:
            error_frames.take(self.health, can_id, data)
        if any(can_id & error_frames.BUS_OFF for can_id, _ in errors):  # it may have ended already
            fix = link_state.bus_off(self._settings.channel)
            self._problem = BusProblem(f"{self.name} is bus-off: {fix}", "bus-off")
        return frames, len(frames) + len(errors)

    async def _wait(self, timeout_s: float) -> None:
        loop, descriptor = asyncio.get_running_loop(), self._socket.fileno()
        loop.add_reader(descriptor, self._arrived.set)
        try:
            await super()._wait(timeout_s)
        finally:
            loop.remove_reader(descriptor)

    def _tend(self) -> None:
        if self._looking is None:  # frames do not wait for it: the system may be slow to tell
            self._looking = _look(self._device, self._settings)
            self._looking.add_done_callback(self._looked)

    def _looked(self, looking: "asyncio.Future[LinkState]") -> None:
        self._looking = None
        try:
            self._take_over(looking.result())
        except BusProblem as problem:
            self._problem = self._problem or problem
            self._arrived.set()

    def _take_over(self, state: LinkState) -> None:
        before, self._state = self._state, state
        if state.index != before.index:
            raise BusProblem(f"{self.name} was removed and made anew", "absent")
        frames = state.traffic.frames - before.traffic.frames
        self._load.count(frames, state.traffic.data_bytes - before.traffic.data_bytes)
        self.health.traffic = (self.health.traffic or 0) + frames
        # Most drivers send an error frame too, and some send none: each is counted here alone.
        self.health.overruns += state.traffic.overruns - before.traffic.overruns

    def _lost(self, error: OSError) -> BusProblem:
        channel = self._settings.channel
        if error.errno == errno.ENETDOWN:
            fix = link_state.up_command(channel, self._settings.bitrate)
            return BusProblem(f"{self.name} is down: {fix}", "down")
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return BusProblem(f"{self.name} was removed: is the adapter still plugged in?", "absent")
        return BusProblem(f"{self.name} failed: {error.strerror}", "down")


def _look(device: str, settings: Settings) -> "asyncio.Future[LinkState]":
    return in_thread(f"can-{device}-link", link_state.look, device, settings.channel, settings.bitrate)


def _enlarge(sock: socket.socket) -> int:
    """Ask for a large receive buffer; return how many bytes the kernel grants."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)  # up to net.core.rmem_max
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _why_not(error: OSError) -> str:
    if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
        return (
            "this kernel has no CAN sockets; try `sudo modprobe can_raw`, and the stock kernel, no cloud one"
        )
    return error.strerror or str(error)
