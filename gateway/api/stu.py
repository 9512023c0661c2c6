"""`/v1/stu`: the transceiver units of ICOtronic."""

import dataclasses
from typing import Any

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.contracts import DeviceView, GatewayView
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.node_schemas import StuAnswer, StuList, StuQuery, UnitInformationAnswer
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.sensor_nodes import nodes_of, refusals, refuse_while_measuring, unit_of, units
from gateway.api.tokens import Role
from gateway.controls.sensor_nodes import SensorNodes


def stu_row(gateway: GatewayView, device: DeviceView) -> dict[str, Any]:
    nodes, running = device.control(SensorNodes), gateway.measurements.running(device.id)
    connected = nodes.connected if nodes is not None else None
    return {
        "device": device.id,
        "health": device.health,
        "ready": nodes is not None,
        "connected": dataclasses.asdict(connected) if connected is not None else None,
        "measurement": running.name if running is not None else None,
    }


@endpoint(
    "GET",
    "/v1/stu",
    role=Role.READ,
    tag="sensor nodes",
    summary="The STUs, what each is connected to, and what it measures",
    query=NoQuery,
    answers={200: StuList},
)
async def list_stus(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    return json_answer({"stus": [stu_row(gateway, device) for device in units(gateway).values()]})


@endpoint(
    "GET",
    "/v1/stu/information",
    role=Role.READ,
    tag="sensor nodes",
    summary="Name, MAC, versions and serial number of an STU, as it says",
    query=StuQuery,
    answers={200: UnitInformationAnswer},
    fails=(404, 409, 502, 503),
)
async def show_stu(request: web.Request) -> web.Response:
    with refusals():
        information = await nodes_of(unit_of(request)).stu_information()
    return json_answer(dataclasses.asdict(information))


@endpoint(
    "PUT",
    "/v1/stu/reset",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Restart an STU; answered once it is back",
    description="Refused while a sensor node is connected: disconnect it first.",
    query=StuQuery,
    answers={200: StuAnswer},
    fails=(404, 409, 502, 503),
)
async def reset_stu(request: web.Request) -> web.Response:
    gateway, device = request.app[GATEWAY], unit_of(request)
    nodes = nodes_of(device)
    refuse_while_measuring(gateway, device)
    if (node := nodes.connected) is not None:
        raise ApiError(409, f"{node.name} ({node.mac}) is connected: disconnect it first.", code="node_busy")
    with refusals():
        await nodes.reset_stu()
    return json_answer(stu_row(gateway, device))


HANDLERS = (list_stus, show_stu, reset_stu)
