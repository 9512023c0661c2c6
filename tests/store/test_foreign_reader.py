"""A program of others that keeps hot.db open delays neither a start nor a commit, and costs no reserve."""

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.model import Batch, Sample
from gateway.store import Store, compact, hotfile, segment
from gateway.store.schema import StoreProblem, connect
from tests.store.conftest import NOW_US, Opener
from tests.store.folding import AT_ONCE, eager, folded, segments
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


async def send(store: Store, series: int, start: int) -> None:
    batch = Batch.of([Sample(series, NOW_US + n, n) for n in range(start, start + 500)])
    await (await store.put(batch))


async def test_a_fold_gives_way_to_who_reads_on_so_that_others_can_begin(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting for its COMMIT it keeps everybody out who begins to read."""
    eager(monkeypatch)
    monkeypatch.setattr(compact, "_PAUSE_NS", 1_500_000_000)
    monkeypatch.setattr(segment, "_COMMIT_TRIES", 20)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        await send(store, s, 0)
        await put(store, (s, NOW_US + 10**6, 0))
        await folded(store)
        (path,) = segments(tmp_path / "store")
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM fold").fetchone()
            await send(store, s, 500)
            await put(store, (s, NOW_US + 10**6 + 1, 1))
            for turn in range(3):
                while len(caplog.records) <= turn:
                    found = await everything(store, [s], to_us=NOW_US + 10**5)
                    assert [x.value for x in found] == list(range(1000))
                    await asyncio.sleep(0.02)
            assert f"fuser -v {path}" in caplog.text and store._writer.compactor.folds == 1
        await folded(store)
        assert [x.value for x in await everything(store, [s], to_us=NOW_US + 10**5)] == list(range(1000))
        assert not await store.gaps()


async def test_a_segment_that_another_program_locks_is_no_damage(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager(monkeypatch)
    monkeypatch.setattr(segment, "_READ_BUSY_S", 0.1)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        await send(store, s, 0)
        await put(store, (s, NOW_US + 10**6, 0))
        await folded(store)
        (path,) = segments(tmp_path / "store")
        window = NOW_US, NOW_US + 10**5
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(2):
                with pytest.raises(StoreProblem, match="locked"):
                    await everything(store, [s])
                with pytest.raises(StoreProblem, match="locked"):
                    await store.buckets([s], *window, 10**6)
        assert len(await everything(store, [s], to_us=window[1])) == 500
        assert sum(bucket.n for bucket in await store.buckets([s], *window, 10**18)) == 500
        await store.flush()
        assert not await store.gaps()
