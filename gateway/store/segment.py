"""One file of the history: chunks, a fold of many series at a time; sealed when full, then only unlinked.

A chunk's id is fold, series, part: what one fold adds stands together at the end of the file, and is found
without an index. No WAL: a fold is one large transaction now and then, and the rollback journal holds next
to nothing where a file only grows, so that chunks are written to the disk once.
"""

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from gateway.model import SeriesInfo
from gateway.store import records
from gateway.store.columns import CorruptBlock
from gateway.store.pages import PAGE_BYTES
from gateway.store.schema import Damaged, check_integrity, check_writable, is_disk, make_private

VERSION = 1
_PARTS, _SERIES = 12, 31
MOST_PARTS = 1 << _PARTS
_BUSY_S = 0.01
_READ_BUSY_S = 5.0
_COMMIT_TRIES = 100
"""About a second: who begins to read meanwhile waits for `_READ_BUSY_S`."""
_AT_ONCE_BYTES = 500_000
_SCHEMA = """
CREATE TABLE series(id INTEGER PRIMARY KEY, device TEXT NOT NULL, tag TEXT NOT NULL, record BLOB NOT NULL);
CREATE INDEX series_record ON series(record);
CREATE TABLE fold(id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, t0 INTEGER, t1 INTEGER, n INTEGER,
    series_n INTEGER, chunks INTEGER, running_s REAL, record BLOB NOT NULL);
CREATE INDEX fold_record ON fold(record);
CREATE TABLE folded(fold INTEGER NOT NULL, from_seq INTEGER NOT NULL, to_seq INTEGER NOT NULL);
CREATE TABLE chunk(id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""


class Segment(NamedTuple):
    """A file of the history, by its number."""

    number: int
    path: Path
    made: int = 0
    """Which file of the number, of those begun anew since the start: who read another one opens this one."""


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


def make(path: Path) -> None:
    """Make a segment that holds nothing, under a name that is not yet a segment's."""
    make_private(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for pragma in (f"page_size={PAGE_BYTES}", "journal_mode=OFF"):
            conn.execute(f"PRAGMA {pragma}").fetchall()
        conn.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={VERSION};COMMIT;")


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the newest segment for writing."""
    check_writable(path)
    uri = f"{path.absolute().as_uri()}?mode=rw"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
    try:
        for pragma in (
            "journal_mode=DELETE", "synchronous=EXTRA", "secure_delete=OFF", "cache_spill=OFF",
            "trusted_schema=OFF",
        ):  # fmt: skip
            conn.execute(f"PRAGMA {pragma}").fetchall()
        verify(conn)
    except BaseException as error:
        conn.close()
        if isinstance(error, sqlite3.Error | UnicodeDecodeError) and not is_disk(error):
            raise Damaged(f"{error}") from error
        raise
    return conn


def is_unfinished(path: Path) -> bool:
    """Say whether a segment was left in the middle of a transaction."""
    return path.with_name(f"{path.name}-journal").exists()


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a segment so that it can only be read."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_READ_BUSY_S)
    try:
        conn.execute("PRAGMA cache_size=-512")
    except BaseException as error:
        conn.close()
        if isinstance(error, sqlite3.Error | UnicodeDecodeError) and not is_disk(
            error
        ):  # a damaged header has many words
            raise Damaged(f"{error}") from error
        raise
    return conn


def connect_verified(path: Path) -> sqlite3.Connection:
    """Open a segment to read, whose lists are what was written; raise sqlite3.DatabaseError else."""
    conn = connect_reader(path)
    try:
        verify(conn)
    except BaseException:
        conn.close()
        raise
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


def holds_up_to(conn: sqlite3.Connection, seq: int) -> bool:
    """Say whether a fold took blocks up to this seq, or such as are not known."""
    query = "SELECT 1 FROM fold LEFT JOIN folded ON fold = fold.id WHERE n > 0 AND coalesce(from_seq, 0) <= ?"
    return conn.execute(f"{query} LIMIT 1", (seq,)).fetchone() is not None


def names(path: Path) -> list[tuple[int, SeriesInfo]]:
    """Read the series of a segment whose lists are whole."""
    with closing(connect_verified(path)) as conn:
        rows = conn.execute("SELECT id, device, tag FROM series").fetchall()
    return [(series, SeriesInfo(device, tag, "")) for series, device, tag in rows]


def add_fold(conn: sqlite3.Connection, fold: Sequence[Any], ranges: Sequence[tuple[int, int]]) -> None:
    """Write a fold (id, epoch, t0, t1, n, series_n, chunks, running_s) and what it took."""
    record = records.pack(records.FOLD, *fold, list(ranges))
    conn.execute("INSERT INTO fold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*fold, record))
    conn.executemany("INSERT INTO folded VALUES (?, ?, ?)", [(fold[0], *pair) for pair in ranges])


def add_names(conn: sqlite3.Connection, epoch: str, infos: Iterable[tuple[int, str, str]]) -> None:
    """Write what series are called: (number, device, tag)."""
    conn.executemany(
        "INSERT OR IGNORE INTO series VALUES (?, ?, ?, ?)",
        [(*info, records.pack(records.SERIES, *info, epoch)) for info in infos],
    )


def rename_epoch(conn: sqlite3.Connection, old: str, new: str) -> None:
    """Have the folds of an epoch be of another one."""
    for number, record in conn.execute("SELECT id, record FROM fold WHERE epoch = ?", (old,)).fetchall():
        fields = records.unpack(record)[1]
        fields[1] = new
        row = new, records.pack(records.FOLD, *fields), number
        conn.execute("UPDATE fold SET epoch = ?, record = ? WHERE id = ?", row)


def committed(writing: sqlite3.Connection) -> bool:
    """Commit; False: somebody is reading just now, to be tried again."""
    try:
        writing.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def committing(writing: sqlite3.Connection) -> Generator[None]:
    """Commit, trying again in slices; sqlite3.OperationalError: somebody reads on and on.

    While it waits for them, nobody can begin to read: SQLite keeps its PENDING lock
    (https://sqlite.org/lockingv3.html, 3.0). What was not committed has to be dropped then.
    """
    for _ in range(_COMMIT_TRIES):
        if committed(writing):
            return
        yield
    writing.execute("COMMIT")


def verify(conn: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where the lists of a segment are not what was written."""
    own = not conn.in_transaction
    try:
        if own:
            conn.execute("BEGIN")
        if (version := conn.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
            raise Damaged(f"its header says version {version}")
        made = conn.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        if sorted(sql for (sql,) in made) != sorted(filter(None, map(str.strip, _SCHEMA.split(";")))):
            raise Damaged("its schema was changed")
        for row in conn.execute("SELECT id, device, tag, record FROM series NOT INDEXED").fetchall():
            kind, fields = records.unpack(row[3])
            if kind != records.SERIES or tuple(fields[:3]) != row[:3]:
                raise Damaged(f"the name of series {row[0]} and its record differ")
        taken: list[tuple[int, int, int]] = []
        for row in conn.execute("SELECT * FROM fold NOT INDEXED").fetchall():
            kind, fields = records.unpack(row[-1])
            if kind != records.FOLD or tuple(fields[:-1]) != row[:-1]:
                raise Damaged(f"the row of fold {row[0]} and its record differ")
            taken += [(row[0], *pair) for pair in fields[-1]]
        if sorted(taken) != sorted(conn.execute("SELECT fold, from_seq, to_seq FROM folded").fetchall()):
            raise Damaged("the blocks that it took and their record differ")
    except (CorruptBlock, TypeError, ValueError) as error:
        raise Damaged(f"its content is damaged: {error}") from error
    except sqlite3.Error as error:
        if is_disk(error):
            raise
        raise Damaged(f"its content is damaged: {error}") from error
    finally:
        if own and conn.in_transaction:
            conn.execute("ROLLBACK")


def _unlocked(conn: sqlite3.Connection, fold: Fold) -> Iterator[tuple[int, bytes]]:
    """Yield (id, data) of all chunks of a fold; between them nobody is kept from writing."""
    query = "SELECT id, data FROM chunk WHERE id > ? AND id < ? ORDER BY id"
    after, end = chunk_id(fold.id, 0, 0) - 1, chunk_id(fold.id + 1, 0, 0)
    while rows := _some(conn.execute(query, (after, end))):
        yield from rows
        after = rows[-1][0]


def _some(found: sqlite3.Cursor) -> list[tuple[int, bytes]]:
    """Take rows of some size; end the statement."""
    rows, size = [], 0
    with closing(found):
        for row in found:
            rows.append(row)
            size += len(row[1])
            if size > _AT_ONCE_BYTES:
                break
    return rows


def look_over(conn: sqlite3.Connection) -> Iterator[tuple[Fold, int, bytes]]:
    """Read all of a segment and yield its chunks: (fold, id, data); sqlite3.DatabaseError: it is damaged."""
    verify(conn)
    check_integrity(conn)
    query = "SELECT id, t0, t1, n, series_n, chunks FROM fold NOT INDEXED ORDER BY id"
    for *row, expected in conn.execute(query).fetchall():
        fold, there = Fold(*row), 0
        for number, data in _unlocked(conn, fold):
            there += 1
            yield fold, number, data
        if there != expected:
            raise Damaged(f"{expected} chunks were written with fold {fold.id}, {there} are there")


def first_running_s(conn: sqlite3.Connection) -> float | None:
    """Return the gateway's running time when the first fold was written."""
    row = conn.execute("SELECT running_s FROM fold ORDER BY id LIMIT 1").fetchone()
    return row and float(row[0])


def last_running_s(conn: sqlite3.Connection) -> float:
    row = conn.execute("SELECT running_s FROM fold ORDER BY id DESC LIMIT 1").fetchone()
    return float(row[0]) if row else 0.0
