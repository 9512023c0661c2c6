"""`/v1/cloud`: the files at the uploads that take files, and what is to be sent there."""

import dataclasses
import logging
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.bodies import described, read_document
from gateway.api.contracts import FilesView
from gateway.api.errors import ApiError
from gateway.api.file_schemas import (
    CloudList,
    FileChoice,
    FileReplacement,
    FileStateAnswer,
    ReachableAnswer,
    RemoteFileList,
)
from gateway.api.files import file_uploads, told
from gateway.api.keys import GATEWAY
from gateway.api.queries import NoQuery, UploadQuery
from gateway.api.routing import endpoint
from gateway.api.tokens import Role
from gateway.controls.files import RemoteFile
from gateway.model import UploadProblem

_log = logging.getLogger(__name__)
_PATIENCE_S: Final = 10.0
MOST_REMOTE: Final = 2000
"""Files at a target that are shown: each with all that the target says of it."""
_SENT: Final = "How the file is after an attempt, or after 10 s: `queued` says that it is still to be sent."


@endpoint(
    "GET",
    "/v1/cloud",
    role=Role.READ,
    tag="cloud",
    summary="The uploads that take files, and whether their targets are reached",
    query=NoQuery,
    answers={200: CloudList},
)
async def show_cloud(request: web.Request) -> web.Response:
    uploads = request.app[GATEWAY].uploads
    rows = []
    for name, files in file_uploads(request).items():
        upload = uploads[name]
        rows.append(
            {
                "upload": name,
                "kind": upload.kind,
                "url": upload.url,
                "manage_url": upload.manage_url,
                "insecure": upload.insecure,
                "reachable": files.reachable,
                "waiting": files.status.waiting,
                "failing": files.status.failing,
            }
        )
    return json_answer({"uploads": rows})


@endpoint(
    "GET",
    "/v1/cloud/files",
    role=Role.READ,
    tag="cloud",
    summary="The files at a target",
    description="What others changed or removed there is seen by it: see the states at `/v1/files`. At most "
    f"{MOST_REMOTE} are shown; `note` says how many are left out.",
    query=UploadQuery,
    answers={200: RemoteFileList},
    fails=(404, 409, 503),
)
async def list_remote(request: web.Request) -> web.Response:
    name, files = _upload_of(request)
    try:
        found = await files.listed(MOST_REMOTE)
    except UploadProblem as problem:
        raise _unavailable(problem) from None
    note = f"{found.left_out} more files are at the target: see them there." if found.left_out else ""
    return json_answer({"upload": name, "files": [_remote_row(file) for file in found.files], "note": note})


@endpoint(
    "POST",
    "/v1/cloud/upload",
    role=Role.OPERATE,
    tag="cloud",
    summary="Have a file sent now",
    description=f"{_SENT} A file that is there as it is here is not sent again.",
    query=UploadQuery,
    body=described(FileChoice),
    answers={200: FileStateAnswer},
    fails=(404, 408, 409, 413, 415, 503),
)
async def upload_file(request: web.Request) -> web.Response:
    document = await read_document(request, FileChoice)
    return await _send(request, document["file"], "")


@endpoint(
    "POST",
    "/v1/cloud/update",
    role=Role.OPERATE,
    tag="cloud",
    summary="Have a file take the place of one at the target",
    description=f"`remote_id` as `/v1/cloud/files` has it, also of a file that others put there. {_SENT}",
    query=UploadQuery,
    body=described(FileReplacement),
    answers={200: FileStateAnswer},
    fails=(404, 408, 409, 413, 415, 503),
)
async def update_file(request: web.Request) -> web.Response:
    document = await read_document(request, FileReplacement)
    return await _send(request, document["file"], document["remote_id"])


@endpoint(
    "POST",
    "/v1/cloud/authenticate",
    role=Role.OPERATE,
    tag="cloud",
    summary="Log in at a target anew",
    query=UploadQuery,
    answers={200: ReachableAnswer},
    fails=(404, 409, 503),
)
async def authenticate(request: web.Request) -> web.Response:
    _, files = _upload_of(request)
    try:
        await files.authenticate()
    except UploadProblem as problem:
        raise _unavailable(problem) from None
    return json_answer(files.reachable)


async def _send(request: web.Request, file: str, remote_id: str) -> web.Response:
    name, files = _upload_of(request)
    with told():
        await request.app[GATEWAY].files.find(file)
    _log.info('upload %s: "%s" asked for %s', name, request["principal"].name, file)
    return json_answer(await files.send(file, remote_id, _PATIENCE_S))


def _upload_of(request: web.Request) -> tuple[str, FilesView]:
    """Return the upload that is asked for, or the only one."""
    among = file_uploads(request)
    asked = request["querystring"].get("upload")
    if asked is not None:
        if asked not in among:
            raise ApiError(404, f'There is no upload "{asked}" that takes files.')
        return asked, among[asked]
    if not among:
        raise ApiError(404, "No upload takes files: name a dataspace under `uploads` in the YAML.")
    if len(among) > 1:
        raise ApiError(409, f"Several uploads take files: say which, `?upload=` one of {', '.join(among)}.")
    return next(iter(among.items()))


def _unavailable(problem: UploadProblem) -> ApiError:
    return ApiError(503, f"Nothing was lost; {problem}.", headers={"Retry-After": "10"})


def _remote_row(file: RemoteFile) -> dict[str, Any]:
    row = {field.name: getattr(file, field.name) for field in dataclasses.fields(file)}
    row["size_bytes"], row["details"] = row.pop("size"), row.pop("listed")
    del row["metadata"]
    return row


HANDLERS = (show_cloud, list_remote, upload_file, update_file, authenticate)
