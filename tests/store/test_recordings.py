"""Blocks of kind `recording`: kept for their measurement, whatever uploads, retention and damage do."""

import asyncio
import json
import random
import sqlite3
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.commands.backup import back_up
from gateway.controls.sensor_nodes import StreamFrames
from gateway.delivered import undelivered
from gateway.model import Batch, Sample
from gateway.store import Store, StoreProblem, StoreSettings, outbox, recordings
from gateway.store.codec import CorruptBlock, decode
from gateway.store.recording import Part, decode_part
from gateway.store.recordings import MeasurementRow
from gateway.store.verify import Counted, verify_store
from tests.store.conftest import NOW_US, MovableClock, Opener
from tests.store.folding import AT_ONCE, eager, folded
from tests.store.searching import searched
from tests.store.test_salvage import overwrite, page_of

_PAGE = 1024
ROW = MeasurementRow("spindle", 1, done=False, text="about it")
HEAD = json.dumps({"name": ROW.name, "channels": "x"}).encode()


def frames(part: int, count: int = 200, per_frame: int = 3) -> StreamFrames:
    """Return the frames of a part: a function of its number."""
    rng = random.Random(part)
    ts, at = [], NOW_US + part * 1_000_000
    for _ in range(count):
        at += rng.randrange(200, 420)
        ts.append(at)
    counters = bytes((part * count + n) % 256 for n in range(count))
    return StreamFrames(ts, counters, array("H", (rng.randrange(65536) for _ in range(count * per_frame))))


async def put_parts(store: Store, numbers: range, row: MeasurementRow = ROW, head: bytes = HEAD) -> None:
    await asyncio.gather(*[await store.record(row, head, n, frames(n)) for n in numbers])


async def parts_of(store: Store, name: str = ROW.name) -> list[Part]:
    return [decode_part(data) async for data in store.recording(name)]


async def are(store: Store, numbers: range, name: str = ROW.name) -> None:
    found = await parts_of(store, name)
    assert [recordings.part_of(part.header.seq) for part in found] == list(numbers)
    for n, part in zip(numbers, found, strict=True):
        assert part.frames == frames(n), n
        assert part.head == HEAD.replace(ROW.name.encode(), name.encode())


@pytest.mark.parametrize("per_frame", [2, 3])
@pytest.mark.parametrize("count", [1, 7, 4096])
async def test_frames_come_back_as_they_were(store: Store, count: int, per_frame: int) -> None:
    there = frames(3, count, per_frame)
    there.ts.reverse()  # a clock that is set back
    await (await store.record(ROW, HEAD, 0, there))
    (part,) = await parts_of(store)
    assert part.frames == there
    header = part.header
    assert (header.n, header.t0, header.t1) == (count, min(there.ts), max(there.ts))
    assert header.wall_us == NOW_US and header.mono_ns > 0


async def test_any_flipped_bit_shows(store: Store) -> None:
    await put_parts(store, range(1))
    (data,) = [data async for data in store.recording(ROW.name)]
    rng = random.Random(1)
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(CorruptBlock):
            decode_part(bytes(broken))
    with pytest.raises(CorruptBlock, match="frames, not samples"):
        decode(data)


async def test_they_outlive_the_process_and_wait_for_nobody(opened: Opener) -> None:
    async with opened() as store:
        await put_parts(store, range(5))
        await put_parts(store, range(3), MeasurementRow("b", 1, done=False, text=""), b'{"name": "b"}')
    async with opened() as store:
        await are(store, range(5))
        assert len(await parts_of(store, "b")) == 3
        assert await store.measurements() == [ROW, MeasurementRow("b", 1, done=False, text="")]


async def test_a_full_memory_budget_holds_the_recorder_back(opened: Opener) -> None:
    async with opened(memory_bytes=1_000_000, commit_interval_s=60) as store:
        big = frames(0, 15_000)
        first = store.try_record(ROW, HEAD, 0, big)
        assert first is not None
        assert store.try_record(ROW, HEAD, 1, big) is None
        waiting = await store.record(ROW, HEAD, 1, big)  # the full budget hurries the commit
        assert first.done()
        await store.flush()
        assert waiting.done() and store.budget.used_bytes == 0


async def fill(store: Store, mb: float) -> None:
    series, rng = store.series("plc", "a"), random.Random(7)
    for n in range(int(mb * 12)):
        rows = (Sample(series, NOW_US + n * 8000 + k, rng.random()) for k in range(8000))
        await (await store.put(Batch.of(rows)))


async def test_uploads_skip_them_and_retention_takes_everything_else_first(opened: Opener) -> None:
    async with opened(max_bytes=2_000_000) as store:
        store.pin(["cloud"])
        await put_parts(store, range(300))
        size = await store.read(recordings.recorded_bytes)
        assert size > 250_000
        assert store.state().bytes_used > size
        assert await store.read(lambda conn: outbox.backlog(conn, "cloud")[2]) == 0
        await fill(store, 3)
        assert store.state().counters["lost"] > 0, "retention did not have to take anything"
        assert store.state().bytes_used < 2_300_000
        await are(store, range(300))


