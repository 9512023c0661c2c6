"""What a damaged file held comes back: blocks, chunks, deletions, gaps; what is not trustworthy does not."""

import asyncio
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.model import Gap
from gateway.store import StoreProblem, examine, pages, salvage
from gateway.store.lock import StoreLock
from gateway.store.recovery import born_us
from gateway.store.schema import MIGRATIONS
from gateway.store.values import LAST_TS
from tests.store.conftest import NOW_US, Opener
from tests.store.folding import AT_ONCE, eager, folded, segments
from tests.store.reading import everything, put
from tests.store.searching import searched

_PAGE = 1024


def page_of(path: Path, name: str) -> int:
    """Return the offset of the root page of a table."""
    with closing(sqlite3.connect(path)) as conn:
        (root,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return int(root - 1) * _PAGE


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def found_in(path: Path) -> int:
    """Count the samples in sound blocks of a file."""
    remains = salvage.Remains(path)
    for _ in remains.look():
        pass
    count = sum(len(batch) for _, batch in remains.blocks())
    remains.close()
    return count


async def test_a_file_whose_root_is_lost_gives_all_its_samples_back(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s, t = store.series("plc", "a", "mm"), store.series("plc", "b")
        for n in range(0, 300, 10):
            rows = [(s, NOW_US + k, k / 7) for k in range(n, n + 10)]
            await put(store, *rows, *((t, NOW_US + k, "x" * (k * 13 % 3000)) for k in range(n, n + 10)))
        store.gap(Gap(1, 2, "an old gap", "plc"))
        await store.flush()
        epoch = store.epoch
    path = tmp_path / "store" / "hot.db"
    overwrite(path, page_of(path, "block"), bytes(_PAGE))
    async with opened() as store:
        await searched(store)
        assert store.epoch != epoch
        assert (store.find_series("plc", "a"), store.info(s).unit) == (s, "mm")
        assert [x.value for x in await everything(store, [s])] == [n / 7 for n in range(300)]
        assert len(await everything(store, [t])) == 300
        assert store.state().counters["salvaged"] == 600
        assert any(gap.reason == "an old gap" for _, gap in await store.gaps())
        assert await put(store, (s, NOW_US, 0.0)) == (0, 1, 0)
        new = store.series("plc", "new")
        assert new > 1_000_000, "a number that a lost file may have given is not given again"
    async with opened() as store:
        assert len(await everything(store, [s])) == 300
        assert not list(path.parent.glob("*corrupt*"))


@pytest.mark.parametrize("counted", [True, False])
async def test_numbers_that_a_lost_file_gave_are_nobody_elses(
    opened: Opener, tmp_path: Path, counted: bool
) -> None:
    """A tag is not shown another one's samples, also where what was set aside earlier is there no more."""
    path, lock = tmp_path / "store" / "hot.db", tmp_path / "store" / "store.lock"
    async with opened() as store:
        await put(store, (store.series("plc", "a"), NOW_US, 1.0))
    overwrite(path, 0, b"\xff" * 64)
    async with opened() as store:
        await searched(store)
        x = store.series("push", "x")
        await put(store, *((x, NOW_US + n, 100 + n) for n in range(5)))
        newest_seq = store.state().newest_seq
    for salvaged in path.parent.glob("hot.db.salvaged*"):
        salvaged.unlink()
    if not counted:
        lock.write_bytes(lock.read_bytes()[:16])
    overwrite(path, 0, b"\xff" * 64)
    async with opened() as store:
        z = store.series("push", "z")
        await put(store, (z, NOW_US + 1000, 5))
        assert (z == x) != counted
        assert (store.state().newest_seq > newest_seq + 1000) == counted
        await searched(store)
        assert [sample.value for sample in await everything(store, [z])] == [5]
        again = store.find_series("push", "x")
        assert again is not None
        assert [sample.value for sample in await everything(store, [again])] == [100, 101, 102, 103, 104]


def _begin_to_set_aside(folder: Path) -> None:
    lock = StoreLock(folder)
    lock.take()
    lock.note_set_aside(1)
    lock.release()
    (folder / "hot.db").rename(folder / "hot.db.corrupt-1")


async def test_a_power_cut_while_a_file_is_set_aside_gives_no_number_twice(
    opened: Opener, tmp_path: Path
) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1.0))
    await asyncio.to_thread(_begin_to_set_aside, tmp_path / "store")
    async with opened() as store:
        assert store.series("plc", "b") >> 20 == store.state().newest_seq >> 32 == 1
        await searched(store)
        assert store.find_series("plc", "a") == s


