"""A JSON object in a request's body, judged by a marshmallow schema."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiohttp import web
from marshmallow import Schema, ValidationError

from gateway.api.errors import ApiError
from gateway.api.push import read_body
from gateway.api.values import loads

_INLINE_BYTES: Final = 65_536


def described(schema: type[Schema]) -> dict[str, Any]:
    """Return what the OpenAPI document says of such a body."""
    return {"required": True, "content": {"application/json": {"schema": schema}}}


async def read_document(request: web.Request, schema: type[Schema]) -> Mapping[str, Any]:
    """Return what the schema makes of the body. ApiError 400: no JSON; 422: `details` has each field."""
    if request.content_type != "application/json":
        raise ApiError(415, "The body is sent as application/json.")
    body = await read_body(request)
    try:
        document = await asyncio.to_thread(loads, body) if len(body) > _INLINE_BYTES else loads(body)
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
