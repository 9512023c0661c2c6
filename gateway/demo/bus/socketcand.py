"""A socketcand server on loopback, so that any software that speaks it reaches the simulated bus.

Source: the protocol description of linux-can/socketcand; raw mode only.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from gateway.demo.bus.bus import SimulatedBus
from gateway.demo.bus.frames import EXTENDED, Timed

_MOST_WAITING_BYTES = 32 << 20
"""A client that does not read is let go."""
_BEFORE_FRAMES_S = 0.05
"""python-can takes what follows the answer to `rawmode` in the same packet for a failed handshake."""


@contextlib.asynccontextmanager
async def serve(bus: SimulatedBus, port: int, channel: str = "can0") -> AsyncIterator[int]:
    """Serve the bus under a channel's name while entered; yields the port (a free one for 0)."""
    clients: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        try:
            await _Client(bus, channel, reader, writer).talk()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass
        finally:
            clients.discard(task)
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in [*clients]:
            task.cancel()
        if clients:
            await asyncio.wait([*clients])


class _Client:
    def __init__(
        self, bus: SimulatedBus, channel: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._bus = bus
        self._channel = channel
        self._reader = reader
        self._writer = writer

    async def talk(self) -> None:
        self._say("hi")
        await self._handshake()
        detach = self._bus.attach(self.listen)
        try:
            while True:
                self._take(await self._words())
        finally:
            detach()

    async def _handshake(self) -> None:
        opened = False
        while True:
            words = await self._words()
            if words == ["open", self._channel]:
                opened = True
            elif words == ["rawmode"] and opened:
                self._say("ok")
                await self._writer.drain()
                await asyncio.sleep(_BEFORE_FRAMES_S)
                return
            elif words != ["echo"]:
                self._say(f"error unknown command or channel: {' '.join(words)}"[:200])
                continue
            self._say("echo" if words == ["echo"] else "ok")

    def _take(self, words: list[str]) -> None:
        match words:
            case ["send", digits, length, *data] if len(data) == int(length, 16) <= 8:
                can_id = int(digits, 16) | (EXTENDED if len(digits) == 8 else 0)
                self._bus.send(can_id, bytes(int(byte, 16) for byte in data), self.listen)
            case ["echo"]:
                self._say("echo")
            case _:
                self._say(f"error unknown command: {' '.join(words)}"[:200])

    def listen(self, frames: Sequence[Timed], wall_us: int) -> None:
        """Pass frames on to the client."""
        if self._writer.transport.get_write_buffer_size() > _MOST_WAITING_BYTES:
            self._writer.transport.abort()
            return
        lines = []
        for at_s, can_id, data in frames:
            digits = f"{can_id ^ EXTENDED:08X}" if can_id & EXTENDED else f"{can_id:03X}"
            us = int(at_s * 1e6) + wall_us
            lines.append(f"< frame {digits} {us // 1_000_000}.{us % 1_000_000:06} {data.hex().upper()} >")
        self._writer.write("".join(lines).encode())

    async def _words(self) -> list[str]:
        text = await self._reader.readuntil(b">")
        return text.decode("ascii", "replace").strip().removeprefix("<").removesuffix(">").split()

    def _say(self, text: str) -> None:
        self._writer.write(f"< {text} >".encode())
