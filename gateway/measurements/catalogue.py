"""The files of measurements as they lie in their folder: listed, looked into, changed, deleted."""

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.durable import sync
from gateway.measurements import metadata as meta
from gateway.measurements.incoming import Disk, Incoming, check_room, clear_drafts, disk_of, hdf5, place
from gateway.measurements.inspection import CHILD, Answer, FileMissing, Inspection
from gateway.measurements.metadata import POST, PRE
from gateway.measurements.names import LONGEST_BYTES, SUFFIX
from gateway.measurements.record import WRITTEN, Measurement
from gateway.measurements.service import Measurements
from gateway.store import Store, file_queue

_log = logging.getLogger(__name__)
_DELETED = "the file was deleted before this upload had it"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file."""

    name: str
    size_bytes: int
    created_us: int
    """When the measurement began; of a file of others, when its inode was made or changed last."""
    modified_us: int
    measurement: str | None
    """The measurement that it is of, where the gateway knows."""


class Catalogue:
    """The folder of one gateway. Event loop only; files are touched by threads and children."""

    def __init__(self, measurements: Measurements, store: Store, child: Sequence[str] = CHILD) -> None:
        self._measurements, self._store = measurements, store
        self._clients, self._uploads = Inspection(child), Inspection(child)
        self._incoming = Incoming(measurements.folder)
        self._listeners: list[Callable[[], None]] = []
        measurements.on_written = self._told

    @property
    def folder(self) -> Path:
        return self._measurements.folder

    # What uploads need (forward.FileSource).

    def recorded(self) -> Sequence[str]:
        """Return the names of files that measurements have written and verified."""
        return [m.file for m in self._measurements.listed() if m.state == WRITTEN and m.file]

    def path(self, name: str) -> Path:
        """Return where a file is. ValueError: it is no name of a file, with a sentence."""
        long = len(name.encode(errors="replace")) > LONGEST_BYTES
        if not name.endswith(SUFFIX) or name.startswith(".") or long:
            raise ValueError(
                f"the name of a measurement's file ends in {SUFFIX}, begins with no dot and has at most "
                f"{LONGEST_BYTES} bytes"
            )
        if not name.isprintable() or any(character in name for character in "/\\"):
            raise ValueError("the name of a file has no slash, no backslash and nothing that is not printed")
        return self.folder / name

    async def about(self, name: str) -> Mapping[str, Any]:
        """Return what a target may list a file with. FileMissing, FileUnfit, FileFailed."""
        found: Mapping[str, Any] = await self._uploads.document({"do": "about", "path": str(self.path(name))})
        return found

    @contextlib.contextmanager
    def listen(self, told: Callable[[], None]) -> Iterator[None]:
        """Call back, while entered, when a file was written or changed."""
        self._listeners.append(told)
        try:
            yield
        finally:
            self._listeners.remove(told)

    def _told(self) -> None:
        for told in self._listeners:
            told()

    # What may be asked. ValueError: as `path`; FileMissing, FileUnfit, FileFailed.

    async def listed(self) -> Sequence[LocalFile]:
        """Return all files, the newest first."""
        of = {m.file: m for m in self._measurements.listed() if m.file}
        found = await asyncio.to_thread(self._scan, of)
        return sorted(found, key=lambda file: (file.created_us, file.name), reverse=True)

    def _scan(self, of: Mapping[str, Measurement]) -> list[LocalFile]:
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(ValueError, OSError):
                    self.path(entry.name)
                    found.append(_local(entry.name, entry.stat(follow_symlinks=False), of.get(entry.name)))
        return found

    async def clear(self) -> None:
        """Remove what an earlier run left in the middle of taking it in."""
        await self._incoming.clear()

    async def find(self, name: str) -> LocalFile:
        """Return one file."""
        path = self.path(name)
        of = next((m for m in self._measurements.listed() if m.file == name), None)
        try:
            return _local(name, await asyncio.to_thread(path.lstat), of)
        except (OSError, ValueError):
            raise FileMissing(f"There is no file {name}.") from None

    async def disk(self) -> Disk:
        """Return how much room there is."""
        return await asyncio.to_thread(disk_of, self.folder)

    async def delete(self, name: str) -> Sequence[str]:
        """Delete a file; return the uploads that never got it, of each of which a gap record says so."""
        path = self.path(name)
        async with self._measurements.changing(name):
            await self.find(name)
            before = await self._store.read(lambda conn: file_queue.uploads_of(conn, name))
            await asyncio.to_thread(_unlink, path)
            after = await self._store.ride(
                lambda tx: file_queue.drop_everywhere(tx, name, f"{name}: {_DELETED}")
            )
        self._told()
        # One that is not known any more noticed by itself that the file is gone, and recorded the gap.
        return [upload for upload, due in before.items() if due and after.get(upload, True)]

    def analysis(
        self, name: str, every: int, *, pictures: bool, brief: bool = False
    ) -> AbstractAsyncContextManager[Answer]:
        """Have a file read through: NDJSON with what it is, one row in `every`, progress, statistics.

        `brief`: only its first line is read.
        """
        return self._asked(name, brief=brief, do="analyze", every=every, pictures=pictures)

    async def take(self, name: str, pieces: AsyncIterator[bytes]) -> str:
        """Take in a file of others, under its name or, where that is taken, one with a number; return it."""
        path = self.path(name)
        async with self._incoming.file(hdf5(pieces)) as draft:
            await self._clients.document({"do": "about", "path": str(draft)})
            stored = await asyncio.to_thread(place, draft, path)
        self._told()
        return stored

    async def metadata(self, name: str) -> Mapping[str, Any]:
        """Return what is known of a file before (`pre`) and after (`post`) its measurement; None each."""
        m = self._of(name)
        due = (m.metadata, m.post_metadata) if m is not None and m.metadata_due else (None, None)
        async with self._asked(name, brief=True, do="metadata") as answer:
            found: dict[str, Any] = await answer.document()
        # What is on its way into the file may have come there only after it was read.
        return found | {key: new for key, new in zip((PRE, POST), due, strict=True) if new is not None}

    async def put_metadata(
        self, name: str, pre: Mapping[str, Any] | None, post: Mapping[str, Any] | None
    ) -> None:
        """Have metadata put into a file, over what was; None: it stays.

        Of a measurement: returns after COMMIT, the file follows. Of another file: once it is in there.
        """
        for given in (pre, post):
            if given is not None:
                meta.check(given)
        await self.find(name)
        if (m := self._of(name)) is not None:
            await self._measurements.put_metadata(m.name, pre, post)
            return
        async with self._rewriting(name):
            await self._clients.document(
                {"do": "put_metadata", "path": str(self.path(name)), PRE: pre, POST: post}
            )
        self._told()

    async def embedded(self, name: str) -> Sequence[Mapping[str, Any]]:
        """Return the files inside a file."""
        async with self._asked(name, brief=True, do="embedded") as answer:
            found: Sequence[Mapping[str, Any]] = await answer.document()
            return found

    def extracted(self, name: str, dataset: str) -> AbstractAsyncContextManager[Answer]:
        """Have a file inside a file read: its head says `name`, `mime` and `size_bytes`."""
        return self._asked(name, do="extract", dataset=dataset)

    async def embed(
        self, name: str, inside: str, mime: str, pieces: AsyncIterator[bytes]
    ) -> Mapping[str, Any]:
        """Put a file, called `inside`, into a file; return how it is listed."""
        await self.find(name)
        async with self._incoming.file(pieces) as draft, self._rewriting(name):
            job = {"do": "embed", "path": str(self.path(name)), "source": str(draft), "name": inside}
            added: Mapping[str, Any] = await self._clients.document({**job, "mime": mime})
        self._told()
        return added

    async def remove_embedded(self, name: str, dataset: str) -> None:
        """Remove a file inside a file."""
        async with self._rewriting(name):
            await self._clients.document({"do": "remove", "path": str(self.path(name)), "dataset": dataset})
        self._told()

    @asynccontextmanager
    async def _rewriting(self, name: str) -> AsyncIterator[None]:
        """Have a file for oneself, and room for the copy that takes its place. FileFailed: there is none."""
        async with self._measurements.changing(name):
            await check_room(self.folder, (await self.find(name)).size_bytes)
            try:
                yield
            finally:
                await asyncio.shield(asyncio.to_thread(clear_drafts, self.folder, self.path(name).stem))

    @asynccontextmanager
    async def _asked(self, name: str, *, brief: bool = False, **job: Any) -> AsyncIterator[Answer]:
        await self.find(name)
        async with self._clients.asked({"path": str(self.path(name)), **job}, brief=brief) as answer:
            yield answer

    def _of(self, name: str) -> Measurement | None:
        return next((m for m in self._measurements.listed() if m.file == name), None)


def _local(name: str, found: os.stat_result, of: Measurement | None) -> LocalFile:
    """Return a file by what is known of it. ValueError: it is a folder, a link or a device."""
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{name} is no file")
    created_us = of.started_us if of is not None else found.st_ctime_ns // 1000
    return LocalFile(
        name, found.st_size, created_us, found.st_mtime_ns // 1000, of.name if of is not None else None
    )


def _unlink(path: Path) -> None:
    path.unlink()
    sync(path.parent)
