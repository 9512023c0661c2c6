"""Records what a real server answers: a proxy between a client and the server, and the exchanges it saw."""

import asyncio
import pickle
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary

FRAME = struct.Struct("<3scI")
HEAD_BYTES = 24
"""Of a MSG frame without security: header, channel, token, sequence number, request id (Part 6, 6.7.2)."""


class Exchange(NamedTuple):
    """A request and its answer, without what differs each time."""

    kind: int
    """The numeric id of the request's type."""
    asked: bytes
    """The request after its header."""
    answer: bytes


@dataclass
class Capture:
    """All that a server answered, without security."""

    acknowledge: bytes = b""
    opened: bytes = b""
    """The body of the OpenSecureChannelResponse."""
    exchanges: list[Exchange] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_bytes(pickle.dumps(self))

    @classmethod
    def load(cls, path: Path) -> "Capture":
        return pickle.loads(path.read_bytes())


def request(body: bytes) -> tuple[int, int, bytes]:
    """Return kind, request handle and parameters of a request's body."""
    data = Buffer(body)
    kind = nodeid_from_binary(data).Identifier
    header = struct_from_binary(ua.RequestHeader, data)
    return kind, header.RequestHandle, body[data.cur_pos :]


class Frames:
    """Splits a stream into frames, and joins the chunks of a message."""

    def __init__(self) -> None:
        self._rest = b""
        self._parts: dict[int, bytes] = {}

    def take(self, data: bytes) -> list[tuple[bytes, int, bytes]]:
        """Return (type, request id, body) of each message that is complete; other frames as they are."""
        self._rest += data
        found = []
        while len(self._rest) >= FRAME.size:
            kind, chunk, size = FRAME.unpack_from(self._rest)
            if len(self._rest) < size:
                break
            frame, self._rest = self._rest[:size], self._rest[size:]
            if kind != b"MSG":
                found.append((kind, 0, frame))
                continue
            number = int.from_bytes(frame[20:24], "little")
            body = self._parts.pop(number, b"") + frame[HEAD_BYTES:]
            if chunk == b"F":
                found.append((kind, number, body))
            else:
                self._parts[number] = body
        return found


@asynccontextmanager
async def captured(port: int, server_port: int) -> AsyncIterator[Capture]:
    """Enter a proxy on `port`; the capture grows while clients talk through it."""
    capture = Capture()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to_server = await asyncio.open_connection("127.0.0.1", server_port)
        asked: dict[int, tuple[int, bytes]] = {}

        async def up() -> None:
            frames = Frames()
            while data := await reader.read(2**16):
                for kind, number, body in frames.take(data):
                    if kind == b"MSG":
                        name, _, parameters = request(body)
                        asked[number] = name, parameters
                to_server.write(data)
            to_server.close()

        async def down() -> None:
            frames = Frames()
            while data := await theirs.read(2**16):
                for kind, number, body in frames.take(data):
                    _keep(capture, kind, asked.pop(number, None), body)
                writer.write(data)
            writer.close()

        await asyncio.gather(up(), down(), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield capture


def _keep(capture: Capture, kind: bytes, asked: tuple[int, bytes] | None, body: bytes) -> None:
    if kind == b"ACK":
        capture.acknowledge = body
    elif kind == b"OPN":
        capture.opened = body
    elif kind == b"MSG" and asked is not None:
        capture.exchanges.append(Exchange(*asked, body))
