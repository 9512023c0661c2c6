"""`/v1/devices`: what there is, how it is, poll now, browse."""

import asyncio
import dataclasses
from collections import Counter
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import found, json_answer
from gateway.api.contracts import DeviceView
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.queries import BrowseQuery, NoQuery, ScanQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import DeviceAnswer, DeviceDetail, DeviceList, NodeList, PollAnswer, ScanAnswer
from gateway.api.sensor_nodes import refuse_while_measuring
from gateway.api.tokens import Role
from gateway.api.values import carry, last_row
from gateway.controls.devices import (
    Browse,
    Channel,
    HeardId,
    Node,
    NotPollable,
    Push,
    Scan,
    TagState,
    TagStates,
)
from gateway.model import DeviceProblem
from gateway.store import Store

POLL_WAIT_S: Final = 5
_WAYS: Final = ("subscribed", "polled", "bad")
_CONTROLS: Final[dict[str, Any]] = {"browse": Browse, "scan": Scan, "push": Push}


def device_row(device: DeviceView) -> dict[str, Any]:
    return {
        "id": device.id,
        "kind": device.kind,
        "url": device.url,
        "insecure": device.insecure,
        "health": device.health,
        "tags": len(device.tags),
        "items": _items_row(device),
        "last_heard_us": device.last_heard_us,
        "hole": _hole_row(device.hole),
    }


def _items_row(device: DeviceView) -> dict[str, int] | None:
    states = device.control(TagStates)
    if states is None:
        return None
    found = states.tag_states().values()
    ways = Counter(state.way for state in found)
    return {"alive": sum(state.alive for state in found)} | {way: ways[way] for way in _WAYS}


def _hole_row(hole: tuple[int, str] | None) -> dict[str, Any] | None:
    return None if hole is None else {"since_us": hole[0], "reason": hole[1]}


@endpoint(
    "GET",
    "/v1/devices",
    role=Role.READ,
    tag="devices",
    summary="All devices and how they are",
    query=NoQuery,
    answers={200: DeviceList},
)
async def list_devices(request: web.Request) -> web.Response:
    devices = request.app[GATEWAY].devices
    return json_answer({"devices": [device_row(device) for device in devices.values()]})


