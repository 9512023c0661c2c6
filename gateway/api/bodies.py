"""Bodies that clients send: whole, piece by piece, or a JSON object that a marshmallow schema judges."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from aiohttp import web
from marshmallow import Schema, ValidationError

from gateway.api.body_room import BODY_ROOM, SMALL_BYTES
from gateway.api.errors import ApiError
from gateway.api.values import loads
from gateway.measurements.metadata import MOST_BYTES

T = TypeVar("T")
BODY_S: Final = 30
METADATA_BYTES: Final = MOST_BYTES + (1 << 20)
"""Of a body with metadata and its pictures."""
_MOST_VALUES: Final = 100_000
"""Of a document: `[[],[],...]` takes twenty times its length of memory, and all of Python's time."""


async def read_body(request: web.Request, most_bytes: int = 0) -> bytes:
    """Return the body; 413 beyond its limit, which `most_bytes` raises, 408 where it does not arrive."""
    try:
        async with asyncio.timeout(BODY_S):
            if most_bytes <= request.client_max_size:
                return await request.read()
            return await _long(request, most_bytes)
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {BODY_S} s.") from None
    except ConnectionError:
        raise
    except web.RequestPayloadError:
        raise ApiError(400, "The body is not encoded as its head says.") from None


async def _long(request: web.Request, most_bytes: int) -> bytes:
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > most_bytes:
            raise ApiError(413, f"The request body is larger than {most_bytes >> 20} MiB.")
    return bytes(body)


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body of any length as it comes. ApiError: 408, 400."""
    try:
        while True:
            async with asyncio.timeout(BODY_S):
                piece = await request.content.readany()
            if not piece:
                return
            yield piece
    except TimeoutError:
        raise ApiError(408, f"Nothing more of the body came for {BODY_S} s.") from None
    except web.RequestPayloadError:
        raise ApiError(400, "The body is not encoded as its head says.") from None


async def read_json(request: web.Request, most_bytes: int = 0) -> Any:
    """Return the body's document. ValueError: it is no JSON. ApiError 413: too many values, too."""
    async with room_for_body(request, most_bytes):
        body = await read_body(request, most_bytes)
        if sum(map(body.count, b",[{")) > _MOST_VALUES:
            raise ApiError(413, f"The request body holds more than {_MOST_VALUES} values.")
        return await made_of(body, loads)


def room_for_body(request: web.Request, most_bytes: int = 0) -> AbstractAsyncContextManager[None]:
    """Return what is entered once there is room for the body. ApiError 503: there is none for 10 s."""
    return request.app[BODY_ROOM].taken(request, max(most_bytes, request.client_max_size))


async def made_of(data: bytes, work: Callable[[bytes], T]) -> T:
    """Return what the work makes of the data: beside the event loop where that may take long."""
    return await asyncio.to_thread(work, data) if len(data) > SMALL_BYTES else work(data)


def described(schema: type[Schema]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that a schema judges."""
    return {"required": True, "content": {"application/json": {"schema": schema}}}


async def read_document(request: web.Request, schema: type[Schema], most_bytes: int = 0) -> Mapping[str, Any]:
    """Return what the schema makes of the body. ApiError 400: no JSON; 422: `details` has each field."""
    if request.content_type != "application/json":
        raise ApiError(415, "The body is sent as application/json.")
    try:
        document = await read_json(request, most_bytes)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise ApiError(422, "The body is not a JSON object.")
    try:
        loaded: Mapping[str, Any] = schema().load(document)
    except ValidationError as error:
        details = list(_details(error.normalized_messages()))
        raise ApiError(422, _sentence(details), details=details) from None
    return loaded


def wrong_field(field: str, message: str) -> ApiError:
    details = [{"field": field, "message": message}]
    return ApiError(422, _sentence(details), details=details)


def _sentence(details: list[dict[str, str]]) -> str:
    first, more = details[0], len(details) - 1
    where = f"{first['field']}: " if first["field"] else ""
    return f"The body is wrong: {where}{first['message']}{f' (and {more} more)' if more else ''}"


def _details(messages: Any, path: str = "") -> Iterator[dict[str, str]]:
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            at = path if name == "_schema" else f"{path}.{name}" if path else str(name)
            yield from _details(inner, at)
    else:
        for message in messages if isinstance(messages, list) else [messages]:
            yield {"field": path, "message": str(message)}
