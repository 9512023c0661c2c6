"""Keeps the write-ahead log small: SQLite begins it anew only at a moment when nobody reads from it."""

import logging
import sqlite3
from pathlib import Path

from gateway.store.schema import is_disk

_log = logging.getLogger(__name__)

WAL_BYTES = 16 * 1024 * 1024
"""Four times what it has before each checkpoint: readers that take turns without a break have kept it."""
_PATIENCE_MS = 500
"""A turn of our readers is shorter; the writer waits no longer than that, each time."""
_USUAL_MS = 5000
_MUCH = 4
_REST = 6


class WriteAheadLog:
    """Writer thread only."""

    def __init__(self, hot: Path) -> None:
        self._path = hot.with_name(f"{hot.name}-wal")
        self.bytes_used = 0
        self._warned = False
        self._rest = 0
        """So many looks it is let be: the writer has waited for a reader in vain."""

    def look(self, conn: sqlite3.Connection | None) -> None:
        """Begin it anew where it is large: readers under way are waited for, new ones need it no more."""
        try:
            self.bytes_used = self._path.stat().st_size
        except OSError:
            self.bytes_used = 0
        self._rest = max(self._rest - 1, 0)
        if conn is None or self.bytes_used <= WAL_BYTES or self._rest:
            self._warned = self._warned and self.bytes_used > WAL_BYTES
            return
        try:
            conn.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
            kept = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            conn.execute(f"PRAGMA busy_timeout={_USUAL_MS}")
        except sqlite3.Error as error:
            if not is_disk(error):
                raise
            return  # the next commit meets it too, and says so
        self._rest = _REST if kept else 0
        if kept and self.bytes_used > _MUCH * WAL_BYTES and not self._warned:
            self._warned = True
            _log.warning(
                "%s has grown to %d MB: another program has been reading hot.db in one transaction for long; "
                "end it (fuser -v %s)", self._path, self.bytes_used // 1_000_000, self._path,
            )  # fmt: skip
