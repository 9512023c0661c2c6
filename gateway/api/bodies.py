"""JSON objects that clients send: read, and refused field by field."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from gateway.api.errors import ApiError
from gateway.api.push import BODY_S, read_body
from gateway.api.values import loads

_INLINE_BYTES: Final = 65_536
_WORDS: Final[Mapping[type, str]] = {str: "a text", dict: "an object"}


async def json_object(
    request: web.Request, fields: Mapping[str, type], optional: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the body, an object of these fields and types; those optional may be missing or null."""
    if request.content_type != "application/json":
        raise ApiError(415, "The body is sent as application/json.")
    body = await read_body(request)
    try:
        document = await asyncio.to_thread(loads, body) if len(body) > _INLINE_BYTES else loads(body)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise ApiError(422, f"The body is not an object with {', '.join(fields)}.")
    details = [{"field": name, "message": "is not known here"} for name in document.keys() - fields.keys()]
    for name, kind in fields.items():
        value = document.get(name)
        if value is None and name not in optional:
            details.append({"field": name, "message": "is missing"})
        elif value is not None and not isinstance(value, kind):
            details.append({"field": name, "message": f"is not {_WORDS[kind]}"})
    if details:
        raise ApiError(422, "The body is wrong; see details.", details=details)
    return document


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


def object_body(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the OpenAPI description of such a body."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return {"required": True, "content": {"application/json": {"schema": schema}}}
