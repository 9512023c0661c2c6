"""One file of the history: chunks, a fold of many series at a time; sealed when full, then only unlinked.

A chunk's id is fold, series, part: what one fold adds stands together at the end of the file, and is found
without an index. No WAL: a fold is one large transaction now and then, and the rollback journal holds next
to nothing where a file only grows, so that chunks are written to the disk once.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gateway.model import SeriesInfo

VERSION = 1
PAGE_BYTES = 1024
_PARTS, _SERIES = 12, 31
MOST_PARTS = 1 << _PARTS
_BUSY_S = 0.01
_SCHEMA = """
CREATE TABLE series(id INTEGER PRIMARY KEY, device TEXT NOT NULL, tag TEXT NOT NULL);
CREATE TABLE fold(id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, t0 INTEGER, t1 INTEGER, n INTEGER,
    series_n INTEGER, running_s REAL);
CREATE TABLE folded(fold INTEGER NOT NULL, from_seq INTEGER NOT NULL, to_seq INTEGER NOT NULL);
CREATE TABLE chunk(id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""


class Segment(NamedTuple):
    """A file of the history, by its number."""

    number: int
    path: Path


class Fold(NamedTuple):
    """What one transaction added: samples of so many series between two times."""

    id: int
    t0: int
    t1: int
    n: int
    series_n: int


def found(folder: Path) -> list[Segment]:
    """Return the segments in a folder, oldest first."""
    paths = (path for path in folder.glob("[0-9]*.db") if path.stem.isdecimal())
    return sorted(Segment(int(path.stem), path) for path in paths)


def chunk_id(fold: int, series: int, part: int) -> int:
    return ((fold << _SERIES) + series << _PARTS) + part


def series_of(chunk: int) -> int:
    return chunk >> _PARTS & (1 << _SERIES) - 1


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the newest segment for writing, made where it is missing."""
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
    try:
        for pragma in (
            f"page_size={PAGE_BYTES}", "journal_mode=DELETE", "synchronous=EXTRA", "secure_delete=OFF",
            "cache_spill=OFF", "trusted_schema=OFF",
        ):  # fmt: skip
            conn.execute(f"PRAGMA {pragma}").fetchall()
        if not conn.execute("PRAGMA user_version").fetchone()[0]:
            conn.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={VERSION};COMMIT;")
    except BaseException:
        conn.close()
        raise
    return conn


def is_unfinished(path: Path) -> bool:
    """Say whether a segment holds nothing yet, or was left in the middle of a transaction."""
    return not path.stat().st_size or path.with_name(f"{path.name}-journal").exists()


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a segment so that it can only be read."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5)
    conn.execute("PRAGMA cache_size=-512")
    return conn


def folds(conn: sqlite3.Connection, from_us: int, to_us: int) -> list[Fold]:
    """Return what may hold samples of the range."""
    rows = conn.execute(
        "SELECT id, t0, t1, n, series_n FROM fold WHERE t1 >= ? AND t0 <= ? ORDER BY id", (from_us, to_us)
    )
    return [Fold(*row) for row in rows.fetchall()]


def chunks(
    conn: sqlite3.Connection, fold: Fold, series: Sequence[int] | None, column: str = "data"
) -> Iterator[tuple[int, bytes]]:
    """Yield (id, data) of the chunks of these series; None: of all."""
    query = f"SELECT id, {column} FROM chunk WHERE id BETWEEN ? AND ?"
    if series is None or len(series) * 2 > fold.series_n:
        wanted = None if series is None else frozenset(series)
        rows = conn.execute(query, (chunk_id(fold.id, 0, 0), chunk_id(fold.id + 1, 0, 0) - 1))
        yield from (row for row in rows if wanted is None or series_of(row[0]) in wanted)
        return
    for number in series:
        first = chunk_id(fold.id, number, 0)
        yield from conn.execute(query, (first, first + MOST_PARTS - 1)).fetchall()


def folded(conn: sqlite3.Connection, epoch: str) -> list[tuple[int, int]]:
    """Return the seq ranges of blocks whose samples are all in chunks here."""
    return conn.execute(
        "SELECT from_seq, to_seq FROM folded JOIN fold ON fold.id = fold WHERE epoch = ? ORDER BY from_seq",
        (epoch,),
    ).fetchall()


def newest_seq(conn: sqlite3.Connection) -> int:
    """Return the newest block that any fold took."""
    return int(conn.execute("SELECT coalesce(max(to_seq), 0) FROM folded").fetchone()[0])


def names(path: Path) -> list[tuple[int, SeriesInfo]]:
    """Read the series of a segment."""
    with closing(connect_reader(path)) as conn:
        rows = conn.execute("SELECT id, device, tag FROM series").fetchall()
    return [(series, SeriesInfo(device, tag, "")) for series, device, tag in rows]


def first_running_s(conn: sqlite3.Connection) -> float | None:
    """Return the gateway's running time when the first fold was written."""
    row = conn.execute("SELECT running_s FROM fold ORDER BY id LIMIT 1").fetchone()
    return row and float(row[0])


def last_running_s(conn: sqlite3.Connection) -> float:
    row = conn.execute("SELECT running_s FROM fold ORDER BY id DESC LIMIT 1").fetchone()
    return float(row[0]) if row else 0.0
