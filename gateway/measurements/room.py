"""How much may still be recorded: what the store's budget and the disks leave."""

import asyncio
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import Clock
from gateway.measurements.plan import MeasurementRefused
from gateway.store import Store, StoreProblem, recordings

_SHARE = 0.5
"""Of the store's budget, for all recordings together: the rest is the samples'."""
_FULL = 0.95
"""Of the budget: from there on samples that wait for an upload go, some at a time."""
_SPARE_BYTES = 64 * 1024 * 1024
"""Of each disk, left free for others."""
_LOOK_S = 60.0
_TIME_BYTES, _FILE_ROW_BYTES = 4, 4


def block_bytes(values_per_frame: int) -> int:
    """Return what a frame takes in the store at most: counts that do not pack, its time and its counter."""
    return 2 * values_per_frame + _TIME_BYTES


def file_bytes(values_per_frame: int) -> int:
    """Return what a frame takes in the file, about."""
    return 3 * values_per_frame + _FILE_ROW_BYTES


@dataclass(slots=True)
class _Booking:
    """What a measurement is yet to take of the store, and of the disk of the files."""

    blocks: int
    file: int


class Room:
    """Bytes that are left for the blocks of recordings; the files' are reckoned with."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._left = 0
        self._booked: dict[str, _Booking] = {}

    async def look(self) -> None:
        """Reckon anew."""
        recorded = await self._store.read(recordings.recorded_bytes)
        state = self._store.state()
        others = state.bytes_used - state.history_bytes - recorded  # blocks, which may wait for an upload
        budget = min(state.bytes_budget * _SHARE, state.bytes_budget * _FULL - others) - recorded
        self._left = int(budget)

    async def keep_looking(self, clock: Clock) -> None:
        """Reckon anew each minute: what waits for an upload may grow meanwhile."""
        while True:
            await clock.sleep(_LOOK_S)
            with suppress(StoreProblem):  # then what was left holds
                await self.look()

    async def reserve(self, device: str, frames: int | None, values_per_frame: int) -> None:
        """Take room for frames, None: as many as come. MeasurementRefused: there is none, and how much is."""
        blocks = block_bytes(values_per_frame) * (frames or 1)
        file = file_bytes(values_per_frame) * (frames or 1)
        await self.look()
        disks = await asyncio.to_thread(_disks, self._store.folder, self._folder)
        # From here on nothing waits, so that no other measurement takes the same room.
        if refusing := self._store.state().refusing:
            raise MeasurementRefused(f"the store takes no frames now: {refusing}")
        self._check_budget(blocks)
        self.check_disks(disks, blocks, file)
        self._booked[device] = _Booking(blocks, file) if frames else _Booking(0, 0)

    def _check_budget(self, blocks: int) -> None:
        left = self._left - sum(booking.blocks for booking in self._booked.values())
        if blocks > left:
            raise MeasurementRefused(
                f"the measurement would take about {_mb(blocks)} of the store, where {_mb(left)} are left "
                f"for measurements: measure for a shorter time, or raise store.max"
            )

    def check_disks(self, disks: Iterable["Disk"], blocks: int, file: int) -> None:
        for disk in disks:
            needed, free = 0, disk.free_bytes - _SPARE_BYTES
            if disk.of_store:
                needed += blocks
                free -= sum(booking.blocks for booking in self._booked.values())
            if disk.of_files:
                needed += file
                free -= sum(booking.file for booking in self._booked.values())
            if needed > free:
                raise MeasurementRefused(
                    f"the measurement would take about {_mb(needed)} of the disk of {disk.folder} until "
                    f"its file is written, where {_mb(free)} are free: measure for a shorter time, or delete "
                    f"files"
                )

    def take(self, device: str, frames: int, values_per_frame: int) -> bool:
        """Count frames that came; say whether more may come."""
        size = block_bytes(values_per_frame) * frames
        self._left -= size
        if (booking := self._booked.get(device)) is not None:
            booking.blocks = max(booking.blocks - size, 0)
        return self._left > 0

    def release(self, device: str) -> None:
        self._booked.pop(device, None)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk, and what lies there."""

    folder: Path
    free_bytes: int
    of_store: bool
    of_files: bool


def _disks(store: Path, files: Path) -> list[Disk]:
    """Look at the disks, one or two, that blocks and files lie on. Blocks."""
    if store.stat().st_dev == files.stat().st_dev:
        return [Disk(files, shutil.disk_usage(files).free, of_store=True, of_files=True)]
    return [
        Disk(store, shutil.disk_usage(store).free, of_store=True, of_files=False),
        Disk(files, shutil.disk_usage(files).free, of_store=False, of_files=True),
    ]


def _mb(size: float) -> str:
    return f"{max(size, 0) / 1e6:.1f} MB"
