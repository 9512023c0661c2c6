"""Files in a form, one after the other, as they come in."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import BodyPartReader, web

from gateway.api.bodies import BODY_S
from gateway.api.compat.icoapi.answers import missing_field
from gateway.api.errors import ApiError
from gateway.api.uploaded import NO_FORM

_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a form; `pieces` has to be read before the next one is asked for."""

    name: str
    kind: str
    """Its content type."""
    pieces: AsyncIterator[bytes]


async def parts(request: web.Request, field: str) -> AsyncIterator[Part]:
    """Yield the files of a field. WrongBody: it is no form; ApiError: 400 broken, 408 stands still."""
    if request.content_type != "multipart/form-data":
        raise missing_field("body", field)
    with _broken():
        form = await request.multipart()
    for _ in range(_MOST):
        with _broken():
            async with asyncio.timeout(BODY_S):
                part = await form.next()
        if not isinstance(part, BodyPartReader):
            return
        if part.name == field and part.filename:
            kind = part.headers.get("Content-Type", "application/octet-stream")
            yield Part(part.filename, kind, _pieces(part))


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while not part.at_eof():
        with _broken():
            async with asyncio.timeout(BODY_S):
                piece = await part.read_chunk(65_536)
        yield piece


@contextmanager
def _broken() -> Iterator[None]:
    """Say what is wrong with a form that does not go on, or is none."""
    try:
        yield
    except TimeoutError:
        raise ApiError(408, f"Nothing more of the body came for {BODY_S} s.") from None
    except (*NO_FORM, web.RequestPayloadError):
        raise ApiError(400, "The body is no form as its head says.") from None
