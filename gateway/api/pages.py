"""The static shells of `/` and `/docs`, and the document that `/docs` shows. No data without a token."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, Final

import aiohttp_apispec
from aiohttp import web

import gateway.dashboard
from gateway.api.answers import json_answer, stream
from gateway.api.errors import ApiError
from gateway.api.keys import DOCUMENT
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.tokens import Role

_DASHBOARD: Final = Path(gateway.dashboard.__file__).parent
_SWAGGER: Final = Path(aiohttp_apispec.__file__).parent / "static"
_SERVED: Final = (".js", ".css", ".svg")
_FILES: Final = {
    **{path.name: path for path in _DASHBOARD.iterdir() if path.suffix in _SERVED},
    **{name: _SWAGGER / name for name in ("swagger-ui-bundle.js", "swagger-ui.css")},
}
_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_UNCHANGED: Final = {"description": "The browser has it already."}
_HTML: Final[dict[int, dict[str, Any]]] = {
    200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}},
    304: _UNCHANGED,
}
_FILE: Final[dict[int, dict[str, Any]]] = {
    200: {"description": "The file.", "content": {"*/*": {"schema": {"type": "string"}}}},
    304: _UNCHANGED,
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI sets styles on its elements.
_DOCS_POLICY: Final = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_PIECE: Final = 65_536
"""Bytes: anybody may ask for a page, and what a slow client has not read yet stands in our memory."""
DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"


class _Shell:
    """The files of the pages, read when first asked for and kept."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[bytes, str]] = {}

    async def answer(self, request: web.Request, path: Path, policy: str = DATA_POLICY) -> web.StreamResponse:
        if path not in self._kept:
            body = await asyncio.to_thread(path.read_bytes)
            self._kept[path] = body, hashlib.sha256(body).hexdigest()[:32]
        body, tag = self._kept[path]
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache", "ETag": f'"{tag}"'}
        if any(etag.value in (tag, "*") for etag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        async with stream(request, _TYPES[path.suffix], headers, length=len(body)) as out:
            for start in range(0, len(body), _PIECE):
                await out.write(body[start : start + _PIECE])
        return out.response


_SHELL: Final = _Shell()


@endpoint("GET", "/", role=Role.OPEN, tag="pages", summary="The dashboard", answers=_HTML)
async def dashboard(request: web.Request) -> web.StreamResponse:
    return await _SHELL.answer(request, _DASHBOARD / "index.html", _POLICY)


@endpoint("GET", "/docs", role=Role.OPEN, tag="pages", summary="This document, to try out", answers=_HTML)
async def show_docs(request: web.Request) -> web.StreamResponse:
    return await _SHELL.answer(request, _DASHBOARD / "docs.html", _DOCS_POLICY)


@endpoint(
    "GET",
    "/static/{name}",
    role=Role.OPEN,
    tag="pages",
    summary="A part of the pages",
    answers=_FILE,
)
async def show_file(request: web.Request) -> web.StreamResponse:
    path = _FILES.get(request.match_info["name"])
    if path is None:
        raise ApiError(404, "There is no such file.")
    return await _SHELL.answer(request, path)


@endpoint(
    "GET",
    "/v1/openapi.json",
    role=Role.READ,
    tag="state",
    summary="This document",
    query=NoQuery,
    answers={
        200: {
            "description": "OpenAPI 3.0.3.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def show_document(request: web.Request) -> web.Response:
    return json_answer(request.app[DOCUMENT])


HANDLERS = (dashboard, show_docs, show_file, show_document)
