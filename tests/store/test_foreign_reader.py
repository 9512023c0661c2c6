"""A program of others that keeps hot.db open delays neither a start nor a commit, and costs no reserve."""

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store import hotfile
from gateway.store.schema import connect
from tests.store.conftest import NOW_US, Opener
from tests.store.reading import everything, put

pytestmark = pytest.mark.timeout(60)


def reading(hot: Path) -> sqlite3.Connection:
    """Begin a read transaction, as a forgotten shell does."""
    conn = sqlite3.connect(f"{hot.as_uri()}?mode=ro", uri=True, isolation_level=None)
    conn.execute("BEGIN")
    conn.execute("SELECT count(*) FROM block").fetchone()
    return conn


@pytest.mark.parametrize("unwritten", [False, True], ids=["sound disk", "after an I/O error"])
async def test_a_start_goes_on_behind_a_reader(
    opened: Opener, tmp_path: Path, unwritten: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """After an I/O error the log that it keeps out of the file cannot be trusted: a copy is made."""
    hot = tmp_path / "store" / "hot.db"
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 0))
        reader = reading(hot)
        await put(store, (s, NOW_US + 1, 1))
        if unwritten:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            await asyncio.to_thread(store._writer._mark_unwritten, error)
            store._writer._unwritten = False  # as if it were killed before the file was written anew
    with closing(reader):
        began, inode = time.monotonic(), hot.stat().st_ino
        async with opened() as store:
            assert time.monotonic() - began < 10
            assert (hot.stat().st_ino != inode) == unwritten
            assert await put(store, (s, NOW_US + 2, 2)) == (1, 0, 0)
            assert [x.value for x in await everything(store, [s])] == [0, 1, 2]
    assert (tmp_path / "store" / "reserve").exists() and "reserve" not in caplog.text
    async with opened() as store:
        assert [x.value for x in await everything(store, [s])] == [0, 1, 2]
        assert hot.with_name("hot.db-wal").stat().st_size == 0
        assert not hot.with_name("hot.db.distrusted").exists()


async def test_a_lock_of_another_program_is_named_and_costs_no_reserve(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    hot, locks = tmp_path / "store" / "hot.db", [True, True]

    def locked(path: Path) -> sqlite3.Connection:
        if locks:
            locks.pop()
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return connect(path)

    async with opened() as store:
        await put(store, (store.series("plc", "a"), NOW_US, 0))
    monkeypatch.setattr(hotfile, "connect", locked)
    async with opened() as store:
        assert f"end it (fuser -v {hot})" in caplog.text and not locks
        with closing(sqlite3.connect(hot, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            ticket = asyncio.ensure_future(put(store, (1, NOW_US + 1, 1)))
            while not store.state().refusing:
                await asyncio.sleep(0.05)
            assert f"end it (fuser -v {hot})" in store.state().refusing
        assert await ticket == (1, 0, 0)
        assert hot.with_name("reserve").exists() and "reserve" not in caplog.text
