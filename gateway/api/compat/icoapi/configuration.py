"""ICOapi's `/config` and `/sensor`: the documents of `/v1/config`, and its environment in our words."""

import asyncio
import dataclasses
import logging
from collections.abc import Collection
from typing import Any, Final

from aiohttp import web
from marshmallow import EXCLUDE, Schema, fields

from gateway.api.answers import json_answer
from gateway.api.compat.icoapi.answers import missing_field, read_fields
from gateway.api.compat.icoapi.environment import differences, environment
from gateway.api.compat.icoapi.units import SETTINGS
from gateway.api.documents import KINDS, MOST_BYTES, judged
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.uploaded import NoFile, read_uploaded

_log = logging.getLogger(__name__)
_YAML: Final = "application/x-yaml"
_ENV_KINDS: Final = frozenset({"text/plain", "application/octet-stream", "application/x-env", "text/x-env"})
_OURS: Final = {"meta": "metadata", "sensors": "sensors", "dataspace": "dataspace"}
"""ICOapi's names of the documents, and ours."""
_THEIRS: Final = {ours: theirs for theirs, ours in _OURS.items()}


class _Restore(Schema):
    class Meta:
        """Read by marshmallow."""

        unknown = EXCLUDE

    filename = fields.String(required=True)
    backup_filename = fields.String(required=True)


async def get_metadata(request: web.Request) -> web.Response:
    return await _get(request, "metadata")


async def get_sensors(request: web.Request) -> web.Response:
    return await _get(request, "sensors")


async def _get(request: web.Request, name: str) -> web.Response:
    data = await asyncio.to_thread(request.app[GATEWAY].documents.text, name)
    headers = {"Content-Disposition": f'attachment; filename="{name}.yaml"'}
    return web.Response(body=data, content_type=_YAML, headers=headers)


async def put_metadata(request: web.Request) -> web.Response:
    return await _put(request, "metadata")


async def put_sensors(request: web.Request) -> web.Response:
    return await _put(request, "sensors")


async def put_dataspace(request: web.Request) -> web.Response:
    return await _put(request, "dataspace")


async def _file(request: web.Request, kinds: Collection[str]) -> bytes:
    """Return the file that is sent. WrongBody: there is none."""
    if request.content_type not in (*kinds, "multipart/form-data"):
        raise missing_field("body", "file")
    try:
        return await read_uploaded(request, kinds, MOST_BYTES)
    except NoFile:
        raise missing_field("body", "file") from None


async def _put(request: web.Request, name: str) -> web.Response:
    data = await _file(request, KINDS)
    try:
        stored = await judged(request.app[GATEWAY].documents.store(name, data))
    except ApiError as error:
        raise _with_all_faults(error, name) from None
    if stored.backup is not None:
        _log.info('"%s" stored %s.yaml', request["principal"].name, name)
    return json_answer(dataclasses.asdict(stored.info_header))


def _with_all_faults(error: ApiError, name: str) -> ApiError:
    """Return a refusal with all reasons in its sentence, which is all that ICOapi's clients show."""
    if not error.details:
        return error
    faults = "; ".join(f"{each['field'].replace('.', ' -> ')}: {each['message']}" for each in error.details)
    message = f"The YAML file does not match the {name} schema. Errors: {faults}"
    return ApiError(error.status, message)


async def list_versions(request: web.Request) -> web.Response:
    listed = await asyncio.to_thread(request.app[GATEWAY].documents.listed)
    return json_answer({"files": [_file_row(dataclasses.asdict(each)) for each in listed]})


def _file_row(row: dict[str, Any]) -> dict[str, Any]:
    header = row["info_header"]
    del row["problems"]
    timestamp = row["timestamp"] or (header["config_date"] if header else "")
    return row | {"endpoint": _THEIRS[row["endpoint"]], "timestamp": timestamp}


async def restore(request: web.Request) -> web.Response:
    given = await read_fields(request, _Restore)
    filename, version = given["filename"], given["backup_filename"]
    name = filename.removesuffix(".yaml")
    if filename != f"{name}.yaml" or name not in _THEIRS:
        raise ApiError(400, f'There is no configuration file "{filename[:100]}".')
    try:
        await judged(request.app[GATEWAY].documents.restore(name, version))
    except KeyError:
        raise ApiError(404, f'There is no backup "{version[:100]}" of {filename}.') from None
    except ApiError as error:
        raise _with_all_faults(error, name) from None
    _log.info('"%s" restored %s from %s', request["principal"].name, filename, version)
    return json_answer({"detail": "Configuration restored successfully."})


async def get_environment(request: web.Request) -> web.Response:
    named = environment(request.app[GATEWAY], request.app[SETTINGS])
    text = "".join(f'{name}="{value}"\n' for name, value in named.items())
    headers = {"Content-Disposition": 'attachment; filename=".env"'}
    return web.Response(text=text, content_type="text/plain", headers=headers)


async def put_environment(request: web.Request) -> web.Response:
    """Take an environment that says what is in force; another one is for who edits the YAML."""
    data = await _file(request, _ENV_KINDS)
    found = differences(data, environment(request.app[GATEWAY], request.app[SETTINGS]))
    if found:
        message = "Nothing was changed; edit gateway.yaml instead: " + "; ".join(found)
        raise ApiError(409, f"{message}. `edge-gateway icoapi-env .env` prints what to put there.")
    return json_answer({"detail": "Environment file uploaded successfully."})


ROUTES = (
    ("GET", "/config/meta", get_metadata),
    ("POST", "/config/meta", put_metadata),
    ("GET", "/config/sensors", get_sensors),
    ("POST", "/config/sensors", put_sensors),
    ("POST", "/config/dataspace", put_dataspace),
    ("GET", "/config/backup", list_versions),
    ("PUT", "/config/restore", restore),
    ("GET", "/config/env", get_environment),
    ("POST", "/config/env", put_environment),
)