@endpoint(
    "GET",
    "/v1/devices/{id}",
    role=Role.READ,
    tag="devices",
    summary="One device with its tags and their last committed samples",
    query=NoQuery,
    answers={200: DeviceDetail},
)
async def show_device(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    device = device_of(request)
    last_run = await gateway.store.last_run(device.id)
    return json_answer(
        device_row(device)
        | {
            "tags": _tag_rows(gateway.store, device),
            "channel": _channel_row(device.control(Channel)),
            "controls": [
                name for name, contract in _CONTROLS.items() if device.control(contract) is not None
            ],
            "last_run": last_run,
        }
    )


def _channel_row(channel: Channel | None) -> dict[str, Any] | None:
    if channel is None:
        return None
    return {
        "security": channel.security,
        "thumbprint": channel.thumbprint,
        "clock_offset_us": channel.clock_offset_us,
        "warnings": list(channel.warnings),
    }


def _tag_rows(store: Store, device: DeviceView) -> list[dict[str, Any]]:
    live = device.control(TagStates)
    states = {} if live is None else live.tag_states()
    return [
        {
            "tag": tag,
            "unit": store.info(series).unit,
            "last": last_row(tag, store.last(series)),
            "state": _state_row(states.get(tag)),
        }
        for tag, series in device.tags.items()
    ]


def _state_row(state: TagState | None) -> dict[str, Any] | None:
    return None if state is None else dataclasses.asdict(state)


@endpoint(
    "POST",
    "/v1/devices/{id}/poll",
    role=Role.OPERATE,
    tag="devices",
    summary="Poll the device now",
    description="A request during a pending or running poll joins it and gets the same run.",
    query=NoQuery,
    answers={200: PollAnswer, 202: PollAnswer},
    fails=(409,),
)
async def poll_device(request: web.Request) -> web.Response:
    device = device_of(request)
    try:
        run_id, ending = await device.poll()
    except NotPollable as error:
        raise ApiError(409, f'Device "{device.id}": {error}.') from None
    try:
        async with asyncio.timeout(POLL_WAIT_S):
            run = await asyncio.shield(ending)
    except NotPollable as error:
        raise ApiError(409, f'Device "{device.id}": {error}.') from None
    except TimeoutError:
        return json_answer({"run_id": run_id, "run": None}, 202)
    return json_answer({"run_id": run_id, "run": run})


@endpoint(
    "POST",
    "/v1/devices/{id}/reconnect",
    role=Role.OPERATE,
    tag="devices",
    summary="End the session and begin a new one now",
    description="Without the wait after a failure. Answered once it runs, or fails: `health` says which. "
    "Refused while a measurement runs there.",
    query=NoQuery,
    answers={200: DeviceAnswer},
    fails=(409,),
)
async def reconnect_device(request: web.Request) -> web.Response:
    gateway, device = request.app[GATEWAY], device_of(request)
    refuse_while_measuring(gateway, device)
    await gateway.reconnect(device.id)
    return json_answer(device_row(device_of(request)))


@endpoint(
    "GET",
    "/v1/devices/{id}/browse",
    role=Role.READ,
    tag="devices",
    summary="The device's address space, node by node",
    query=BrowseQuery,
    answers={200: NodeList},
    fails=(409, 503),
)
async def browse_device(request: web.Request) -> web.Response:
    device, query = device_of(request), request["querystring"]
    browse = device.control(Browse)
    if browse is None:
        raise ApiError(409, f'Device "{device.id}" cannot be browsed now ({device.health.state}).')
    node = query.get("node")
    try:
        async with asyncio.timeout(30):
            page = await browse.browse(node, query["limit"], query.get("cursor"))
    except KeyError:
        raise ApiError(404, f'Device "{device.id}" has no node "{node}".') from None
    except ValueError as error:
        raise ApiError(422, str(error), details=[{"field": "node", "message": str(error)}]) from None
    return json_answer({"nodes": [_node_row(item) for item in page.nodes], "next": page.next})


def _node_row(node: Node) -> dict[str, Any]:
    value, kind = carry(node.value)
    made = {
        "id": node.id,
        "name": node.name,
        "kind": node.kind,
        "type": node.type,
        "access": node.access,
        "value": value,
        "unit": node.unit,
        "meaning": node.meaning,
        "has_children": node.has_children,
    }
    return made | {"value_type": kind} if kind else made


@endpoint(
    "GET",
    "/v1/devices/{id}/scan",
    role=Role.OPERATE,
    tag="devices",
    summary="What is on the device's bus",
    description="Listens for some seconds: each id with its rate, also what is not collected. Sends nothing.",
    query=ScanQuery,
    answers={200: ScanAnswer},
    fails=(409,),
)
async def scan_device(request: web.Request) -> web.Response:
    device, query = device_of(request), request["querystring"]
    scan = device.control(Scan)
    if scan is None:
        raise ApiError(409, f'Device "{device.id}" cannot be scanned now ({device.health.state}).')
    try:
        heard = await scan.scan(query["seconds"])
    except DeviceProblem as error:
        raise ApiError(409, f'Device "{device.id}" cannot be scanned now: {error}.') from None
    return json_answer({"ids": [_heard_row(each) for each in heard]})


def _heard_row(heard: HeardId) -> dict[str, Any]:
    return dataclasses.asdict(heard) | {
        "payload": heard.payload.hex(),
        "values": {name: carry(value)[0] for name, value in heard.values.items()},
    }


def device_of(request: web.Request) -> DeviceView:
    device: DeviceView = found("device", request.match_info["id"], request.app[GATEWAY].devices)
    return device


HANDLERS = (list_devices, show_device, poll_device, reconnect_device, browse_device, scan_device)
