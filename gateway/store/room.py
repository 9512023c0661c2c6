"""How full the store's file system is: said once at 85 and at 95 %, and once when it is over."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

_LEVELS = (85.0, 95.0)
_HYSTERESIS = 2.0
"""A level is left only this much below it."""


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

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.state = RoomState(0.0, 0, 0, "")

    @property
    def tight(self) -> bool:
        """Say whether nothing is to be written that can be done without."""
        return self.state.level >= _LEVELS[1]

    def look(self, wanted_bytes: int) -> None:
        """Look how full it is; `wanted_bytes`: by how much the store may still grow."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return  # what is wrong with the disk is said where it refuses samples
        used = found.f_blocks - found.f_bfree
        percent = 100 * used / max(used + found.f_bavail, 1)
        free = found.f_bavail * found.f_frsize
        level = max((int(at) for at in _LEVELS if percent >= at - self._slack(at)), default=0)
        before = self.state.level
        self.state = RoomState(
            round(percent, 1), free, level, _sentence(self._folder, level, percent, free, wanted_bytes)
        )
        if level > before:
            _log.warning("%s", self.state.warning)
        elif level < before:
            _log.warning(
                "the file system of %s is %.0f %% full again, below %d %%", self._folder, percent, before
            )

    def _slack(self, at: float) -> float:
        return _HYSTERESIS if self.state.level >= at else 0.0


def _sentence(folder: Path, level: int, percent: float, free: int, wanted_bytes: int) -> str:
    if not level:
        return ""
    sentence = f"the file system of {folder} is {percent:.0f} % full, {free / 1e6:.0f} MB are free"
    if wanted_bytes > free:
        sentence += f"; the store may still grow by {wanted_bytes / 1e6:.0f} MB: lower store.max or make room"
    else:
        sentence += ": make room"
    if level >= _LEVELS[1]:
        sentence += "; of the runs only the newest are kept until then"
    return sentence
