"""Has files of measurements looked into, or changed, by child processes: a few at a time, each on its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.child_process import child_command, started
from gateway.measurements.piped import PipedChild
from gateway.model import GatewayError

CHILD: Sequence[str] = child_command("gateway.measurements.inspect_process")
_PARALLEL = 2
_PATIENCE_S = 20.0
_LONGEST_S = 1800.0
_PIECE_BYTES = 128 * 1024
_HEAD_BYTES = 64 * 1024
_MOST_DOCUMENT_BYTES = 32 * 1024 * 1024


class FileMissing(GatewayError):
    """There is no such file, or nothing of that name in it."""


class FileUnfit(GatewayError):
    """The file is not what can be looked into."""


class FileFailed(GatewayError):
    """It cannot be done now: the disk refuses, or too many ask at once."""


_KINDS: Mapping[str, type[GatewayError]] = {
    "missing": FileMissing,
    "unfit": FileUnfit,
    "failed": FileFailed,
}


class Answer:
    """What a child answers: `head` first, then bytes until its end."""

    def __init__(self, head: Mapping[str, Any], reader: asyncio.StreamReader, process: "_Process") -> None:
        self.head = head
        self._reader, self._process = reader, process

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come. FileFailed: it ended in the middle."""
        while piece := await self._reader.read(_PIECE_BYTES):
            yield piece
        if code := await self._process.ended():
            raise FileFailed(f"the process that read it ended with {code}")

    async def document(self) -> Any:
        """Return the bytes as JSON."""
        whole = bytearray()
        async for piece in self.pieces():
            whole += piece
            if len(whole) > _MOST_DOCUMENT_BYTES:
                raise FileUnfit(f"it says more of itself than {_MOST_DOCUMENT_BYTES >> 20} MB")
        return json.loads(whole) if whole else None


class Inspection:
    """The children of one kind of asker, so that clients and uploads do not wait for each other."""

    def __init__(self, child: Sequence[str] = CHILD) -> None:
        self._child = child
        self._long, self._brief = asyncio.Semaphore(_PARALLEL), asyncio.Semaphore(_PARALLEL)

    @asynccontextmanager
    async def asked(self, job: Mapping[str, Any], *, brief: bool = False) -> AsyncIterator[Answer]:
        """Have a job done. FileMissing, FileUnfit, FileFailed.

        `brief`: no client is waited for meanwhile. Such jobs have turns of their own, which a client that
        reads slowly cannot hold.
        """
        turns = self._brief if brief else self._long
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await turns.acquire()
        except TimeoutError:
            raise FileFailed("too many files are being looked into: try again") from None
        try:
            async with _running(self._child) as process:
                reader = await process.begin(job)
                yield Answer(await self._head(reader, process), reader, process)
        finally:
            turns.release()

    async def document(self, job: Mapping[str, Any]) -> Any:
        """Have a job done whose answer is JSON. As `asked`."""
        async with self.asked(job, brief=True) as answer:
            return await answer.document()

    async def _head(self, reader: asyncio.StreamReader, process: "_Process") -> Mapping[str, Any]:
        line = await reader.readline()
        try:
            head: Mapping[str, Any] = json.loads(line)
        except ValueError:  # HDF5 itself crashed, or took more memory than it may
            code = await process.ended()
            raise FileUnfit(f"it cannot be read: the process that tried to ended with {code}") from None
        if (why := head.get("error")) is not None:
            raise _KINDS[head["kind"]](why)
        return head


@asynccontextmanager
async def _running(command: Sequence[str]) -> AsyncIterator["_Process"]:
    process = await started(lambda: _Process(command))
    try:
        async with asyncio.timeout(_LONGEST_S):
            yield process
    finally:
        process.kill()
        await asyncio.shield(asyncio.to_thread(process.close))


class _Process(PipedChild):
    """The process that looks."""

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command)
        self._transport: asyncio.ReadTransport | None = None

    async def begin(self, job: Mapping[str, Any]) -> asyncio.StreamReader:
        """Send the job; return where the answer comes."""
        reader = asyncio.StreamReader(limit=_HEAD_BYTES)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        await asyncio.to_thread(self._send, json.dumps(job).encode() + b"\n")
        return reader

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._write(data)
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # its answer, or its end, says why

    async def ended(self) -> int:
        return await asyncio.to_thread(self._process.wait)

    def kill(self) -> None:
        if self._transport is not None:
            self._transport.close()
        super().kill()
