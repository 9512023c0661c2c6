"""From the store's blocks to the file: feeds the child process, and drops the blocks once it has answered."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.child_process import child_command, started
from gateway.measurements.incoming import clear_drafts
from gateway.measurements.piped import PipedChild
from gateway.measurements.record import BLOCK_SIZE, EMPTY, WRITTEN, Measurement
from gateway.model import Gap, GatewayError
from gateway.store import Store, recordings
from gateway.store.outbox import Transaction, insert_gap

_log = logging.getLogger(__name__)

CHILD: Sequence[str] = child_command("gateway.measurements.file_process")
_DROPPED_PARTS = 64


class FileProblem(GatewayError):
    """The file of a measurement cannot be written now, and why; its frames stay in the store."""


class Finisher:
    """Finishes one measurement at a time."""

    def __init__(self, store: Store, folder: Path, child: Sequence[str] = CHILD) -> None:
        self._store, self._folder, self._child = store, folder, child

    async def write(self, m: Measurement) -> None:
        """Have the file written and verified, then drop the blocks. FileProblem, NotStored."""
        sent = m.metadata, m.post_metadata
        async with self._running("write", m) as child:
            async for data in self._store.recording(m.name):
                await child.send(BLOCK_SIZE.pack(len(data)) + data)
            await child.send(BLOCK_SIZE.pack(0))
            answer = await child.answer()
        unstored = max(0, m.received - answer["received"])
        _take(m, answer)
        self._settle_metadata(m, *sent)
        gaps, name, text = _gaps(m, answer["missing"], unstored), m.name, m.text()

        def done(tx: Transaction) -> None:
            recordings.keep(tx, name, text, done=True)
            for gap in gaps:
                insert_gap(tx.conn, gap, tx.newest_seq + 1)

        await self._store.ride(done)
        await self.drop(name)

    async def change(self, m: Measurement) -> None:
        """Have metadata put into the file that there is. FileProblem, NotStored."""
        sent = m.metadata, m.post_metadata
        async with self._running("change", m) as child:
            answer = await child.answer()
        if not answer["file"]:
            _log.warning("measurement %s: its file is not there any more, so no metadata goes there", m.name)
        self._settle_metadata(m, *sent)
        text = m.text()
        await self._store.ride(lambda tx: recordings.keep(tx, m.name, text, done=True))

    @staticmethod
    def _settle_metadata(m: Measurement, *sent: Mapping[str, Any] | None) -> None:
        """Forget metadata that is in the file; what came meanwhile is still to be put there."""
        m.metadata_due = any(
            now is not then for now, then in zip((m.metadata, m.post_metadata), sent, strict=True)
        )
        if not m.metadata_due:
            m.metadata = m.post_metadata = None

    async def drop(self, name: str) -> None:
        """Delete the blocks of a measurement that is done, some with each commit."""
        while await self._store.ride(lambda tx: recordings.drop(tx, name, _DROPPED_PARTS)):
            self._store.hurry()

    @asynccontextmanager
    async def _running(self, do: str, m: Measurement) -> AsyncIterator["_Child"]:
        job = {"do": do, "folder": str(self._folder), "measurement": m.whole()}
        stem = Path(m.file).stem or m.name
        child = await started(lambda: _Child(self._child))
        try:
            await child.send(json.dumps(job).encode() + b"\n")
            yield child
        finally:
            child.kill()
            await asyncio.shield(asyncio.to_thread(self._leave, child, stem))

    def _leave(self, child: "_Child", stem: str) -> None:
        child.close()
        clear_drafts(self._folder, stem)


class _Child(PipedChild):
    """The process that writes."""

    async def send(self, data: bytes) -> None:
        """FileProblem: it has ended."""
        try:
            await asyncio.to_thread(self._write, data)
        except OSError:
            await self.answer()

    async def answer(self) -> dict[str, Any]:
        """Wait for its end. FileProblem: it could not do it."""
        out, _ = await asyncio.to_thread(self._process.communicate)
        try:
            answer: dict[str, Any] = json.loads(out)
        except ValueError:
            answer = {"error": f"its process ended with {self._process.returncode}"}
        if (why := answer.get("error")) is not None:
            raise FileProblem(f"the file could not be written, which is tried again: {why}")
        return answer


def _take(m: Measurement, answer: dict[str, Any]) -> None:
    m.file, m.problem = answer["file"], ""
    m.state = WRITTEN if m.file else EMPTY
    if m.file:
        m.received, m.lost = answer["received"], answer["lost"]
        m.ended_us = m.ended_us or answer["last_us"]
    elif answer["missing"]:
        m.ending = m.ending or "its frames were damaged in the store"


def _gaps(m: Measurement, missing: int, unstored: int) -> list[Gap]:
    """Return what is missing: `missing` blocks, `unstored` of the frames that came."""
    until = m.ended_us or m.started_us
    gaps = []
    if m.lost:
        why = f"measurement {m.name}: {m.lost} of {m.received + m.lost} frames were lost on their way"
        gaps.append(Gap(m.started_us, until, why, m.device, count=m.lost))
    if missing or unstored:
        what = f"{missing} of its blocks" if missing else f"{unstored} of its frames"
        why = f"measurement {m.name}: {what} were lost in the store"
        gaps.append(Gap(m.started_us, until, why, m.device, count=unstored or None))
    if m.interrupted:
        gaps.append(Gap(until, until, f"measurement {m.name} was interrupted: {m.ending}", m.device))
    return gaps
