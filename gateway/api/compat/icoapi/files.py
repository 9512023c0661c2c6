"""ICOapi's `/files`: listed, downloaded, deleted, read through, files inside, metadata."""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson
from aiohttp import web

from gateway.api.answers import json_answer, stream
from gateway.api.bodies import METADATA_BYTES, made_of
from gateway.api.compat.icoapi.answers import missing_field, nothing, read_fields
from gateway.api.compat.icoapi.cloud import dataspace, file_row
from gateway.api.compat.icoapi.forms import parts
from gateway.api.compat.icoapi.measuring import Metadata
from gateway.api.compat.icoapi.units import capacity, local_iso
from gateway.api.embedded import content_type
from gateway.api.errors import ApiError
from gateway.api.files import told
from gateway.api.keys import GATEWAY
from gateway.api.ranges import attachment, send_file
from gateway.api.values import dumps
from gateway.controls.files import FileState
from gateway.measurements import Catalogue

_log = logging.getLogger(__name__)
_HDF5: Final = "application/x-hdf5"
_EVERY: Final = 10
"""ICOapi's analysis gives one row in ten."""
_LONGEST_LINE_BYTES: Final = 32 << 20
"""What a file says of itself, with its pictures."""
_PREFIX: Final = "/api/v1/files"


def _named(request: web.Request) -> tuple[Catalogue, str]:
    """Return the catalogue and the name. ApiError 405: it cannot be the name of a measurement's file."""
    files, name = request.app[GATEWAY].files, request.match_info["name"]
    _check_name(files, name)
    return files, name


def _check_name(files: Catalogue, name: str) -> None:
    if ".." in name or "%2f" in name.lower():
        raise _not_allowed("the name could lead out of the folder")
    try:
        files.path(name)
    except ValueError as error:
        raise _not_allowed(str(error)) from None


def _not_allowed(why: str) -> ApiError:
    return ApiError(405, f"Method not allowed: {why}.", headers={"Allow": ""})  # as for every other method


async def list_files(request: web.Request) -> web.Response:
    files, found = request.app[GATEWAY].files, dataspace(request)
    states = await found[1].states() if found is not None else {}
    disk, unknown = await files.disk(), FileState("not_uploaded")
    rows = [
        {
            "name": file.name,
            "created": local_iso(file.created_us),
            "size": file.size_bytes,
            "cloud": file_row(states.get(file.name, unknown)),
        }
        for file in await files.listed()
    ]
    return json_answer(
        {
            "capacity": capacity(disk.total_bytes, disk.free_bytes),
            "files": rows,
            "directory": str(files.folder),
        }
    )


async def download(request: web.Request) -> web.StreamResponse:
    files, name = _named(request)
    with told():
        await files.find(name)
    try:
        return await send_file(request, files.path(name), _HDF5)
    except FileNotFoundError:
        raise ApiError(404, "File not found.") from None


async def delete(request: web.Request) -> web.Response:
    files, name = _named(request)
    with told():
        await files.delete(name)
    _log.info('file %s: deleted by "%s"', name, request["principal"].name)
    return json_answer({"detail": f"File '{name}' deleted successfully"})


async def analyze(request: web.Request) -> web.StreamResponse:
    """Answer with NDJSON that calls itself JSON, as ICOapi's does."""
    files, name = _named(request)
    async with contextlib.AsyncExitStack() as stack:
        with told():
            answer = await stack.enter_async_context(files.analysis(name, _EVERY, pictures=True))
        out = await stack.enter_async_context(stream(request, "application/json"))
        async for line in _lines(answer.pieces()):
            if written := await _translated(name, line):
                await out.write(written)
    return out.response


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines. ApiError 422: one is longer than can be."""
    rest = bytearray()
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        rest += first
        for begun in others:
            yield bytes(rest)
            rest = bytearray(begun)
        if len(rest) > _LONGEST_LINE_BYTES:
            raise ApiError(422, f"The file says more of itself than {_LONGEST_LINE_BYTES >> 20} MB.")


async def _translated(name: str, line: bytes) -> bytes:
    """Return a line of our analysis as ICOapi's; empty: it has no such line."""

    def work(line: bytes) -> bytes:
        row = _line(name, orjson.loads(line))
        return b"" if row is None else dumps(row) + b"\n"

    return await made_of(line, work)


