"""Keeps the write-ahead log small: it is brought into the file, and begun anew when nobody reads from it.

SQLite would do the first by itself after a COMMIT, but says nothing where a sync fails then. What an earlier
checkpoint had written and not synced, because a reader kept it from the end, may be lost with that sync: no
later checkpoint writes it again, and the log is begun anew over it.
"""

import logging
import os
import sqlite3
from bisect import bisect_left
from pathlib import Path

from gateway.store.pages import PAGE_BYTES

_log = logging.getLogger(__name__)

CHECKPOINT_PAGES = 4000
WAL_BYTES = 16 * 1024 * 1024
"""Four times what it has before each checkpoint: readers that take turns without a break have kept it."""
_PATIENCE_MS = 500
"""A turn of our readers is shorter; the writer waits no longer than that, each time."""
_USUAL_MS = 5000
_MUCH = 4
_REST = 6
_HEADER_BYTES = 32
_FRAME_BYTES = 24 + PAGE_BYTES
"""Of the log: sqlite.org/fileformat2.html, 4.1."""


def begin_anew(conn: sqlite3.Connection) -> tuple[bool, bool]:
    """Bring the log into the file and begin it anew; readers under way are waited for, not for long.

    Returns whether all of it is in the file, synced, and whether it was begun anew. sqlite3.Error.
    """
    conn.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
    try:
        kept, frames, brought_in = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        conn.execute(f"PRAGMA busy_timeout={_USUAL_MS}")
    return not kept or frames == brought_in >= 0, not kept


class WriteAheadLog:
    """Writer thread only."""

    def __init__(self, hot: Path) -> None:
        self._path = hot.with_name(f"{hot.name}-wal")
        self.bytes_used = 0
        self._warned = False
        self._rest = 0
        """So many looks it is let be: the writer has waited for a reader in vain."""

    def committed(self, conn: sqlite3.Connection) -> None:
        """Bring it into the file where it is long. sqlite3.Error."""
        if self._frames() >= CHECKPOINT_PAGES:
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def empty(self, conn: sqlite3.Connection) -> None:
        """Bring all of it into the file. sqlite3.Error."""
        begin_anew(conn)

    def _frames(self) -> int:
        """Count the frames of this round; those of an earlier one stand behind, with other salts.

        The log itself is read, never its index: to close that, or the hot file, would give up the locks that
        SQLite's connections of this process have on it (fcntl(2)), and the next process to open the store
        would take itself for the first and cut the index short under them.
        """
        try:
            if self._path.stat().st_size < _HEADER_BYTES + CHECKPOINT_PAGES * _FRAME_BYTES:
                return 0
            with self._path.open("rb", buffering=0) as log:
                salts = os.pread(log.fileno(), 8, 16)
                there = range((os.fstat(log.fileno()).st_size - _HEADER_BYTES) // _FRAME_BYTES)

                def older(n: int) -> bool:
                    return os.pread(log.fileno(), 8, _HEADER_BYTES + n * _FRAME_BYTES + 8) != salts

                return bisect_left(there, x=True, key=older)
        except OSError:
            return 0  # `look` sees how large it is

    def look(self, conn: sqlite3.Connection) -> None:
        """Begin it anew where it is large: readers under way are waited for, new ones need it no more.

        sqlite3.Error.
        """
        try:
            self.bytes_used = self._path.stat().st_size
        except OSError:
            self.bytes_used = 0
        self._rest = max(self._rest - 1, 0)
        if self.bytes_used <= WAL_BYTES or self._rest:
            self._warned = self._warned and self.bytes_used > WAL_BYTES
            return
        kept = not begin_anew(conn)[1]
        self._rest = _REST if kept else 0
        if kept and self.bytes_used > _MUCH * WAL_BYTES and not self._warned:
            self._warned = True
            _log.warning(
                "%s has grown to %d MB: another program has been reading hot.db in one transaction for long; "
                "end it (fuser -v %s)", self._path, self.bytes_used // 1_000_000, self._path,
            )  # fmt: skip
