"""Files of others on their way into the folder of measurements: drafts, in the room that is left."""

import asyncio
import glob
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.durable import sync
from gateway.measurements.inspection import FileFailed, FileUnfit
from gateway.measurements.names import DRAFT, numbered

_log = logging.getLogger(__name__)
_INCOMING = ".incoming"
_KEPT_SHARE, _OWN_SHARE = 0.1, 0.01
"""Of the disk, left free by what others bring, and by the copy of a file of a measurement."""
_CHECK_BYTES = 16 * 1024 * 1024
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAD_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Disk:
    """Of the disk that the files lie on."""

    total_bytes: int
    free_bytes: int


def disk_of(folder: Path) -> Disk:
    """Look at the disk of a folder, which need not be there yet. Blocks."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    found = os.statvfs(there)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


async def hdf5(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a file as it comes. FileUnfit: its head is not that of an HDF5 file; nothing more is taken.

    HDF5 File Format Specification 3.0, II.A: the signature stands at 0, 512, 1024, 2048 and so on.
    """
    head = bytearray()
    async for piece in pieces:
        head += piece
        if len(head) >= _HEAD_BYTES:
            break
    places = (0, *(512 << n for n in range(8)))
    if not any(head.startswith(_SIGNATURE, place) for place in places):
        raise FileUnfit("it is no HDF5 file")
    yield bytes(head)
    async for piece in pieces:
        yield piece


async def check_room(folder: Path, needed_bytes: int = 0, *, own: bool = False) -> None:
    """Raise FileFailed where that many more bytes, of others unless `own`, would take what is kept free."""
    disk = await asyncio.to_thread(disk_of, folder)
    kept = int(disk.total_bytes * (_OWN_SHARE if own else _KEPT_SHARE))
    if disk.free_bytes - needed_bytes < kept:
        needed = f"{needed_bytes / 1e6:.0f} MB would be needed for a while, " if needed_bytes else ""
        raise FileFailed(
            f"the disk has {disk.free_bytes / 1e6:.0f} MB left, {needed}and {kept / 1e6:.0f} MB are kept for "
            f"samples and measurements: delete files first"
        )


def clear_drafts(folder: Path, stem: str | None = None) -> None:
    """Remove what processes left that were killed: drafts of one file, or of all. Blocks."""
    of = "*" if stem is None else f"{glob.escape(stem)}.????????"  # as tempfile names them
    for draft in folder.glob(f".{of}{DRAFT}"):
        draft.unlink(missing_ok=True)


class Incoming:
    """Drafts in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def file(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[Path]:
        """Write what comes to a draft that does not stay. FileFailed: the disk has no room for it."""
        draft = await asyncio.to_thread(_draft, self._folder)
        try:
            with await asyncio.to_thread(draft.open, "wb") as file:
                unchecked = _CHECK_BYTES
                async for piece in pieces:
                    unchecked += len(piece)
                    if unchecked >= _CHECK_BYTES:
                        await check_room(self._folder)
                        unchecked = 0
                    await asyncio.to_thread(file.write, piece)
                await asyncio.to_thread(_synced, file)
            yield draft
        except OSError as error:
            raise FileFailed(f"the file cannot be kept: {error.strerror}") from None
        finally:
            await asyncio.shield(asyncio.to_thread(draft.unlink, missing_ok=True))

    async def clear(self) -> None:
        """Remove what an earlier run left in the middle of taking it in."""

        def remove() -> None:
            try:
                for draft in self._folder.glob(f".*{_INCOMING}"):
                    draft.unlink(missing_ok=True)
            except OSError as error:
                _log.error(
                    "%s refuses (%s): a draft of a file stays until a later start",
                    self._folder,
                    error.strerror,
                )

        await asyncio.to_thread(remove)


def _draft(folder: Path) -> Path:
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor, path = tempfile.mkstemp(_INCOMING, ".", folder)
    os.close(descriptor)
    return Path(path)


def _synced(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def place(draft: Path, path: Path) -> str:
    """Give a draft its name, or one with a number where there is such a file; return it."""
    number, final = 0, path
    while True:
        try:
            final.hardlink_to(draft)
        except FileExistsError:
            number += 1
            final = path.with_name(numbered(path.name, number))
        else:
            sync(path.parent)
            return final.name
