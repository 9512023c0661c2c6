"""Takes damaged files that were set aside in again, in slices on the writer thread between commits.

Samples go through the key rule like any others: what is in the store already is the same sample, so that a
restart in the middle simply begins again. A file that is done with is renamed.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path

from gateway.model import Receipt
from gateway.store.history import CORRUPT, History
from gateway.store.recover_hot import HotRecovery
from gateway.store.recover_segment import SegmentRecovery
from gateway.store.recovery import Mapping, Names, born_us, searched
from gateway.store.series import SeriesTable
from gateway.store.work import Work

_log = logging.getLogger(__name__)

_FREE_BYTES = 64 * 1024 * 1024
_PAUSE_NS = 60_000_000_000


class Recoverer:
    """Writer thread only."""

    def __init__(
        self,
        folder: Path,
        history: History,
        series: SeriesTable,
        adopt: Callable[[Names, Callable[[Mapping], None]], None],
    ) -> None:
        """`adopt` has the event loop give series their numbers, and tells them."""
        self._folder, self._history, self._series, self._adopt = folder, history, series, adopt
        self._steps: Generator[Work | None] | None = None
        self._path: Path | None = None
        self._of: HotRecovery | SegmentRecovery | None = None
        self._paused_ns = 0
        self.expected: dict[str, tuple[int, int]] = {}
        """Oldest and newest seq that files set aside while running held."""

    @property
    def busy(self) -> str:
        """Name the file that is being taken in."""
        return self._path.name if self._path is not None else ""

    def waiting(self) -> list[Path]:
        """Return the damaged files that are not done with, in their order: hot files first."""
        mark = f"hot.db.{CORRUPT}-"
        hot = [path for path in self._folder.glob(f"{mark}*") if path.name.removeprefix(mark).isdecimal()]
        hot.sort(key=lambda path: int(path.name.removeprefix(mark)))
        return [*hot, *sorted(self._folder.glob(f"history/[0-9]*.db.{CORRUPT}"))]

    def look(self) -> None:
        """Look for files now: one was set aside."""
        self._paused_ns = 0

    def slice(self, conn: sqlite3.Connection, now_ns: int, running_s: float) -> Work | None:
        """Do one slice of what there is to do; return what is to be committed before the next one, if any."""
        if now_ns < self._paused_ns or not (self._steps or self._begin(conn, now_ns, running_s)):
            return None
        room = os.statvfs(self._folder)
        if room.f_bavail * room.f_frsize < _FREE_BYTES:
            _log.warning("there is too little room on the disk to take in the samples of %s", self.busy)
            self._paused_ns = now_ns + _PAUSE_NS
            return None
        assert self._steps is not None and self._path is not None
        try:
            return next(self._steps)
        except StopIteration:
            searched(self._path)
            self.expected.pop(self._path.name, None)
            self._end()
        except (OSError, sqlite3.Error) as error:
            _log.warning("the damaged file %s cannot be taken in now: %s", self.busy, error)
            self._end()
            self._paused_ns = now_ns + _PAUSE_NS
        return None

    def _begin(self, conn: sqlite3.Connection, now_ns: int, running_s: float) -> bool:
        there = self.waiting()
        self._history.searching = bool(there)
        if not there:
            self._paused_ns = now_ns + _PAUSE_NS
            return False
        path, born = there[0], born_us(self._folder)
        if path.parent == self._folder:
            expected = self.expected.get(path.name, (0, 0))
            self._of = HotRecovery(path, self._ask, self._history, conn, born, *expected)
        else:
            self._of = SegmentRecovery(path, self._ask, self._history, self._series, conn, born, running_s)
        self._path, self._steps = path, self._of.steps()
        return True

    def _end(self) -> None:
        if self._steps is not None:
            self._steps.close()
        self._steps = self._path = self._of = None

    def abandon(self, now_ns: int) -> None:
        """Begin again later."""
        self._end()
        self._paused_ns = now_ns + _PAUSE_NS

    def committed(self, receipt: Receipt | None) -> None:
        """Take note of what the last slice's samples came to."""
        if receipt is not None and self._of is not None:
            self._of.added += receipt.added + receipt.moved

    def _ask(self, names: Names) -> Generator[Work | None, None, Mapping]:
        told: list[Mapping] = []
        self._adopt(names, told.append)
        while not told:
            yield None
        return told[0]
