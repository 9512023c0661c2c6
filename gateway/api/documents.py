"""`/v1/config` and `/v1/sensor`: sensors.yaml, metadata.yaml and dataspace.yaml, and the sensors in force."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import found, json_answer
from gateway.api.bodies import described, read_document
from gateway.api.document_schemas import DocumentList, DocumentStoredAnswer, DocumentVersion, SensorList
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.tokens import Role
from gateway.api.uploaded import FIELD, read_uploaded
from gateway.controls.documents import DocumentRefused, DocumentStored
from gateway.sensors import Sensor

_log = logging.getLogger(__name__)
MOST_BYTES: Final = 1 << 20
KINDS: Final = frozenset(
    {
        "application/yaml",
        "application/x-yaml",
        "text/yaml",
        "text/x-yaml",
        "text/plain",
        "application/octet-stream",
    }
)
_NAMES: Final = ("sensors", "metadata", "dataspace")
_YAML: Final[dict[str, Any]] = {
    "description": "The file.",
    "content": {"application/yaml": {"schema": {"type": "string"}}},
}
_UPLOAD: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/yaml": {"schema": {"type": "string"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary"}},
            }
        },
    },
}


@endpoint(
    "GET",
    "/v1/config",
    role=Role.READ,
    tag="config",
    summary="The configuration files with their earlier versions",
    query=NoQuery,
    answers={200: DocumentList},
    fails=(503,),
)
async def list_documents(request: web.Request) -> web.Response:
    files = await asyncio.to_thread(request.app[GATEWAY].documents.listed)
    return json_answer({"files": [dataclasses.asdict(each) for each in files]})


@endpoint(
    "GET",
    "/v1/config/{name}",
    role=Role.READ,
    tag="config",
    summary="sensors, metadata or dataspace as YAML; a password is only a reference in it",
    query=NoQuery,
    answers={200: _YAML},
    fails=(409, 503),
)
async def get_document(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    try:
        data = await asyncio.to_thread(request.app[GATEWAY].documents.text, name)
    except KeyError:
        raise _unknown(name) from None
    except DocumentRefused as refused:
        raise ApiError(409, f"{refused}.", details=_details(refused)) from None
    headers = {"Content-Disposition": f'attachment; filename="{name}.yaml"'}
    return web.Response(body=data, content_type="application/yaml", charset="utf-8", headers=headers)


@endpoint(
    "POST",
    "/v1/config/{name}",
    role=Role.ADMIN,
    tag="config",
    summary="Put a file in the place of sensors, metadata or dataspace; the one before it is kept",
    description="Nothing is changed where anything is wrong: `details` has each field with its line and "
    "column. A password goes into a secret file of the gateway and is never given out.",
    query=NoQuery,
    body=_UPLOAD,
    answers={200: DocumentStoredAnswer},
    fails=(408, 413, 415, 422, 503),
)
async def store_document(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _NAMES:
        raise _unknown(name)
    data = await read_uploaded(request, KINDS, MOST_BYTES)
    stored = await judged(request.app[GATEWAY].documents.store(name, data))
    if stored.backup is not None:
        _log.info('"%s" stored %s.yaml, %s', request["principal"].name, name, _words(stored))
    return json_answer(dataclasses.asdict(stored))


@endpoint(
    "PUT",
    "/v1/config/restore",
    role=Role.ADMIN,
    tag="config",
    summary="Put an earlier version of a file in its place; it is judged as a new one is",
    query=NoQuery,
    body=described(DocumentVersion),
    answers={200: DocumentStoredAnswer},
    fails=(404, 408, 413, 415, 422, 503),
)
async def restore_document(request: web.Request) -> web.Response:
    wanted = await read_document(request, DocumentVersion)
    filename, version = wanted["filename"], wanted["backup_filename"]
    found("configuration file", filename, {f"{each}.yaml": each for each in _NAMES})
    name = filename.removesuffix(".yaml")
    try:
        stored = await judged(request.app[GATEWAY].documents.restore(name, version))
    except KeyError:
        raise ApiError(404, f'There is no earlier version "{version[:100]}" of {filename}.') from None
    if stored.backup is not None:
        _log.info('"%s" restored %s from %s', request["principal"].name, filename, version)
    return json_answer(dataclasses.asdict(stored))


@endpoint(
    "GET",
    "/v1/sensor",
    role=Role.READ,
    tag="config",
    summary="The sensors in force, and the configurations of them",
    query=NoQuery,
    answers={200: SensorList},
    fails=(409,),
)
async def list_sensors(request: web.Request) -> web.Response:
    try:
        library = request.app[GATEWAY].documents.sensors()
    except DocumentRefused as refused:
        raise ApiError(409, f"The sensors are not known: {refused}.", details=_details(refused)) from None
    configurations = [
        {
            "configuration_id": each.id,
            "configuration_name": each.name,
            "channels": {str(number): sensor_row(sensor) for number, sensor in each.channels.items()},
        }
        for each in library.configurations
    ]
    return json_answer(
        {
            "sensors": [sensor_row(each) for each in library.sensors],
            "configurations": configurations,
            "default_configuration_id": library.default_configuration,
        }
    )


def sensor_row(sensor: Sensor) -> dict[str, Any]:
    """Return a sensor in ICOapi's words."""
    return {
        "name": sensor.name,
        "sensor_type": sensor.type or None,
        "sensor_id": sensor.id,
        "unit": sensor.unit,
        "dimension": sensor.dimension,
        "phys_min": sensor.phys_min,
        "phys_max": sensor.phys_max,
        "volt_min": sensor.volt_min,
        "volt_max": sensor.volt_max,
        "scaling_factor": sensor.scaling,
        "offset": sensor.offset,
    }


async def judged(storing: Awaitable[DocumentStored]) -> DocumentStored:
    try:
        return await storing
    except DocumentRefused as refused:
        status = 400 if refused.unreadable else 422
        message = f"Nothing was changed; {refused}."
        raise ApiError(status, message, details=_details(refused)) from None


def _details(refused: DocumentRefused) -> list[dict[str, Any]]:
    return [dataclasses.asdict(fault) for fault in refused.faults]


def _unknown(name: str) -> ApiError:
    return ApiError(404, f'There is no configuration file "{name[:100]}"; there are {", ".join(_NAMES)}.')


def _words(stored: DocumentStored) -> str:
    header = stored.info_header
    return f"{header.config_name!r} {header.config_version!r}; the one before it is {stored.backup}"


HANDLERS = (list_documents, get_document, store_document, restore_document, list_sensors)
