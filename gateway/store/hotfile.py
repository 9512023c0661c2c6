"""The hot file on disk: its lock, opening, setting a damaged one aside and beginning a new one."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.model import Gap, SeriesInfo
from gateway.store import deletions
from gateway.store.examine import AT_START_BYTES, look_over
from gateway.store.history import CORRUPT, SALVAGED, History
from gateway.store.lock import StoreLock
from gateway.store.newest import Newest
from gateway.store.renew import clear_drafts, left_unwritten, renew, take_place
from gateway.store.retention import used_bytes
from gateway.store.schema import (
    Damaged,
    DiskRefuses,
    StoreProblem,
    check_writable,
    connect,
    is_busy,
    is_corrupt,
    is_disk,
    is_full,
    is_read_only,
    migrate,
    put_meta,
)
from gateway.store.series import load_series
from gateway.store.snapshot import load_newest
from gateway.store.wal import begin_anew

_log = logging.getLogger(__name__)

_RESERVE_BYTES = 1024 * 1024
_SERIES_BITS, _SEQ_BITS = 20, 32
"""So many series and blocks a file may number: the numbers that a lost file gave are not given again."""
_NEW = """SELECT NOT EXISTS (SELECT 1 FROM series) AND NOT EXISTS (SELECT 1 FROM block)
    AND NOT EXISTS (SELECT 1 FROM meta WHERE key = 'series_from')"""
"""It does not say yet where its numbers begin."""

_BLOCKS = """SELECT (SELECT count(*) FROM block INDEXED BY block_time WHERE n > 0)
    + (SELECT count(*) FROM block INDEXED BY block_empty WHERE n = 0),
    (SELECT min(seq) FROM block), (SELECT max(seq) FROM block)"""
"""Counted by the indexes: the table itself would be read as a whole, gigabytes after a week offline."""


@dataclass(slots=True)
class Loaded:
    """What the file held when it was opened."""

    epoch: str
    newest: Newest
    series: list[tuple[int, SeriesInfo]]
    series_of_history: list[tuple[int, str, str, str, bool]]
    """Those that only the history knows: to be written."""
    next_seq: int
    next_run_id: int
    blocks: int
    oldest_seq: int
    bytes_used: int
    running_s: float
    synced_us: int
    """Newest wall time known of a synchronised clock."""
    bad: list[int]
    series_from: int
    """New series are numbered from here: below are the numbers of damaged files."""


@contextlib.contextmanager
def _content() -> Iterator[None]:
    """Tell damaged content as SQLite tells a damaged file: it checks none itself.

    Text that is no text, a number that is none, a row that is gone.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.Error) and is_disk(error):
            raise
        raise Damaged(f"its content is damaged: {error}") from error


