"""The static shells of `/` and `/docs`, and the document that `/docs` shows. No data without a token."""

from pathlib import Path
from typing import Final

import aiohttp_apispec
from aiohttp import web

import gateway.dashboard
from gateway.api.answers import json_answer
from gateway.api.errors import ApiError
from gateway.api.keys import DOCUMENT
from gateway.api.routing import endpoint
from gateway.api.schemas import NoQuery
from gateway.api.tokens import Role

_DASHBOARD: Final = Path(gateway.dashboard.__file__).parent
_SWAGGER: Final = Path(aiohttp_apispec.__file__).parent / "static"
_SERVED: Final = (".js", ".css", ".svg")
_FILES: Final = {
    **{path.name: path for path in _DASHBOARD.iterdir() if path.suffix in _SERVED},
    **{name: _SWAGGER / name for name in ("swagger-ui-bundle.js", "swagger-ui.css")},
}
_HTML: Final = {200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI sets styles on its elements.
_DOCS_POLICY: Final = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
_FRESH: Final = {"Cache-Control": "no-cache"}


@endpoint("GET", "/", role=Role.OPEN, tag="pages", summary="The dashboard", answers=_HTML)
async def dashboard(_request: web.Request) -> web.StreamResponse:
    return web.FileResponse(_DASHBOARD / "index.html", headers={"Content-Security-Policy": _POLICY, **_FRESH})


@endpoint("GET", "/docs", role=Role.OPEN, tag="pages", summary="This document, to try out", answers=_HTML)
async def show_docs(_request: web.Request) -> web.StreamResponse:
    headers = {"Content-Security-Policy": _DOCS_POLICY, **_FRESH}
    return web.FileResponse(_DASHBOARD / "docs.html", headers=headers)


@endpoint(
    "GET",
    "/static/{name}",
    role=Role.OPEN,
    tag="pages",
    summary="A part of the pages",
    answers={200: {"description": "The file.", "content": {"*/*": {"schema": {"type": "string"}}}}},
)
async def show_file(request: web.Request) -> web.StreamResponse:
    path = _FILES.get(request.match_info["name"])
    if path is None:
        raise ApiError(404, "There is no such file.")
    return web.FileResponse(path, headers=_FRESH)


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
