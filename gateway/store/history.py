"""The history's files: which there are, the newest one that is written, sealing, retention, damage."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from gateway.clock import Clock
from gateway.durable import sync
from gateway.model import Gap, SeriesInfo
from gateway.store import segment
from gateway.store.past import Damage, Past
from gateway.store.renew import clear_drafts, make_segment, renew_segment
from gateway.store.schema import is_corrupt
from gateway.store.segment import Segment
from gateway.store.tombstones import Tombstones

_log = logging.getLogger(__name__)

_SEGMENT_BYTES = 256 * 1024 * 1024
_LEAST_BYTES = 256 * 1024
SET_ASIDE = CORRUPT, SALVAGED, FOREIGN = "corrupt", "salvaged", "foreign"
"""In the names of files set aside: still to be searched, searched, and never to be."""
_KEPT_ASIDE = 2
"""Files that were set aside and searched."""
_HELD_NS = 600_000_000_000
"""A reading that takes longer does not keep folded blocks from being deleted."""


def _segment_bytes(max_bytes: int) -> int:
    return max(_LEAST_BYTES, min(_SEGMENT_BYTES, max_bytes // 16))


class History:
    """Writer thread only, but `segments`, `epoch`, `deleted` and `held`."""

    def __init__(self, folder: Path, max_bytes: int, keep_days: float, clock: Clock) -> None:
        self._folder = folder / "history"
        self._segment_bytes = _segment_bytes(max_bytes)
        self._keep_s = keep_days * 86_400
        self._clock = clock
        self._writing: sqlite3.Connection | None = None
        self._sealed = True
        self._sizes: dict[Segment, int] = {}
        self._holds: dict[int, int] = {}
        self._tokens = count()
        self._lock = threading.Lock()
        self.segments: tuple[Segment, ...] = ()
        """Oldest first; replaced as a whole."""
        self.gaps: list[Gap] = []
        """Holes to record: segments set aside."""
        self.series_unknown: list[tuple[int, SeriesInfo]] = []
        """Series that only the history knows, once the hot file was lost."""
        self.epoch = ""
        self.searching = True
        """Damaged files may hold what deletions cover: these hold on."""
        self.lingering = False
        """A segment that was removed may be there again at the next start: deletions hold on."""
        self._refills = self._last_number = 0
        self.set_aside_any = False
        """There may be segments to be searched."""
        self.deleted = Tombstones()
        """What was deleted, of the hot file too; replaced as a whole."""
        self.past = Past(lambda: self.segments, lambda: self.epoch, lambda: self.deleted, self._own)
        """The writer's own way to read."""

    @property
    def bytes_used(self) -> int:
        return sum(self._sizes.values())

    def open(self, known: list[tuple[int, SeriesInfo]], now_us: int) -> None:
        """Find the segments, and the series that only they know. Damaged or foreign ones are set aside.

        OSError: their folder cannot be made.
        """
        self.close()
        self.segments, self._sizes, self.series_unknown = (), {}, []
        self._folder.mkdir(exist_ok=True)
        clear_drafts(self._folder)
        by_number, by_name = dict(known), {info[:2]: number for number, info in known}
        found = segment.found(self._folder)
        for each in found:
            self._add(each)
            names = self._names(each, each is found[-1], now_us)
            for number, info in names:
                if by_number.get(number, info)[:2] != info[:2] or by_name.get(info[:2], number) != number:
                    self.set_aside(each, "it belongs to another store", now_us, mark=FOREIGN)
                    break
            else:
                fresh = [(number, info) for number, info in names if number not in by_number]
                by_number.update(fresh)
                by_name.update({info[:2]: number for number, info in fresh})
                self.series_unknown += fresh

    def list_files(self) -> None:
        """Take note of which segments there are, where the hot file cannot be opened; `open` begins anew."""
        for each in segment.found(self._folder):
            self._add(each)

    def _names(self, each: Segment, newest: bool, now_us: int) -> list[tuple[int, SeriesInfo]]:
        """Read a segment's series. It is opened for writing first where it may have to be rolled back.

        That is the newest one, and one whose last fold the disk refused.
        """
        try:
            if newest:
                self._writing = segment.connect_writer(each.path)
                self._sealed = False
            elif segment.is_unfinished(each.path):
                segment.connect_writer(each.path).close()
            return segment.names(each.path)
        except sqlite3.Error as error:
            unreadable = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR
            if not (is_corrupt(error) or unreadable):
                raise  # a full disk, say: it is tried again with the reserve given back
            self.set_aside(each, f"{error}", now_us)
            return []

    def _add(self, each: Segment) -> None:
        self._last_number = max(self._last_number, each.number)
        self._sizes[each] = each.path.stat().st_size
        self.segments = tuple(sorted({*self.segments, each}))

    @contextmanager
    def refilled(self, number: int) -> Iterator[sqlite3.Connection]:
        """Open the segment of a number, made where it is missing, to write what was salvaged of it."""
        each = next((there for there in self.segments if there.number == number), None)
        if each is None:
            self._refills += 1
            each = self._path(number)._replace(made=self._refills)
        if self.segments and self.segments[-1] == each:
            self.seal()
        if each not in self.segments:
            make_segment(each.path)
            if self._writing is None:
                self._sealed = True
            self._add(each)
        writing = segment.connect_writer(each.path)
        try:
            yield writing
        finally:
            writing.close()
        self._sizes[each] = each.path.stat().st_size

    def newest_us_before(self, number: int) -> int | None:
        """Return the highest time in the segments before a number; None: there are none."""
        folds = self.past.folds(-(2**63), 2**63 - 1)
        return max((fold.t1 for where, fold in folds if where.number < number), default=None)

    def writing(self) -> sqlite3.Connection:
        """Return the connection to the newest segment; another one is begun where there is none."""
        if self._writing is None and not self._sealed and self.segments:
            self._writing = segment.connect_writer(self.segments[-1].path)
        if self._writing is None:
            each = self._path(self._free_number())
            make_segment(each.path)
            sync(self._folder.parent)
            self._writing = segment.connect_writer(each.path)
            self._add(each)
            self._sealed = False
        return self._writing

    def _free_number(self) -> int:
        taken = [int(p.name[:6]) for p in self._folder.glob("[0-9]*.db*") if p.name[:6].isdecimal()]
        return max([*taken, self._last_number]) + 1  # readers may have one open that is unlinked

    def _path(self, number: int) -> Segment:
        return Segment(number, self._folder / f"{number:06}.db")

    def wrote(self) -> None:
        """Take note that the newest segment has grown."""
        newest = self.segments[-1]
        self._sizes[newest] = newest.path.stat().st_size

    def _own(self, where: Segment) -> sqlite3.Connection | None:
        return self._writing if self.segments and where == self.segments[-1] else None

    def close(self) -> None:
        """Close what is open; what was not committed is dropped."""
        self.rollback()
        self.past.close()

    def rollback(self) -> None:
        """Drop what was not committed; the next use opens the newest segment again."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def recover(self) -> None:
        """Open the newest segment for writing where it is not sealed: what was cut short is rolled back."""
        if self.segments and not self._sealed:
            self.writing()

    def distrust(self) -> None:
        """After an I/O error: write the newest segment anew, and end it. The disk may still refuse."""
        if self.segments and not self._sealed:
            self.recover()
            self.rollback()
            renew_segment(self.segments[-1].path)
            self.wrote()
            self.seal()

    def seal(self) -> None:
        """End the newest segment."""
        self.rollback()
        self._sealed = True

    def seal_if_due(self, running_s: float) -> None:
        """Seal the newest segment where it is full, or old for the age that is kept."""
        if self._writing is None:
            return
        first = segment.first_running_s(self._writing)
        old = first is not None and self._keep_s and running_s - first > max(self._keep_s / 16, 3600)
        if old or self._sizes[self.segments[-1]] >= self._segment_bytes:
            self.seal()

    def make_room(self, hot_bytes: int, max_bytes: int, *, busy: bool) -> None:
        """Unlink the oldest segments while there is more than the budget.

        The newest one stays while it is written, or (`busy`) blocks that it has are still to be deleted.
        """
        self._segment_bytes = _segment_bytes(max_bytes)
        while self.spare(busy=busy) and hot_bytes + self.bytes_used > max_bytes:
            self._unlink(self.segments[0])

    def drop_expired(self, running_s: float, *, busy: bool) -> None:
        """Unlink the segments that are wholly older than what is kept; `busy`: as in `make_room`."""
        while self._keep_s and self.spare(busy=busy) and self._expired(self.segments[0], running_s):
            self._unlink(self.segments[0])

    def shed(self, *, busy: bool) -> bool:
        """Unlink the oldest segment where one may go, for a disk that is full; say whether one went."""
        if not self.spare(busy=busy):
            return False
        gone = self.segments[0]
        _log.warning("the disk is full: the oldest history segment %s is dropped for room", gone.path.name)
        self._unlink(gone)
        return True

    def spare(self, *, busy: bool) -> bool:
        """Say whether there is a segment that may go for room."""
        return len(self.segments) > 1 or (bool(self.segments) and not busy)

    def _expired(self, oldest: Segment, running_s: float) -> bool:
        try:
            return running_s - self.past.query(oldest, segment.last_running_s) > self._keep_s
        except sqlite3.Error:
            return False  # what cannot be read now is looked at again

    def _unlink(self, gone: Segment) -> None:
        self._leave(gone)
        try:
            gone.path.unlink(missing_ok=True)
            sync(self._folder)
        except OSError as error:
            self.lingering = True
            _log.error("history segment %s cannot be removed: %s", gone.path, error)

    def _leave(self, gone: Segment) -> None:
        if gone == self.segments[-1]:
            self.seal()
        self.segments = tuple(each for each in self.segments if each != gone)
        self._sizes.pop(gone, None)
        self.past.forget(gone)

    def set_damaged_aside(self, found: list[Damage], now_us: int) -> list[Damage]:
        """Set segments aside that are malformed; return the other damage."""
        whole = {
            (damage.segment, damage.made): damage.gap.reason
            for damage in found
            if damage.lasting and not damage.chunk
        }
        for each in self.segments:
            if (each.number, each.made) in whole:
                self.set_aside(each, whole[each.number, each.made], now_us)
        return [damage for damage in found if damage.chunk or not damage.lasting]

    def set_aside(self, bad: Segment, why: str, now_us: int, mark: str = CORRUPT) -> None:
        """Rename a damaged segment, so that it is not read any more; it is searched then."""
        self.searching = True
        self._leave(bad)
        aside = bad.path.with_name(f"{bad.path.name}.{mark}")
        if aside.exists():  # the one before is still being searched
            aside = self._path(self._free_number()).path.with_suffix(f".db.{mark}")
        try:
            bad.path.rename(aside)
            journal = bad.path.with_name(f"{bad.path.name}-journal")
            journal.unlink(missing_ok=True)
            for old in sorted(self._folder.glob(f"*.{SALVAGED}"))[:-_KEPT_ASIDE]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log.error("history segment %s cannot be set aside: %s", bad.path, error)
        sentence = f"history segment {bad.path.name} was set aside as {aside.name}: {why}"
        _log.error("%s", sentence)
        self.gaps.append(Gap(now_us, now_us, sentence))
        self.set_aside_any = True

    def reading(self) -> Past:
        """Return a way to read for another thread."""
        return Past(lambda: self.segments, lambda: self.epoch, lambda: self.deleted)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While entered (any thread), blocks folded from now on are not deleted."""
        with self._lock:
            token = next(self._tokens)
            self._holds[token] = self._clock.mono_ns()
        try:
            yield
        finally:
            with self._lock:
                del self._holds[token]

    def held_since_before(self, mono_ns: int) -> bool:
        """Say whether somebody holds since before a time, but not for ages."""
        with self._lock:
            return any(mono_ns - _HELD_NS < since <= mono_ns for since in self._holds.values())
