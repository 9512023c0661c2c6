"""What the writer looks after now and then: the room on the disk, the bytes written to it, the log's size."""

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
        self.room = Room(hot.parent)
        self.flash = Flash(hot.parent, settings.endurance_bytes, clock)
        self.wal = WriteAheadLog(hot)
        self._max_bytes, self._clock = settings.max_bytes, clock
        self._looked_ns = -_LOOK_NS

    def look(self, store_bytes: int) -> bool:
        """Look again where it is time, and say so: it is time to look at the log too."""
        now_ns = self._clock.mono_ns()
        due = now_ns - self._looked_ns >= _LOOK_NS
        if due:
            self._looked_ns = now_ns
            self.room.look(self._max_bytes - store_bytes)
        return due

    def kept(self, running_s: float) -> Sequence[tuple[str, object]]:
        """Return what is counted over the running time, for the hot file to keep."""
        return [("running_s", running_s), *self.flash.look()]
