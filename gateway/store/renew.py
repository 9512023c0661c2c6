"""Begins a file anew from what it holds, for after an I/O error; makes a segment in the same way.

Linux counts a page that it could not write as written: it is read as if it were on the disk, and no later
fsync writes it (fsync(2), "PostgreSQL's fsync() surprise" in LWN). ext4 forgets besides that its place was
never written to. What is written behind such a page, or over it, is acknowledged and gone after a power cut:
only other places on the disk can be trusted. Rows are copied; seqs, acknowledgements and the epoch stay.
"""

import errno
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gateway.durable import sync
from gateway.store import segment
from gateway.store.copying import copy_hot, copy_segment
from gateway.store.schema import connect_reader

_log = logging.getLogger(__name__)

_UNWRITTEN = frozenset(
    {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC,
     sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_CLOSE}
)  # fmt: skip
_NEVER = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ})


def left_unwritten(error: BaseException) -> bool:
    """Say whether after this error the disk may lack what SQLite takes for written."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) in _UNWRITTEN


def renew(path: Path, conn: sqlite3.Connection | None, turn: Callable[[], object]) -> None:
    """Put a copy in the hot file's place, and close the one connection that writes. `turn`: between slices.

    Where it cannot be copied, for want of room or because a part of it cannot be read, it is used as it is.
    sqlite3.Error, OSError: the disk still refuses; nothing has changed.
    """
    if _beside(path, "renewed").exists():
        # An earlier try ended between the copy and its place: the old log may be gone, so nothing is copied.
        if conn is not None:
            conn.close()
        take_place(path)
        return
    with closing(connect_reader(path)) as reading:
        # While somebody reads, closing does not move the log, all that is durable, into the file.
        reading.execute("SELECT count(*) FROM meta").fetchone()
        if conn is not None:
            conn.close()
        draft = _copied(path, lambda draft: copy_hot(path, draft, turn))
    if draft is not None:
        _rename(draft, _beside(path, "renewed"))
        take_place(path)
        _log.warning("%s was written anew: its places on the disk cannot be trusted after an I/O error", path)


def renew_segment(path: Path) -> None:
    """Put a copy in the place of a segment that nobody writes to; the same holds."""
    if (draft := _copied(path, lambda draft: copy_segment(path, draft))) is not None:
        _rename(draft, path)


def make_segment(path: Path) -> None:
    """Make a segment: it is there as a whole or not at all, so that one without its lists has lost them."""
    draft = _beside(path, "renewing")
    _remove(draft)
    try:
        segment.make(draft)
        sync(draft)
        _rename(draft, path)
    except (sqlite3.Error, OSError):
        _remove(draft)
        raise


def clear_drafts(folder: Path) -> None:
    """Remove what a power cut left of files that were being made. OSError."""
    for draft in folder.glob("*.renewing"):
        _remove(draft)


def _copied(path: Path, copy: Callable[[Path], object]) -> Path | None:
    draft = _beside(path, "renewing")
    _remove(draft)
    try:
        copy(draft)
        sync(draft)
    except (sqlite3.Error, OSError) as error:
        _remove(draft)
        code = getattr(error, "sqlite_errorcode", 0) or getattr(error, "errno", 0)
        if code not in _NEVER and code != errno.ENOSPC:
            raise
        _log.error("%s cannot be written anew after an I/O error: %s", path, error)
        return None
    return draft


def take_place(path: Path) -> None:
    """Let a whole copy take the file's place, also one that a power cut left waiting. OSError.

    The old log goes first: it must never be replayed into the copy.
    """
    renewed = _beside(path, "renewed")
    if not renewed.exists():
        return
    for suffix in ("-wal", "-shm"):
        _remove(path.with_name(path.name + suffix))
    sync(path.parent)
    _rename(renewed, path)


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f"{path.name}.{word}")


def _rename(old: Path, new: Path) -> None:
    old.rename(new)
    sync(new.parent)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