async def test_folding_leaves_them(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)
    async with opened(**AT_ONCE) as store:
        await put_parts(store, range(3))
        await fill(store, 0.5)
        await put_parts(store, range(3, 6))
        await folded(store)
        await are(store, range(6))


async def test_only_what_is_done_is_dropped(store: Store) -> None:
    await put_parts(store, range(10))
    assert await store.ride(lambda tx: recordings.drop(tx, ROW.name, 4)) == 0
    await are(store, range(10))
    await store.ride(lambda tx: recordings.keep(tx, ROW.name, "written", done=True))
    assert [await store.ride(lambda tx: recordings.drop(tx, ROW.name, 4)) for _ in range(4)] == [4, 4, 2, 0]
    assert await parts_of(store) == []
    assert await store.measurements() == [MeasurementRow(ROW.name, 2, done=True, text="written")]
    assert not await store.read(recordings.is_unfinished)


@pytest.mark.parametrize("table", ["recording", "measurement"])
async def test_a_damaged_file_gives_them_back(opened: Opener, tmp_path: Path, table: str) -> None:
    async with opened() as store:
        await put_parts(store, range(40))
        gone = MeasurementRow("gone", 1, done=False, text="")
        await put_parts(store, range(4), gone, b'{"name": "gone"}')
        await store.ride(lambda tx: recordings.keep(tx, "gone", "", done=True))
    path = tmp_path / "store" / "hot.db"
    overwrite(path, await asyncio.to_thread(page_of, path, table), bytes(_PAGE))
    async with opened() as store:
        assert not await store.searched()
        await put_parts(store, range(40, 42))  # a measurement that goes on
        await searched(store)
        assert await store.searched()
        await are(store, range(42))
        if table == "recording":
            assert await parts_of(store, "gone") == []
            assert {row.name: row.text for row in await store.measurements()}[ROW.name] == ROW.text


@pytest.mark.parametrize("large", [False, True])
async def test_a_row_that_lies_is_damage(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Found before a small file is used, and as soon as it is read in a large one."""
    if large:
        monkeypatch.setattr("gateway.store.hotfile.AT_START_BYTES", 0)
        monkeypatch.setattr(
            "gateway.store.mender.Mender._begin", lambda self, _: setattr(self, "_begun", True)
        )
    async with opened() as store:
        await put_parts(store, range(3))
    path = tmp_path / "store" / "hot.db"
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE measurement SET done = 1")
    conn.close()
    async with opened() as store:
        if large:
            with pytest.raises(StoreProblem, match="its record differ"):
                await store.measurements()
            while not [*path.parent.glob("hot.db.*-1")]:
                await asyncio.sleep(0.01)
        await searched(store)
        await are(store, range(3))
        assert [row.done for row in await store.measurements()] == [False]


@pytest.fixture
async def stopped(opened: Opener, tmp_path: Path) -> AsyncIterator[Path]:
    async with opened() as store:
        await put_parts(store, range(5))
    yield tmp_path / "store"


async def found_in(folder: Path) -> list[str]:
    return await asyncio.to_thread(lambda: [str(each) for each in verify_store(folder, Counted())])


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("UPDATE recording SET data = CAST(substr(data, 1, 90) || x'5a' || substr(data, 92) AS BLOB) "
         "WHERE id = 4294967297", "block 1 of measurement 1 is damaged"),
        ("DELETE FROM recording WHERE id = 4294967297", "blocks 1 to 1 of measurement 1 are missing"),
        ("DELETE FROM recording WHERE id = 4294967296", "the blocks before 1 of measurement 1 are missing"),
        ("UPDATE recording SET id = id + 100 WHERE id = 4294967300", "in the place of block"),
        ("DELETE FROM measurement", "measurement 1 has blocks and no row"),
        ("UPDATE measurement SET done = 1", "the row of measurement spindle and its record differ"),
    ],
)  # fmt: skip
async def test_verify_names_what_is_wrong(stopped: Path, query: str, sentence: str) -> None:
    assert await found_in(stopped) == []
    with sqlite3.connect(stopped / "hot.db") as conn:
        conn.execute(query)
    conn.close()
    assert any(sentence in each for each in await found_in(stopped)), await found_in(stopped)


async def test_a_backup_has_them(opened: Opener, tmp_path: Path, clock: MovableClock) -> None:
    async with opened() as store:
        await put_parts(store, range(60))
        copying = asyncio.to_thread(back_up, tmp_path / "state", tmp_path / "store", tmp_path / "b", NOW_US)
        await asyncio.gather(copying, put_parts(store, range(60, 70)))
    assert await found_in(tmp_path / "b") == []
    async with Store.open(tmp_path / "b", StoreSettings(), clock) as store:
        assert len(await parts_of(store)) >= 60


async def test_a_purge_asks_for_them(stopped: Path, tmp_path: Path) -> None:
    assert "a measurement whose file is not written" in await asyncio.to_thread(undelivered, stopped)
    state = tmp_path / "state"
    (state / "measurements").mkdir(parents=True)
    (state / "measurements" / "a.hdf5").touch()
    assert "is the file of a measurement" in await asyncio.to_thread(undelivered, state)
