"""A bus of another machine, through socketcand in its raw mode (its doc/protocol.md)."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from typing import Final

from gateway.canbus import error_frames
from gateway.canbus.batched import BatchedBus, Opening
from gateway.canbus.frames import EXTENDED, EXTENDED_BITS, REMOTE, STANDARD_BITS, Frames, matching
from gateway.canbus.problems import BusProblem
from gateway.model import Flag

PORT: Final = 29536
_PATIENCE_S = 5.0
_LONGEST = 4096
"""No message is as long: the other side is no socketcand."""
_MOST_FRAMES = 50_000
"""So many wait at most; then nothing more is taken off the connection, and the server waits."""
_FRAME = re.compile(
    rb"< (frame|fdframe|error) ([0-9A-Fa-f]{1,8})(?: [0-9A-Fa-f]{2})? ([0-9]+\.[0-9]+)"
    rb"((?: ?[0-9A-Fa-f]{2})*) *>"
)
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""A server that was switched off is noticed within ten seconds."""


class SocketcandBus(BatchedBus, asyncio.Protocol):
    """An open connection to socketcand."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        settings = opening.settings
        self._server = f"{settings.host}:{settings.port or PORT}"
        self.name = f"{self.name} on {self._server}"
        self._passes = matching(opening.filters) if opening.filters else None
        self._frames = Frames()
        self._rest = b""
        self._raw = False
        """The handshake is over."""
        self._answer = b""
        self._transport: asyncio.Transport | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, opening: Opening) -> AsyncIterator["SocketcandBus"]:
        """Connect. BusProblem: nobody answers, or the server does not have the bus."""
        bus = cls(opening)
        settings = opening.settings
        assert settings.host is not None  # settings.py holds it
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: bus, settings.host, settings.port or PORT
                )
                await bus._greet(settings.channel)
        except (OSError, TimeoutError) as error:
            bus._close()
            raise BusProblem(
                f"{bus.name}: no socketcand answers ({_words(error)}); does it run there "
                "(`systemctl status socketcand`), and does the firewall let it through?",
                "lost",
            ) from error
        except BaseException:
            bus._close()
            raise
        try:
            yield bus
        finally:
            bus._close()

    async def send(self, can_id: int, data: bytes) -> None:
        number = f"{can_id & EXTENDED_BITS:08X}" if can_id & EXTENDED else f"{can_id & STANDARD_BITS:03X}"
        octets = "".join(f" {octet:02X}" for octet in data)
        if can_id & REMOTE:
            self._say(f"< sendrtr {number} {len(data)} >")
        elif len(data) > 8:
            self._say(f"< fdsend {number} 01 {len(data)}{octets} >")
        else:
            self._say(f"< send {number} {len(data)}{octets} >")

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock: socket.socket = transport.get_extra_info("socket")
        for option in _KEEPALIVE:
            sock.setsockopt(*option)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        end = data.rfind(b">") + 1
        self._rest = data[end:]
        if len(self._rest) > _LONGEST:
            self._end("what answers there is no socketcand")
        elif self._raw:
            self._take(data[:end])
        else:
            self._answer += data[:end]
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(_words(exc) if exc else "the server closed the connection")

    # ----------------------------------------------------------------------------------------------

    async def _greet(self, channel: str) -> None:
        for said, wanted in (("", b"< hi >"), (f"< open {channel} >", b"< ok >"), ("< rawmode >", b"< ok >")):
            if said:
                self._say(said)
            answer = await self._answered()
            if answer != wanted:
                what = f"to {said!r} " if said else ""
                raise BusProblem(
                    f"{self.name}: the server answered {answer.decode('latin-1')!r} {what}and not "
                    f"{wanted.decode()!r}; does it have the bus {channel} (`socketcand -i {channel}`)?",
                    "lost",
                )
        self._raw = True
        waiting, self._answer = self._answer, b""
        self._take(waiting)

    async def _answered(self) -> bytes:
        while not self._answer:
            if self._problem is not None:
                raise self._problem
            await self._wait(_PATIENCE_S)
        end = self._answer.find(b">") + 1
        answer, self._answer = self._answer[:end].strip(), self._answer[end:]
        return answer

    def _take(self, messages: bytes) -> None:
        frames, passes = Frames(), self._passes
        for kind, number, seconds, octets in _FRAME.findall(messages):
            can_id = int(number, 16) | (EXTENDED if len(number) == 8 else 0)
            if kind == b"error":
                self._error(int(number, 16), bytes.fromhex(octets.decode()))
                continue
            if self.health.state == "bus-off":
                self._is_back("up")
            if passes is not None and not passes(can_id):
                continue
            frames.ids.append(can_id)
            frames.ts.append(round(float(seconds) * 1e6))
            frames.data.append(bytes.fromhex(octets.decode()))
        self._load.count(len(frames), sum(map(len, frames.data)))
        self._frames.extend(frames)
        if len(self._frames) > _MOST_FRAMES and self._transport is not None:
            self._transport.pause_reading()

    def _error(self, classes: int, data: bytes) -> None:
        """Take an error frame. Whether the other machine's bus comes back is not ours to see to."""
        before = self.health.state
        error_frames.take(self.health, classes, data)
        self.health.overruns += error_frames.overran(classes, data)
        if before == "bus-off" and self.health.state != "bus-off":
            self._is_back(self.health.state)

    def _is_back(self, state: str) -> None:
        self.health.state = state
        self.health.returns += 1

    def _fetch(self) -> Frames:
        frames, self._frames = self._frames, Frames()
        if frames:
            self._stamping.foreign(frames, Flag.SERVER_TIME)
        if self._transport is not None:
            self._transport.resume_reading()
        return frames

    def _say(self, message: str) -> None:
        if self._problem is not None:
            raise self._problem
        assert self._transport is not None
        self._transport.write(message.encode())

    def _end(self, why: str) -> None:
        self._problem = self._problem or BusProblem(f"{self.name} was lost: {why}", "lost")
        self._close()
        self._arrived.set()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return f"within {_PATIENCE_S:.0f} s"
    return str(getattr(error, "strerror", None) or error)
