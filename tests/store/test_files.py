"""The file: its lock, its version, damage, the snapshot."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.model import Sample
from gateway.store import Store, StoreProblem, Transaction, schema
from gateway.store.codec import MAGIC, decode
from gateway.store.schema import APPLICATION_ID
from tests.store.conftest import NOW_US, Opener
from tests.store.damaging import edit, no_database, truncate, zero_pages
from tests.store.folding import AT_ONCE, eager, folded
from tests.store.reading import everything, put
from tests.store.searching import searched


def rows_of(path: Path) -> list[tuple[int, bytes]]:
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute("SELECT seq, data FROM block ORDER BY seq").fetchall()


async def test_a_second_daemon_is_refused(opened: Opener, store: Store) -> None:
    with pytest.raises(StoreProblem, match="in use by another edge-gateway"):
        async with opened():
            pass
    assert await put(store, (store.series("plc", "a"), NOW_US, 1)) == (1, 0, 0)


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        await put(store, (store.series("plc", "a"), NOW_US, 1))
    path = tmp_path / "store" / "hot.db"
    edit(path, "PRAGMA user_version = 99")
    edit(path, f"PRAGMA application_id = {APPLICATION_ID | 99}")
    with pytest.raises(StoreProblem, match="version 99, made by a newer edge-gateway"):
        async with opened():
            pass
    assert len(rows_of(path)) == 1


async def test_a_store_whose_making_was_cut_between_two_versions_is_no_damage(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / "hot.db"

    def cut(_db: object) -> None:
        raise KeyboardInterrupt

    def begin() -> None:
        with closing(schema.connect(path)) as conn, pytest.raises(KeyboardInterrupt):
            schema.migrate(conn, path)

    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (schema.MIGRATIONS[0], cut))
        await asyncio.to_thread(begin)
    async with opened() as store:
        assert await put(store, (store.series("plc", "a"), NOW_US, 1)) == (1, 0, 0)
        assert await store.gaps() == []
    assert not list(path.parent.glob("hot.db.*-*"))


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "store").write_text("a file is in the way")
    with pytest.raises(StoreProblem, match=r"cannot be used: .*check that it"):
        async with opened():
            pass


@pytest.mark.parametrize("damage", [no_database, zero_pages, truncate])
async def test_a_damaged_file_is_set_aside_and_a_new_epoch_begins(
    opened: Opener, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    async with opened() as store:
        await put(store, (store.series("plc", "a"), NOW_US, 1))
        epoch = store.epoch
    path = tmp_path / "store" / "hot.db"
    for number in (1, 2, 3):
        damage(path)
        damaged = path.read_bytes()
        async with opened() as store:
            assert store.epoch != epoch
            s = store.series("plc", "a")
            assert await put(store, (s, NOW_US, 1)) == (1, 0, 0)
            await searched(store)
            reasons = [gap.reason for _, gap in await store.gaps()]
            assert any(f"set aside as hot.db.corrupt-{number}" in reason for reason in reasons)
            assert any(f"found in the damaged file hot.db.corrupt-{number}" in reason for reason in reasons)
            assert (await everything(store, [s]))[0].value == 1
        assert path.with_name(f"hot.db.salvaged-{number}").read_bytes() == damaged
    kept = {file.name.removesuffix("-wal").removesuffix("-shm") for file in path.parent.glob("hot.db.*")}
    assert kept == {"hot.db.salvaged-2", "hot.db.salvaged-3"}, "the disk is not filled with damaged files"


async def test_a_file_that_breaks_while_open_is_set_aside(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "store" / "hot.db"
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1))
        epoch = store.epoch

        def malformed(tx: Transaction) -> None:
            no_database(path)
            path.with_name("hot.db-wal").write_bytes(b"")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error

        once = iter([malformed])
        ride = store.ride(lambda tx: next(once, lambda _: None)(tx))
        await asyncio.wait_for(ride, 8)
        assert await put(store, (s, NOW_US + 1, 2), (s, NOW_US, 1)) == (2, 0, 0)
        assert store.epoch != epoch
        assert [x.value for x in await everything(store, [s])] == [1, 2]
        assert (await store.unit_infos([s], 99))[s].tag == "a"
        await searched(store)
        reasons = [gap.reason for _, gap in await store.gaps()]
        assert any("set aside as hot.db.corrupt-1" in reason for reason in reasons), reasons
        assert store.state().refusing == ""
    assert path.with_name("hot.db.salvaged-1").exists()


async def test_a_block_that_was_changed_is_never_served(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        for n in range(5):
            await put(store, (s, NOW_US + n, float(n)))
    path = tmp_path / "store" / "hot.db"
    (seq, data) = rows_of(path)[2]
    broken = bytearray(data)
    broken[-3] ^= 4
    edit(path, "UPDATE block SET data = ? WHERE seq = ?", bytes(broken), seq)
    async with opened() as store:
        for _ in range(2):
            assert [x.value for x in await everything(store, [s])] == [0.0, 1.0, 3.0, 4.0]
            assert len(await store.unit_samples(0, 99)) == 4
            await store.flush()
            ((_, gap),) = await store.gaps()
            assert (gap.from_us, gap.to_us, gap.count) == (NOW_US + 2, NOW_US + 2, 1)
            assert store.state().counters["bad_blocks"] == 1
        assert await put(store, (s, NOW_US + 2, 2.0), (s, NOW_US + 1, 1.0)) == (1, 1, 0)


async def test_start_up_decodes_only_the_blocks_after_the_snapshot(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s, t = store.series("plc", "a"), store.series("plc", "b")
        await put(store, (s, NOW_US, 1.0), (t, NOW_US, "x", 5, 2))
    path = tmp_path / "store" / "hot.db"
    edit(path, "UPDATE block SET data = x'00'")  # must not be decoded
    async with opened() as store:
        assert store.last(s) == Sample(s, NOW_US, 1.0)
        assert store.last(t) == Sample(t, NOW_US, "x", 5, 2)
        assert store.newest_own_us == NOW_US
        assert await put(store, (s, NOW_US + 1, 2.0)) == (1, 0, 0)
        await store.flush()
        assert store.state().counters["bad_blocks"] == 1, "only its checksum was looked at"
    edit(path, "DELETE FROM snapshot")
    edit(path, "DELETE FROM block WHERE data = x'00'")
    async with opened() as store:
        assert store.last(s) == Sample(s, NOW_US + 1, 2.0)


async def test_blocks_are_found_by_scanning_raw_bytes(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1.5))
    ((_, data),) = rows_of(tmp_path / "store" / "hot.db")
    raw = (tmp_path / "store" / "hot.db").read_bytes()
    at = raw.index(data)
    assert raw[at : at + 4] == MAGIC
    assert list(decode(raw[at : at + len(data)])[1]) == [Sample(s, NOW_US, 1.5)]


async def test_the_gateways_running_time_is_kept(opened: Opener, tmp_path: Path) -> None:
    for _ in range(2):
        async with opened():
            pass
    with closing(sqlite3.connect(tmp_path / "store" / "hot.db")) as conn:
        (running_s,) = conn.execute("SELECT value FROM meta WHERE key = 'running_s'").fetchone()
    assert 0 < running_s < 60


async def test_nobody_but_the_owner_can_read_what_is_kept(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the usual umask, also a file written anew, and the write-ahead log with it."""
    eager(monkeypatch)
    folder = tmp_path / "store"

    def seen() -> dict[str, int]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.name: path.stat().st_mode & 0o777 for path in files}

    before = os.umask(0o022)
    try:
        async with opened(**AT_ONCE) as store:
            for n in range(3):
                await put(store, (store.series("plc", "a"), NOW_US + n * 1_000_000, n))
            await folded(store)
            modes = await asyncio.to_thread(seen)
            store._writer._unwritten = True
            await put(store, (1, NOW_US + 9_000_000, 9))
            modes |= {f"renewed {name}": mode for name, mode in (await asyncio.to_thread(seen)).items()}
    finally:
        os.umask(before)
    assert {"hot.db", "hot.db-wal", "hot.db-shm", "000001.db", "renewed hot.db-wal"} <= set(modes)
    assert {name for name, mode in modes.items() if mode != 0o600} == set()
