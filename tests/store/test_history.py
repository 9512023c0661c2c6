"""Blocks folded into chunks: read as before, known by their keys, within bytes and age, never wrong."""

import asyncio
import random
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Batch, Flag, Sample
from gateway.store import Store, commit, compact, outbox, records, segment
from gateway.store.buckets import Folder
from gateway.store.chunk import HEADER_BYTES
from gateway.store.schema import APPLICATION_ID
from tests.store.conftest import DAY_US, NOW_US, Opener
from tests.store.damaging import no_database, truncate, zero_pages
from tests.store.folding import AT_ONCE, eager, folded, in_both, keeping_blocks, rows, segments
from tests.store.reading import everything, put
from tests.store.searching import searched
from tests.store.test_retention import fill
from tests.store.test_values import NASTY


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)


def plant(rng: random.Random, series: list[int], count: int) -> list[Sample]:
    """Numbers, states and texts over an hour, and some of long ago."""
    keys = {(rng.choice(series), NOW_US - rng.randrange(3_600_000_000)) for _ in range(count)}
    keys |= {(rng.choice(series), NOW_US - rng.randrange(900) * DAY_US) for _ in range(count // 20)}
    kinds = (lambda: round(rng.uniform(-5, 5), 2), lambda: rng.randrange(99), lambda: rng.gauss(0, 1))
    odd = (lambda: rng.random() < 0.5, lambda: f"state {rng.randrange(4)}")
    return [
        Sample(
            s, ts, rng.choice(odd if s == series[-1] else kinds[s % 3 :][:1])(), rng.choice((0, 0, 1 << 31))
        )
        for s, ts in keys
    ]


async def send(store: Store, samples: list[Sample], size: int = 700) -> list[tuple[int, int, int]]:
    tickets = [await store.put(Batch.of(samples[n : n + size])) for n in range(0, len(samples), size)]
    return [tuple(await ticket) for ticket in tickets]  # type: ignore[misc]


async def test_what_is_folded_reads_as_before(opened: Opener, tmp_path: Path) -> None:
    rng = random.Random(4)
    async with opened(**AT_ONCE) as store:
        series = [store.series("plc", str(n)) for n in range(4)]
        samples = plant(rng, series, 12_000)
        for part in (samples[:6000], samples[6000:11_000]):
            await send(store, part)
            await folded(store)
        await send(store, samples[11_000:])
        ordered = sorted(samples, key=lambda x: (x.ts, x.series))
        for _ in range(2):
            assert await everything(store, series) == ordered
            low, high = NOW_US - 1_800_000_000, NOW_US - 1_000_000
            expected = [x for x in ordered if low <= x.ts <= high and x.series in series[1:3]]
            assert await everything(store, series[1:3], from_us=low, to_us=high) == expected
            assert await everything(store, series[1:3], from_us=low, to_us=high, limit=9) == expected[:9]
            cursor = expected[99].ts, expected[99].series
            rest = await everything(store, series[1:3], from_us=low, to_us=high, after=cursor)  # type: ignore[arg-type]
            assert rest == expected[100:]
            await folded(store)
        assert len(segments(tmp_path / "store")) >= 1
    async with opened(**AT_ONCE) as store:
        assert await everything(store, series) == ordered
        assert store.state().blocks == 1 and store.state().history_bytes > 0


async def test_a_long_window_of_chunks_comes_in_parts(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.window._KEPT_ROWS", 70)
    monkeypatch.setattr("gateway.store.window._STEP_ROWS", 300)
    async with opened(**AT_ONCE) as store:
        series = [store.series("plc", str(n)) for n in range(3)]
        samples = [Sample(s, NOW_US + n * 1000, n) for n in range(2000) for s in series]
        await send(store, samples)
        await folded(store)
        assert await everything(store, series) == samples
        assert await everything(store, series[1:2]) == samples[1::3]


async def test_every_value_survives_the_fold(opened: Opener) -> None:
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "nasty")
        batch = Batch()
        for place, value in enumerate(NASTY):
            batch.add(s, NOW_US + place, value, 0x80340000 + place, place % 3)
        await (await store.put(batch))
        await put(store, (s, NOW_US + 1000, 1))
        await folded(store)
        assert await (await store.put(batch)) == (0, len(NASTY), 0)
        found = await everything(store, [s])
        assert [x[3:] for x in found[:-1]] == [x[3:] for x in batch]


async def test_buckets_count_each_sample_once_in_blocks_in_chunks_and_in_both(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(6)
    async with opened() as store:
        series = [store.series("plc", str(n)) for n in range(4)]
        samples = plant(rng, series, 6000)
        await send(store, samples[:5000])
        await send(store, samples[5000:])
        window = NOW_US - 3_000_000_000, NOW_US - 5_000_000
        widths = (7_000_000, 60_000_000, 86_400_000_000)
        expected = [await store.buckets(series, *window, width) for width in widths]
        whole = await store.buckets(series, NOW_US - 1000 * DAY_US, NOW_US, 2000 * DAY_US)
    real = commit.delete_folded
    keeping_blocks(monkeypatch)
    for removed in (False, True):
        async with opened(**AT_ONCE) as store:
            if removed:
                monkeypatch.setattr(commit, "delete_folded", real)
                await put(store, (series[0], NOW_US + 1, 1))
                await folded(store)
            else:
                await in_both(store)
                assert store.state().blocks > 5
            assert len(await everything(store, series, to_us=NOW_US)) == len(samples)
            for width, right in zip(widths, expected, strict=True):
                found = await store.buckets(series, *window, width)
                assert [b[:4] + b[5:] for b in found] == [b[:4] + b[5:] for b in right]
                assert [b.avg for b in found] == pytest.approx([b.avg for b in right])
            found = await store.buckets(series, NOW_US - 1000 * DAY_US, NOW_US, 2000 * DAY_US)
            assert [b.n for b in found] == [b.n for b in whole]
            assert await send(store, samples[:700]) == [(0, 700, 0)]


async def test_a_bucket_of_whole_chunks_looks_at_headers_alone(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        start = NOW_US - NOW_US % DAY_US
        await send(store, [Sample(s, start + n * 1000, n) for n in range(5000)])
        await put(store, (s, start + DAY_US, 1))
        await folded(store)
        monkeypatch.setattr("gateway.store.past.PackedChunk", None)  # nothing may be unpacked
        (day, *_) = await store.buckets([s], start, start + DAY_US - 1, DAY_US)
        assert day[2:] == (0, 4999, 4999 / 2, 5000)


async def test_keys_are_found_in_chunks_over_restarts(opened: Opener) -> None:
    rows_ = [(1, NOW_US, 1), (1, NOW_US + 1, 7), (1, NOW_US, 1, 5), (1, NOW_US, 2), (1, NOW_US + 9, 8)]
    async with opened(**AT_ONCE) as store:
        assert store.series("plc", "a") == 1
        assert await put(store, *rows_) == (3, 0, 2)
        await put(store, (1, NOW_US + 100, 0))
        await folded(store)
        stored = await everything(store, [1])
        random.shuffle(rows_)
        assert await put(store, *rows_) == (0, 5, 0)
        assert await put(store, (1, NOW_US + 9, 9), (1, NOW_US + 8, 6)) == (1, 0, 1)
        await put(store, (1, NOW_US + 101, 0))
        await folded(store)
    async with opened(**AT_ONCE) as store:
        assert await put(store, *rows_, (1, NOW_US + 9, 9), (1, NOW_US + 8, 6)) == (0, 7, 0)
        found = await everything(store, [1])
        assert [x for x in found if x in stored] == stored and len(found) == len(stored) + 3
        assert found[-3] == Sample(1, NOW_US + 10, 9, 0, Flag.MOVED)


async def test_a_kill_between_chunk_and_deletion_leaves_one_sample(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        keeping_blocks(patch)
        async with opened(**AT_ONCE) as store:
            s = store.series("plc", "a")
            samples = [Sample(s, NOW_US + n, n) for n in range(3000)]
            await send(store, samples, size=3000)  # one block: it alone is folded before the end
            await put(store, (s, NOW_US + 9000, 0))
            await in_both(store)
            assert await everything(store, [s], to_us=NOW_US + 8000) == samples
    (path,) = segments(tmp_path / "store")
    before = rows(path, "SELECT count(*) FROM chunk")
    async with opened(chunk_minutes=60) as store:
        await folded(store)
        assert await everything(store, [s], to_us=NOW_US + 8000) == samples
        assert await send(store, samples[::3]) == [(0, 700, 0), (0, 300, 0)]
        assert store._writer.compactor.folds == 0, "what is in chunks is not folded again"
    assert rows(path, "SELECT count(*) FROM chunk") == before


async def test_only_delivered_blocks_are_folded(opened: Opener) -> None:
    async with opened(**AT_ONCE) as store:
        store.pin(["cloud"])
        s = store.series("plc", "a")
        for n in range(9):
            await put(store, (s, NOW_US + n, n))
        await asyncio.sleep(0.3)
        assert store.state().blocks == 9 and store.state().history_bytes == 0
        await store.ride(lambda tx: outbox.acknowledge(tx.conn, "cloud", 0, 5))
        await asyncio.sleep(0.3)
        await store.flush()
        assert store.state().blocks == 4
        assert [x.value for x in await store.unit_samples(6, 9)] == [5, 6, 7, 8]
        assert [x.value for x in await everything(store, [s])] == list(range(9))


async def test_blocks_that_an_upload_came_to_want_stay(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = commit.delete_folded
    keeping_blocks(monkeypatch)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        for n in range(5):
            await put(store, (s, NOW_US + n, n))
        await in_both(store)
        await store.ride(lambda tx: outbox.register(tx, "cloud"))
        monkeypatch.setattr(commit, "delete_folded", real)
        await store.flush()
        await store.flush()
        assert [x.value for x in await store.unit_samples(0, 9)] == [0, 1, 2, 3, 4]
        assert [x.value for x in await everything(store, [s])] == [0, 1, 2, 3, 4]


async def test_segments_go_when_the_bytes_are_used_up(opened: Opener, tmp_path: Path) -> None:
    async with opened(max_bytes=2_000_000, **AT_ONCE) as store:
        s = store.series("plc", "a")
        for n in range(0, 400, 50):
            await fill(store, s, 50, n)
            await folded(store)
            assert store.state().bytes_used <= 2_100_000
        kept = [x.ts - NOW_US for x in await everything(store, [s])]
        assert kept == list(range(400 - len(kept), 400)) and 80 < len(kept) < 200
        assert store.state().segments == len(segments(tmp_path / "store")) > 1
        assert not await store.gaps(), "all of it was delivered"
    disk = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.db"))
    assert disk < 2_600_000


async def test_what_a_power_cut_left_of_a_file_that_was_being_made_is_removed(
    opened: Opener, tmp_path: Path
) -> None:
    async with opened(**AT_ONCE) as store:
        await fill(store, store.series("plc", "a"), 20)
        await folded(store)
    drafts = [tmp_path / "store" / name for name in ("hot.db.renewing", "history/000002.db.renewing")]
    for draft in drafts:
        draft.write_bytes(b"half")
    async with opened(**AT_ONCE) as store:
        assert not any(draft.exists() for draft in drafts) and not await store.gaps()
        assert len(await everything(store, [store.series("plc", "a")])) == 20


async def test_segments_go_before_blocks_that_are_not_folded_yet(opened: Opener) -> None:
    async with opened(max_bytes=2_000_000, **AT_ONCE) as store:
        await fill(store, store.series("plc", "a"), 100)
        await folded(store)
    async with opened(max_bytes=2_000_000) as store:
        s = store.series("plc", "a")
        for n in range(100, 250, 10):
            await fill(store, s, 10, n)
            kept = [x.ts - NOW_US for x in await everything(store, [s])]
            assert kept == list(range(n + 10 - len(kept), n + 10)), "what is gone is the oldest"
            assert store.state().bytes_used <= 2_100_000


async def test_segments_go_by_the_gateways_running_time(opened: Opener, tmp_path: Path) -> None:
    async with opened(keep_days=1, **AT_ONCE) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1), (s, NOW_US + 1, 2))
        await put(store, (s, NOW_US + 5, 3))
        await folded(store)
        for day in (0.5, 1.2, 1.8):
            store._writer._running_s = day * 86_400
            await put(store, (s, NOW_US + int(day * 1000), 4))
            await put(store, (s, NOW_US + int(day * 1000) + 1, 4))
            await folded(store)
            values = [x.value for x in await everything(store, [s])]
            assert (1 in values) == (day < 1), "counted from when it was folded"
        assert len(segments(tmp_path / "store")) == 2


async def test_what_devices_that_fell_silent_left_goes_by_age_too(opened: Opener, tmp_path: Path) -> None:
    async with opened(keep_days=1, **AT_ONCE) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1))
        await put(store, (s, NOW_US + 1, 2))
        await folded(store)
        assert [x.value for x in await everything(store, [s])] == [1, 2], "and a reader has the segment open"
        (path,) = segments(tmp_path / "store")
        store._writer._running_s = 0.9 * 86_400
        await asyncio.sleep(0.6)
        assert path.exists(), "younger than that"
        store._writer._running_s = 1.1 * 86_400
        for _ in range(1000):  # nothing is committed any more
            if not segments(tmp_path / "store"):
                break
            await asyncio.sleep(0.01)
        state = store.state()
        assert not path.exists() and state.segments == state.history_bytes == 0 < state.bytes_used
        await put(store, (s, NOW_US + 2, 3))
        await put(store, (s, NOW_US + 3, 4))
        await folded(store)
        assert [x.value for x in await everything(store, [s])] == [2, 3, 4], "the newest block was not folded"


async def damaged(opened: Opener, tmp_path: Path, sql: str) -> int:
    """Fold ten series' samples, a chunk each, then edit the segment; return the first series."""
    async with opened() as store:
        series = [store.series("plc", str(n)) for n in range(10)]
        await send(store, [Sample(s, NOW_US + n, n) for n in range(200) for s in series])
        await put(store, (series[0], NOW_US + 9000, 0))
    async with opened(**AT_ONCE) as store:
        await folded(store)
    assert rows(segments(tmp_path / "store")[0], "SELECT count(*) FROM chunk") == [(10,)]
    (path,) = segments(tmp_path / "store")
    with sqlite3.connect(path) as conn:
        conn.execute(sql)
    conn.close()
    return series[0]


@pytest.mark.parametrize("place", [5, 30, 62, 79, 100])
async def test_a_chunk_that_was_changed_is_never_served(opened: Opener, tmp_path: Path, place: int) -> None:
    sql = (
        f"UPDATE chunk SET data = CAST(substr(data, 1, {place}) || x'5a' || substr(data, {place + 2}) "
        "AS BLOB) WHERE id = (SELECT min(id) FROM chunk)"
    )
    s = await damaged(opened, tmp_path, sql)
    async with opened() as store:
        for _ in range(2):
            assert [x.value for x in await everything(store, [s])] == [0]
            assert len(await everything(store, [s + 1])) == 200
            found = await store.buckets([s, s + 1], NOW_US, NOW_US + 500, 10**9)
            assert [b[2:] for b in found] == [(0, 199, 99.5, 200)] * (1 if place < HEADER_BYTES else 2)
            await store.flush()
            ((_, gap),) = await store.gaps()
            assert "000001.db is damaged" in gap.reason and gap.from_us == NOW_US
        assert await put(store, (s, NOW_US + 1, 1), (s + 1, NOW_US + 1, 1)) == (1, 1, 0)


def unreadable(path: Path) -> None:
    """Give the first chunk a body that cannot be unpacked, and the checksums to it."""
    ((number, data),) = rows(path, "SELECT id, data FROM chunk ORDER BY id LIMIT 1")
    body = b"\xff" * (len(data) - HEADER_BYTES)
    head = data[: HEADER_BYTES - 8] + zlib.crc32(body).to_bytes(4, "little")
    with sqlite3.connect(path) as conn:
        whole = head + zlib.crc32(head).to_bytes(4, "little") + body
        conn.execute("UPDATE chunk SET data = ? WHERE id = ?", (whole, number))
    conn.close()


async def test_a_chunk_that_cannot_be_unpacked_is_damaged_though_its_checksums_hold(
    opened: Opener, tmp_path: Path
) -> None:
    s = await damaged(opened, tmp_path, "SELECT 1")
    unreadable(segments(tmp_path / "store")[0])
    async with opened() as store:
        assert [x.value for x in await everything(store, [s])] == [0]
        assert len(await everything(store, [s + 1])) == 200
        await store.flush()
        ((_, gap),) = await store.gaps()
        assert "000001.db is damaged" in gap.reason and gap.count == 200


async def test_a_search_passes_over_a_chunk_that_cannot_be_unpacked(opened: Opener, tmp_path: Path) -> None:
    s = await damaged(opened, tmp_path, "SELECT 1")
    async with opened() as store:  # a block of the same time: chunks are taken apart, not copied
        await put(store, (s, NOW_US - 1, 1), (s, NOW_US + 5000, 1))
    path = segments(tmp_path / "store")[0]
    unreadable(path)
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE fold SET n = n - 1")
    conn.close()
    async with opened() as store:
        await searched(store)
        assert [x.value for x in await everything(store, [s])] == [1, 1, 0]
        assert len(await everything(store, [s + 1])) == 200
        gaps = [gap for _, gap in await store.gaps() if "may have been lost" in gap.reason]
        assert [gap.count for gap in gaps] == [200]


@pytest.mark.parametrize("damage", [no_database, zero_pages, truncate])
@pytest.mark.parametrize("running", [False, True])
async def test_a_segment_that_is_damaged_is_set_aside(
    opened: Opener, tmp_path: Path, damage: object, running: bool
) -> None:
    s = await damaged(opened, tmp_path, "SELECT 1")
    (path,) = segments(tmp_path / "store")
    if not running:
        damage(path)  # type: ignore[operator]
    async with opened(**AT_ONCE) as store:
        if running:
            damage(path)  # type: ignore[operator]
        assert [x.value for x in await everything(store, [s])] == [0]
        await store.flush()
        await store.flush()
        reasons = [gap.reason for _, gap in await store.gaps()]
        assert any("set aside as 000001.db.corrupt" in reason for reason in reasons), reasons
        await searched(store)
        reasons = [gap.reason for _, gap in await store.gaps()]
        assert any("000001.db.corrupt may have been lost" in reason for reason in reasons), reasons
        assert await put(store, (s, NOW_US + 1, 1)) == (1, 0, 0)
        await put(store, (s, NOW_US + 9001, 1))
        await folded(store)
        assert [x.value for x in await everything(store, [s])] == [1, 0, 1]
    assert path.with_name("000001.db.salvaged").exists()
    assert [found.name for found in segments(tmp_path / "store")] == ["000002.db"]


async def test_the_history_outlives_the_hot_file(opened: Opener, tmp_path: Path) -> None:
    async with opened(**AT_ONCE) as store:
        one, two = store.series("plc", "one"), store.series("plc", "two")
        await put(store, (one, NOW_US, 1), (two, NOW_US, 2))
        await put(store, (two, NOW_US + 1, 3))
        await folded(store)
    (tmp_path / "store" / "hot.db").write_bytes(b"gone" * 5000)
    async with opened(**AT_ONCE) as store:
        other = store.series("plc", "other")
        assert (store.find_series("plc", "one"), store.find_series("plc", "two")) == (one, two)
        assert other not in (one, two)
        assert [x.value for x in await everything(store, [one, two])] == [1, 2]
        assert store.last(two) == Sample(two, NOW_US, 2)
        assert await put(store, (one, NOW_US, 1), (two, NOW_US, 2), (other, NOW_US, 9)) == (1, 2, 0)
        await put(store, (other, NOW_US + 1, 9))
        await folded(store)
    async with opened(**AT_ONCE) as store:
        assert [x.value for x in await everything(store, [one, two, other])] == [1, 2, 9, 9]
        assert store.series_of("plc") == {"one": one, "two": two, "other": other}


async def test_a_segment_of_another_store_is_set_aside(opened: Opener, tmp_path: Path) -> None:
    record = records.pack(records.SERIES, 4, "plc", "strange", "").hex()
    s = await damaged(
        opened, tmp_path, f"UPDATE series SET tag = 'strange', record = x'{record}' WHERE tag = '3'"
    )
    async with opened() as store:
        assert [x.value for x in await everything(store, [s])] == [0]
        await store.flush()
        assert any("belongs to another store" in gap.reason for _, gap in await store.gaps())


async def test_a_store_without_history_is_brought_to_this_version(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await send(store, [Sample(s, NOW_US + n, n) for n in range(3000)])
    path = tmp_path / "store" / "hot.db"
    with sqlite3.connect(path) as conn:
        conn.executescript(
            "DROP TABLE bad_chunk; DROP TABLE measurement; DROP TABLE recording; DROP TABLE file; "
            "DROP INDEX run_long; DROP INDEX quarantine_long; "
            "PRAGMA user_version=1; "
            f"PRAGMA application_id={APPLICATION_ID | 1};"
        )
    conn.close()
    (tmp_path / "store" / "history").rmdir()
    async with opened(**AT_ONCE) as store:
        await put(store, (s, NOW_US + 9000, 1))
        await folded(store)
        assert [x.value for x in await everything(store, [s])] == [*range(3000), 1]
        assert await store.gaps() == []


async def test_without_a_snapshot_the_newest_are_found_in_chunks(opened: Opener, tmp_path: Path) -> None:
    far = NOW_US + 400 * DAY_US
    async with opened(**AT_ONCE) as store:
        s, t = store.series("plc", "a"), store.series("plc", "b")
        await put(store, (s, NOW_US, 1), (s, far, 9), (t, NOW_US + 5, 2))
        await put(store, (t, NOW_US + 6, 3))
        await folded(store)
    with sqlite3.connect(tmp_path / "store" / "hot.db") as conn:
        conn.execute("DELETE FROM snapshot")
    conn.close()
    async with opened() as store:
        assert store.last(s) == Sample(s, NOW_US, 1)
        assert await put(store, (s, NOW_US, 1), (s, far, 9), (t, NOW_US + 5, 2)) == (0, 3, 0)
        assert await put(store, (s, NOW_US + 1, 1)) == (1, 0, 0)


async def test_a_fold_that_the_disk_refuses_is_tried_again_and_stops_nobody(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.compact._PAUSE_NS", 100_000_000)
    async with opened(**AT_ONCE) as store:
        folder = tmp_path / "store" / "history"
        folder.rmdir()
        folder.write_text("no folder")
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1))
        await put(store, (s, NOW_US + 1, 2))
        await asyncio.sleep(0.3)
        assert store.state().refusing == "" and store.state().history_bytes == 0
        assert await put(store, (s, NOW_US + 2, 3)) == (1, 0, 0)
        folder.unlink()
        folder.mkdir()
        await folded(store)
        assert [x.value for x in await everything(store, [s])] == [1, 2, 3]


async def test_who_reads_while_blocks_are_folded_misses_and_doubles_nothing(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.buckets._TURN_S", 0)  # a turn a block: folds come between
    monkeypatch.setattr("gateway.store.compact.MOST_SAMPLES", 600)
    async with opened(commit_interval_s=0.001, **AT_ONCE) as store:
        series = [store.series("plc", str(n)) for n in range(3)]

        async def writing() -> None:
            for n in range(0, 6000, 30):
                await put(store, *((series[m % 3], NOW_US + m * 1000, m) for m in range(n, n + 30)))

        async def reading() -> None:
            known = 0
            while known < 6000:
                before = store.state().counters["added"]
                found = await store.buckets(series, NOW_US, NOW_US + DAY_US * 9, 10**18)
                assert before <= sum(b.n for b in found) <= store.state().counters["added"] + 30
                values = [x.value for x in await everything(store, series)]
                assert values == list(range(len(values))) and len(values) >= before
                known = before

        async with asyncio.TaskGroup() as group:
            group.create_task(writing())
            group.create_task(reading())
            group.create_task(reading())
        assert store._writer.compactor.folds > 5


async def test_blocks_are_not_deleted_under_a_reading_that_began_before_the_fold(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.buckets._TURN_S", 0)
    async with opened(commit_interval_s=0.001) as store:
        s = store.series("plc", "a")
        for n in range(400):
            await put(store, (s, NOW_US + n, n))
        turn = Folder.turn

        def held_up(folder: Folder, *arguments: Any) -> bool:
            """Go on with the second block only once a fold is done, and deletions had their time."""
            done = turn(folder, *arguments)
            store._writer.compactor._period_ns = 0
            for _ in range(500):
                if store._writer.compactor.folds:
                    break
                time.sleep(0.01)
            time.sleep(0.001)
            return done

        monkeypatch.setattr(Folder, "turn", held_up)
        reading = asyncio.create_task(store.buckets([s], NOW_US, NOW_US + 10**6, 10**18))
        (bucket,) = await reading
        assert (bucket.n, store._writer.compactor.folds) == (400, 1), "it was folded meanwhile"
        await folded(store)


async def test_a_fold_whose_commit_said_it_failed_is_not_done_twice(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = segment.committed
    failures = iter([sqlite3.OperationalError("disk I/O error")])

    def failing(writing: sqlite3.Connection) -> bool:
        done = real(writing)
        for error in failures:
            raise error
        return done

    monkeypatch.setattr(compact, "_PAUSE_NS", 100_000_000)
    monkeypatch.setattr(segment, "committed", failing)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        samples = [Sample(s, NOW_US + n, n) for n in range(500)]
        await send(store, samples)
        await put(store, (s, NOW_US + 900, 0))
        await folded(store)
        assert await everything(store, [s], to_us=NOW_US + 800) == samples
        (bucket, *_) = await store.buckets([s], NOW_US, NOW_US + 800, 10**18)
        assert bucket.n == 500
    assert rows(segments(tmp_path / "store")[0], "SELECT sum(n) FROM fold") == [(500,)]


async def test_blocks_stay_where_their_segment_turns_out_damaged(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = commit.delete_folded
    keeping_blocks(monkeypatch)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        samples = [Sample(s, NOW_US + n, n) for n in range(500)]
        await send(store, samples)
        await put(store, (s, NOW_US + 900, 0))
        await in_both(store)
        no_database(segments(tmp_path / "store")[0])
        assert await everything(store, [s], to_us=NOW_US + 800) == samples
        await store.flush()
        monkeypatch.setattr(commit, "delete_folded", real)
        await folded(store)
        assert await everything(store, [s], to_us=NOW_US + 800) == samples
