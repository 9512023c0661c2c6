"""`/v1/files`: the files of measurements: listed, downloaded, looked into, deleted; later metadata."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import json_answer, stream
from gateway.api.bodies import METADATA_BYTES, described, pieces, read_document
from gateway.api.contracts import FilesView
from gateway.api.errors import ApiError, wrong_parameter
from gateway.api.file_schemas import (
    FileAnswer,
    FileDeleted,
    FileList,
    FileMetadata,
    FileTaken,
    MetadataChange,
)
from gateway.api.keys import GATEWAY
from gateway.api.queries import AnalysisQuery, FileNameQuery, NoQuery
from gateway.api.ranges import send_file
from gateway.api.routing import endpoint
from gateway.api.tokens import Role
from gateway.controls.files import FileState
from gateway.measurements import Catalogue, FileMissing, FileUnfit, LocalFile, MeasurementRefused

_log = logging.getLogger(__name__)
BYTES: Final = {"schema": {"type": "string", "format": "binary"}}
_HDF5: Final = "application/x-hdf5"
_FILE: Final[dict[str, Any]] = {"description": "The file.", "content": {_HDF5: BYTES}}
_PART: Final[dict[str, Any]] = {"description": "The bytes asked for by Range.", "content": {_HDF5: BYTES}}
_ANALYSIS: Final[dict[str, Any]] = {
    "description": "NDJSON, each line an object with one of: `about` (once, first), `rows`, `progress` "
    "(0 to 1), `statistics` (once, of all rows).",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what a file is not into the right status."""
    try:
        yield
    except FileMissing as error:
        raise ApiError(404, _sentence(error)) from None
    except FileUnfit as error:
        raise ApiError(422, f"The file cannot be used: {error}.") from None
    except MeasurementRefused as error:
        raise ApiError(409, _sentence(error)) from None
    except ValueError as error:
        raise wrong_parameter("name", str(error)) from None


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def file_uploads(request: web.Request) -> dict[str, FilesView]:
    """Return the uploads that take files."""
    uploads = request.app[GATEWAY].uploads.items()
    return {name: upload.files for name, upload in uploads if upload.files is not None}


async def _states(request: web.Request) -> dict[str, Mapping[str, FileState]]:
    return {name: await files.states() for name, files in file_uploads(request).items()}


def _row(file: LocalFile, states: Mapping[str, Mapping[str, FileState]]) -> dict[str, Any]:
    unknown = FileState("not_uploaded")
    return asdict(file) | {
        "uploads": {name: of.get(file.name, unknown) for name, of in states.items()},
    }


def catalogue(request: web.Request) -> tuple[Catalogue, str]:
    return request.app[GATEWAY].files, request.match_info["name"]


@endpoint(
    "GET",
    "/v1/files",
    role=Role.READ,
    tag="files",
    summary="The files of measurements, the newest first, and how each is with each upload",
    query=NoQuery,
    answers={200: FileList},
    fails=(503,),
)
async def list_files(request: web.Request) -> web.Response:
    files = request.app[GATEWAY].files
    states = await _states(request)
    return json_answer(
        {
            "folder": str(files.folder),
            "disk": await files.disk(),
            "files": [_row(file, states) for file in await files.listed()],
        }
    )


@endpoint(
    "POST",
    "/v1/files",
    role=Role.OPERATE,
    tag="files",
    summary="Have the gateway keep a file of others",
    description="The body is the file, of any length that the disk has room for.",
    query=FileNameQuery,
    body={"required": True, "content": {"application/octet-stream": BYTES, _HDF5: BYTES}},
    answers={201: FileTaken},
    fails=(408, 415, 503),
)
async def take_file(request: web.Request) -> web.Response:
    if request.content_type not in ("application/octet-stream", _HDF5):
        raise ApiError(415, f"A file is sent as application/octet-stream or {_HDF5}.")
    name = request["querystring"]["name"]
    with told():
        stored = await request.app[GATEWAY].files.take(name, pieces(request))
    _log.info('file %s: kept for "%s"', stored, request["principal"].name)
    return json_answer({"name": stored}, status=201)


