"""Counts the bytes written to the flash over the running time, and says how long the flash lasts."""

import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import Clock

_log = logging.getLogger(__name__)

_SECTOR_BYTES = 512
"""The unit of /sys/dev/block/*/stat, whatever the disk's own is (kernel: block/stat.rst)."""
_ENOUGH_S = 3600.0
"""Less running time than this says nothing about a day."""
_DAY_S = 86_400
_YEAR_DAYS = 365.25
_LEAST_YEARS = 10
_PROCESS = "this process"


@dataclass(frozen=True, slots=True)
class FlashState:
    """What was written, and for how many years the flash lasts at that rate."""

    source: str
    """What is counted: a disk with all that anybody writes to it, or only what this process writes."""
    written_bytes: int
    counted_s: float
    """Running time over which it was counted, restarts included."""
    bytes_per_day: int | None
    """None: it was counted for less than an hour."""
    endurance_bytes: int
    years_left: float | None
    warning: str
    """A sentence where it is less than ten years, or ""."""

    def __str__(self) -> str:
        over = (
            f"{self.written_bytes / 1e9:.2f} GB to {self.source} in {self.counted_s / 3600:.1f} h of running"
        )
        if self.bytes_per_day is None:
            return f"flash: measured {over}: too little to say more"
        years = f", {self.years_left:g} years are left" if self.years_left is not None else ""
        return f"flash: measured {over}: {self.bytes_per_day / 1e9:.2f} GB a day{years}"


class Flash:
    """Writer thread only, but `state`."""

    def __init__(self, folder: Path, endurance_bytes: int, clock: Clock) -> None:
        self._folder, self._endurance_bytes, self._clock = folder, endurance_bytes, clock
        self._source = ""
        self._counter = 0
        self._seen_ns = 0
        self._written_bytes, self._counted_s = 0, 0.0
        self._warned = False

    def load(self, conn: sqlite3.Connection) -> None:
        """Go on from what the hot file says; from nothing where another disk is counted now."""
        self._source, self._counter = _counted(self._folder)
        self._seen_ns = self._clock.mono_ns()
        kept = dict(conn.execute("SELECT key, value FROM meta WHERE key LIKE 'flash_%'").fetchall())
        if kept.get("flash_source") == self._source:
            self._written_bytes = int(kept.get("flash_bytes", 0))
            self._counted_s = float(kept.get("flash_s", 0.0))

    def look(self) -> Sequence[tuple[str, object]]:
        """Count on; return what the hot file should keep."""
        now_ns = self._clock.mono_ns()
        source, counter = _counted(self._folder)
        if source == self._source and counter >= self._counter:
            self._written_bytes += counter - self._counter
            self._counted_s += (now_ns - self._seen_ns) / 1e9
        self._counter, self._seen_ns = counter, now_ns
        if not self._warned and (sentence := self.state().warning):
            self._warned = True
            _log.warning("%s", sentence)
        return [
            ("flash_source", self._source),
            ("flash_bytes", self._written_bytes),
            ("flash_s", self._counted_s),
        ]

    def state(self) -> FlashState:
        per_day = None
        if self._counted_s >= _ENOUGH_S:
            per_day = round(self._written_bytes / self._counted_s * _DAY_S)
        years = years_left(per_day, self._endurance_bytes - self._written_bytes)
        return FlashState(
            self._source, self._written_bytes, self._counted_s, per_day, self._endurance_bytes, years,
            warning(per_day, years, self._endurance_bytes),
        )  # fmt: skip


def years_left(bytes_per_day: int | None, left_bytes: int) -> float | None:
    """Return how long a flash lasts that still takes so many bytes; None: nobody knows."""
    return round(max(left_bytes, 0) / bytes_per_day / _YEAR_DAYS, 1) if bytes_per_day else None


def warning(bytes_per_day: int | None, years: float | None, endurance_bytes: int) -> str:
    """Return a sentence where the flash lasts less than ten years, or ""."""
    if bytes_per_day is None or years is None or years >= _LEAST_YEARS:
        return ""
    return (
        f"{bytes_per_day / 1e9:.1f} GB a day are written to the flash: {years:.1f} years of its "
        f"{endurance_bytes / 1e12:g} TB are left (store.endurance); a longer store.commit_interval, fewer "
        "tags or longer intervals make it last"
    )


def _counted(folder: Path) -> tuple[str, int]:
    """Return what is counted, and the bytes written since it was switched on (or the process began)."""
    try:
        number = folder.stat().st_dev
        disk = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        if (disk / "partition").exists():
            disk = disk.parent  # the whole flash wears, not a partition of it
        return f"disk {disk.name}", int((disk / "stat").read_text().split()[6]) * _SECTOR_BYTES
    except (OSError, ValueError, IndexError):
        return _PROCESS, _by_process()


def _by_process() -> int:
    try:
        lines: Mapping[str, str] = dict(
            line.split(": ", 1) for line in Path("/proc/self/io").read_text().splitlines()
        )
        return int(lines["write_bytes"])
    except (OSError, ValueError, KeyError):
        return 0
