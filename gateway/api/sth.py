"""`/v1/sth`: the sensor nodes behind an STU; it is connected to one at a time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.bodies import described, read_document, wrong_field
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.node_schemas import (
    Adc,
    AdcAnswer,
    ConnectedAnswer,
    FoundNodeList,
    NodeChoice,
    Rename,
    RenamedAnswer,
    RssiAnswer,
    SensorMapDocument,
    StuQuery,
    SupplyVoltageAnswer,
    UnitInformationAnswer,
)
from gateway.api.routing import endpoint
from gateway.api.sensor_nodes import nodes_of, refusals, refuse_while_measuring, unit_of
from gateway.api.tokens import Role
from gateway.controls.sensor_nodes import AdcConfiguration, ConnectedNode, SensorNodes

_FAILS = (404, 409, 502, 503)
_BODY_FAILS = (*_FAILS, 408, 413, 415, 422)


def adc_row(adc: AdcConfiguration) -> dict[str, Any]:
    return dataclasses.asdict(adc) | {"sample_rate_hz": adc.sample_rate_hz}


def _connected(nodes: SensorNodes) -> ConnectedNode:
    if nodes.connected is None:
        raise ApiError(409, "No sensor node is connected.", code="not_connected")
    return nodes.connected


@endpoint(
    "GET",
    "/v1/sth",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Search for sensor nodes that can be connected",
    description="Takes a second, and five where there are none. A connected node is not among them.",
    query=StuQuery,
    answers={200: FoundNodeList},
    fails=_FAILS,
)
async def search_nodes(request: web.Request) -> web.Response:
    with refusals():
        nodes = await nodes_of(unit_of(request)).search()
    return json_answer({"nodes": [dataclasses.asdict(node) for node in nodes]})


@endpoint(
    "PUT",
    "/v1/sth/connect",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Connect a sensor node by its MAC, name or number",
    description="Takes up to 20 s. A node that is connected already is answered at once.",
    query=StuQuery,
    body=described(NodeChoice),
    answers={200: ConnectedAnswer},
    fails=_BODY_FAILS,
)
async def connect_node(request: web.Request) -> web.Response:
    nodes = nodes_of(unit_of(request))
    choice = await read_document(request, NodeChoice)
    with refusals():
        node = await nodes.connect(next(iter(choice.values())))
    return json_answer(dataclasses.asdict(node))


@endpoint(
    "PUT",
    "/v1/sth/disconnect",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Let the connected sensor node go, so that it can sleep",
    query=StuQuery,
    answers={200: ConnectedAnswer},
    fails=_FAILS,
)
async def disconnect_node(request: web.Request) -> web.Response:
    device = unit_of(request)
    nodes = nodes_of(device)
    node = _connected(nodes)
    refuse_while_measuring(request.app[GATEWAY], device)
    with refusals():
        await nodes.disconnect()
    return json_answer(dataclasses.asdict(node))


@endpoint(
    "PUT",
    "/v1/sth/rename",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Give a sensor node another name",
    description="A `node` of the configuration that is a name has to be changed there too.",
    query=StuQuery,
    body=described(Rename),
    answers={200: RenamedAnswer},
    fails=_BODY_FAILS,
)
async def rename_node(request: web.Request) -> web.Response:
    nodes = nodes_of(unit_of(request))
    wanted = await read_document(request, Rename)
    name = wanted["new_name"]
    with refusals():
        try:
            before = await nodes.rename(name, wanted.get("mac"))
        except ValueError as error:
            raise wrong_field("new_name", str(error)) from None
    return json_answer({"name": name.strip(), "mac": before.mac, "old_name": before.name})


@endpoint(
    "PUT",
    "/v1/sth/reset",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Restart the connected sensor node, which ends its connection",
    query=StuQuery,
    answers={200: ConnectedAnswer},
    fails=_FAILS,
)
async def reset_node(request: web.Request) -> web.Response:
    device = unit_of(request)
    nodes = nodes_of(device)
    node = _connected(nodes)
    refuse_while_measuring(request.app[GATEWAY], device)
    with refusals():
        await nodes.reset_node()
    return json_answer(dataclasses.asdict(node))


@endpoint(
    "GET",
    "/v1/sth/information",
    role=Role.READ,
    tag="sensor nodes",
    summary="Name, MAC, versions and serial number of the connected sensor node, as it says",
    query=StuQuery,
    answers={200: UnitInformationAnswer},
    fails=_FAILS,
)
async def show_node(request: web.Request) -> web.Response:
    with refusals():
        information = await nodes_of(unit_of(request)).node_information()
    return json_answer(dataclasses.asdict(information))


@endpoint(
    "GET",
    "/v1/sth/rssi",
    role=Role.READ,
    tag="sensor nodes",
    summary="How strongly the connected sensor node is received",
    query=StuQuery,
    answers={200: RssiAnswer},
    fails=_FAILS,
)
async def show_rssi(request: web.Request) -> web.Response:
    with refusals():
        return json_answer({"rssi_dbm": await nodes_of(unit_of(request)).rssi_dbm()})


@endpoint(
    "GET",
    "/v1/sth/supply-voltage",
    role=Role.READ,
    tag="sensor nodes",
    summary="The voltage of the connected sensor node's battery",
    query=StuQuery,
    answers={200: SupplyVoltageAnswer},
    fails=_FAILS,
)
async def show_supply_voltage(request: web.Request) -> web.Response:
    with refusals():
        return json_answer({"supply_voltage_v": await nodes_of(unit_of(request)).supply_voltage_v()})


@endpoint(
    "GET",
    "/v1/sth/adc",
    role=Role.READ,
    tag="sensor nodes",
    summary="How the connected sensor node samples",
    query=StuQuery,
    answers={200: AdcAnswer},
    fails=_FAILS,
)
async def show_adc(request: web.Request) -> web.Response:
    with refusals():
        return json_answer(adc_row(await nodes_of(unit_of(request)).adc()))


@endpoint(
    "PUT",
    "/v1/sth/adc",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Change how the connected sensor node samples",
    query=StuQuery,
    body=described(Adc),
    answers={200: AdcAnswer},
    fails=_BODY_FAILS,
)
async def change_adc(request: web.Request) -> web.Response:
    nodes = nodes_of(unit_of(request))
    adc = adc_of(await read_document(request, Adc))
    with refusals():
        await nodes.set_adc(adc)
    return json_answer(adc_row(adc))


def adc_of(document: Mapping[str, Any]) -> AdcConfiguration:
    """Return what a checked document asks for."""
    return AdcConfiguration(**document)


@endpoint(
    "GET",
    "/v1/sth/sensor-map",
    role=Role.READ,
    tag="sensor nodes",
    summary="Which sensors the three channels of the connected sensor node measure",
    query=StuQuery,
    answers={200: SensorMapDocument},
    fails=_FAILS,
)
async def show_sensor_map(request: web.Request) -> web.Response:
    with refusals():
        return json_answer({"sensors": await nodes_of(unit_of(request)).sensor_map()})


@endpoint(
    "PUT",
    "/v1/sth/sensor-map",
    role=Role.OPERATE,
    tag="sensor nodes",
    summary="Change which sensors the three channels of the connected sensor node measure",
    description="Answered with what is in force then.",
    query=StuQuery,
    body=described(SensorMapDocument),
    answers={200: SensorMapDocument},
    fails=_BODY_FAILS,
)
async def change_sensor_map(request: web.Request) -> web.Response:
    nodes = nodes_of(unit_of(request))
    first, second, third = (await read_document(request, SensorMapDocument))["sensors"]
    with refusals():
        await nodes.set_sensor_map((first, second, third))
        return json_answer({"sensors": await nodes.sensor_map()})


HANDLERS = (
    search_nodes,
    connect_node,
    disconnect_node,
    rename_node,
    reset_node,
    show_node,
    show_rssi,
    show_supply_voltage,
    show_adc,
    change_adc,
    show_sensor_map,
    change_sensor_map,
)
