"""ICOapi's `/cloud`: the dataspace is the upload of dataspace.yaml, else the first that takes files."""

from typing import Any, Final

from aiohttp import web
from marshmallow import EXCLUDE, Schema, fields, validate

from gateway.api.answers import json_answer
from gateway.api.cloud import MOST_REMOTE
from gateway.api.compat.icoapi.answers import nothing, read_fields
from gateway.api.compat.icoapi.units import local_iso
from gateway.api.contracts import FilesView
from gateway.api.errors import ApiError
from gateway.api.files import file_uploads, told
from gateway.api.keys import GATEWAY
from gateway.controls.files import FileState, RemoteListing
from gateway.model import UploadProblem

_OF_DOCUMENT: Final = "dataspace"
_PATIENCE_S: Final = 10.0
_DETAILS: Final = (
    "id", "bucket", "objectname", "name", "description", "metadata", "created_at", "s3_lastmodified",
    "s3_size", "origin", "author", "type", "etag", "last_status", "last_status_time", "secrets_count",
    "access_total_count", "access_week_count", "last_access_time", "active_offerings_count", "virtual_group",
)  # fmt: skip
"""Of RemoteObjectDetails; what the dataspace says beyond is left out, what it does not say is null."""


class _Filename(Schema):
    class Meta:
        """Read by marshmallow."""

        unknown = EXCLUDE

    filename = fields.String(required=True, validate=validate.Length(1, 200))


class _Update(_Filename):
    file_id = fields.String(load_default="", allow_none=True)


def dataspace(request: web.Request) -> tuple[str, FilesView] | None:
    """Return the upload that ICOapi's clients see as the cloud, None where there is none."""
    among = file_uploads(request)
    name = _OF_DOCUMENT if _OF_DOCUMENT in among else next(iter(among), None)
    return None if name is None else (name, among[name])


def _needed(request: web.Request) -> FilesView:
    found = dataspace(request)
    if found is None:
        raise ApiError(400, "No dataspace is configured, so nothing can be uploaded.")
    return found[1]


def cloud_row(request: web.Request) -> dict[str, Any]:
    found = dataspace(request)
    if found is None:
        return {"enabled": False, "healthy": False, "manage_url": None}
    name, files = found
    manage_url = request.app[GATEWAY].uploads[name].manage_url
    return {"enabled": True, "healthy": files.reachable.healthy is True, "manage_url": manage_url or None}


def file_row(state: FileState) -> dict[str, Any]:
    """Return ICOapi's FileCloudDetails."""
    uploaded_us = state.uploaded_us
    return {
        "status": state.state,
        "id": state.remote_id or None,
        "upload_timestamp": None if uploaded_us is None else local_iso(uploaded_us),
    }


async def list_remote(request: web.Request) -> web.Response:
    found = dataspace(request)
    try:
        listing = await found[1].listed(MOST_REMOTE) if found is not None else RemoteListing((), 0)
    except UploadProblem as problem:
        raise _unreached(problem) from None
    rows = [{name: file.listed.get(name) for name in _DETAILS} for file in listing.files]
    return json_answer(rows, headers={"X-Total-Count": str(len(rows) + listing.left_out)})


async def upload(request: web.Request) -> web.Response:
    name = (await read_fields(request, _Filename))["filename"]
    state = await _sent(request, name, "")
    return nothing() if state.state == "up_to_date" else json_answer(None, 202)


async def update(request: web.Request) -> web.Response:
    given = await read_fields(request, _Update)
    if not given["file_id"]:
        raise ApiError(400, "The id of the remote file is missing (file_id).")
    return json_answer(file_row(await _sent(request, given["filename"], given["file_id"])))


async def _sent(request: web.Request, name: str, replaced: str) -> FileState:
    """Have a file sent. ApiError 502: it failed, and is tried again."""
    files = _needed(request)
    with told():
        await request.app[GATEWAY].files.find(name)
    state = await files.send(name, replaced, _PATIENCE_S)
    if state.state == "error":
        raise ApiError(502, f"{name} is not uploaded, which is tried again: {state.detail}.")
    return state


async def authenticate(request: web.Request) -> web.Response:
    try:
        await _needed(request).authenticate()
    except UploadProblem as problem:
        raise _unreached(problem) from None
    return nothing()


def _unreached(problem: UploadProblem) -> ApiError:
    return ApiError(502, f"The dataspace does not do it now: {problem}.")


ROUTES = (
    ("GET", "/cloud", list_remote),
    ("POST", "/cloud/upload", upload),
    ("POST", "/cloud/update", update),
    ("POST", "/cloud/authenticate", authenticate),
)
