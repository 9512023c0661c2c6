"""How answers are written: JSON by orjson, lists with `next`, streams with a deadline for slow readers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from gateway.api.errors import ApiError
from gateway.api.values import dumps

WRITE_S: Final = 30
"""A client that takes nothing for so long is cut off."""


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=dumps(value), content_type="application/json", headers=headers)


class Stream:
    """An answer that goes out piece by piece; memory holds one piece."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response

    async def write(self, piece: bytes) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await self.response.write(piece)
        except TimeoutError:
            raise ConnectionResetError("the client reads too slowly") from None


@asynccontextmanager
async def stream(
    request: web.Request,
    content_type: str,
    headers: Mapping[str, str] | None = None,
    *,
    status: int = 200,
    length: int | None = None,
) -> AsyncIterator[Stream]:
    """Begin an answer; `length`: its bytes, where that is known."""
    response = web.StreamResponse(status=status, headers=headers)
    response.content_type = content_type
    response.content_length = length
    if content_type.startswith("text/") or content_type == "application/javascript":
        response.charset = "utf-8"
    await response.prepare(request)
    request["prepared"] = response
    yield Stream(response)
    await response.write_eof()


def found(what: str, name: str, among: Mapping[str, Any]) -> Any:
    """Return among[name], or fail with 404."""
    try:
        return among[name]
    except KeyError:
        raise ApiError(404, f'There is no {what} "{name}".') from None