class HotFile:
    """`hot.db` in the store's folder; used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hot.db"
        self.gaps: list[Gap] = []
        """Holes to record: files set aside."""
        self._folder = folder
        self._reserve = folder / "reserve"
        self._distrusted = folder / "hot.db.distrusted"
        self._boot = b""
        self._lock = StoreLock(folder)
        self._lineage = 0
        self.look_later = False
        """The file is too large to be looked over before it is used."""

    def lock(self) -> None:
        """Take the folder for this process; raise StoreProblem where another has it, DiskRefuses."""
        try:
            self._lock.take()
        except DiskRefuses:
            self.give_reserve()
            raise

    def unlock(self) -> None:
        self._lock.release()

    def open(self, now_us: int, history: History, boot: bytes) -> tuple[sqlite3.Connection, Loaded]:
        """Open or make the file; one that is no database or malformed is set aside, with a gap.

        `boot`: the kernel's id of this boot, or zeros where it is not known.

        DiskRefuses: it is neither; nothing was lost, and it may be tried again.
        """
        self._boot = boot
        for _ in range(3):
            try:
                opened = self._open(now_us, history, same_boot=any(boot) and self._lock.boot() == boot)
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                self._make_way(error, now_us)
            else:
                self.take_reserve()
                self._lock.note_boot(boot)
                return opened
        raise DiskRefuses(f"the store {self.path} cannot be opened, nor made anew")

    def _make_way(self, error: Exception, now_us: int) -> None:
        """Do what may let the file be opened at the next try."""
        if left_unwritten(error):
            self.distrust()
        try:
            if is_read_only(error):
                check_writable(self.path)
        except Damaged as damaged:
            error = damaged
        try:
            if is_corrupt(error):
                self.set_aside(f"{error}", now_us)
                return
        except OSError as refused:
            error = refused
        if not is_disk(error):
            raise StoreProblem(f"the store {self.path} cannot be opened: {error}") from error
        if is_busy(error) or not self.give_reserve():
            raise DiskRefuses(f"the store {self.path} cannot be opened: {self.words(error)}") from error

    def _open(self, now_us: int, history: History, *, same_boot: bool) -> tuple[sqlite3.Connection, Loaded]:
        clear_drafts(self._folder)
        take_place(self.path)
        bad = self._look_over(same_boot=same_boot)
        conn = self.connect()
        try:
            with _content():
                series = load_series(conn)
            history.open(series, now_us)
            with _content():
                loaded = self.load(conn, history)
            loaded.bad = sorted({*loaded.bad, *bad})
            return conn, loaded
        except BaseException:
            conn.close()
            raise

    def _look_over(self, *, same_boot: bool) -> list[int]:
        """Raise where the file is damaged, as far as that can be told soon; return damaged blocks."""
        parts = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        size = sum(part.stat().st_size for part in parts if part.exists())
        self.look_later = size > AT_START_BYTES
        return look_over(self.path, thorough=not self.look_later, same_boot=same_boot)

    def take_reserve(self) -> None:
        """Keep some disk space: SQLite needs a little to open a store on a full disk."""
        with contextlib.suppress(OSError):
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _RESERVE_BYTES)
            finally:
                os.close(fd)

    def give_reserve(self) -> bool:
        """Give the reserve back to a full disk; say whether there was one."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        _log.warning("the disk refuses: the store gives back the %d KiB it keeps", _RESERVE_BYTES // 1024)
        return True

    def words(self, error: Exception) -> str:
        """Say what the disk refuses, and where another program is in the way, how to end it."""
        if is_busy(error):
            return f"another program keeps {self.path} locked ({error}): end it (fuser -v {self.path})"
        return f"{error}"

    def distrust(self) -> None:
        """Note, for a start in this boot, that the disk may lack what is read of the file."""
        with contextlib.suppress(OSError):
            self._distrusted.write_bytes(self._boot)

    def _is_distrusted(self) -> bool:
        try:
            return self._distrusted.read_bytes() == self._boot
        except OSError:
            return False

    def connect(self) -> sqlite3.Connection:
        """Open the writing connection to a file of this version."""
        take_place(self.path)
        conn = self._connect()
        try:
            settled = _settle_log(conn)
            if not settled and self._is_distrusted():
                renew(self.path, conn, lambda: None)
                conn = self._connect()
                settled = _settle_log(conn)
            if settled:
                with contextlib.suppress(OSError):
                    self._distrusted.unlink(missing_ok=True)
            lineage = max(self._lineage, self._lock.set_aside())
            if lineage and conn.execute(_NEW).fetchone()[0]:
                put_meta(conn, "series_from", lineage << _SERIES_BITS)
                put_meta(conn, "seq_floor", lineage << _SEQ_BITS)
        except BaseException:
            conn.close()
            raise
        return conn

    def _connect(self) -> sqlite3.Connection:
        conn = connect(self.path)
        try:
            migrate(conn, self.path)
        except BaseException:
            conn.close()
            raise
        return conn

    def set_aside(self, why: str, now_us: int) -> None:
        """Rename the damaged file and what belongs to it, so that a new one can begin."""
        number = self._next_number()
        self._lock.note_set_aside(number)
        aside = self.path.with_name(f"{self.path.name}.{CORRUPT}-{number}")
        self._lineage = number
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        sentence = (
            f"the store's file was damaged ({why}); it was set aside as {aside.name} and a new one begun"
        )
        _log.error("%s", sentence)
        self.gaps.append(Gap(now_us, now_us, sentence))

    def _next_number(self) -> int:
        """Number the next file set aside; of those that are searched all but the newest one are removed.

        What a file gave numbers for may be known where the file itself was deleted: none is given twice.
        """
        found: dict[int, list[Path]] = {}
        searched: set[int] = set()
        for path in self._folder.glob(f"{self.path.name}.*-*"):
            word, _, rest = path.name.removeprefix(f"{self.path.name}.").partition("-")
            digits = rest.split("-")[0]
            if word in (CORRUPT, SALVAGED) and digits.isdecimal():
                found.setdefault(int(digits), []).append(path)
                if word == SALVAGED:
                    searched.add(int(digits))
        for number in sorted(searched - {max(found, default=0)}):
            _log.warning("removing %s.%s-%d, set aside earlier", self.path.name, SALVAGED, number)
            for path in found[number]:
                path.unlink(missing_ok=True)
        return max([self._lock.set_aside(), *found]) + 1

    def load(self, conn: sqlite3.Connection, history: History, *, running: bool = False) -> Loaded:
        """Read what a start needs; not the newest samples where they are in memory already."""
        meta = dict(conn.execute("SELECT key, value FROM meta").fetchall())
        blocks, oldest, newest_seq = conn.execute(_BLOCKS).fetchone()
        # A file that begins anew goes on after what is in chunks: deletions tell before from after by it.
        floor = max(newest_seq or 0, meta.get("seq_floor", 0), history.past.newest_seq())
        bad: list[int] = []
        if not running:
            history.deleted = deletions.load(conn, self.gaps)
        newest = Newest() if running else load_newest(conn, bad, history.past)
        unknown = [(number, *info, True) for number, info in history.series_unknown]
        history.series_unknown = []
        next_run = conn.execute("SELECT coalesce(max(id), 0) + 1 FROM run").fetchone()[0]
        return Loaded(
            epoch=meta["epoch"], newest=newest,
            series=[*load_series(conn), *((row[0], SeriesInfo(*row[1:4])) for row in unknown)],
            series_of_history=unknown, next_seq=floor + 1, next_run_id=next_run, blocks=blocks,
            oldest_seq=oldest or floor + 1, bytes_used=used_bytes(conn) + history.bytes_used,
            running_s=float(meta.get("running_s", 0.0)), synced_us=int(meta.get("synced_us", 0)), bad=bad,
            series_from=meta.get("series_from", 0),
        )  # fmt: skip


def _settle_log(conn: sqlite3.Connection) -> bool:
    """Bring what the log holds into the file, and sync that; say whether nothing of it is left out.

    A sync may have failed before: Linux takes what it could not write for written, and shows it. It reads as
    committed, and the next sync would not make it last. Where none has, a reader that keeps a part of the log
    out of the file does no harm.
    """
    try:
        return begin_anew(conn)[0]
    except sqlite3.Error as error:
        if is_full(error):  # nothing is acknowledged either; what there is can be read
            return False
        raise
