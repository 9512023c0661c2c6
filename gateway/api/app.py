"""Puts the application together: guards, handlers, document."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp_apispec import validation_middleware

from gateway.api import (
    certificates,
    cloud,
    deletions,
    devices,
    documents,
    embedded,
    files,
    history,
    logs,
    measurement,
    measurement_stream,
    metrics,
    openapi,
    pages,
    push,
    samples,
    session,
    sockets,
    state,
    sth,
    stu,
    uploads,
    websocket,
)
from gateway.api.auth import Guard
from gateway.api.body_room import BODY_ROOM, BodyRoom
from gateway.api.contracts import GatewayView
from gateway.api.errors import errors
from gateway.api.keys import GATEWAY, GUARD, SETTINGS, SOCKETS, STREAMS, ZIPPING
from gateway.api.routing import add_routes, refuse_undeclared
from gateway.api.settings import HttpSettings
from gateway.api.stream import Streams

_MODULES = (
    state,
    devices,
    samples,
    push,
    deletions,
    history,
    uploads,
    files,
    embedded,
    cloud,
    certificates,
    documents,
    logs,
    stu,
    sth,
    measurement_stream,
    measurement,
    websocket,
    session,
    metrics,
    pages,
)


def build_app(gateway: GatewayView, settings: HttpSettings) -> web.Application:
    """Return the API of a gateway. Its `open()`ed tokens decide who gets in."""
    guard = Guard(settings, gateway.tokens, gateway.clock)
    app = web.Application(
        middlewares=[errors, guard.middleware, validation_middleware],
        client_max_size=settings.max_body_bytes,
    )
    app[GATEWAY], app[GUARD], app[SETTINGS] = gateway, guard, settings
    app[STREAMS], app[SOCKETS] = Streams(gateway), set()
    app[ZIPPING], app[BODY_ROOM] = asyncio.Lock(), BodyRoom()
    for module in _MODULES:
        add_routes(app, module.HANDLERS)
    openapi.set_up(app)
    app.on_startup.append(refuse_undeclared)
    app.cleanup_ctx.append(_listening)
    app.on_shutdown.append(sockets.close_all)
    app.on_response_prepare.append(_secure)
    app.on_response_prepare.append(_doubt_the_date)
    return app


async def _listening(app: web.Application) -> AsyncIterator[None]:
    streams = app[STREAMS]
    with app[GATEWAY].subscribe(streams.heard):
        yield
    streams.close()


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    """Say to every browser: no guessing of types, no frames, no caching of data."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Content-Security-Policy", pages.DATA_POLICY)
    headers.setdefault("Cache-Control", "no-store")
    headers["Server"] = "edge-gateway"
    if request.secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"


async def _doubt_the_date(request: web.Request, response: web.StreamResponse) -> None:
    """Say that the Date may be wrong: loggers without a clock of their own live by it."""
    if not request.app[GATEWAY].clock.synchronised():
        response.headers["Clock"] = "unsynchronised"
