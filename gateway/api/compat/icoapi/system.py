"""ICOapi's `/state`, `/reset-can` and `WS /state`."""

import asyncio
import contextlib
import json
from typing import Any, Final

from aiohttp import WSMsgType, web

from gateway.api.answers import json_answer
from gateway.api.auth import Principal
from gateway.api.compat.icoapi.answers import nothing
from gateway.api.compat.icoapi.cloud import cloud_row
from gateway.api.compat.icoapi.measuring import status_row, waiting
from gateway.api.compat.icoapi.units import capacity, nodes_of, unit_if_any, unit_of
from gateway.api.keys import GATEWAY
from gateway.api.sensor_nodes import refuse_while_measuring
from gateway.api.sockets import BAD_MESSAGE, Closing, both_ways, send, serve_socket, watched
from gateway.api.values import dumps
from gateway.controls.sensor_nodes import SensorNodes

_LOOK_S: Final = 0.25


async def state_row(request: web.Request) -> dict[str, Any]:
    """Return ICOapi's SystemStateModel."""
    disk = await request.app[GATEWAY].files.disk()
    return _told_row(request) | {"disk_capacity": capacity(disk.total_bytes, disk.free_bytes)}


def _told_row(request: web.Request) -> dict[str, Any]:
    """Return what of the state is told whenever it changes; the room on the disk always does."""
    device = unit_if_any(request)
    return {
        "can_ready": device is not None and device.control(SensorNodes) is not None,
        "measurement_status": status_row(request),
        "cloud": cloud_row(request),
    }


async def show_state(request: web.Request) -> web.StreamResponse:
    """Answer once, or as a WebSocket with every change: both are at one path."""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _stream(request)
    return json_answer(await state_row(request))


async def reset_can(request: web.Request) -> web.Response:
    """Close the bus and open it again; ApiError 502: the STU does not answer there."""
    gateway, device = request.app[GATEWAY], unit_of(request)
    refuse_while_measuring(gateway, device, 400)
    await gateway.reconnect(device.id)
    nodes_of(unit_of(request))
    return nothing()


async def _stream(request: web.Request) -> web.StreamResponse:
    unit_if_any(request)

    async def talk(socket: web.WebSocketResponse, principal: Principal, _: object) -> None:
        asked = asyncio.Event()
        writing = _write(request, socket, asked)
        await both_ways(_hear(socket, asked), writing, watched(request, principal))

    return await serve_socket(request, talk)


async def _hear(socket: web.WebSocketResponse, asked: asyncio.Event) -> None:
    async for message in socket:
        if _asks_for_state(message):
            asked.set()


def _asks_for_state(message: Any) -> bool:
    """Say whether it does; other messages are ignored. Closing: it is no JSON."""
    if message.type is not WSMsgType.TEXT:
        raise Closing(BAD_MESSAGE, "a message is a JSON text")
    try:
        said = json.loads(message.data)
    except (ValueError, RecursionError):
        raise Closing(BAD_MESSAGE, "a message is a JSON text") from None
    return isinstance(said, dict) and said.get("message") == "get_state"


async def _write(request: web.Request, socket: web.WebSocketResponse, asked: asyncio.Event) -> None:
    told, awaited = None, _awaited(request)
    while True:
        now = _told_row(request)
        if now != told or asked.is_set():
            asked.clear()
            told = now
            await send(socket, _message("state", await state_row(request)))
        before, awaited = awaited, _awaited(request)
        for _ in awaited - before:
            await send(socket, _message("post_meta_request", None))
        for _ in before - awaited:
            await send(socket, _message("post_meta_completed", None))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await asked.wait()


def _awaited(request: web.Request) -> set[str]:
    """Return the measurements that are over, and wait for metadata."""
    device = unit_if_any(request)
    if device is None:
        return set()
    running = request.app[GATEWAY].measurements.running(device.id)
    return {m.name for m in waiting(request.app[GATEWAY], device.id) if m is not running}


def _message(word: str, data: Any) -> str:
    return dumps({"message": word, "data": data}).decode()


ROUTES = (
    ("GET", "/state", show_state),
    ("PUT", "/reset-can", reset_can),
)
