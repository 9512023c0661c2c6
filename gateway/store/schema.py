"""The tables of the hot file, as numbered migrations, each in its own transaction."""

import contextlib
import errno
import os
import secrets
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway.model import GatewayError
from gateway.store.pages import PAGE_BYTES
from gateway.store.records import row_crc

APPLICATION_ID = 0x45475700
"""Of the hot file, with its version in the last byte: a version that came about by a damaged byte shows."""
WIDE_US = 600_000_000
"""A block that spans more than this is found through its own small index."""
RUN_LENGTH, LETTER_LENGTH = "length(error)", "length(block) + length(reason)"
LONG = 300
"""Runs and dead letters longer than this have a small index, so that their bytes are added up at once."""
_WRITE_VERSION_AT = 18

_DISK_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
     sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CORRUPT,
     sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_AUTH}
)  # fmt: skip


def is_disk(error: BaseException) -> bool:
    """Say whether the disk (or memory) refused, rather than what was to be written being wrong."""
    if isinstance(error, OSError | MemoryError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.Error) and (code in _DISK_CODES or _undecodable(error))


def _undecodable(error: BaseException) -> bool:
    """Say whether a damaged page made unreadable text of a number: an error of the sqlite3 module alone."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")


def is_busy(error: BaseException) -> bool:
    """Say whether another program's lock was in the way."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.Error) and code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_read_only(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.Error) and code == sqlite3.SQLITE_READONLY


def is_full(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def is_corrupt(error: BaseException) -> bool:
    if isinstance(error, UnicodeDecodeError) or _undecodable(error):
        return True  # SQLite quotes the damaged schema in its message
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.Error) and code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Damaged(sqlite3.DatabaseError):
    """What SQLite does not tell by itself, told like what it does."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def check_writable(path: Path) -> None:
    """Raise Damaged where a file's header forbids writing: SQLite tells that like a disk that refuses.

    The write version of its format, 1 or 2 (https://sqlite.org/fileformat2.html, 1.3.3).
    """
    version = b""
    with contextlib.suppress(OSError), path.open("rb") as file:  # SQLite tells what cannot be read
        version = file.read(_WRITE_VERSION_AT + 1)[_WRITE_VERSION_AT:]
    if version > b"\2":
        raise Damaged(f"its header says write version {version[0]}")


class StoreProblem(GatewayError):
    """The store cannot be opened, and why."""


class DiskRefuses(StoreProblem):
    """The disk does not let the store be opened now; it may later."""


def refused(folder: Path, error: OSError) -> DiskRefuses:
    """Return what to raise where the store's folder cannot be used now. Blocks."""
    how = ""
    if error.errno == errno.EROFS and not folder.is_dir():  # the unit's sandbox, or the disk itself
        how = (
            f"; there is no such folder: mount its disk, or make it (sudo install -d -o edge-gateway "
            f"-g edge-gateway -m 700 {folder}), then sudo edge-gateway systemd-dropin && sudo systemctl "
            "restart edge-gateway"
        )
    return DiskRefuses(f"the store's folder {folder}: {error.strerror}{how}")


def _first(db: Any) -> None:
    db.execute("CREATE TABLE meta(key TEXT PRIMARY KEY, value, crc INTEGER NOT NULL) WITHOUT ROWID")
    put_meta(db.conn, "epoch", secrets.token_hex(8))
    db["series"].create(
        {"id": int, "device": str, "tag": str, "record": bytes},
        pk="id",
        not_null={"device", "tag", "record"},
    )
    db["series"].create_index(["device", "tag"], unique=True)
    db["series"].create_index(["record"])  # a second copy on another page: blocks are worth nothing without
    db["tag_unit"].create(
        {"series": int, "since_seq": int, "unit": str, "crc": int},
        pk=("series", "since_seq"),
        not_null={"crc"},
    )
    db["block"].create(
        {
            "seq": int,
            "t0": int,
            "t1": int,
            "n": int,
            "kind": int,
            "size_bytes": int,
            "wall_us": int,
            "data": bytes,
        },
        pk="seq",
    )
    db.execute("CREATE INDEX block_time ON block(t1, t0, kind) WHERE n > 0")
    db.execute("CREATE INDEX block_empty ON block(n) WHERE n = 0")
    db.execute(f"CREATE INDEX block_wide ON block(t1, t0, kind) WHERE n > 0 AND t1 - t0 > {WIDE_US}")
    db["run"].create(
        {"id": int, "device": str, "kind": str, "start_us": int, "duration_us": int, "samples": int,
         "status": str, "error": str},
        pk="id",
    )  # fmt: skip
    db["run"].create_index(["device", "id"])
    db["gap"].create(
        {"id": int, "seq": int, "device": str, "upload": str, "from_us": int, "to_us": int, "count": int,
         "reason": str, "crc": int},
        pk="id", not_null={"crc"},
    )  # fmt: skip
    db["gap"].create_index(["seq"])
    db["deletion"].create(
        {"id": int, "at_us": int, "by": str, "device": str, "tag": str, "from_us": int, "to_us": int,
         "count": int},
        pk="id",
    )  # fmt: skip
    db["tombstone"].create({"id": int, "record": bytes}, pk="id", not_null={"record"})
    db["upload"].create({"id": str, "since_seq": int, "crc": int}, pk="id", not_null={"crc"})
    db["acked"].create(
        {"upload": str, "from_seq": int, "to_seq": int, "crc": int},
        pk=("upload", "from_seq"),
        not_null={"crc"},
    )
    db["unit"].create(
        {"upload": str, "lane": str, "from_seq": int, "to_seq": int, "encoding": str, "created_us": int,
         "deletion": int, "crc": int},
        pk=("upload", "lane"), not_null={"crc"},
    )  # fmt: skip
    db["quarantine"].create(
        {"id": int, "upload": str, "at_us": int, "reason": str, "block": bytes, "bytes": int, "crc": int},
        pk="id",
        not_null={"crc"},
    )
    db["quarantine"].create_index(["upload", "id"])
    db["snapshot"].create({"id": int, "seq": int, "own_us": int, "newest": bytes, "far": bytes}, pk="id")


def _history(db: Any) -> None:
    db["bad_chunk"].create({"segment": int, "chunk": int}, pk=("segment", "chunk"))


def _recordings(db: Any) -> None:
    db["measurement"].create(
        {"id": int, "name": str, "done": int, "record": bytes}, pk="id", not_null={"name", "done", "record"}
    )
    db["measurement"].create_index(["name"], unique=True)
    db["recording"].create({"id": int, "data": bytes}, pk="id")


def _files(db: Any) -> None:
    db["file"].create(
        {"upload": str, "name": str, "revision": int, "due": int, "since_us": int, "replace": str,
         "intent": str, "local": str, "md5": str, "size": int, "etag": str, "remote_id": str,
         "stored_us": int, "remote": str, "crc": int},
        pk=("upload", "name"), not_null={"crc"},
    )  # fmt: skip


def _lengths(db: Any) -> None:
    for table, length in (("run", RUN_LENGTH), ("quarantine", LETTER_LENGTH)):
        db.execute(f"CREATE INDEX {table}_long ON {table}({length}) WHERE {length} > {LONG}")


def put_meta(conn: sqlite3.Connection, key: str, value: object) -> None:
    """Write a row of `meta`."""
    conn.execute(
        "INSERT OR REPLACE INTO meta(key, value, crc) VALUES (?, ?, ?)", (key, value, row_crc(key, value))
    )


def read_epoch(conn: sqlite3.Connection) -> str:
    return str(conn.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])


