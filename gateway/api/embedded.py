"""`/v1/files/{name}/embedded`: files inside the file of a measurement."""

import contextlib
import logging
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import json_answer, stream
from gateway.api.bodies import pieces
from gateway.api.errors import wrong_parameter
from gateway.api.file_schemas import EmbeddedFile, EmbeddedList
from gateway.api.files import BYTES, catalogue, told
from gateway.api.queries import FileNameQuery, NoQuery
from gateway.api.ranges import attachment
from gateway.api.routing import endpoint
from gateway.api.tokens import Role

_log = logging.getLogger(__name__)
_FILE: Final[dict[str, Any]] = {"description": "The file, of its own type.", "content": {"*/*": BYTES}}


@endpoint(
    "GET",
    "/v1/files/{name}/embedded",
    role=Role.READ,
    tag="files",
    summary="Files inside a file",
    query=NoQuery,
    answers={200: EmbeddedList},
    fails=(422, 503),
)
async def list_embedded(request: web.Request) -> web.Response:
    files, name = catalogue(request)
    with told():
        return json_answer({"embedded": await files.embedded(name)})


@endpoint(
    "POST",
    "/v1/files/{name}/embedded",
    role=Role.OPERATE,
    tag="files",
    summary="Put a file into a file",
    description="The body is the file; its Content-Type is kept.",
    query=FileNameQuery,
    body={"required": True, "content": {"*/*": BYTES}},
    answers={201: EmbeddedFile},
    fails=(408, 503),
)
async def embed_file(request: web.Request) -> web.Response:
    files, name = catalogue(request)
    inside = request["querystring"]["name"]
    if not inside.isprintable():
        raise wrong_parameter("name", "has characters that are not printed")
    with told():
        added = await files.embed(name, inside, content_type(request.content_type), pieces(request))
    _log.info('file %s: "%s" put %s into it', name, request["principal"].name, added["dataset"])
    return json_answer(added, status=201)


@endpoint(
    "DELETE",
    "/v1/files/{name}/embedded/{dataset}",
    role=Role.OPERATE,
    tag="files",
    summary="Remove a file inside a file",
    query=NoQuery,
    answers={204: {"description": "It is gone."}},
    fails=(422, 503),
)
async def remove_embedded(request: web.Request) -> web.Response:
    files, name = catalogue(request)
    dataset = request.match_info["dataset"]
    with told():
        await files.remove_embedded(name, dataset)
    _log.info('file %s: "%s" removed %s from it', name, request["principal"].name, dataset)
    return web.Response(status=204)


@endpoint(
    "GET",
    "/v1/files/{name}/embedded/{dataset}",
    role=Role.READ,
    tag="files",
    summary="Download a file inside a file",
    query=NoQuery,
    answers={200: _FILE},
    fails=(422, 503),
)
async def download_embedded(request: web.Request) -> web.StreamResponse:
    files, name = catalogue(request)
    async with contextlib.AsyncExitStack() as stack:
        with told():
            answer = await stack.enter_async_context(files.extracted(name, request.match_info["dataset"]))
        head = answer.head
        headers = {"Content-Disposition": attachment(head["name"])}
        out = await stack.enter_async_context(
            stream(request, content_type(head["mime"]), headers, length=head["size_bytes"])
        )
        async for piece in answer.pieces():
            await out.write(piece)
    return out.response


def content_type(mime: str) -> str:
    """Return a type that a browser is told: one that a file says may be anything."""
    head, _, tail = mime.partition("/")
    safe = all(part and part.isascii() and part.replace("-", "").replace(".", "").replace("+", "").isalnum()
               for part in (head, tail))  # fmt: skip
    return mime.lower() if safe else "application/octet-stream"


HANDLERS = (list_embedded, embed_file, remove_embedded, download_embedded)
