"""A file that a client sends: as the body itself, or as the field `file` of a form; bounded either way."""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.api.bodies import BODY_S
from gateway.api.errors import ApiError

FIELD: Final = "file"
_FORM: Final = "multipart/form-data"
_MOST_PARTS: Final = 10
NO_FORM: Final = (ValueError, AssertionError, RuntimeError, LookupError, HttpProcessingError)
"""What aiohttp raises over a form that is none."""


class NoFile(ApiError):
    """The form has no file."""


async def read_uploaded(request: web.Request, kinds: Collection[str], most_bytes: int) -> bytes:
    """Return the file. ApiError: 400 no form, 408 too late, 413 too large, 415 not one of these media types.

    More than `most_bytes` is not read.
    """
    try:
        async with asyncio.timeout(BODY_S):
            if request.content_type == _FORM:
                return await _from_form(request, kinds, most_bytes)
            _check_kind(request.headers.get("Content-Type", ""), kinds)
            return await _bounded(request.content.iter_any(), most_bytes)
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {BODY_S} s.") from None
    except web.RequestPayloadError:
        raise ApiError(400, "The body is not encoded as its head says.") from None


async def _from_form(request: web.Request, kinds: Collection[str], most_bytes: int) -> bytes:
    try:
        form = await request.multipart()
        for _ in range(_MOST_PARTS):
            part = await form.next()
            if not isinstance(part, BodyPartReader):
                break
            if part.name == FIELD:
                _check_kind(part.headers.get("Content-Type", ""), kinds)
                return await _bounded(_chunks(part), most_bytes)
    except NO_FORM:
        raise ApiError(400, "The body is no form as its head says.") from None
    raise NoFile(400, f'The form has no field "{FIELD}".')


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while not part.at_eof():
        yield await part.read_chunk()


async def _bounded(pieces: AsyncIterator[bytes], most_bytes: int) -> bytes:
    data = bytearray()
    async for piece in pieces:
        data += piece
        if len(data) > most_bytes:
            raise ApiError(413, f"The file is larger than {most_bytes} bytes.")
    return bytes(data)


def _check_kind(said: str, kinds: Collection[str]) -> None:
    kind = said.partition(";")[0].strip().lower()
    if kind and kind not in kinds:
        raise ApiError(415, f"This is taken as {', '.join(sorted(kinds))}, not as {kind[:60]}.")
