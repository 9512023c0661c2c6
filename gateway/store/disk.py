"""What the writer looks after now and then: the room on the disk, the bytes written to it, the log's size."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from gateway.clock import Clock
from gateway.store.flash import Flash
from gateway.store.room import Room
from gateway.store.settings import StoreSettings
from gateway.store.wal import WriteAheadLog

_LOOK_NS = 10_000_000_000


class Disk:
    """Writer thread only, but the states."""

    def __init__(self, hot: Path, settings: StoreSettings, clock: Clock) -> None:
        self.room = Room(hot.parent, settings.max_bytes)
        self.flash = Flash(hot.parent, settings.endurance_bytes, clock)
        self.wal = WriteAheadLog(hot)
        self._hot, self._clock = hot, clock
        self._looked_ns = -_LOOK_NS

    def look(self, history_bytes: int, *, at_once: bool = False) -> bool:
        """Look again where it is time, and say so: it is time to look at the log too."""
        now_ns = self._clock.mono_ns()
        due = at_once or now_ns - self._looked_ns >= _LOOK_NS
        if due:
            self._looked_ns = now_ns
            self.room.look(self._there(history_bytes))
        return due

    def _there(self, history_bytes: int) -> int:
        """Return how long the store's files are, with pages of the hot file that are free again."""
        with contextlib.suppress(OSError):  # it is not made yet, or the disk refuses
            return self._hot.stat().st_size + history_bytes
        return history_bytes

    def kept(self, running_s: float) -> Sequence[tuple[str, object]]:
        """Return what is counted over the running time, for the hot file to keep."""
        return [("running_s", running_s), *self.flash.look()]
