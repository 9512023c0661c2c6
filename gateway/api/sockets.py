"""What every WebSocket of `/v1` does: handshake, login, two directions at once, and an end with a reason."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.api.auth import COOKIE, Principal, unauthorized
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY, GUARD, SOCKETS
from gateway.api.routing import declared

LOGIN_S: Final = 5
WRITE_S: Final = 20
TICK_S: Final = 1.0
LOGIN_FAILED: Final = 4401
NOT_THERE: Final = 4404
TOO_SLOW: Final = 4408
BAD_MESSAGE: Final = 4400


class Closing(Exception):
    """The conversation ends with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


Conversation = Callable[[web.WebSocketResponse, Principal, dict[str, Any]], Awaitable[None]]
"""Takes the socket, who it is, and what the first message said beside the token."""


async def serve_socket(request: web.Request, conversation: Conversation) -> web.WebSocketResponse:
    """Open the WebSocket, see who it is, and talk until one side ends it."""
    socket = web.WebSocketResponse(heartbeat=30, compress=False, max_msg_size=65_536, timeout=2)
    if not _in_ascii(request) or not socket.can_prepare(request):
        if request.get("principal") is None:
            raise unauthorized()
        raise ApiError(400, "This path speaks WebSocket: connect with ws:// or wss://.")
    await socket.prepare(request)
    request["prepared"] = socket
    sockets = request.app[SOCKETS]
    sockets.add(socket)
    try:
        known = request.get("principal")
        principal, said = (known, {}) if known is not None else await _log_in(request, socket)
        await conversation(socket, principal, said)
    except Closing as closing:
        await _close(socket, closing)
    finally:
        sockets.discard(socket)
    return socket


def _in_ascii(request: web.Request) -> bool:
    """Say whether the handshake is; aiohttp fails on one that is not, where it should refuse it."""
    parts = ("upgrade", "connection", "sec-websocket-")
    return all(text.isascii() for name, text in request.headers.items() if name.lower().startswith(parts))


async def _log_in(request: web.Request, socket: web.WebSocketResponse) -> tuple[Principal, dict[str, Any]]:
    try:
        message = await socket.receive(timeout=LOGIN_S)
    except TimeoutError:
        # A cookie came, and was not enough.
        why = "the session ended" if COOKIE in request.cookies else f"no token within {LOGIN_S} s"
        raise Closing(LOGIN_FAILED, why) from None
    if message.type is not WSMsgType.TEXT:
        raise Closing(LOGIN_FAILED, 'the first message is not {"token": "..."}')
    said = _object(message.data)
    text = said.pop("token", None)
    if not isinstance(text, str):
        raise Closing(LOGIN_FAILED, 'the first message is not {"token": "..."}')
    try:
        principal = await request.app[GUARD].late(request, text)
    except ApiError as error:
        raise Closing(LOGIN_FAILED, error.message) from None
    route = declared(request.match_info.handler)
    if route is not None and principal.role < route.role:
        raise Closing(LOGIN_FAILED, f"this needs the role {route.role.word}")
    return principal, said


async def converse(
    socket: web.WebSocketResponse,
    hear: Callable[[dict[str, Any]], None],
    writing: Coroutine[Any, Any, None],
) -> None:
    """Write until the other side ends it, and hear what it says meanwhile: JSON objects, less the token."""
    await both_ways(_hear_all(socket, hear), writing)


async def _hear_all(socket: web.WebSocketResponse, hear: Callable[[dict[str, Any]], None]) -> None:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            raise Closing(BAD_MESSAGE, "a message is a JSON text")
        document = _object(message.data)
        document.pop("token", None)  # sent by habit where none was needed
        hear(document)


async def hear_nothing(socket: web.WebSocketResponse) -> None:
    """Let a client say whatever it likes until it leaves."""
    async for _message in socket:
        pass


async def both_ways(hearing: Coroutine[Any, Any, None], *writing: Coroutine[Any, Any, None]) -> None:
    """Write until the hearing ends. Closing: of any."""
    try:
        async with asyncio.TaskGroup() as group:
            written = [group.create_task(each) for each in writing]
            try:
                await hearing
            finally:
                for each in written:
                    each.cancel()
    except ExceptionGroup as failed:  # an error raised within `except*` is a group before Python 3.11.4
        closings, others = failed.split(Closing)
        if closings is not None:
            raise _first(closings) from None
        if others is not None and others.split(ConnectionError)[1] is not None:
            raise  # the client going away is no failure, everything else is


class Watch:
    """Looks once a second whether the token and the session of a long conversation still stand."""

    def __init__(self, request: web.Request, principal: Principal) -> None:
        self._guard, self._clock = request.app[GUARD], request.app[GATEWAY].clock
        self._principal, self._looked_ns = principal, self._clock.mono_ns()

    async def look(self) -> bool:
        """Say whether a second has gone by. Closing: the token was revoked, or the session ended."""
        if self._clock.mono_ns() - self._looked_ns < TICK_S * 1e9:
            return False
        self._looked_ns = self._clock.mono_ns()
        if why := await self._guard.ended(self._principal):
            raise Closing(LOGIN_FAILED, why)
        return True


async def watched(request: web.Request, principal: Principal) -> None:
    """Watch beside a conversation that takes its own time. Closing: as `Watch.look`."""
    watch = Watch(request, principal)
    while True:
        await asyncio.sleep(TICK_S / 4)
        await watch.look()


async def send(socket: web.WebSocketResponse, text: str) -> None:
    try:
        async with asyncio.timeout(WRITE_S):
            await socket.send_str(text)
    except TimeoutError:
        raise Closing(TOO_SLOW, "the client reads too slowly") from None


async def _close(socket: web.WebSocketResponse, closing: Closing) -> None:
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
        raise Closing(BAD_MESSAGE, "a message is a JSON object")
    return document


def _first(group: BaseExceptionGroup[Closing]) -> Closing:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Closing)
    return error
