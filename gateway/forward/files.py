"""The files of one upload: queued in the store, sent one by one beside the units, never before them."""

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as changed
from typing import Any, BinaryIO, TypeVar

from gateway.controls.files import FileState, Reachable, RemoteFile, RemoteFiles, RemoteListing
from gateway.forward.file_book import FileBook, seen
from gateway.forward.gate import TURN_S, Gate
from gateway.forward.local_file import hashed, look_of, opened
from gateway.forward.status import FilesStatus
from gateway.forward.turning import turning
from gateway.forward.upload import FileSource, FileUpload
from gateway.model import GatewayError, OutgoingFile, Outlet, StoredFile, UploadProblem
from gateway.store import file_queue
from gateway.store.file_queue import FileRow
from gateway.store.outbox import Transaction
from gateway.supervise import Keeper

_log = logging.getLogger(__name__)
T = TypeVar("T")

_LOOK_S = 60.0
"""How often files are looked at that nobody told of."""
CHECK_S = 60.0
"""How often the target is asked, where nothing else told how it is."""
_VANISHED = "the file was deleted before this upload had it"


class FileLane:
    """Sends what is due. Its failures hold up neither units nor, for long, other files."""

    def __init__(self, upload: FileUpload, source: FileSource, gate: Gate, *, automatic: bool) -> None:
        """`automatic`: what measurements write is due without being asked for."""
        self._upload, self._source, self._gate, self._automatic = upload, source, gate, automatic
        self._store, self._clock = upload.store, upload.clock
        self._due = asyncio.Event()
        self._book = FileBook(upload.upload, upload.clock)
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[StoredFile] | None = None
        self._keeper: Keeper | None = None
        self._running = False
        self._turned_ns = self._looked_ns = self._clock.mono_ns()

    @property
    def turned_ns(self) -> int:
        """Last turn, monotonic; now, while it does not run."""
        return self._turned_ns if self._running else self._clock.mono_ns()

    def _turn(self) -> None:
        self._turned_ns = self._clock.mono_ns()

    # What may be asked.

    @property
    def status(self) -> FilesStatus:
        return self._book.status

    @property
    def reachable(self) -> Reachable:
        return self._book.status.reachable

    async def states(self) -> Mapping[str, FileState]:
        """Return how files are that this upload has, had or is to get, by name."""
        rows = await self._rows()
        looks = await asyncio.to_thread(self._looks, [row.name for row in rows])
        return {row.name: self._book.state(row, looks[row.name]) for row in rows}

    async def send(self, name: str, replace: str = "", patience_s: float = 0) -> FileState:
        """Have a file sent now, over the one at the target with the id `replace`; return how it is.

        That is after its next attempt, or after `patience_s`. NotStored: it was not taken into the queue.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(ended)
        try:
            upload = self._upload.upload
            asked = self._store.riding(lambda tx: file_queue.enqueue(tx, upload, name, replace))
            self._store.hurry()
            await asked
            self._book.forget(name)
            self._gate.open()
            self.wake()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await ended
        finally:
            if (others := self._waiting.get(name)) is not None:
                others.discard(ended)
                if not others:
                    del self._waiting[name]
        return (await self.states()).get(name, FileState("not_uploaded"))

    async def listed(self, most: int) -> RemoteListing:
        """List what the target has, and take note of what others did there to files of ours."""
        rows = await self._rows()
        ours, there = {row.remote_id for row in rows}, dict[str, RemoteFile]()
        shown, count = dict[str, RemoteFile](), 0
        async for each in self._remote().files():
            count += each.id not in shown
            if len(shown) < most:
                shown[each.id] = each
            if each.id in ours:
                there[each.id] = changed(each, metadata={}, listed={})
        self._book.answered()
        for row in rows:
            if row.md5 and not row.due and (now := seen(row, there.get(row.remote_id))) != row.remote:
                mark = functools.partial(file_queue.mark, upload=self._upload.upload, row=row, remote=now)
                await self._store.ride(mark)
        return RemoteListing(list(shown.values()), count - len(shown))

    async def authenticate(self) -> None:
        """Log in anew. UploadProblem: the target refuses, or is not reached."""
        try:
            await self._remote().authenticate()
        except UploadProblem as problem:
            self._book.refused(problem)
            raise
        self._book.answered()
        self._gate.open()

    def _remote(self) -> RemoteFiles:
        offered = self._upload.outlet.controls if self._upload.outlet else ()
        found = next((control for control in offered if isinstance(control, RemoteFiles)), None)
        if found is None:
            raise UploadProblem(f"upload {self._upload.upload} is not running now")
        return found

    def wake(self) -> None:
        """Look at once: the target is open, or a file was written."""
        self._due.set()

    async def close(self) -> None:
        """End what is being sent: the target is about to be closed. It is sent again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # Its run.

    async def run(self, keeper: Keeper) -> None:
        """Send what is due, until cancelled."""
        self._keeper = keeper
        try:
            with self._source.listen(self.wake):
                self._turn()
                self._running = True
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._send_all(), name=f"files of upload {self._upload.upload}")
                    group.create_task(self._check(), name=f"check of upload {self._upload.upload}")
        finally:
            self._running = False

    async def _send_all(self) -> None:
        # Not a read: what became of an earlier run of this upload comes before it.
        await self._ride(lambda _: None)
        await self._look()
        while True:
            self._turn()
            if self._due.is_set() or self._clock.mono_ns() - self._looked_ns > _LOOK_S * 1e9:
                self._due.clear()
                await self._look()
            row = self._next(await self._rows())
            if row is None or self._upload.outlet is None:
                await self._rest()
                continue
            await self._gate.wait(self._turn)
            await self._attempt(row.name)

    async def _rest(self) -> None:
        if self._keeper is not None and self._upload.outlet is not None:
            self._keeper.report("running")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_S):
                await self._due.wait()

    async def _rows(self) -> list[FileRow]:
        return self._book.counted(
            await self._store.read(lambda conn: file_queue.rows(conn, self._upload.upload))
        )

    def _next(self, rows: Sequence[FileRow]) -> FileRow | None:
        """Return what was asked for first of those that failed least: one bad file holds up no other."""
        due = [row for row in rows if row.due]
        return min(due, key=lambda row: self._book.attempts(row.name), default=None)

    async def _look(self) -> None:
        """Queue files that are new or were changed, forget those that are gone."""
        self._looked_ns = self._clock.mono_ns()
        rows = {row.name: row for row in await self._rows()}
        fresh = [name for name in self._source.recorded() if name not in rows] if self._automatic else []
        looks = await asyncio.to_thread(self._looks, [*rows, *fresh])
        wanted = [name for name in fresh if looks[name]]
        wanted += [
            name for name, row in rows.items() if not row.due and not row.remote and looks[name] != row.local
        ]
        gone = [name for name in rows if not looks[name]]
        wanted = [name for name in wanted if looks[name]]
        if not wanted and not gone:
            return
        upload = self._upload.upload
        await self._ride(lambda tx: file_queue.enqueue_all(tx, upload, wanted))
        for name in gone:
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        upload, reason = self._upload.upload, f"{name}: {_VANISHED}"
        if await self._ride(lambda tx: file_queue.drop(tx, upload, name, reason)):
            _log.warning("upload %s: %s", upload, reason)
        self._book.forget(name)

    def _looks(self, names: Sequence[str]) -> dict[str, str]:
        """Return what tells a file from one changed since; "" where there is none."""
        found = {}
        for name in names:
            try:
                found[name] = look_of(self._source.path(name).lstat())
            except (OSError, ValueError):
                found[name] = ""
        return found

    async def _attempt(self, name: str) -> None:
        """Send one file, once."""
        row = await self._store.read(lambda conn: file_queue.find(conn, self._upload.upload, name))
        outlet = self._upload.outlet
        if row is None or not row.due or outlet is None or outlet.put is None:
            return
        try:
            with await asyncio.to_thread(opened, self._source.path(name)) as content:
                self._book.sending, self._book.sent_bytes = name, 0
                await self._deliver(row, content, outlet)
        except FileNotFoundError:
            await self._forget(name)
        except (UploadProblem, OSError) as error:
            self._failed(name, error)
        else:
            self._gate.passed()
        finally:
            self._book.sending, self._task = "", None
            for ended in self._waiting.pop(name, ()):
                if not ended.done():
                    ended.set_result(None)

    async def _deliver(self, row: FileRow, content: BinaryIO, outlet: Outlet) -> None:
        local = look_of(await asyncio.to_thread(os.fstat, content.fileno()))
        md5, size = await turning(asyncio.to_thread(hashed, content), self._turn)
        upload, name = self._upload.upload, row.name
        file = OutgoingFile(
            name=name,
            content=content,
            size=size,
            md5=md5,
            gateway_id=self._upload.gateway_id,
            about=await self._about(name),
            ours=bool(row.intent),
            claim=functools.partial(self._claim, row, md5),
            replaces=frozenset({row.replace} - {""} or {row.remote_id} - {""}),
            pace=functools.partial(self._paced, content),
        )
        stored = await self._put(outlet, file)
        now = (await asyncio.to_thread(self._looks, [name]))[name]
        sent = row._replace(
            due=int(now not in (local, "")),
            intent=md5,
            local=local,
            md5=md5,
            size=size,
            etag=stored.etag,
            remote_id=stored.remote_id,
            stored_us=self._clock.wall_us(),
            remote="",
        )
        await self._ride(lambda tx: file_queue.settle(tx, upload, sent))
        self._book.delivered(name, size)

    async def _about(self, name: str) -> Mapping[str, Any]:
        """Return what the file says of itself; one that is no measurement is sent all the same."""
        try:
            return await turning(self._source.about(name), self._turn)
        except GatewayError as error:
            _log.info("upload %s: %s is sent without saying what it is: %s", self._upload.upload, name, error)
            return {}

    async def _put(self, outlet: Outlet, file: OutgoingFile) -> StoredFile:
        assert outlet.put is not None

        def began(task: "asyncio.Task[StoredFile]") -> None:
            self._task = task

        try:
            return await turning(outlet.put(file), self._turn, began)
        except asyncio.CancelledError:
            if (me := asyncio.current_task()) is not None and me.cancelling():
                raise
            raise UploadProblem(f"{file.name} was not sent to its end: the upload was closed") from None

    async def _claim(self, row: FileRow, md5: str) -> None:
        """Have it committed what is sent before its first byte leaves."""
        upload, name = self._upload.upload, row.name
        if row.intent != md5:
            await self._ride(lambda tx: file_queue.intend(tx, upload, name, md5))

    async def _paced(self, content: BinaryIO) -> None:
        self._turn()
        self._book.sent_bytes = await asyncio.to_thread(content.tell)
        await self._upload.live_first()

    async def _ride(self, job: Callable[[Transaction], T]) -> T:
        return await turning(self._store.ride(job), self._turn)

    def _failed(self, name: str, error: UploadProblem | OSError) -> None:
        if isinstance(error, UploadProblem):
            self._book.refused(error)
        else:
            error = UploadProblem(f"{name} cannot be read: {error.strerror}")
        self._book.failed(name, error)
        self._gate.failed(error)
        if self._keeper is not None:
            self._keeper.report("failed", f"{name}: {error}")

    async def _check(self) -> None:
        """Ask the target now and then whether it is there, where nothing else told."""
        while True:
            if (
                self._book.checked_before(CHECK_S)
                and self._upload.outlet is not None
                and not self._book.sending
            ):
                try:
                    await self._remote().check()
                except UploadProblem as problem:
                    self._book.refused(problem)
                else:
                    self._book.answered()
            await self._clock.sleep(min(CHECK_S, 1.0))