def _line(name: str, document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a line of our analysis as ICOapi's; None: it has no such line."""
    if "about" in document:
        return _metadata_row(name, document["about"])
    if "rows" in document:
        return {**document["rows"], "name": name}
    return document if "progress" in document else None


def _metadata_row(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return ICOapi's ParsedMetadata."""
    return {
        "acceleration": about["acceleration"],
        "pictures": about["pictures"],
        "sensors": about["sensors"],
        "embedded_files": [
            _embedded_row(each)
            | {"download_path": f"{_PREFIX}/{quote(name)}/embedded/{quote(each['dataset'])}"}
            for each in about["embedded_files"]
        ],
    }


def _embedded_row(listed: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dataset_name": listed["dataset"],
        "original_name": listed["name"],
        "mime": listed["mime"],
        "size": listed["size_bytes"],
    }


async def show_metadata(request: web.Request) -> web.Response:
    files, name = _named(request)
    with told():
        async with files.analysis(name, _EVERY, pictures=True, brief=True) as answer:
            async for line in _lines(answer.pieces()):  # the first one is what it says of itself
                if body := await _translated(name, line):
                    return web.Response(body=body, content_type="application/json")
    raise ApiError(422, "The file says nothing of itself.")


async def take(request: web.Request) -> web.Response:
    """Take in a file of others, so that it can be analyzed."""
    files = request.app[GATEWAY].files
    async for part in parts(request, "file"):
        _check_name(files, part.name)
        with told():
            stored = await files.take(part.name, part.pieces)
        _log.info('file %s: taken in from "%s"', stored, request["principal"].name)
        return web.Response(text=stored, content_type="text/plain")
    raise missing_field("body", "file")


async def embed(request: web.Request) -> web.Response:
    files, name = _named(request)
    rows = []
    async for part in parts(request, "files"):
        with told():
            added = await files.embed(name, part.name, content_type(part.kind), part.pieces)
        rows.append(_embedded_row(added))
    if not rows:
        raise missing_field("body", "files")
    return json_answer(rows)


async def download_embedded(request: web.Request) -> web.StreamResponse:
    files, name = _named(request)
    async with contextlib.AsyncExitStack() as stack:
        with told():
            answer = await stack.enter_async_context(files.extracted(name, request.match_info["dataset"]))
        head = answer.head
        headers = {"Content-Disposition": attachment(head["name"])}
        kind = content_type(head["mime"])
        out = await stack.enter_async_context(stream(request, kind, headers, length=head["size_bytes"]))
        async for piece in answer.pieces():
            await out.write(piece)
    return out.response


async def delete_embedded(request: web.Request) -> web.Response:
    files, name = _named(request)
    dataset = request.match_info["dataset"]
    with told():
        await files.remove_embedded(name, dataset)
    return json_answer({"file_name": name, "dataset_name": dataset})


async def put_pre(request: web.Request) -> web.Response:
    return await _put_metadata(request, pre=True)


async def put_post(request: web.Request) -> web.Response:
    return await _put_metadata(request, pre=False)


async def _put_metadata(request: web.Request, *, pre: bool) -> web.Response:
    files, name = _named(request)
    given = await read_fields(request, Metadata, METADATA_BYTES)
    with told():
        await files.put_metadata(name, given if pre else None, None if pre else given)
    return nothing()


ROUTES = (
    ("GET", "/files", list_files),
    ("POST", "/files/analyze", take),
    ("GET", "/files/analyze/meta/{name}", show_metadata),
    ("GET", "/files/analyze/{name}", analyze),
    ("POST", "/files/pre_meta/{name}", put_pre),
    ("POST", "/files/post_meta/{name}", put_post),
    ("POST", "/files/{name}/embedded", embed),
    ("GET", "/files/{name}/embedded/{dataset}", download_embedded),
    ("DELETE", "/files/{name}/embedded/{dataset}", delete_embedded),
    ("GET", "/files/{name}", download),
    ("DELETE", "/files/{name}", delete),
)
