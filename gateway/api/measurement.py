"""`/v1/measurement`: start and stop one, see how it is, add metadata."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import found, json_answer
from gateway.api.bodies import METADATA_BYTES, described, read_document, wrong_field
from gateway.api.contracts import GatewayView
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.node_schemas import (
    MeasurementAnswer,
    MeasurementList,
    MeasurementListQuery,
    MeasurementPlan,
    MeasurementStatus,
    PostMetadata,
    StuQuery,
)
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.sensor_nodes import refusals, sentence, unit_of
from gateway.api.sth import adc_of, adc_row
from gateway.api.tokens import Role
from gateway.controls.documents import DocumentRefused
from gateway.measurements import Channel, IftRequest, Measurement, MeasurementRefused, Plan
from gateway.measurements.plan import Channels, to_json
from gateway.sensors import SensorLibrary

STOP_S: Final = 10
_SAME: Final = (
    "name",
    "device",
    "node",
    "mac",
    "state",
    "started_us",
    "ended_us",
    "duration_s",
    "received",
    "lost",
    "loss",
    "interrupted",
    "ending",
    "waits_for_metadata",
    "file",
    "problem",
)


def measurement_row(m: Measurement) -> dict[str, Any]:
    same = {name: getattr(m, name) for name in _SAME}
    return same | {"channels": to_json(m.channels), "adc": adc_row(m.adc)}


def running_row(gateway: GatewayView, device: str) -> dict[str, Any] | None:
    """Return the measurement that a device runs, if any."""
    m = gateway.measurements.running(device)
    return measurement_row(m) if m is not None else None


def sensor_library(gateway: GatewayView) -> SensorLibrary:
    """Return the sensors in force. ApiError 409: sensors.yaml is broken."""
    try:
        return gateway.documents.sensors()
    except DocumentRefused as refused:
        raise ApiError(409, f"The sensors are not known: {refused}.") from None


@contextmanager
def measuring() -> Iterator[None]:
    """Turn what a measurement or its node refuses into an ApiError."""
    with refusals():
        try:
            yield
        except MeasurementRefused as refused:
            raise ApiError(409, sentence(refused), code="measurement_refused") from None


@endpoint(
    "GET",
    "/v1/measurement",
    role=Role.READ,
    tag="measurements",
    summary="The measurement that an STU runs, if any",
    query=StuQuery,
    answers={200: MeasurementStatus},
    fails=(404, 409),
)
async def show_running(request: web.Request) -> web.Response:
    device = unit_of(request).id
    return json_answer({"device": device, "running": running_row(request.app[GATEWAY], device)})


@endpoint(
    "GET",
    "/v1/measurement/list",
    role=Role.READ,
    tag="measurements",
    summary="The measurements that the gateway knows of, also those whose file is not written yet",
    query=MeasurementListQuery,
    answers={200: MeasurementList},
)
async def list_measurements(request: web.Request) -> web.Response:
    query = request["querystring"]
    device = query.get("device")
    known = request.app[GATEWAY].measurements.listed()
    chosen = [m for m in known if device is None or m.device == device]
    return json_answer({"measurements": [measurement_row(m) for m in chosen[: query["limit"]]]})


@endpoint(
    "GET",
    "/v1/measurement/{name}",
    role=Role.READ,
    tag="measurements",
    summary="One measurement",
    query=NoQuery,
    answers={200: MeasurementAnswer},
)
async def show_measurement(request: web.Request) -> web.Response:
    known = {m.name: m for m in request.app[GATEWAY].measurements.listed()}
    return json_answer(measurement_row(found("measurement", request.match_info["name"], known)))


@endpoint(
    "POST",
    "/v1/measurement/start",
    role=Role.OPERATE,
    tag="measurements",
    summary="Begin to measure with the connected sensor node",
    description="Answered once frames come and the measurement is known to the store. Refused where one runs "
    "already, no node is connected, or the disk has no room for it.",
    query=StuQuery,
    body=described(MeasurementPlan),
    answers={201: MeasurementAnswer},
    fails=(404, 408, 409, 413, 415, 422, 502, 503),
)
async def start_measurement(request: web.Request) -> web.Response:
    gateway, device = request.app[GATEWAY], unit_of(request)
    given = await read_document(request, MeasurementPlan, METADATA_BYTES)
    plan = _plan(given, sensor_library(gateway))
    with measuring():
        try:
            m = await gateway.measurements.start(device.id, plan)
        except ValueError as error:
            raise wrong_field("metadata", str(error)) from None
    return json_answer(measurement_row(m), 201)


@endpoint(
    "POST",
    "/v1/measurement/stop",
    role=Role.OPERATE,
    tag="measurements",
    summary="End the running measurement; answered once all of it is committed",
    description="Its file follows within seconds: `state` is `written` then. 503: the disk refuses, and what "
    "came is kept in memory until it does not.",
    query=StuQuery,
    answers={200: MeasurementAnswer},
    fails=(404, 409, 503),
)
async def stop_measurement(request: web.Request) -> web.Response:
    with measuring():
        m = await stopped(request.app[GATEWAY], unit_of(request).id)
    return json_answer(measurement_row(m))


async def stopped(gateway: GatewayView, device: str) -> Measurement:
    """Stop what a device measures. TimeoutError: it ends, but its last frames are not committed yet."""
    try:
        async with asyncio.timeout(STOP_S):
            return await gateway.measurements.stop(device)
    except TimeoutError:
        raise TimeoutError(
            f"The measurement of {device} is ending, but its last frames are not committed after {STOP_S} s."
        ) from None


@endpoint(
    "POST",
    "/v1/measurement/post-metadata",
    role=Role.OPERATE,
    tag="measurements",
    summary="Add what is known after a measurement; it goes into the file",
    description="Answered after COMMIT.",
    query=StuQuery,
    body=described(PostMetadata),
    answers={200: MeasurementAnswer},
    fails=(404, 408, 409, 413, 415, 422, 503),
)
async def add_metadata(request: web.Request) -> web.Response:
    measurements = request.app[GATEWAY].measurements
    given = await read_document(request, PostMetadata, METADATA_BYTES)
    name = given.get("name")
    if name is None:
        name = _waiting(request).name
    elif measurements.find(name) is None:
        raise ApiError(404, f'There is no measurement "{name[:200]}".')
    with measuring():
        try:
            m = await measurements.post_metadata(name, given["metadata"])
        except ValueError as error:
            raise wrong_field("metadata", str(error)) from None
    return json_answer(measurement_row(m))


def _waiting(request: web.Request) -> Measurement:
    device = unit_of(request).id
    for m in request.app[GATEWAY].measurements.listed():
        if m.device == device and m.waits_for_metadata:
            return m
    raise ApiError(409, f"No measurement of {device} waits for metadata: give its name.")


def _plan(document: Mapping[str, Any], library: SensorLibrary) -> Plan:
    rest = dict(document)
    adc, ift = rest.pop("adc"), rest.pop("ift")
    channels = _channels(rest.pop("channels"), library)
    try:
        return Plan(
            channels,
            adc=adc_of(adc) if adc is not None else None,
            ift=IftRequest(**ift | {"channel": ift["channel"] - 1}) if ift is not None else None,
            **rest,
        )
    except ValueError as error:
        raise wrong_field("", sentence(error)) from None


def _channels(wanted: list[Mapping[str, Any] | None], library: SensorLibrary) -> Channels:
    channels = []
    for place, each in enumerate(wanted):
        try:
            channels.append(
                Channel(each["number"], library.of_channel(each["number"], each["sensor_id"]))
                if each is not None
                else None
            )
        except LookupError as error:
            raise wrong_field(f"channels.{place}.sensor_id", str(error.args[0])) from None
    first, second, third = channels
    return first, second, third


HANDLERS = (
    show_running,
    list_measurements,
    start_measurement,
    stop_measurement,
    add_metadata,
    show_measurement,
)
