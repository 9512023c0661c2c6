"""`/v1/logs`: the gateway's own log, as files and as it comes; no secret is shown in it."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any, Final, TypeVar

from aiohttp import web

from gateway.api.answers import json_answer, stream
from gateway.api.auth import Principal
from gateway.api.document_schemas import LogFileList, LogQuery, LogText
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY, ZIPPING
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.sockets import BAD_MESSAGE, NOT_THERE, TICK_S, Closing, Watch, converse, send, serve_socket
from gateway.api.tokens import Role
from gateway.api.values import dumps
from gateway.logs.archive import LogArchive, NoLogFile
from gateway.logs.feed import Follower, Heard
from gateway.logs.files import FILE_BYTES, FILES

T = TypeVar("T")
_TEXT: Final[dict[str, Any]] = {
    "description": "The file.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
_ZIP: Final[dict[str, Any]] = {
    "description": "All files.",
    "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
}


@endpoint(
    "GET",
    "/v1/logs",
    role=Role.OPERATE,
    tag="logs",
    summary="The log files, the newest first",
    query=NoQuery,
    answers={200: LogFileList},
    fails=(503,),
)
async def list_logs(request: web.Request) -> web.Response:
    logs = request.app[GATEWAY].logs
    archive = logs.archive if logs is not None else None
    info = request.app[GATEWAY].log_files()
    files = await _read(archive.listed) if archive is not None else []
    return json_answer(
        {
            "files": [dataclasses.asdict(each) for each in files],
            "directory": info.folder if info is not None else None,
            "max_bytes": FILE_BYTES,
            "backup_count": FILES - 1,
        }
    )


@endpoint(
    "GET",
    "/v1/logs/view",
    role=Role.OPERATE,
    tag="logs",
    summary="The last lines of a log file",
    query=LogQuery,
    answers={200: LogText},
    fails=(404, 503),
)
async def view_log(request: web.Request) -> web.Response:
    query, archive = request["querystring"], _archive(request)
    content = await _read(lambda: archive.tail(query["file"], query["limit"]))
    return json_answer({"filename": query["file"], "content": content})


async def whole_log(request: web.Request, name: str) -> str:
    """Return all that a log file says. ApiError 403, 404."""
    archive = _archive(request)

    def read() -> str:
        with closing(archive.opened(name)) as file:
            return b"".join(archive.pieces(file)).decode(errors="replace")

    return await _read(read)


@endpoint(
    "GET",
    "/v1/logs/download/{file}",
    role=Role.OPERATE,
    tag="logs",
    summary="A whole log file",
    query=NoQuery,
    answers={200: _TEXT},
    fails=(503,),
)
async def download_log(request: web.Request) -> web.StreamResponse:
    name, archive = request.match_info["file"], _archive(request)
    file = await _read(lambda: archive.opened(name))
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    try:
        pieces = archive.pieces(file)
        async with stream(request, "text/plain", headers) as out:
            while piece := await asyncio.to_thread(next, pieces, b""):
                await out.write(piece)
    finally:
        await asyncio.to_thread(file.close)
    return out.response


@endpoint(
    "GET",
    "/v1/logs/all",
    role=Role.OPERATE,
    tag="logs",
    summary="All log files as a zip",
    query=NoQuery,
    answers={200: _ZIP},
    fails=(404, 503),
)
async def zip_logs(request: web.Request) -> web.Response:
    archive = _archive(request)
    async with request.app[ZIPPING]:  # one at a time: it takes a processor and some memory
        data = await _read(archive.zipped)
    headers = {"Content-Disposition": 'attachment; filename="logs.zip"'}
    return web.Response(body=data, content_type="application/zip", headers=headers)


@endpoint(
    "GET",
    "/v1/logs/stream",
    role=Role.OPERATE,
    tag="logs",
    summary="WebSocket: the log as it comes",
    description='Authenticate as for /v1/stream. A message is {"type": "log", "lines": [...], "skipped": 0}; '
    "a client that reads too slowly gets the newest, and how many before them it missed.",
    query=NoQuery,
    answers={101: {"description": "The stream begins."}},
    fails=(409,),
    late_login=True,
)
async def stream_log(request: web.Request) -> web.StreamResponse:
    logs = request.app[GATEWAY].logs
    if logs is None and request.get("principal") is not None:
        raise ApiError(409, "This gateway keeps no log.")

    async def talk(socket: web.WebSocketResponse, principal: Principal, said: dict[str, Any]) -> None:
        if logs is None:
            raise Closing(NOT_THERE, "this gateway keeps no log")
        with logs.feed.followed() as follower:
            await converse(socket, _hear, _write(request, socket, follower, principal))

    return await serve_socket(request, talk)


def _hear(said: dict[str, Any]) -> None:
    if said:
        raise Closing(BAD_MESSAGE, "this stream takes no messages")


async def _write(
    request: web.Request, socket: web.WebSocketResponse, follower: Follower, principal: Principal
) -> None:
    watch = Watch(request, principal)
    await send(socket, dumps({"type": "log", "lines": [], "skipped": 0}).decode())  # it follows from here on
    async for heard in followed(follower):
        if heard.lines:
            message = {"type": "log", "lines": heard.lines, "skipped": heard.skipped}
            await send(socket, dumps(message).decode())
        await watch.look()


async def followed(follower: Follower) -> AsyncIterator[Heard]:
    """Yield what comes, and each second where nothing does."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await follower.wake.wait()
        yield follower.take()


def _archive(request: web.Request) -> LogArchive:
    logs = request.app[GATEWAY].logs
    if logs is None or logs.archive is None:
        raise ApiError(404, "There are no log files: the journal has the log (journalctl -u edge-gateway).")
    return logs.archive


async def _read(reading: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(reading)
    except NoLogFile as error:
        if error.foreign:
            raise ApiError(403, "This is not the name of a log file; /v1/logs lists them.") from None
        raise ApiError(404, f"There is no log file {error} now.") from None
    except OSError as error:
        message = f"The log files cannot be read: {error.strerror}."
        raise ApiError(503, message, headers={"Retry-After": "10"}) from None


HANDLERS = (list_logs, view_log, download_log, zip_logs, stream_log)
