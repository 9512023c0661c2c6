"""`WS /v1/measurement/stream`: every frame of a device's measurements as it comes, as physical values."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from gateway.api.auth import Principal
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.measurement import running_row
from gateway.api.node_schemas import StuQuery
from gateway.api.routing import endpoint
from gateway.api.sensor_nodes import unit_of
from gateway.api.sockets import BAD_MESSAGE, NOT_THERE, TICK_S, Closing, Watch, converse, send, serve_socket
from gateway.api.tokens import Role
from gateway.api.values import dumps
from gateway.measurements import Ended, IftValues, LiveFrames, LiveItem, Loss, Tap


@endpoint(
    "GET",
    "/v1/measurement/stream",
    role=Role.READ,
    tag="measurements",
    summary="WebSocket: every frame of the measurements of an STU as it comes",
    description="Authenticate as for /v1/stream. The messages are described in the documentation. A client "
    "that reads too slowly misses frames, and is told how many.",
    query=StuQuery,
    answers={101: {"description": "The stream begins."}},
    fails=(404, 409),
    late_login=True,
)
async def stream_measurement(request: web.Request) -> web.StreamResponse:
    known = unit_of(request).id if request.get("principal") is not None else None

    async def talk(socket: web.WebSocketResponse, principal: Principal, said: dict[str, Any]) -> None:
        device = known or _device(request)
        with request.app[GATEWAY].measurements.watch(device) as tap:
            await converse(socket, _hear, _write(request, socket, device, tap, principal))

    return await serve_socket(request, talk)


def _device(request: web.Request) -> str:
    """Return the device for who logged in only just: before, nobody is told which there are."""
    try:
        return unit_of(request).id
    except ApiError as error:
        raise Closing(NOT_THERE, error.message) from None


def _hear(said: dict[str, Any]) -> None:
    if said:
        raise Closing(BAD_MESSAGE, "this stream takes no messages")


async def _write(
    request: web.Request, socket: web.WebSocketResponse, device: str, tap: Tap, principal: Principal
) -> None:
    watch, name = Watch(request, principal), ""
    await send(socket, _state(request, device))
    while True:
        item = await _next(tap)
        if item is not None and item.measurement != name:
            name = item.measurement
            await send(socket, _state(request, device))
        if item is not None:
            await send(socket, _message(item))
        await watch.look()


async def _next(tap: Tap) -> LiveItem | None:
    """Return the next item, None where none comes for a second."""
    try:
        async with asyncio.timeout(TICK_S):
            return await anext(tap)
    except TimeoutError:
        return None


def _state(request: web.Request, device: str) -> str:
    running = running_row(request.app[GATEWAY], device)
    return dumps({"type": "state", "device": device, "running": running}).decode()


def _message(item: LiveItem) -> str:
    """Return an item as JSON; the field names are those of gateway.measurements.live."""
    row: dict[str, Any] = {"type": _TYPES[type(item)]}
    row |= {name: getattr(item, name) for name in item.__slots__}
    if isinstance(item, LiveFrames):
        row["counters"] = list(item.counters)
    return dumps(row).decode()


_TYPES: Final[Mapping[type[LiveItem], str]] = {
    LiveFrames: "frames",
    Loss: "loss",
    IftValues: "ift",
    Ended: "ended",
}
HANDLERS = (stream_measurement,)
