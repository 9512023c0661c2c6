"""The hot file on disk: its lock, opening, setting a damaged one aside and beginning a new one."""

import fcntl
import logging
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from gateway.model import Gap
from gateway.store.codec import Kind
from gateway.store.newest import Newest, load_newest
from gateway.store.schema import StoreProblem, connect, migrate
from gateway.store.series import SeriesTable

_log = logging.getLogger(__name__)

_DAY_US = 86_400_000_000
_DISK_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
     sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CORRUPT,
     sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_AUTH}
)  # fmt: skip


def is_disk(error: BaseException) -> bool:
    """Say whether the disk (or memory) refused, rather than what was to be written being wrong."""
    if isinstance(error, OSError | MemoryError):
        return True
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_CODES


def is_corrupt(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.Error) and code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(slots=True)
class Loaded:
    """What the file held when it was opened."""

    epoch: str
    newest: Newest
    next_seq: int
    next_run_id: int
    blocks: int
    oldest_seq: int
    running_s: float
    bad: list[int]


class HotFile:
    """`hot.db` in the store's folder; used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hot.db"
        self.gaps: list[Gap] = []
        """Holes to record: files set aside."""
        self._folder = folder
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the folder for this process; raise StoreProblem where another has it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreProblem(
                f"the store's folder {self._folder} cannot be used: {error.strerror}; check that it "
                f"exists and belongs to the user that edge-gateway runs as"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            raise StoreProblem(
                f"the store in {self._folder} is in use by another edge-gateway: stop that one first, or "
                f"give this one another --state folder"
            ) from error

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def open(self, series: SeriesTable, now_us: int) -> tuple[sqlite3.Connection, Loaded]:
        """Open or make the file; one that is no database or malformed is set aside, with a gap."""
        try:
            return self._open(series)
        except sqlite3.Error as error:
            if not is_corrupt(error):
                raise StoreProblem(f"the store {self.path} cannot be opened: {error}") from error
            self.set_aside(f"{error}", now_us)
        return self._open(series)

    def _open(self, series: SeriesTable) -> tuple[sqlite3.Connection, Loaded]:
        conn = self.connect()
        try:
            loaded = _load(conn)
            series.load(conn)
        except BaseException:
            conn.close()
            raise
        return conn, loaded

    def connect(self) -> sqlite3.Connection:
        """Open the writing connection to a file of this version."""
        conn = connect(self.path)
        try:
            migrate(conn, self.path)
        except BaseException:
            conn.close()
            raise
        return conn

    def set_aside(self, why: str, now_us: int) -> None:
        """Rename the damaged file and what belongs to it, so that a new one can begin."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        began_us = int(self.path.stat().st_ctime * 1_000_000)
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        sentence = (
            f"the store's file was damaged ({why}); it was set aside as {aside.name} and a new one begun"
        )
        _log.error("%s", sentence)
        self.gaps.append(Gap(min(began_us, now_us), now_us, sentence))


def _load(conn: sqlite3.Connection) -> Loaded:
    meta = dict(conn.execute("SELECT key, value FROM meta").fetchall())
    blocks, oldest, newest_seq = conn.execute("SELECT count(*), min(seq), max(seq) FROM block").fetchone()
    floor = max(newest_seq or 0, meta.get("seq_floor", 0))
    bad: list[int] = []
    newest = load_newest(conn, bad, _DAY_US)
    next_run = conn.execute("SELECT coalesce(max(id), 0) + 1 FROM run").fetchone()[0]
    return Loaded(
        meta["epoch"],
        newest,
        floor + 1,
        next_run,
        blocks,
        oldest or floor + 1,
        meta.get("running_s", 0.0),
        bad,
    )


def mark_bad(conn: sqlite3.Connection, seqs: list[int], corrupt_kind: int) -> list[Gap]:
    """Take unreadable blocks out of service; return the gaps they leave."""
    gaps = []
    for seq in sorted(set(seqs)):
        row = conn.execute(
            "SELECT t0, t1, n FROM block WHERE seq = ? AND kind = ?", (seq, Kind.SAMPLES)
        ).fetchone()
        if row is not None:
            conn.execute("UPDATE block SET kind = ? WHERE seq = ?", (corrupt_kind, seq))
            gaps.append(
                Gap(row[0], row[1], f"block {seq} of the store is damaged (its checksum fails)", count=row[2])
            )
    return gaps
