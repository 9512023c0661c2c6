"""Measurements that are recorded, their rows and blocks: SQL only, run inside `Store.ride` and `Store.read`.

`measurement` has a row for each, `recording` its blocks; the id of a block is the measurement's number and
the part's. A row that is done says that its blocks count for nothing: the file is written and verified.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gateway.store.columns import CorruptBlock
from gateway.store.outbox import Transaction
from gateway.store.records import MEASUREMENT, pack, unpack
from gateway.store.schema import Damaged

_PART_BITS = 32
ROWS_KEPT = 1000
"""Of measurements that are done."""


class MeasurementRow(NamedTuple):
    """A measurement as the store knows it."""

    name: str
    revision: int
    """Grows with each change: of records found in a damaged file the highest holds."""
    done: bool
    text: str
    """What the measurements make of it."""


def part_id(number: int, part: int) -> int:
    return number << _PART_BITS | part


def part_of(id_: int) -> int:
    return id_ & (1 << _PART_BITS) - 1


def number_of(id_: int) -> int:
    return id_ >> _PART_BITS


def _ids(number: int) -> tuple[int, int]:
    return part_id(number, 0), part_id(number + 1, 0) - 1


def _number(conn: sqlite3.Connection, name: str) -> int | None:
    row = conn.execute("SELECT id FROM measurement WHERE name = ?", (name,)).fetchone()
    return row and int(row[0])


def read_row(row: tuple[str, int, object]) -> MeasurementRow:
    """Return what a row's record says; Damaged: it is not sound, or the row says otherwise."""
    try:
        kind, fields = unpack(row[2])
    except CorruptBlock as error:
        raise Damaged(f"the record of measurement {row[0]}: {error}") from error
    if kind != MEASUREMENT or (fields[0], fields[2]) != (row[0], bool(row[1])):
        raise Damaged(f"the row of measurement {row[0]} and its record differ")
    return MeasurementRow(*fields)


def keep(tx: Transaction, name: str, text: str, *, done: bool = False) -> None:
    """Write what is to be known of a measurement, over what was; rows of the oldest that are done go."""
    found = find(tx.conn, name)
    put(tx.conn, MeasurementRow(name, found.revision + 1 if found else 1, done, text))
    if done:
        tx.conn.execute(
            "DELETE FROM measurement WHERE done = 1 AND id <= (SELECT max(id) - ? FROM measurement)",
            (ROWS_KEPT,),
        )


def put(conn: sqlite3.Connection, row: MeasurementRow) -> int:
    """Write a row as it is; return its number."""
    number = _number(conn, row.name)
    if number is None:
        number = conn.execute("SELECT coalesce(max(id), 0) + 1 FROM measurement").fetchone()[0]
    conn.execute(
        "INSERT OR REPLACE INTO measurement(id, name, done, record) VALUES (?, ?, ?, ?)",
        (number, row.name, row.done, pack(MEASUREMENT, *row)),
    )
    return int(number)


def find(conn: sqlite3.Connection, name: str) -> MeasurementRow | None:
    row = conn.execute("SELECT name, done, record FROM measurement WHERE name = ?", (name,)).fetchone()
    return read_row(row) if row else None


def rows(conn: sqlite3.Connection) -> list[MeasurementRow]:
    """Return all measurements that the store knows, the oldest first."""
    return [read_row(row) for row in conn.execute("SELECT name, done, record FROM measurement ORDER BY id")]


def is_unfinished(conn: sqlite3.Connection) -> bool:
    """Say whether there are frames that are in no file yet."""
    return conn.execute("SELECT 1 FROM measurement WHERE done = 0 LIMIT 1").fetchone() is not None


def is_done(conn: sqlite3.Connection, id_: int) -> bool | None:
    """Say whether the measurement of a block is done; None: there is none."""
    row = conn.execute("SELECT done FROM measurement WHERE id = ?", (number_of(id_),)).fetchone()
    return row and bool(row[0])


def append(tx: Transaction, row: MeasurementRow, part: int, encode: Callable[[int], bytes]) -> None:
    """Write a block, given its id; and the row where it is missing, in a file that begins anew."""
    number = _number(tx.conn, row.name) or put(tx.conn, row)
    id_ = part_id(number, part)
    tx.conn.execute("INSERT OR REPLACE INTO recording(id, data) VALUES (?, ?)", (id_, encode(id_)))


def parts(conn: sqlite3.Connection, name: str, from_part: int, most: int) -> list[tuple[int, bytes]]:
    """Return some blocks of a measurement as (id, data), in their order."""
    number = _number(conn, name)
    if number is None:
        return []
    first, last = _ids(number)
    return conn.execute(
        "SELECT id, data FROM recording WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (first + from_part, last, most),
    ).fetchall()


def drop(tx: Transaction, name: str, most: int) -> int:
    """Delete some blocks of a measurement whose file is verified; return how many went."""
    found = find(tx.conn, name)
    if found is None or not found.done:
        return 0
    first, last = _ids(_number(tx.conn, name) or 0)
    return tx.conn.execute(
        "DELETE FROM recording WHERE id IN (SELECT id FROM recording WHERE id BETWEEN ? AND ? LIMIT ?)",
        (first, last, most),
    ).rowcount


def leftover(conn: sqlite3.Connection) -> list[str]:
    """Return the names of measurements that are done and still have blocks."""
    done = conn.execute("SELECT id, name FROM measurement WHERE done = 1").fetchall()
    there = "SELECT 1 FROM recording WHERE id BETWEEN ? AND ? LIMIT 1"
    return [name for number, name in done if conn.execute(there, _ids(number)).fetchone()]


def recorded_bytes(conn: sqlite3.Connection) -> int:
    """Return the bytes of all blocks of recordings."""
    return int(conn.execute("SELECT total(length(data)) FROM recording").fetchone()[0])


def adopt(tx: Transaction, row: MeasurementRow, found: Iterable[tuple[int, Callable[[int], bytes]]]) -> None:
    """Take in what a damaged file held of a measurement; what is done already stays done."""
    known = find(tx.conn, row.name)
    if known is not None and known.done:
        return
    if known is None or row.revision > known.revision:
        put(tx.conn, row)
    number = _number(tx.conn, row.name) or 0
    for part, encode in found:
        id_ = part_id(number, part)
        there = tx.conn.execute("SELECT 1 FROM recording WHERE id = ?", (id_,)).fetchone()
        if there is None:
            tx.conn.execute("INSERT INTO recording(id, data) VALUES (?, ?)", (id_, encode(id_)))