@endpoint(
    "GET",
    "/v1/files/{name}",
    role=Role.READ,
    tag="files",
    summary="Download a file, or a range of it",
    query=NoQuery,
    answers={200: _FILE, 206: _PART},
    fails=(416, 422),
)
async def download_file(request: web.Request) -> web.StreamResponse:
    files, name = catalogue(request)
    with told():
        await files.find(name)
        path = files.path(name)
    try:
        return await send_file(request, path, _HDF5)
    except FileNotFoundError:
        raise ApiError(404, f"There is no file {name}.") from None


@endpoint(
    "GET",
    "/v1/files/{name}/state",
    role=Role.READ,
    tag="files",
    summary="One file, and how it is with each upload",
    query=NoQuery,
    answers={200: FileAnswer},
    fails=(422, 503),
)
async def show_file(request: web.Request) -> web.Response:
    files, name = catalogue(request)
    with told():
        file = await files.find(name)
    return json_answer(_row(file, await _states(request)))


@endpoint(
    "DELETE",
    "/v1/files/{name}",
    role=Role.ADMIN,
    tag="files",
    summary="Delete a file from the gateway; what is at a target stays there",
    query=NoQuery,
    answers={200: FileDeleted},
    fails=(422, 503),
)
async def delete_file(request: web.Request) -> web.Response:
    files, name = catalogue(request)
    with told():
        unsent = await files.delete(name)
    lost = f"; never uploaded to {', '.join(unsent)}" if unsent else ""
    _log.info('file %s: deleted by "%s"%s', name, request["principal"].name, lost)
    return json_answer({"name": name, "never_uploaded": unsent})


@endpoint(
    "GET",
    "/v1/files/{name}/analysis",
    role=Role.READ,
    tag="files",
    summary="Read a file through: what it is, its rows, its progress, statistics and data loss",
    description="Where an answer fails half way, its connection is cut.",
    query=AnalysisQuery,
    answers={200: _ANALYSIS},
    fails=(503,),
)
async def analyze_file(request: web.Request) -> web.StreamResponse:
    files, name = catalogue(request)
    query = request["querystring"]
    async with contextlib.AsyncExitStack() as stack:
        with told():
            answer = await stack.enter_async_context(
                files.analysis(name, query["every"], pictures=query["pictures"])
            )
        out = await stack.enter_async_context(stream(request, "application/x-ndjson"))
        async for piece in answer.pieces():
            await out.write(piece)
    return out.response


@endpoint(
    "GET",
    "/v1/files/{name}/metadata",
    role=Role.READ,
    tag="files",
    summary="The metadata of a file, pictures as texts",
    query=NoQuery,
    answers={200: FileMetadata},
    fails=(422, 503),
)
async def show_metadata(request: web.Request) -> web.Response:
    files, name = catalogue(request)
    with told():
        return json_answer(await files.metadata(name))


@endpoint(
    "PUT",
    "/v1/files/{name}/metadata",
    role=Role.OPERATE,
    tag="files",
    summary="Put metadata into a file, over what was",
    description="Answered once it is committed (of a measurement of this gateway; its file follows) or in "
    "the file. A picture is a parameter with `picture` in its name that holds texts by number.",
    query=NoQuery,
    body=described(MetadataChange),
    answers={204: {"description": "It is kept."}},
    fails=(408, 409, 413, 415, 503),
)
async def put_metadata(request: web.Request) -> web.Response:
    files, name = catalogue(request)
    document = await read_document(request, MetadataChange, METADATA_BYTES)
    with told():
        await files.put_metadata(name, document.get("pre"), document.get("post"))
    _log.info('file %s: metadata by "%s"', name, request["principal"].name)
    return web.Response(status=204)


HANDLERS = (
    list_files,
    take_file,
    download_file,
    show_file,
    delete_file,
    analyze_file,
    show_metadata,
    put_metadata,
)
