"""What the writer looks after now and then: the room on the disk, the bytes written to it, the log's size."""

import sqlite3
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

    def look(self, conn: sqlite3.Connection | None, store_bytes: int) -> None:
        """Look again where it is time; `conn`: None while the disk refuses."""
        now_ns = self._clock.mono_ns()
        if now_ns - self._looked_ns >= _LOOK_NS:
            self._looked_ns = now_ns
            self.room.look(self._max_bytes - store_bytes)
            self.wal.look(conn)

    def kept(self, running_s: float) -> Sequence[tuple[str, object]]:
        """Return what is counted over the running time, for the hot file to keep."""
        return [("running_s", running_s), *self.flash.look()]
