"""Reads a listing that comes as one long JSON text, a few hundred entries at a time and beside the loop."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from typing import Any, Final

_SLICE: Final = 500
_TEXT: Final = r'"(?:[^"\\]|\\.)*+"\s*+'
_ARRAY: Final = re.compile(
    rf'\s*+(?:\{{\s*+(?:{_TEXT}:\s*+(?:{_TEXT}|[^"\[{{,}}]*+),\s*+)*+"(?:files|Contents)"\s*+:\s*+)?+\['
)
"""Up to the first entry: of the list itself, or of an object's `files` or `Contents`. It never goes back."""
_BETWEEN: Final = re.compile(r"[\s,]*")


async def entries(body: bytes) -> AsyncIterator[Sequence[Any]]:
    """Yield the entries in slices. ValueError: it is no listing, or ends in the middle."""
    listed = await asyncio.to_thread(lambda: _entries(body.decode()))
    while some := await asyncio.to_thread(lambda: list(islice(listed, _SLICE))):
        yield some


def _entries(text: str) -> Iterator[Any]:
    # By entries: a parser that takes the whole text in one call holds the interpreter's lock that long.
    decoder = json.JSONDecoder()
    begin = _ARRAY.match(text)
    if begin is None:
        json.loads(text)
        return
    at = begin.end()
    while not text.startswith("]", at := _end(_BETWEEN, text, at)):
        entry, at = decoder.raw_decode(text, at)
        yield entry


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found is not None else at
