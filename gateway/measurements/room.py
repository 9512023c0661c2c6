"""How much may still be recorded: what the store's budget and the disk leave."""

import asyncio
import shutil
from pathlib import Path

from gateway.measurements.plan import MeasurementRefused
from gateway.store import Store, recordings

_SHARE = 0.5
"""Of the store's budget, for all recordings together: the rest is the samples'."""
_SPARE_BYTES = 64 * 1024 * 1024
"""Of the disk, left free for others."""
_TIME_BYTES, _FILE_ROW_BYTES = 4, 4


def block_bytes(values_per_frame: int) -> int:
    """Return what a frame takes in the store at most: counts that do not pack, its time and its counter."""
    return 2 * values_per_frame + _TIME_BYTES


def file_bytes(values_per_frame: int) -> int:
    """Return what a frame takes in the file, about."""
    return 3 * values_per_frame + _FILE_ROW_BYTES


class Room:
    """Bytes that are left for the blocks of recordings; the files' are reckoned with."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._left = 0
        self._reserved: dict[str, int] = {}

    async def look(self) -> None:
        """Reckon anew."""
        recorded = await self._store.read(recordings.recorded_bytes)
        state = self._store.state()
        others = state.bytes_used - state.history_bytes - recorded  # blocks, which may wait for an upload
        budget = min(state.bytes_budget * _SHARE, state.bytes_budget - others) - recorded
        self._left = int(budget)

    async def reserve(self, device: str, frames: int | None, values_per_frame: int) -> None:
        """Take room for frames, None: as many as come. MeasurementRefused: there is none, and how much is."""
        await self.look()
        if refusing := self._store.state().refusing:
            raise MeasurementRefused(f"the store takes no frames now: {refusing}")
        needed = block_bytes(values_per_frame) * (frames or 1)
        left = self._left - sum(self._reserved.values())
        if needed > left:
            raise MeasurementRefused(
                f"the measurement would take about {_mb(needed)} of the store, where {_mb(left)} are left "
                f"for measurements: measure for a shorter time, or raise store.max"
            )
        usage = await asyncio.to_thread(shutil.disk_usage, self._folder)
        free = usage.free - _SPARE_BYTES
        both = needed + file_bytes(values_per_frame) * (frames or 1)
        if both > free:
            raise MeasurementRefused(
                f"the measurement would take about {_mb(both)} of the disk until its file is written, where "
                f"{_mb(free)} are free: measure for a shorter time, or delete files"
            )
        self._reserved[device] = needed if frames else 0

    def take(self, device: str, frames: int, values_per_frame: int) -> bool:
        """Count frames that came; say whether more may come."""
        size = block_bytes(values_per_frame) * frames
        self._left -= size
        self._reserved[device] = max(self._reserved.get(device, 0) - size, 0)
        return self._left > 0

    def release(self, device: str) -> None:
        self._reserved.pop(device, None)


def _mb(size: float) -> str:
    return f"{max(size, 0) / 1e6:.1f} MB"
