"""A loopback TCP proxy that can be cut, stopped, or taken away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Between one client and one server."""

    def __init__(self, host: str, port: int) -> None:
        self.url = ""
        self._host, self._port = host, port
        self._connections: set[asyncio.StreamWriter] = set()
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._refusing = False
        self.made = 0

    def cut(self) -> None:
        """Break every connection and take no new one."""
        self._refusing = True
        self.reset()

    def reset(self) -> None:
        """Break every connection."""
        for writer in self._connections:
            writer.transport.abort()

    def freeze(self) -> None:
        """Forward nothing more; the connections stay, half open, also those to come."""
        self._forwarding.clear()

    def heal(self) -> None:
        """Be as it was. What was frozen is gone: its connections never say anything again."""
        if not self._forwarding.is_set():
            self._forwarding = asyncio.Event()
            self._forwarding.set()
        self._refusing = False

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self.made += 1
        forwarding = self._forwarding
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._connections |= {writer, far_writer}
        there = asyncio.ensure_future(_pump(reader, far_writer, forwarding))
        back = asyncio.ensure_future(_pump(far_reader, writer, forwarding))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in (there, back):
                pump.cancel()
            for each in (writer, far_writer):
                each.transport.abort()
            self._connections -= {writer, far_writer}


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forwarding: asyncio.Event
) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            await forwarding.wait()
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxy(url: str) -> AsyncIterator[Proxy]:
    """Enter a proxy before the server at `url`."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    between = Proxy(parts.hostname, parts.port)
    server = await asyncio.start_server(between.connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    between.url = f"opc.tcp://127.0.0.1:{port}{parts.path}"
    try:
        yield between
    finally:
        server.close()
        between.cut()
        await asyncio.sleep(0)
