"""Room in memory for large bodies: the next one is read when others have gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from gateway.api.errors import RETRY_AFTER_S, ApiError

SMALL_BYTES: Final = 65_536
"""Of a body that has room always: those of all connections together take 16 MiB."""
_WAIT_S: Final = 10


class BodyRoom:
    """Bytes that the large bodies of an application may have at a time."""

    def __init__(self, most_bytes: int = 32 * 1024 * 1024) -> None:
        self._most_bytes = self._left = most_bytes
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, request: web.Request, most_bytes: int) -> AsyncIterator[None]:
        """Enter once there is room for the body. ApiError 503: none came free in 10 s.

        What is made of a body takes ten times its length and more: the room is kept until that has gone.
        """
        # What is compressed is longer than its head says.
        told = None if "Content-Encoding" in request.headers else request.content_length
        size = min(most_bytes if told is None else min(told, most_bytes), self._most_bytes)
        if size <= SMALL_BYTES:
            yield
            return
        try:
            async with asyncio.timeout(_WAIT_S), self._changed:
                await self._changed.wait_for(lambda: self._left >= size)
                self._left -= size
        except TimeoutError:
            raise ApiError(
                503,
                "The gateway has no room for a body of that size beside those it has now; send it again.",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from None
        try:
            yield
        finally:
            self._left += size
            async with self._changed:
                self._changed.notify_all()


BODY_ROOM = web.AppKey("body_room", BodyRoom)
