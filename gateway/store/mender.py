"""Has files looked over aside, sets the hot file aside where it must be, has searched what was set aside."""

import sqlite3
from collections.abc import Callable

from gateway.model import Receipt
from gateway.store.examine import Examination
from gateway.store.history import History
from gateway.store.hotfile import HotFile
from gateway.store.recoverer import Recoverer
from gateway.store.recovery import Mapping, Names
from gateway.store.series import SeriesTable
from gateway.store.work import Work

_EXAMINE_NS = 60_000_000_000
"""Between two times that a suspected file is looked over."""


class Mender:
    """Writer thread only, but `suspicion` and `busy`."""

    def __init__(
        self,
        hot: HotFile,
        history: History,
        series: SeriesTable,
        adopt: Callable[[Names, Callable[[Mapping], None]], None],
    ) -> None:
        self._hot, self._history = hot, history
        self.recoverer = Recoverer(hot.path.parent, history, series, adopt)
        self._examination: Examination | None = None
        self._begun = self._settling = False
        self._examine_ns = 0
        self.suspicion = ""
        """Why the hot file is to be looked over."""
        self.condemned = ""
        """Why it is to be set aside."""

    @property
    def busy(self) -> str:
        """Name the damaged file whose samples are being taken in."""
        return self.recoverer.busy

    @property
    def examining(self) -> bool:
        """Say whether it is still to be seen what is damaged."""
        return self._examination is not None or self._settling or not self._begun

    def _begin(self, done: Callable[[], None]) -> None:
        """Have looked over what the start did not."""
        self._begun = True
        hot = self._hot.path if self._hot.look_later else None
        if hot is not None or self._history.segments:
            self._examination = Examination(hot, self._history.segments, done)

    def slice(
        self, conn: sqlite3.Connection, now_ns: int, running_s: float, done: Callable[[], None]
    ) -> Work | None:
        """Do a little; return what is to be committed before the next slice.

        `done` is called, on another thread, once an examination has ended.
        """
        if work := self._examined(now_ns, done):
            self._settling = True
            return work
        if not self._begun:
            self._begin(done)
        if self._history.set_aside_any:
            self._history.set_aside_any = False
            self.recoverer.look()
        work = self.recoverer.slice(conn, now_ns, running_s)
        self._settling = False
        return work

    def _examined(self, now_ns: int, done: Callable[[], None]) -> Work | None:
        running = self._examination
        if running is None:
            if self.suspicion and now_ns >= self._examine_ns:
                self.suspicion, self._examine_ns = "", now_ns + _EXAMINE_NS
                self._examination = Examination(self._hot.path, self._history.segments, done, urgent=True)
            return None
        if running.found is None:
            return None
        self._examination, self.condemned = None, running.found
        return Work(bad=[] if running.found else running.bad, damage=running.damage)

    def set_aside(self, refused: str, oldest_seq: int, newest_seq: int, now_us: int) -> None:
        """Set the hot file aside; what it held is known while the gateway runs. OSError."""
        self._history.searching = True
        self._hot.set_aside(self.condemned or refused, now_us)
        self.condemned = ""
        aside = [path for path in self.recoverer.waiting() if path.parent == self._hot.path.parent][-1:]
        self.recoverer.expected.update({path.name: (oldest_seq, newest_seq) for path in aside})
        self.recoverer.look()

    def committed(self, receipt: Receipt | None) -> None:
        self.recoverer.committed(receipt)

    def abandon(self, now_ns: int) -> None:
        self.recoverer.abandon(now_ns)

    def close(self) -> None:
        """End what runs aside; blocks for a moment."""
        if self._examination is not None:
            self._examination.cancel()
