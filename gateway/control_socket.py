"""The local socket by which the command line asks the running daemon: a JSON line each way."""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.model import GatewayError

_log = logging.getLogger(__name__)
_NAME = "control.sock"
_LINE_BYTES = 64 * 1024
Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class NotRunning(GatewayError):
    """No daemon answers on the socket."""


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    # A socket's path is limited to 107 bytes (unix(7)); through the folder's descriptor it is always short.
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def listen(state: Path, answer: Answer) -> AsyncIterator[None]:
    """Answer requests while entered. Only the daemon's own user (and root) can reach the socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
            reply = await answer(_parse(line))
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # the asking side went away or sent no line: nothing to answer, nobody to tell
        finally:
            writer.close()

    try:
        bound = await asyncio.to_thread(_bind, state)
    except OSError as error:
        _log.error(
            "%s cannot be made (%s): `edge-gateway status` and `reload` reach nobody until a start where it "
            "can; a reload is `systemctl kill --signal=HUP edge-gateway` meanwhile",
            state / _NAME,
            error.strerror,
        )
        yield
        return
    server = await asyncio.start_unix_server(serve, sock=bound, limit=_LINE_BYTES)
    async with server:
        yield
    with contextlib.suppress(OSError):  # a disk that refuses; the next start removes it
        await asyncio.to_thread((state / _NAME).unlink, missing_ok=True)


def _bind(state: Path) -> socket.socket:
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        path = stack.enter_context(_short(state))
        (state / _NAME).unlink(missing_ok=True)  # left by a daemon that was killed
        bound.bind(path)
        (state / _NAME).chmod(0o600)
        return socket.socket(fileno=bound.detach())


def _parse(line: bytes) -> Mapping[str, Any]:
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError("a request is a JSON object")
    return request


async def ask(state: Path, request: Mapping[str, Any], timeout_s: float = 90) -> dict[str, Any]:
    """Send one request to the daemon of that state directory. NotRunning: there is none."""
    try:
        with _short(state) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=16 * _LINE_BYTES)
    except OSError as error:
        advice = "; try it as root (sudo)" if isinstance(error, PermissionError) else ""
        sentence = f"no daemon answers at {state / _NAME}: {error.strerror or error}{advice}"
        raise NotRunning(sentence) from error
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        reply = json.loads(await asyncio.wait_for(reader.readline(), timeout_s) or b"null")
    except (OSError, ValueError, TimeoutError) as error:
        raise NotRunning(f"the daemon at {state / _NAME} did not answer: {error}") from error
    finally:
        writer.close()
    if not isinstance(reply, dict):
        raise NotRunning(f"the daemon at {state / _NAME} closed the connection; see its log")
    return reply
