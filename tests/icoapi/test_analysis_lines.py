"""The lines of an analysis on their way to ICOapi's clients: whole, bounded, long ones beside the loop."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gateway.api.compat.icoapi import files
from gateway.api.errors import ApiError


async def pieces(text: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
async def test_lines_are_whole_wherever_the_pieces_end(size: int) -> None:
    text = b"one\n\nthree and more\n4\n"
    assert [line async for line in files._lines(pieces(text, size))] == text.split(b"\n")[:-1]


async def test_a_line_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LONGEST_LINE_BYTES", 1 << 20)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1 << 16
            yield b"x" * (1 << 16)

    with pytest.raises(ApiError, match="more of itself"):
        async for _ in files._lines(endless()):
            pass
    assert taken <= (1 << 20) + (1 << 16)


def test_addresses_of_files_within_are_encoded() -> None:
    row = {"dataset": "b?1", "name": "b", "mime": "text/plain", "size_bytes": 1}
    about = {"acceleration": {}, "pictures": {}, "sensors": [], "embedded_files": [row]}
    (embedded,) = files._metadata_row("Fr\u00e4se 1#.hdf5", about)["embedded_files"]
    assert embedded["download_path"] == "/api/v1/files/Fr%C3%A4se%201%23.hdf5/embedded/b%3F1"


async def test_a_long_line_leaves_turns_to_others() -> None:
    about = {"acceleration": {}, "pictures": {"p": ["A" * 200_000]}, "sensors": [], "embedded_files": []}
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    translated = await files._translated("a.hdf5", json.dumps({"about": about}).encode())
    other.cancel()
    assert json.loads(translated) == about and turns
