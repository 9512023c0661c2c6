"""Copies the files of a store that is being written, in slices, so that the one who writes never waits.

All tables but those that grow are copied in one short transaction. These (blocks, frames, chunks) only get
rows at their end and lose some at their beginning: their rows up to that moment follow a slice at a time. No
read transaction is held meanwhile, so the write-ahead log does not grow. A block that is folded before its
turn is in the history by then: the history is copied after the blocks.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gateway.store import segment
from gateway.store.pages import PAGE_BYTES
from gateway.store.schema import connect_reader, is_corrupt

_SLICE_BYTES = 1024 * 1024
_PAUSE_S = 0.001


def _pause() -> None:
    time.sleep(_PAUSE_S)


def copy_hot(source: Path, target: Path, turn: Callable[[], object] = _pause) -> int:
    """Copy `hot.db`; return the seq of the newest block: all that was acknowledged before is up to there.

    `turn` is called between slices.
    """
    with closing(connect_reader(source)) as conn:
        conn.isolation_level = None
        newest = _copy(conn, target, ("block", "recording"), turn)
        measurements = conn.execute("SELECT * FROM measurement").fetchall()
        floor = conn.execute("SELECT key, value, crc FROM meta WHERE key = 'seq_floor'").fetchall()
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:  # blocks went while it was copied
        copy.execute("BEGIN")
        copy.executemany("INSERT OR REPLACE INTO meta(key, value, crc) VALUES (?, ?, ?)", floor)
        copy.executemany("INSERT OR REPLACE INTO measurement VALUES (?, ?, ?, ?)", measurements)
        copy.execute("COMMIT")
    return newest


def copy_history(source: Path, target: Path) -> list[str]:
    """Copy the segments of a folder; return sentences on those that are damaged, copied as they are."""
    target.mkdir(mode=0o700)
    notes = []
    there = segment.found(source)
    for each in there:
        copy = target / each.path.name
        try:
            if each != there[-1]:
                shutil.copyfile(each.path, copy)
            elif (note := _copy_newest(each.path, copy)) is not None:
                notes.append(note)
        except FileNotFoundError:
            copy.unlink(missing_ok=True)  # retention took it meanwhile
    return notes


def copy_segment(source: Path, target: Path) -> None:
    """Copy a segment, row by row."""
    with closing(segment.connect_reader(source)) as conn:
        _copy(conn, target, ("chunk",), _pause)


def _copy_newest(source: Path, copy: Path) -> str | None:
    try:
        copy_segment(source, copy)
    except sqlite3.Error as error:
        if not source.exists():
            raise FileNotFoundError(source) from error
        if not is_corrupt(error):
            raise
        copy.unlink(missing_ok=True)
        shutil.copyfile(source, copy)
        return f"history segment {source.name} is damaged ({error}); it was copied as it is"
    return None


def _copy(
    source: sqlite3.Connection, path: Path, growing: tuple[str, ...], turn: Callable[[], object]
) -> int:
    """Copy a file; return the last row of the first of its tables that grow."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        for pragma in (f"page_size={PAGE_BYTES}", "journal_mode=OFF", "synchronous=OFF", "cache_size=-4096"):
            target.execute(f"PRAGMA {pragma}").fetchall()
        source.execute("BEGIN")
        try:
            newest, indexes = _begin(source, target, growing)
        finally:
            source.execute("ROLLBACK")
        for table, last in zip(growing, newest, strict=True):
            _copy_growing(source, target, table, last, turn)
        for sql in indexes:
            target.execute(sql)
        target.execute("COMMIT")
    return newest[0]


def _begin(
    source: sqlite3.Connection, target: sqlite3.Connection, growing: tuple[str, ...]
) -> tuple[list[int], list[str]]:
    """Copy all but some tables; return the last rows of these, and how the indexes are made."""
    vacuum, version, application = (
        source.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("auto_vacuum", "user_version", "application_id")
    )
    target.execute(f"PRAGMA auto_vacuum={vacuum}")
    target.execute("BEGIN")
    target.execute(f"PRAGMA user_version={version}")
    target.execute(f"PRAGMA application_id={application}")
    made = source.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    for kind, name, sql in made:
        if kind == "table":
            target.execute(sql)
            if name not in growing:
                rows = source.execute(f'SELECT * FROM "{name}"')
                target.executemany(f'INSERT INTO "{name}" VALUES ({_marks(rows)})', rows)
    newest = [
        int(source.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0]) for table in growing
    ]
    return newest, [sql for kind, _, sql in made if kind == "index"]


def _copy_growing(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    table: str,
    newest: int,
    turn: Callable[[], object],
) -> None:
    at = -1
    while at < newest:
        with closing(
            source.execute(
                f"SELECT * FROM {table} WHERE rowid > ? AND rowid <= ? ORDER BY rowid", (at, newest)
            )
        ) as rows:
            size, before, insert = 0, at, f"INSERT INTO {table} VALUES ({_marks(rows)})"
            for row in rows:
                target.execute(insert, row)
                at = row[0]
                size += len(row[-1]) if isinstance(row[-1], bytes) else 0
                if size >= _SLICE_BYTES:
                    break
        if at == before:
            return
        turn()


def _marks(rows: sqlite3.Cursor) -> str:
    return ", ".join("?" * len(rows.description))
