"""Runs the application on its listener: TLS, deadlines, limits on connections, an end within two seconds."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from gateway.api import tls
from gateway.api.connections import Limits, bind
from gateway.api.errors import error_response
from gateway.api.settings import HttpSettings, split_address

_log = logging.getLogger(__name__)
NOSNIFF: Final = {"X-Content-Type-Options": "nosniff"}
HEADERS_S: Final = 5.0
"""A request's head has to be complete so long after its first byte, or after the connection was made."""
HANDSHAKE_S: Final = 5.0
KEEP_ALIVE_S: Final = 75.0
STOP_S: Final = 0.8
_MAX_HEADERS: Final = 64


class Connection(web.RequestHandler):
    """aiohttp's connection with what it lacks: a deadline for the head, and our error shape."""

    __slots__ = ("_deadline",)

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=2.0,
            max_headers=_MAX_HEADERS,
            access_log=None,  # type: ignore[arg-type]  # aiohttp says Logger and takes None
        )
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count > before:
            self._head_is_there()
        elif self._deadline is None and self._waiter is not None:
            self._expect_head()  # the first bytes of the next request on this connection

    def _expect_head(self) -> None:
        self._deadline = self._loop.call_later(HEADERS_S, self.force_close)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def log_exception(self, *args: object, **more: object) -> None:
        """Log our faults; a body that is not what its head says is the client's."""
        level = logging.DEBUG if isinstance(more.get("exc_info"), web.RequestPayloadError) else logging.ERROR
        _log.log(level, *args, **more)  # type: ignore[arg-type]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler, such as bytes that are not HTTP, in the one shape."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client went away: aiohttp closes, and nobody's log has to know
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer has begun already")
        sentence = "The request is not valid HTTP." if status < 500 else "The gateway failed."
        if status >= 500:
            self.log_exception("Error handling request", exc_info=exc)
        response = error_response(status, sentence, headers={"Server": "edge-gateway", **NOSNIFF})
        response.force_close()
        return response


@asynccontextmanager
async def serve(app: web.Application, settings: HttpSettings, state: Path) -> AsyncIterator[tuple[str, int]]:
    """Serve while entered; yields the bound address. OSError: the address is in use or not ours."""
    context = await asyncio.to_thread(tls.context, settings, state)
    host, port = split_address(settings.listen)
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app, shutdown_timeout=STOP_S, access_log=None)
    await runner.setup()
    try:
        manager = runner.server
        assert manager is not None
        async with AsyncExitStack() as stack:
            sockets = await bind(host, port, Limits(settings))
            for each in sockets:
                stack.enter_context(each)
            for each in sockets:
                listener = await loop.create_server(
                    lambda: Connection(manager, loop),
                    sock=each,
                    ssl=context,
                    ssl_handshake_timeout=HANDSHAKE_S if context else None,
                    ssl_shutdown_timeout=1.0 if context else None,
                    backlog=128,
                )
                stack.callback(listener.close)
            bound = sockets[0].getsockname()
            yield bound[0], bound[1]
    finally:
        await runner.cleanup()
