"""ICOapi's `/measurement`: its instructions become a plan, a measurement its status."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from gateway.api.answers import json_answer
from gateway.api.bodies import METADATA_BYTES
from gateway.api.compat.icoapi.answers import Whole, nothing, read_fields, refusals, wrong_field
from gateway.api.compat.icoapi.nodes import Adc, adc_of, adc_row
from gateway.api.compat.icoapi.units import local_iso, nodes_of, unit_if_any, unit_of
from gateway.api.contracts import GatewayView
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.measurement import sensor_library, stopped
from gateway.api.sensor_nodes import sentence
from gateway.measurements import Channel, IftRequest, Measurement, Plan
from gateway.sensors import SensorLibrary

INSTRUCTIONS: web.AppKey[dict[str, tuple[str, Mapping[str, Any]]]] = web.AppKey("instructions", dict)
"""Of the measurement that was started last at each device: its name, and the instructions as they came."""
_PLACES: Final = ("first", "second", "third")


class _Body(Schema):
    class Meta:
        """Read by marshmallow."""

        unknown = EXCLUDE


class _Channel(_Body):
    channel_number = Whole(required=True, validate=validate.Range(0, 255))
    sensor_id = fields.String(load_default=None, allow_none=True)


class Metadata(_Body):
    """ICOapi's Metadata."""

    version = fields.String(required=True)
    profile = fields.String(required=True)
    parameters = fields.Dict(required=True)


class _Instructions(_Body):
    name = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=200))
    mac_address = fields.String(load_default="")
    time = fields.Float(
        load_default=None, allow_none=True, validate=validate.Range(0, 1e8, min_inclusive=False)
    )
    first = fields.Nested(_Channel, required=True)
    second = fields.Nested(_Channel, required=True)
    third = fields.Nested(_Channel, required=True)
    ift_requested = fields.Boolean(required=True)
    ift_channel = fields.String(load_default="", validate=validate.OneOf(["", *_PLACES]))
    ift_window_width = fields.Float(load_default=0.0)
    adc = fields.Dict(load_default=None, allow_none=True)
    meta = fields.Nested(Metadata, load_default=None, allow_none=True)
    wait_for_post_meta = fields.Boolean(load_default=False)
    disconnect_after_measurement = fields.Boolean(load_default=False)


def status_row(request: web.Request) -> dict[str, Any]:
    """Return ICOapi's MeasurementStatus of the STU that is meant."""
    device = unit_if_any(request)
    m = request.app[GATEWAY].measurements.running(device.id) if device is not None else None
    if m is None:
        return {"running": False, "name": None, "start_time": None, "tool_name": None, "instructions": None}
    return {
        "running": True,
        "name": m.name,
        "start_time": local_iso(m.started_us),
        "tool_name": m.node,
        "instructions": _instructions(request, m),
    }


def _instructions(request: web.Request, m: Measurement) -> Mapping[str, Any]:
    """Return the instructions as they came, or as they would have to be for this measurement."""
    name, given = request.app[INSTRUCTIONS].get(m.device, ("", {}))
    if name == m.name:
        return given
    channels = [
        {"channel_number": each.number if each else 0, "sensor_id": each.sensor.id if each else None}
        for each in m.channels
    ]
    return {
        "name": m.name,
        "mac_address": m.mac,
        "time": m.duration_s,
        **dict(zip(_PLACES, channels, strict=True)),
        "ift_requested": False,
        "ift_channel": "",
        "ift_window_width": 0,
        "adc": adc_row(m.adc),
        "meta": None,
        "wait_for_post_meta": m.waits_for_metadata,
        "disconnect_after_measurement": False,
    }


async def start(request: web.Request) -> web.Response:
    gateway, device = request.app[GATEWAY], unit_of(request)
    given = await read_fields(request, _Instructions, METADATA_BYTES)
    plan = _plan(given, sensor_library(gateway))
    nodes_of(device)  # 502 where the STU is silent, as everywhere else
    with refusals():
        try:
            m = await gateway.measurements.start(device.id, plan)
        except ValueError as error:
            raise wrong_field("meta", str(error), None) from None
    request.app[INSTRUCTIONS][device.id] = m.name, given | {"meta": None}
    return json_answer({"message": "Measurement started successfully.", "data": status_row(request)})


def _plan(given: Mapping[str, Any], library: SensorLibrary) -> Plan:
    first, second, third = (_channel(place, given[place], library) for place in _PLACES)
    try:
        return Plan(
            (first, second, third),
            name=given["name"] or "",
            duration_s=given["time"],
            adc=_adc(given["adc"]),
            ift=_ift(given),
            metadata=given["meta"],
            wait_for_post_metadata=given["wait_for_post_meta"],
            disconnect_afterwards=given["disconnect_after_measurement"],
        )
    except ValueError as error:
        raise ApiError(422, sentence(error)) from None


def _adc(given: Any) -> Any:
    """Return the ADC configuration, which ICOapi wants. ApiError 422 in its words."""
    if given is None:
        raise ApiError(422, "Invalid ADC configuration.")
    try:
        return adc_of(Adc().load(given))
    except ValidationError as error:
        fields_ = ", ".join(map(str, error.normalized_messages()))
        raise ApiError(422, f"Invalid ADC configuration: {fields_}.") from None


def _ift(given: Mapping[str, Any]) -> IftRequest | None:
    """Return what the IFT value is of: raw counts, as ICOapi takes them. ValueError: no such window."""
    if not given["ift_requested"] or not given["ift_channel"]:
        return None
    return IftRequest(_PLACES.index(given["ift_channel"]), given["ift_window_width"] / 1000, raw=True)


def _channel(place: str, given: Mapping[str, Any], library: SensorLibrary) -> Channel | None:
    number = given["channel_number"]
    if not number:
        return None
    try:
        return Channel(number, library.of_channel(number, given["sensor_id"]))
    except LookupError as error:
        raise wrong_field(place, str(error.args[0]), given["sensor_id"]) from None


async def stop(request: web.Request) -> web.Response:
    gateway, device = request.app[GATEWAY], unit_of(request).id
    if gateway.measurements.busy(device):
        with refusals():
            try:
                await stopped(gateway, device)
            except TimeoutError as error:
                raise ApiError(504, str(error), code="timeout") from None
    return nothing()


async def post_meta(request: web.Request) -> web.Response:
    gateway, device = request.app[GATEWAY], unit_of(request).id
    metadata = await read_fields(request, Metadata, METADATA_BYTES)
    m = next(iter(waiting(gateway, device)), None) or gateway.measurements.running(device)
    if m is None:
        raise ApiError(400, "No measurement waits for metadata.")
    with refusals():
        try:
            await gateway.measurements.post_metadata(m.name, metadata)
        except ValueError as error:
            raise wrong_field("parameters", str(error), None) from None
    return nothing()


def waiting(gateway: GatewayView, device: str) -> list[Measurement]:
    """Return the measurements of a device that metadata is to follow to, the newest first."""
    return [m for m in gateway.measurements.listed() if m.device == device and m.waits_for_metadata]


async def show_status(request: web.Request) -> web.Response:
    return json_answer(status_row(request))


ROUTES = (
    ("POST", "/measurement/start", start),
    ("POST", "/measurement/stop", stop),
    ("POST", "/measurement/post_meta", post_meta),
    ("GET", "/measurement", show_status),
)
