"""ICOapi's operations, and the headers that each answer of one has, whatever it says.

What FastAPI and uvicorn gave and a client may rely on: the type with its charset, a length unless the answer
is written as it comes, names of downloads (RFC 6266), CORS. Beyond: what RFC 9110 and our security ask for.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

import aiohttp

from tests.icoapi.shapes import DETAIL, FIELDS, check

PREFIX = "/api/v1"
Operation = tuple[str, str]
"""Method and path."""


def _named(text: str) -> list[Operation]:
    words = text.split()
    return list(zip(words[::2], words[1::2], strict=True))


OPERATIONS = _named("""
GET /state  PUT /reset-can
GET /stu  PUT /stu/reset  GET /stu/connected
GET /sth  PUT /sth/connect  PUT /sth/disconnect  PUT /sth/rename
GET /sth/read-adc  PUT /sth/write-adc  GET /sth/supply-voltage
POST /measurement/start  POST /measurement/stop  POST /measurement/post_meta  GET /measurement
GET /files  GET /files/{name}  DELETE /files/{name}
GET /files/analyze/{name}  POST /files/analyze  GET /files/analyze/meta/{name}
POST /files/{name}/embedded  GET /files/{name}/embedded/{dataset}  DELETE /files/{name}/embedded/{dataset}
POST /files/pre_meta/{name}  POST /files/post_meta/{name}
GET /cloud  POST /cloud/upload  POST /cloud/update  POST /cloud/authenticate
GET /config/meta  POST /config/meta  GET /config/sensors  POST /config/sensors  POST /config/dataspace
GET /config/backup  PUT /config/restore
GET /sensor
GET /logs  GET /logs/view  GET /logs/download/{file}  GET /logs/all
""")
OLDER = _named("POST /stu/connected  GET /config/env  POST /config/env")
SOCKETS = _named("GET /measurement/stream  GET /logs/stream")
"""The third, /state, is at the path of an operation."""

JSON, YAML, TEXT = "application/json", "application/x-yaml", "text/plain; charset=utf-8"
_KINDS: Mapping[Operation, str] = {
    ("GET", "/files/{name}"): "application/x-hdf5",
    ("POST", "/files/analyze"): TEXT,
    ("GET", "/config/meta"): YAML,
    ("GET", "/config/sensors"): YAML,
    ("GET", "/config/env"): TEXT,
    ("GET", "/logs/download/{file}"): TEXT,
    ("GET", "/logs/all"): "application/zip",
}
"""All others are JSON, but a file inside a file, which has the type that it came with."""
_INSIDE: Operation = ("GET", "/files/{name}/embedded/{dataset}")
_CHUNKED = {("GET", "/files/analyze/{name}"), ("GET", "/logs/download/{file}")}
_DOWNLOADS: Mapping[Operation, str] = {
    ("GET", "/files/{name}"): "",
    _INSIDE: "",
    ("GET", "/config/meta"): "metadata.yaml",
    ("GET", "/config/sensors"): "sensors.yaml",
    ("GET", "/config/env"): ".env",
    ("GET", "/logs/download/{file}"): "",
    ("GET", "/logs/all"): "logs.zip",
}
"""Names under which a browser keeps them; empty: that of the path, or what the test itself looks at."""
_PATTERNS = [
    (method, path, re.compile(PREFIX + re.sub(r"\{\w+\}", "[^/]+", path)))
    for method, path in sorted([*OPERATIONS, *OLDER, *SOCKETS], key=lambda each: each[1].count("{"))
]


def operation_of(method: str, raw_path: str) -> Operation | None:
    """Return which one a request asks for."""
    return next(
        ((each, path) for each, path, taken in _PATTERNS if each == method and taken.fullmatch(raw_path)),
        None,
    )


class Watching:
    """Looks at each answer that a client gets; a wrong header fails the request."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = origins
        self.answered: set[tuple[Operation, int]] = set()
        self.connections = 0

    def trace(self) -> aiohttp.TraceConfig:
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._look)
        config.on_connection_create_end.append(self._connected)
        return config

    async def _connected(self, *_: object) -> None:
        self.connections += 1

    async def _look(self, _session: object, _context: object, asked: aiohttp.TraceRequestEndParams) -> None:
        answer = asked.response
        operation = operation_of(asked.method, asked.url.raw_path)
        try:
            self._check_always(answer, asked.headers.get("Origin"))
            if answer.status >= 400:
                _check_error(answer, json.loads(await answer.read()))
            elif operation is not None:
                _check_success(answer, operation)
        except AssertionError as error:
            raise AssertionError(asked.method, asked.url, answer.status, dict(answer.headers)) from error
        if operation is not None:
            self.answered.add((operation, answer.status))

    def _check_always(self, answer: aiohttp.ClientResponse, origin: str | None) -> None:
        headers, status = answer.headers, answer.status
        assert (headers["Server"], headers["Cache-Control"]) == ("edge-gateway", "no-store")
        assert headers["X-Content-Type-Options"] == "nosniff" and "Date" in headers
        assert "Set-Cookie" not in headers
        assert "Origin" in headers.getall("Vary"), "no cache may hand one origin's answer to another"
        welcome = origin if origin in self._origins else None
        assert headers.get("Access-Control-Allow-Origin") == welcome
        assert headers.get("Access-Control-Allow-Credentials") == (welcome and "true")
        assert ("X-Total-Count" in headers.get("Access-Control-Expose-Headers", "")) == bool(welcome)
        assert ("Access-Control-Allow-Methods" in headers) == (status == 200 and answer.method == "OPTIONS")
        assert ("WWW-Authenticate" in headers) == (status == 401)
        assert ("Allow" in headers) == (status == 405), "RFC 9110, 15.5.6"
        assert ("Retry-After" in headers) == (status in (429, 503))
        assert int(headers.get("Retry-After", "1")) > 0
        assert headers.get("Connection", "").lower() == ("upgrade" if status == 101 else "")


def _check_error(answer: aiohttp.ClientResponse, said: Mapping[str, Any]) -> None:
    """One of ICOapi's two shapes, with a sentence."""
    headers = answer.headers
    assert headers["Content-Type"] == JSON and "Content-Length" in headers
    assert "Content-Disposition" not in headers
    assert said["detail"]
    check(said, DETAIL if isinstance(said["detail"], str) else FIELDS)


def _check_success(answer: aiohttp.ClientResponse, operation: Operation) -> None:
    headers, status = answer.headers, answer.status
    if status == 101:
        assert headers["Upgrade"].lower() == "websocket" and "Sec-WebSocket-Extensions" not in headers
        return
    assert operation == _INSIDE or headers["Content-Type"] == _KINDS.get(operation, JSON)
    if operation in _CHUNKED:
        assert headers["Transfer-Encoding"] == "chunked" and "Content-Length" not in headers
    else:
        assert int(headers["Content-Length"]) >= 0 and "Transfer-Encoding" not in headers
    assert ("Content-Disposition" in headers) == (operation in _DOWNLOADS)
    if (found := answer.content_disposition) is not None:
        assert found.type == "attachment" and found.filename
        if operation != _INSIDE:
            assert found.filename == (
                _DOWNLOADS[operation] or unquote(answer.url.raw_path.rpartition("/")[2])
            )
    assert ("X-Total-Count" in headers) == (operation == ("GET", "/cloud"))
    assert ("Content-Range" in headers) == (status == 206)
