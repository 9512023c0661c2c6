"""How full the store's file system is: said once at 85 and at 95 %; and what it leaves of `max`."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

_LEVELS = (85.0, 95.0)
_HYSTERESIS = 2.0
"""A level is left only this much below it."""
_RESERVE_BYTES = 1024 * 1024 * 1024
"""Left free for others, and for logs and drafts of the store: at most so much, a tenth of a small disk."""
_LEAST_BYTES = 1_000_000
"""What `max` may be set to at least."""


@dataclass(frozen=True, slots=True)
class RoomState:
    """The file system of the store."""

    used_percent: float
    """As df counts: of what is not kept for root."""
    free_bytes: int
    level: int
    """0, 85 or 95."""
    warning: str
    """A sentence from 85 % on, or ""."""


class Room:
    """Writer thread only, but `state`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self.state = RoomState(0.0, 0, 0, "")
        self.budget_bytes = max_bytes
        """What the store may use now: `max`, or what the disk leaves of it."""
        self.least_bytes = max_bytes
        """Others' files do not push the store below it."""
        self.short = False
        """Less is free than is to be."""

    @property
    def tight(self) -> bool:
        """Say whether nothing is to be written that can be done without."""
        return self.state.level >= _LEVELS[1]

    def look(self, there_bytes: int) -> None:
        """Look how full it is; `there_bytes`: so long are the store's files."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return  # what is wrong with the disk is said where it refuses samples
        used = found.f_blocks - found.f_bfree
        percent = 100 * used / max(used + found.f_bavail, 1)
        free = found.f_bavail * found.f_frsize
        total = (used + found.f_bavail) * found.f_frsize
        self.least_bytes = min(max(_LEAST_BYTES, min(self._max_bytes, total) // 10), self._max_bytes)
        reserve = min(_RESERVE_BYTES, total // 10)
        self.short, left = free < reserve, there_bytes + free - reserve
        self.budget_bytes = max(min(self._max_bytes, left), self.least_bytes)
        level = max((int(at) for at in _LEVELS if percent >= at - self._slack(at)), default=0)
        before = self.state.level
        self.state = RoomState(round(percent, 1), free, level, self._sentence(level, percent, free))
        if level > before:
            _log.warning("%s", self.state.warning)
        elif level < before:
            _log.warning(
                "the file system of %s is %.0f %% full again, below %d %%", self._folder, percent, before
            )

    def _slack(self, at: float) -> float:
        return _HYSTERESIS if self.state.level >= at else 0.0

    def _sentence(self, level: int, percent: float, free: int) -> str:
        if not level:
            return ""
        sentence = f"the file system of {self._folder} is {percent:.0f} % full, {free / 1e6:.0f} MB are free"
        if self.budget_bytes < self._max_bytes:
            sentence += (
                f"; the store keeps to {self.budget_bytes / 1e6:.0f} MB instead of the "
                f"{self._max_bytes / 1e6:.0f} MB of store.max: lower store.max or make room"
            )
        else:
            sentence += ": make room"
        if level >= _LEVELS[1]:
            sentence += "; of the runs only the newest are kept until then"
        return sentence
