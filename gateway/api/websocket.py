"""The WebSocket of the samples: the state first, then the changes."""

import asyncio
import contextlib
from typing import Any, Final

from aiohttp import web

from gateway.api.auth import Principal
from gateway.api.keys import GATEWAY, STREAMS
from gateway.api.queries import StreamQuery
from gateway.api.routing import endpoint
from gateway.api.sockets import BAD_MESSAGE, TICK_S, Closing, Watch, converse, send, serve_socket
from gateway.api.stream import Client, Filter
from gateway.api.tokens import Role

STATE_NS: Final = 1_000_000_000
"""A client gets a state at most so often: floods and its own wishes come faster, and it holds every tag."""


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
    query, streams = request["querystring"], request.app[STREAMS]
    client = Client(Filter(_names(query.get("devices")), _names(query.get("tags"))))

    def hear(document: dict[str, Any]) -> None:
        client.filter = _filter(document)
        client.renew()

    async def talk(socket: web.WebSocketResponse, principal: Principal, said: dict[str, Any]) -> None:
        if said:
            client.filter = _filter(said)
        streams.join(client)
        try:
            await converse(socket, hear, _write(request, socket, client, principal))
        finally:
            streams.leave(client)

    return await serve_socket(request, talk)


async def _write(
    request: web.Request, socket: web.WebSocketResponse, client: Client, principal: Principal
) -> None:
    streams, watch = request.app[STREAMS], Watch(request, principal)
    told, mono_ns = "", request.app[GATEWAY].clock.mono_ns
    state_ns: int | None = None
    while True:
        if client.stale:
            if state_ns is not None and (rest_ns := state_ns + STATE_NS - mono_ns()) > 0:
                await asyncio.sleep(rest_ns / 1e9)
            state_ns = mono_ns()
            told = streams.devices(client)
            await send(socket, streams.state(client))
        elif (text := client.take()) is not None:
            await send(socket, text)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.wake.wait(), TICK_S)
        if await watch.look() and (devices := streams.devices(client)) != told:
            told = devices
            await send(socket, devices)


def _filter(document: dict[str, Any]) -> Filter:
    """Read {"devices": [...], "tags": [...]}; what is not named is wanted whole."""
    chosen: dict[str, frozenset[str] | None] = {"devices": None, "tags": None}
    for name, value in document.items():
        if name not in chosen or not (value is None or _is_texts(value)):
            raise Closing(BAD_MESSAGE, f'"{name[:40]}" is not devices or tags with a list of names')
        chosen[name] = None if value is None else frozenset(value)
    return Filter(**chosen)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(part.strip() for part in text.split(","))


HANDLERS = (stream_samples,)