def _seal_schema(conn: sqlite3.Connection, version: int) -> None:
    """Note what SQLite does not check itself: the version a second time, and the text of the schema."""
    conn.execute(f"PRAGMA application_id={APPLICATION_ID | version}")
    put_meta(conn, "schema", schema_crc(conn))


def schema_crc(conn: sqlite3.Connection) -> int:
    """Return a checksum of the schema's text."""
    rows = conn.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    return row_crc(*(field for row in rows for field in row))


MIGRATIONS: tuple[Callable[[Any], None], ...] = (_first, _history, _recordings, _files, _lengths)
"""Never edited once released: the n-th brings a file from version n-1 to n, given a sqlite_utils Database."""


def make_private(path: Path) -> None:
    """Have a file that is to be made read by its owner alone, as SQLite makes its log and journal then.

    One that is there is not opened: to close it would give up the locks of this process on it (fcntl(2)).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def connect(path: Path) -> sqlite3.Connection:
    """Open the one connection that writes and checkpoints."""
    make_private(path)
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        for pragma in (
            f"page_size={PAGE_BYTES}", "auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL",
            "secure_delete=OFF", "journal_size_limit=8388608", "wal_autocheckpoint=0", "temp_store=MEMORY",
            "cache_size=-4096", "trusted_schema=OFF",
        ):  # fmt: skip
            conn.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        conn.close()
        raise
    return conn


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that can neither write nor checkpoint."""
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=5
    )
    conn.execute("PRAGMA cache_size=-2048")
    return conn


def check_integrity(conn: sqlite3.Connection) -> None:
    """Read all of a file; raise Damaged where SQLite's own check finds a fault."""
    found = conn.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise Damaged(str(found).replace("\n", ": "))


def _sqlite_utils() -> ModuleType:
    """Import what a first start and an upgrade need, without the 10 MB of numpy that it takes if it may."""
    with_numpy = "numpy" in sys.modules
    try:
        if not with_numpy:
            sys.modules["numpy"] = None  # type: ignore[assignment]  # it does without, where there is none
        import sqlite_utils
    finally:
        if not with_numpy:
            del sys.modules["numpy"]
    return sqlite_utils


def migrate(conn: sqlite3.Connection, path: Path) -> None:
    """Bring the file to this version; refuse one from a newer version."""
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreProblem(
            f"{path} is a store of version {version}, made by a newer edge-gateway; this one knows versions "
            f"up to {len(MIGRATIONS)}: install the newer package again, or move the file away to begin anew"
        )
    if version == len(MIGRATIONS):
        return
    sqlite_utils = _sqlite_utils()
    for number in range(version, len(MIGRATIONS)):
        conn.execute("BEGIN IMMEDIATE")
        try:
            MIGRATIONS[number](sqlite_utils.Database(conn, execute_plugins=False))
            conn.execute(f"PRAGMA user_version={number + 1}")
            # Each step: a cut may come before the next one, and the file must not look damaged then.
            _seal_schema(conn, number + 1)
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
