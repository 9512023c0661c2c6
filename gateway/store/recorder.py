"""Frames of measurements into the store: the part of `Store` that records."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from gateway.clock import Clock
from gateway.controls.sensor_nodes import StreamFrames
from gateway.store.budget import MemoryBudget
from gateway.store.codec import BlockHeader, Kind
from gateway.store.outbox import Transaction
from gateway.store.reads import Reads
from gateway.store.recording import encode_part
from gateway.store.recordings import MeasurementRow, append, part_of, parts, rows
from gateway.store.writer import Writer

T = TypeVar("T")

_PARTS_READ = 16
_FRAME_BYTES = 64
"""Of memory that a frame takes while it waits: a time, a counter and its counts."""


class Recorder(Reads):
    """The part of `Store` that records."""

    folder: Path
    budget: MemoryBudget
    boot: str
    _clock: Clock
    _writer: Writer

    def riding(self, job: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """Have a job run inside the next group commit."""
        raise NotImplementedError

    async def record(
        self, row: MeasurementRow, head: bytes, part: int, frames: StreamFrames
    ) -> "asyncio.Future[None]":
        """Take frames for one block of the next commit; waits only while the memory budget is full.

        The future ends after COMMIT. NotStored: the store closed while the disk refused.
        """
        size = _FRAME_BYTES * len(frames)
        if not self.budget.try_take(size):
            self._writer.hurry()
            await self.budget.take(size)
        return self._record(row, head, part, frames, size)

    def try_record(
        self, row: MeasurementRow, head: bytes, part: int, frames: StreamFrames
    ) -> "asyncio.Future[None] | None":
        """Take frames as `record` does, or return None where the memory budget is full."""
        size = _FRAME_BYTES * len(frames)
        return self._record(row, head, part, frames, size) if self.budget.try_take(size) else None

    def _record(
        self, row: MeasurementRow, head: bytes, part: int, frames: StreamFrames, size: int
    ) -> "asyncio.Future[None]":
        clock = self._clock
        header = BlockHeader(
            Kind.RECORDING, 0, UUID(self.boot).bytes, clock.mono_ns(), clock.wall_us(),
            int(clock.synchronised()),
        )  # fmt: skip

        def encode(id_: int) -> bytes:
            return encode_part(replace(header, seq=id_), head, frames)

        stored = self.riding(lambda tx: append(tx, row, part, encode))
        stored.add_done_callback(lambda _: self.budget.give(size))
        return stored

    async def measurements(self) -> list[MeasurementRow]:
        """Return all measurements that the store knows, the oldest first. StoreProblem: not now."""
        return await self.read(rows)

    async def recording(self, name: str) -> AsyncIterator[bytes]:
        """Yield the blocks of a measurement in their order, damaged ones too."""
        part, most = 0, _PARTS_READ
        while found := await self.read(lambda conn, part=part: parts(conn, name, part, most)):  # type: ignore[misc]
            for id_, data in found:
                part = part_of(id_) + 1
                yield data

    async def searched(self) -> bool:
        """Say whether no damaged file waits that may hold blocks of measurements."""
        waiting = await asyncio.to_thread(self._writer.mender.recoverer.waiting)
        return not any(path.parent == self.folder for path in waiting)
