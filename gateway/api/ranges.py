"""A file as an answer: whole, or the range that was asked for (RFC 9110, 14), each piece with a deadline."""

import asyncio
import os
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from aiohttp import web

from gateway.api.answers import stream
from gateway.api.errors import ApiError

_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_PIECE_BYTES: Final = 256 * 1024


def attachment(name: str) -> str:
    """Return a Content-Disposition that keeps a name of any characters (RFC 6266)."""
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def send_file(request: web.Request, path: Path, content_type: str) -> web.StreamResponse:
    """Answer with a file. FileNotFoundError: there is none, or it is a link."""
    with closing(await asyncio.to_thread(_opened, path)) as file:
        status = await asyncio.to_thread(os.fstat, file.fileno())
        size, tag = status.st_size, f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
        first, last = 0, size - 1
        headers = {"Accept-Ranges": "bytes", "ETag": tag, "Content-Disposition": attachment(path.name)}
        part = _asked(request.headers, size, tag)
        if part is not None:
            first, last = part
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        async with stream(
            request, content_type, headers, status=200 if part is None else 206, length=last - first + 1
        ) as out:
            await asyncio.to_thread(file.seek, first)
            left = last - first + 1
            while left:
                piece = await asyncio.to_thread(file.read, min(left, _PIECE_BYTES))
                if not piece:
                    raise OSError("the file became shorter while it was sent")
                left -= len(piece)
                await out.write(piece)
            return out.response


def _opened(path: Path) -> BinaryIO:
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb", buffering=0)
    except OSError as error:
        raise FileNotFoundError(error.errno, error.strerror) from None


def _asked(headers: Mapping[str, str], size: int, tag: str) -> tuple[int, int] | None:
    """Return first and last byte asked for; None: all. ApiError 416: there are none of these.

    What is no single range of bytes is ignored, as RFC 9110 has it.
    """
    if headers.get("If-Range", tag) != tag:
        return None
    found = _RANGE.fullmatch(headers.get("Range", "").replace(" ", ""))
    if found is None or not any(found.groups()):
        return None
    start, end = found.groups()
    if start:
        first, last = int(start), min(int(end), size - 1) if end else size - 1
        if end and int(end) < int(start):
            return None
    else:
        first, last = max(size - int(end), 0), size - 1
    if first > last:
        raise ApiError(416, f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return first, last