async def test_a_restart_in_the_middle_begins_again(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, *((s, NOW_US + n, n) for n in range(20_000)))
        await put(store, *((s, NOW_US + n, n) for n in range(20_000, 40_000)))
        far = store.series("plc", "far")
        await put(store, (far, LAST_TS, 1), (far, LAST_TS, 2))
    path = tmp_path / "store" / "hot.db"
    overwrite(path, page_of(path, "block"), bytes(_PAGE))
    async with opened() as store:
        while not store.state().counters["salvaged"]:
            await asyncio.sleep(0.001)
        assert list(path.parent.glob("*corrupt*")), "it was stopped in the middle"
    async with opened() as store:
        await searched(store)
        assert [x.value for x in await everything(store, [s])] == list(range(40_000))
        assert [x.ts for x in await everything(store, [far])] == [LAST_TS, LAST_TS + 1]


async def test_a_reader_that_finds_damage_has_the_file_set_aside(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "store" / "hot.db"
    async with opened() as store:
        s = store.series("plc", "a")
        for n in range(0, 200, 10):
            await put(store, *((s, NOW_US + k, "y" * 900) for k in range(n, n + 10)))
        store._writer._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # type: ignore[union-attr]
        epoch = store.epoch
        overwrite(path, page_of(path, "block_time"), os.urandom(_PAGE))
        store._writer.generation += 1  # readers open the file anew: what they have read they hold
        for _ in range(1000):
            try:
                if len(await everything(store, [s])) == 200 and store.epoch != epoch:
                    break
            except StoreProblem:
                pass
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("the window is refused for ever")
        await searched(store)
        assert await put(store, (s, NOW_US, "y" * 900)) == (0, 1, 0)
        reasons = [gap.reason for _, gap in await store.gaps()]
        assert any("set aside" in reason for reason in reasons)
        assert not any("not found" in reason for reason in reasons), "nothing was lost"


async def test_samples_without_a_trustworthy_name_are_counted_not_guessed(
    opened: Opener, tmp_path: Path
) -> None:
    async with opened() as store:
        s, t = store.series("plc", "first-name"), store.series("plc", "other-name")
        await put(store, (s, NOW_US, 1), (t, NOW_US, 2), (t, NOW_US + 1, 3))
    path = tmp_path / "store" / "hot.db"
    path.write_bytes(path.read_bytes().replace(b"other-name", b"0ther-name"))
    async with opened() as store:
        await searched(store)
        s = store.series("plc", "first-name")
        assert [x.value for x in await everything(store, [s])] == [1]
        assert len(store.series_of("plc")) == 1
        unnamed = [gap for _, gap in await store.gaps() if "names are lost" in gap.reason]
        assert [gap.count for gap in unnamed] == [2]


async def test_what_was_deleted_does_not_come_back(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        for n in range(10):
            await put(store, (s, NOW_US + n, n))
        await store.delete(s, "me", NOW_US + 2, NOW_US + 4)
        await put(store, (s, NOW_US + 3, 33))
    path = tmp_path / "store" / "hot.db"
    overwrite(path, page_of(path, "block_time"), bytes(_PAGE))
    async with opened() as store:
        await searched(store)
        assert [x.value for x in await everything(store, [s])] == [0, 1, 33, 5, 6, 7, 8, 9]


async def test_what_a_deletion_covers_in_chunks_stays_deleted(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager(monkeypatch)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        for n in range(10):
            await put(store, (s, NOW_US + n, n))
        await put(store, (s, NOW_US + 100, 100))
        await folded(store)
        await store.delete(s, "me", NOW_US + 2, NOW_US + 4)
    (segment,) = segments(tmp_path / "store")
    for path, table in ((tmp_path / "store" / "hot.db", "meta"), (segment, "fold")):
        overwrite(path, page_of(path, table), bytes(_PAGE))
    async with opened() as store:
        await searched(store)
        assert [x.value for x in await everything(store, [s])] == [0, 1, 5, 6, 7, 8, 9, 100]
        found = await store.buckets([s], NOW_US, NOW_US + 200, 10**9)
        assert [bucket.n for bucket in found] == [8]


async def test_a_segment_gives_its_chunks_back_once(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager(monkeypatch)
    async with opened(**AT_ONCE) as store:
        series = [store.series("plc", str(n)) for n in range(30)]
        for n in range(20):
            await put(store, *((s, NOW_US + n, n * 1.5) for s in series))
        await folded(store)
    (path,) = segments(tmp_path / "store")
    overwrite(path, page_of(path, "chunk"), bytes(_PAGE))
    async with opened(**AT_ONCE) as store:
        await searched(store)
        assert len(await everything(store, series)) == 600
        found = await store.buckets(series, NOW_US, NOW_US + 200, 10**9)
        assert sum(bucket.n for bucket in found) == 600, "each counts once"
        assert await put(store, *((s, NOW_US, 0.0) for s in series)) == (0, 30, 0)
    assert path.exists() and path.with_name("000001.db.salvaged").exists()


@pytest.mark.parametrize(("where", "byte"), [(b"TABLE folded", b"\xc5"), (b"epoch TEXT", b"a")])
async def test_a_segment_whose_schema_is_damaged_costs_the_hot_file_nothing(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: bytes, byte: bytes
) -> None:
    eager(monkeypatch)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        for n in range(20):
            await put(store, (s, NOW_US + n, n))
        await folded(store)
        epoch = store.epoch
    (path,) = segments(tmp_path / "store")
    overwrite(path, path.read_bytes().index(where), byte)
    async with opened(**AT_ONCE) as store:
        await searched(store)
        assert store.epoch == epoch
        assert [x.value for x in await everything(store, [s])] == list(range(20))


@pytest.mark.parametrize(
    ("name", "place", "byte", "told"),
    [
        ("hot.db", 18, 0x82, "write version 130"),
        ("history/000001.db", 18, 0x82, "write version 130"),
        ("hot.db", 61, 0x05, f"version {0x50000 | len(MIGRATIONS)}"),
    ],
)
async def test_a_header_that_lies_keeps_nobody_from_starting(
    opened: Opener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    place: int,
    byte: int,
    told: str,
) -> None:
    """It may say that nobody writes the file (SQLite: the disk refuses), or that a newer version made it."""
    eager(monkeypatch)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        for n in range(20):
            await put(store, (s, NOW_US + n, n))
        await folded(store)
    overwrite(tmp_path / "store" / name, place, bytes([byte]))
    async with opened(**AT_ONCE) as store:
        await searched(store)
        assert [x.value for x in await everything(store, [s])] == list(range(20))
        assert any(told in gap.reason for _, gap in await store.gaps())
        await put(store, (s, NOW_US + 20, 20))
        await put(store, (s, NOW_US + 21, 21))
        await folded(store)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
async def test_a_wal_that_lost_its_end_is_noticed_after_a_kill(
    opened: Opener, tmp_path: Path, damage: str
) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        for n in range(30):
            await put(store, (s, NOW_US + n, n))
        copy = tmp_path / "killed"
        await asyncio.to_thread(copy.mkdir)
        for suffix in ("", "-wal", "-shm"):
            content = await asyncio.to_thread((tmp_path / "store" / f"hot.db{suffix}").read_bytes)
            await asyncio.to_thread((copy / f"hot.db{suffix}").write_bytes, content)
    await asyncio.to_thread(check_killed, copy / "hot.db", damage)


@pytest.mark.parametrize("rebooted", [True, False])
async def test_an_old_shared_memory_of_the_wal_is_no_damage_after_a_power_cut(
    opened: Opener, tmp_path: Path, *, rebooted: bool
) -> None:
    """Nobody syncs it: a power cut may leave what it was before the WAL began anew."""
    folder, cut = tmp_path / "store", tmp_path / "cut"
    async with opened() as store:
        epoch, s = store.epoch, store.series("plc", "a")
        for n in range(9):
            await put(store, (s, NOW_US + n, n))
        await asyncio.to_thread(shutil.copytree, folder, cut)
        store._writer._conn.execute("PRAGMA wal_checkpoint(FULL)").fetchall()  # type: ignore[union-attr]
        await put(store, (s, NOW_US + 9, 9))
        for name in ("hot.db", "hot.db-wal"):
            await asyncio.to_thread(shutil.copyfile, folder / name, cut / name)
    await asyncio.to_thread(shutil.rmtree, folder)
    await asyncio.to_thread(cut.rename, folder)
    if rebooted:
        await asyncio.to_thread((folder / "store.lock").write_bytes, bytes(range(16)))
    async with opened() as store:
        assert (store.epoch == epoch) == rebooted
        await searched(store)
        assert [x.value for x in await everything(store, [s])] == list(range(10))


async def test_a_boot_does_not_change_when_the_store_was_made(opened: Opener, tmp_path: Path) -> None:
    """A gap whose begin nobody knows begins there."""
    folder, lock, other = tmp_path / "store", tmp_path / "store" / "store.lock", bytes(range(16))
    async with opened():
        pass
    await asyncio.to_thread(lock.write_bytes, other)
    await asyncio.to_thread(os.utime, lock, (1000, 1000))
    async with opened():
        pass
    assert await asyncio.to_thread(lock.read_bytes) != other, "this boot is noted"
    assert await asyncio.to_thread(born_us, folder) == 1000_000_000


@pytest.mark.parametrize("after", [0, 5])
async def test_shared_memory_that_a_power_cut_left_behind_tells_nothing_of_a_newer_wal(
    opened: Opener, tmp_path: Path, after: int
) -> None:
    def copy(name: str, to: Path) -> None:
        (to / name).write_bytes((tmp_path / "store" / name).read_bytes())

    cut = tmp_path / "cut"
    cut.mkdir()
    async with opened() as store:
        s = store.series("plc", "a")
        for n in range(30):
            await put(store, (s, NOW_US + n, n))
        await asyncio.to_thread(copy, "hot.db-shm", cut)
    async with opened() as store:  # it begins a new WAL
        for n in range(after):
            await put(store, (s, NOW_US + 30 + n, n))
        for name in ("hot.db", "hot.db-wal"):
            await asyncio.to_thread(copy, name, cut)
    await asyncio.to_thread(examine.look_over, cut / "hot.db", same_boot=False)
    assert await asyncio.to_thread(found_in, cut / "hot.db") == 30 + after


def check_killed(path: Path, damage: str) -> None:
    wal = path.with_name("hot.db-wal")
    content = bytearray(wal.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    wal.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError, match="WAL is damaged"):
        examine.look_over(path)
    there = found_in(path)
    assert there >= 29 if damage == "flipped" else 10 < there < 20


def test_the_checksum_of_frames_is_sqlites(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for pragma in ("page_size=1024", "journal_mode=WAL"):
            conn.execute(f"PRAGMA {pragma}").fetchall()
        conn.execute("CREATE TABLE t(x)")
        for _ in range(20):
            conn.execute("INSERT INTO t VALUES (randomblob(700))")
        fd = os.open(f"{path}-wal", os.O_RDONLY)
        found = list(pages.frames(fd))
        os.close(fd)
    assert len(found) > 40 and all(frame.sound for frame in found)
    assert pages.checksum(b"\0" * 1032, (1, 2)) != pages.checksum(b"\1" + b"\0" * 1031, (1, 2))


async def test_looking_the_history_over_rests_and_keeps_nobody_from_folding(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager(monkeypatch)
    async with opened(**AT_ONCE) as store:
        series = [store.series("plc", tag) for tag in "abc"]
        for n in range(20):
            await put(store, *((s, NOW_US + n, float(n)) for s in series))
        await folded(store)
    monkeypatch.setattr(examine, "_SLICE_S", 0.0)
    monkeypatch.setattr(examine, "_SHARE", 1e-9)
    async with opened(**AT_ONCE) as store:
        for n in range(20, 30):
            await put(store, *((s, NOW_US + n, float(n)) for s in series))
        await folded(store)
        assert store._writer.mender.examining, "it did not rest"
        began = time.monotonic()
    assert time.monotonic() - began < 2, "its rest holds up the end"
    monkeypatch.undo()
    async with opened() as store:
        await searched(store)
        assert len(await everything(store, series)) == 90
