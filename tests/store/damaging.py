"""Damages the files of a store as disks, power cuts and people do."""

import sqlite3
from contextlib import closing
from pathlib import Path


def edit(path: Path, sql: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(sql, parameters)


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)


def zero_pages(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:1024] + bytes(len(raw) - 1024))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])
