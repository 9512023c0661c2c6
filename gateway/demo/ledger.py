"""What the simulated dataspace has kept, in a SQLite file: what it answered for survives `kill -9`."""

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.uploaders import columns

_TABLES = """
CREATE TABLE IF NOT EXISTS delivery(
    id INTEGER PRIMARY KEY, at REAL, key TEXT, sha256 TEXT, bytes INT, kept INT);
CREATE INDEX IF NOT EXISTS delivery_key ON delivery(key);
CREATE TABLE IF NOT EXISTS sample(
    id INTEGER PRIMARY KEY, key TEXT, lane TEXT, device TEXT, tag TEXT, ts INT, value BLOB, status INT,
    flags INT);
CREATE TABLE IF NOT EXISTS gap(id INTEGER PRIMARY KEY, key TEXT, record BLOB);
CREATE TABLE IF NOT EXISTS file(
    id TEXT PRIMARY KEY, name TEXT, objectname TEXT, document BLOB, created TEXT, modified TEXT, state TEXT,
    size INT, etag TEXT, stores INT DEFAULT 0);
CREATE INDEX IF NOT EXISTS file_name ON file(name);
CREATE TABLE IF NOT EXISTS secret(name TEXT PRIMARY KEY, value TEXT);
"""


class File(NamedTuple):
    """One file of the dataspace."""

    id: str
    name: str
    objectname: str
    document: bytes
    created: str
    modified: str | None
    state: str
    size: int | None
    etag: str | None


_FILE = ", ".join(File._fields)


class Ledger:
    """Everything that was delivered. Used from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.conn = sqlite3.connect(folder / "ledger.db", isolation_level=None, check_same_thread=False)
        self.conn.execute("PRAGMA journal_mode=WAL")
        self.conn.execute("PRAGMA synchronous=FULL")
        self.conn.executescript(_TABLES)

    def keep(self, key: str, body: bytes, *, dedupe: bool) -> bool:
        """Keep a body under its key; False: it was there already, and only the delivery is noted."""
        document, samples = columns.decode(body)
        raw = [value for group in document["series"] for value in group["v"]]
        with self.conn:
            self.conn.execute("BEGIN IMMEDIATE")
            known = self.conn.execute("SELECT 1 FROM delivery WHERE key = ? AND kept", (key,)).fetchone()
            kept = known is None or not dedupe
            self.conn.execute(
                "INSERT INTO delivery(at, key, sha256, bytes, kept) VALUES (?, ?, ?, ?, ?)",
                (time.time(), key, hashlib.sha256(body).hexdigest(), len(body), kept),
            )
            if kept:
                rows = (
                    (key, document["lane"], s.device, s.tag, s.ts, orjson.dumps(value), s.status, s.flags)
                    for s, value in zip(samples, raw, strict=True)
                )
                self.conn.executemany(
                    "INSERT INTO sample(key, lane, device, tag, ts, value, status, flags) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
                gaps = [(key, orjson.dumps(gap)) for gap in document["gaps"]]
                self.conn.executemany("INSERT INTO gap(key, record) VALUES (?, ?)", gaps)
        return kept

    def counts(self) -> dict[str, Any]:
        """Return what was kept and what came again; `bodies_per_key` above 1 is a broken promise."""
        one = self.conn.execute
        deliveries, keys = one("SELECT count(*), count(DISTINCT key) FROM delivery").fetchone()
        bodies = one(
            "SELECT max(n) FROM (SELECT count(DISTINCT sha256) n FROM delivery GROUP BY key)"
        ).fetchone()
        return {
            "samples": one("SELECT count(*) FROM sample").fetchone()[0],
            "gaps": one("SELECT count(*) FROM gap").fetchone()[0],
            "deliveries": deliveries,
            "keys": keys,
            "repeated": deliveries - keys,
            "bodies_per_key": bodies[0] or 0,
        }

    def samples(self) -> Iterator[bytes]:
        """Yield NDJSON in order of arrival."""
        rows = self.conn.execute(
            "SELECT id, key, lane, device, tag, ts, value, status, flags FROM sample ORDER BY id"
        )
        names = ("key", "lane", "device", "tag", "ts", "value", "status", "flags")
        for _, *row in rows:
            row[5] = orjson.loads(row[5])
            yield orjson.dumps(dict(zip(names, row, strict=True))) + b"\n"

    def deliveries(self) -> list[dict[str, Any]]:
        rows = self.conn.execute("SELECT at, key, sha256, bytes, kept FROM delivery ORDER BY id")
        return [dict(zip(("at", "key", "sha256", "bytes", "kept"), row, strict=True)) for row in rows]

    def gaps(self) -> list[dict[str, Any]]:
        return [orjson.loads(row[0]) for row in self.conn.execute("SELECT record FROM gap ORDER BY id")]

    # Files.

    def add_file(self, file: File) -> None:
        self.conn.execute(f"INSERT INTO file({_FILE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", file)

    def named(self, name: str) -> File | None:
        row = self.conn.execute(f"SELECT {_FILE} FROM file WHERE name = ?", (name,)).fetchone()
        return row and File(*row)

    def file(self, file_id: str) -> File | None:
        row = self.conn.execute(f"SELECT {_FILE} FROM file WHERE id = ?", (file_id,)).fetchone()
        return row and File(*row)

    def keyed(self, objectname: str) -> File | None:
        row = self.conn.execute(f"SELECT {_FILE} FROM file WHERE objectname = ?", (objectname,)).fetchone()
        return row and File(*row)

    def files(self, page: int, size: int) -> tuple[list[File], int]:
        rows = self.conn.execute(
            f"SELECT {_FILE} FROM file ORDER BY created, id LIMIT ? OFFSET ?", (size, (page - 1) * size)
        )
        return [File(*row) for row in rows], self.conn.execute("SELECT count(*) FROM file").fetchone()[0]

    def stored(self, file_id: str, md5: str, size: int, modified: str) -> None:
        self.conn.execute(
            "UPDATE file SET state = 'available', size = ?, etag = ?, modified = ?, stores = stores + 1 "
            "WHERE id = ?",
            (size, md5, modified, file_id),
        )

    def stores(self) -> list[dict[str, Any]]:
        """Return every file that there is, and how often bytes of it were stored."""
        rows = self.conn.execute(
            "SELECT id, name, objectname, state, size, etag, stores FROM file ORDER BY created"
        )
        names = ("id", "name", "objectname", "state", "size", "etag", "stores")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def secret(self, name: str, new: str) -> str:
        """Return a secret, made as `new` at first use."""
        self.conn.execute("INSERT OR IGNORE INTO secret VALUES (?, ?)", (name, new))
        return str(self.conn.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()[0])
