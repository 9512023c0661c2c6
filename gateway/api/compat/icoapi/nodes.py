"""ICOapi's `/stu` and `/sth`."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from marshmallow import EXCLUDE, Schema, fields, validate

from gateway.api.answers import json_answer
from gateway.api.compat.icoapi.answers import Whole, nothing, read_fields, refusals, wrong_field
from gateway.api.compat.icoapi.units import STU_NAME, nodes_of, unit_of
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.node_schemas import MAC
from gateway.api.sensor_nodes import refuse_while_measuring
from gateway.controls.sensor_nodes import AdcConfiguration, SensorNodes


class _Body(Schema):
    class Meta:
        """Read by marshmallow."""

        unknown = EXCLUDE


class _Mac(_Body):
    mac_address = fields.String(
        required=True, validate=validate.Regexp(MAC, error="This is no MAC, such as 08-6B-D7-01-DE-81.")
    )


class _Rename(_Mac):
    new_name = fields.String(required=True)


class _StuName(_Body):
    name = fields.String(required=True)


class Adc(_Body):
    """ICOapi's ADCValues."""

    prescaler = Whole(required=True)
    acquisition_time = Whole(required=True)
    oversampling_rate = Whole(required=True)
    reference_voltage = fields.Float(required=True)


def adc_row(adc: AdcConfiguration) -> dict[str, Any]:
    row = dataclasses.asdict(adc)
    return row | {"reference_voltage": row.pop("reference_voltage_v")}


def adc_of(values: dict[str, Any]) -> AdcConfiguration:
    """Return what was asked for. WrongBody: out of range."""
    try:
        return AdcConfiguration(
            values["prescaler"],
            values["acquisition_time"],
            values["oversampling_rate"],
            values["reference_voltage"],
        )
    except ValueError as error:
        raise wrong_field("adc", str(error), values) from None


def need_idle(nodes: SensorNodes, device: str) -> None:
    """Raise ApiError 400 unless the STU is connected to no node."""
    if (node := nodes.connected) is not None:
        raise ApiError(400, f'The STU "{device}" is connected to {node.name} ({node.mac}): disconnect first.')


async def list_stus(request: web.Request) -> web.Response:
    with refusals():
        information = await nodes_of(unit_of(request)).stu_information()
    return json_answer([{"name": STU_NAME, "device_number": 1, "mac_address": information.mac}])


async def reset_stu(request: web.Request) -> web.Response:
    device = unit_of(request)
    nodes = nodes_of(device)
    need_idle(nodes, device.id)
    with refusals():
        await nodes.reset_stu()
    return nothing()


async def is_connected(request: web.Request) -> web.Response:
    return json_answer(nodes_of(unit_of(request)).connected is not None)


async def is_connected_by_name(request: web.Request) -> web.Response:
    """Answer as ICOapi 0.1.2 does, where the STU is named in the body."""
    name = (await read_fields(request, _StuName))["name"]
    if name != STU_NAME:
        raise ApiError(404, f'There is no STU "{name[:40]}": it is called {STU_NAME}.')
    return await is_connected(request)


async def list_nodes(request: web.Request) -> web.Response:
    with refusals():
        found = await nodes_of(unit_of(request)).search()
    return json_answer(
        [
            {
                "name": node.name,
                "device_number": node.number,
                "mac_address": node.mac,
                "rssi": node.rssi_dbm,
            }
            for node in found
        ]
    )


async def connect(request: web.Request) -> web.Response:
    device = unit_of(request)
    nodes = nodes_of(device)
    mac = (await read_fields(request, _Mac))["mac_address"]
    need_idle(nodes, device.id)
    with refusals():
        await nodes.connect(mac)
    return nothing()


async def disconnect(request: web.Request) -> web.Response:
    device = unit_of(request)
    nodes = nodes_of(device)
    refuse_while_measuring(request.app[GATEWAY], device, 400)
    with refusals():
        await nodes.disconnect()
    return nothing()


async def rename(request: web.Request) -> web.Response:
    nodes = nodes_of(unit_of(request))
    wanted = await read_fields(request, _Rename)
    name = wanted["new_name"]
    with refusals():
        try:
            before = await nodes.rename(name, wanted["mac_address"])
        except ValueError as error:
            raise wrong_field("new_name", str(error), name) from None
    return json_answer({"name": name.strip(), "old_name": before.name, "mac_address": before.mac})


async def read_adc(request: web.Request) -> web.Response:
    with refusals(not_connected=404):
        return json_answer(adc_row(await nodes_of(unit_of(request)).adc()))


async def write_adc(request: web.Request) -> web.Response:
    nodes = nodes_of(unit_of(request))
    adc = adc_of(await read_fields(request, Adc))
    with refusals(not_connected=404):
        await nodes.set_adc(adc)
    return nothing()


async def supply_voltage(request: web.Request) -> web.Response:
    with refusals(not_connected=404):
        volts = await nodes_of(unit_of(request)).supply_voltage_v()
    now = datetime.fromtimestamp(request.app[GATEWAY].clock.wall_us() / 1e6, UTC).isoformat()
    return json_answer({"supply_voltage": volts, "unit": "V", "indication": None, "timestamp_utc_iso": now})


ROUTES = (
    ("GET", "/stu", list_stus),
    ("PUT", "/stu/reset", reset_stu),
    ("GET", "/stu/connected", is_connected),
    ("POST", "/stu/connected", is_connected_by_name),
    ("GET", "/sth", list_nodes),
    ("PUT", "/sth/connect", connect),
    ("PUT", "/sth/disconnect", disconnect),
    ("PUT", "/sth/rename", rename),
    ("GET", "/sth/read-adc", read_adc),
    ("PUT", "/sth/write-adc", write_adc),
    ("GET", "/sth/supply-voltage", supply_voltage),
)
