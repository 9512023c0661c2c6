"""The WebSocket side of the stream: log in, subscribe, write, and notice when the client is gone."""

import asyncio
import contextlib
import json
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.api.auth import Principal, unauthorized
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY, GUARD, SOCKETS, STREAMS
from gateway.api.queries import StreamQuery
from gateway.api.routing import endpoint
from gateway.api.stream import Client, Filter
from gateway.api.tokens import Role

LOGIN_S: Final = 5
WRITE_S: Final = 20
TICK_S: Final = 1.0
LOGIN_FAILED: Final = 4401
TOO_SLOW: Final = 4408
BAD_MESSAGE: Final = 4400


class _Closing(Exception):
    """The conversation ends with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@endpoint(
    "GET",
    "/v1/stream",
    role=Role.READ,
    tag="samples",
    summary="WebSocket: the state first, then the changes",
    description="Authenticate by header, by session cookie, or within 5 s by a first message "
    '{"token": "..."}. The messages are described in the documentation.',
    query=StreamQuery,
    answers={101: {"description": "The stream begins."}},
    late_login=True,
)
async def stream_samples(request: web.Request) -> web.StreamResponse:
    query = request["querystring"]
    socket = web.WebSocketResponse(heartbeat=30, compress=False, max_msg_size=65_536, timeout=2)
    if not _in_ascii(request) or not socket.can_prepare(request):
        if request.get("principal") is None:
            raise unauthorized()
        raise ApiError(400, "This path speaks WebSocket: connect with ws:// or wss://.")
    await socket.prepare(request)
    request["prepared"] = socket
    client = Client(Filter(_names(query.get("devices")), _names(query.get("tags"))))
    sockets = request.app[SOCKETS]
    sockets.add(socket)
    try:
        principal = request.get("principal") or await _log_in(request, socket, client)
        await _converse(request, socket, client, principal)
    except _Closing as closing:
        await _close(socket, closing)
    finally:
        sockets.discard(socket)
    return socket


def _in_ascii(request: web.Request) -> bool:
    """Say whether the handshake is; aiohttp fails on one that is not, where it should refuse it."""
    parts = ("upgrade", "connection", "sec-websocket-")
    return all(text.isascii() for name, text in request.headers.items() if name.lower().startswith(parts))


async def _log_in(request: web.Request, socket: web.WebSocketResponse, client: Client) -> Principal:
    try:
        message = await socket.receive(timeout=LOGIN_S)
    except TimeoutError:
        raise _Closing(LOGIN_FAILED, f"no token within {LOGIN_S} s") from None
    if message.type is not WSMsgType.TEXT:
        raise _Closing(LOGIN_FAILED, 'the first message is not {"token": "..."}')
    document = _object(message.data)
    text = document.pop("token", None)
    if not isinstance(text, str):
        raise _Closing(LOGIN_FAILED, 'the first message is not {"token": "..."}')
    try:
        principal = await request.app[GUARD].late(request, text)
    except ApiError as error:
        raise _Closing(LOGIN_FAILED, error.message) from None
    if document:
        client.filter = _filter(document)
    return principal


async def _converse(
    request: web.Request, socket: web.WebSocketResponse, client: Client, principal: Principal
) -> None:
    streams = request.app[STREAMS]
    streams.join(client)
    try:
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(_write(request, socket, client, principal))
            try:
                async for message in socket:
                    if message.type is WSMsgType.TEXT:
                        document = _object(message.data)
                        document.pop("token", None)  # sent by habit where none was needed
                        client.filter = _filter(document)
                        client.renew()
                    else:
                        raise _Closing(BAD_MESSAGE, "a message is a JSON text")
            finally:
                writing.cancel()
    except ExceptionGroup as failed:  # an error raised within `except*` is a group before Python 3.11.4
        closings, others = failed.split(_Closing)
        if closings is not None:
            raise _first(closings) from None
        if others is not None and others.split(ConnectionError)[1] is not None:
            raise  # the client going away is no failure, everything else is
    finally:
        streams.leave(client)


async def _write(
    request: web.Request, socket: web.WebSocketResponse, client: Client, principal: Principal
) -> None:
    streams, guard, clock = request.app[STREAMS], request.app[GUARD], request.app[GATEWAY].clock
    told, checked_ns = "", clock.mono_ns()
    while True:
        if client.stale:
            told = streams.devices(client)
            await _send(socket, streams.state(client))
        elif (text := client.take()) is not None:
            await _send(socket, text)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.wake.wait(), TICK_S)
        if clock.mono_ns() - checked_ns >= TICK_S * 1e9:
            checked_ns = clock.mono_ns()
            if not await guard.still(principal):
                raise _Closing(LOGIN_FAILED, "the token was revoked")
            if (text := streams.devices(client)) != told:
                told = text
                await _send(socket, text)


async def _send(socket: web.WebSocketResponse, text: str) -> None:
    try:
        async with asyncio.timeout(WRITE_S):
            await socket.send_str(text)
    except TimeoutError:
        raise _Closing(TOO_SLOW, "the client reads too slowly") from None


async def _close(socket: web.WebSocketResponse, closing: _Closing) -> None:
    try:
        async with asyncio.timeout(2):
            await socket.close(code=closing.code, message=closing.reason.encode()[:120])
    except TimeoutError:
        raise ConnectionResetError(closing.reason) from None


async def close_all(app: web.Application) -> None:
    """Tell every client that the gateway goes away."""
    async with asyncio.TaskGroup() as group:
        for socket in app[SOCKETS]:
            group.create_task(_leave(socket))


async def _leave(socket: web.WebSocketResponse) -> None:
    try:
        async with asyncio.timeout(1):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the gateway stops")
    except (TimeoutError, ConnectionError):
        pass  # it would not listen


def _object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _Closing(BAD_MESSAGE, "a message is a JSON object")
    return document


def _filter(document: dict[str, Any]) -> Filter:
    """Read {"devices": [...], "tags": [...]}; what is not named is wanted whole."""
    chosen: dict[str, frozenset[str] | None] = {"devices": None, "tags": None}
    for name, value in document.items():
        if name not in chosen or not (value is None or _is_texts(value)):
            raise _Closing(BAD_MESSAGE, f'"{name[:40]}" is not devices or tags with a list of names')
        chosen[name] = None if value is None else frozenset(value)
    return Filter(**chosen)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(part.strip() for part in text.split(","))


def _first(group: BaseExceptionGroup[_Closing]) -> _Closing:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, _Closing)
    return error


HANDLERS = (stream_samples,)
