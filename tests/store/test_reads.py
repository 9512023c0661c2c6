"""Windows, buckets, runs, gaps, units of measure."""

import random
import statistics

import pytest

from gateway.model import Batch, Gap, RunRecord, Sample, SeriesInfo
from gateway.store import Store
from tests.store.conftest import DAY_US, NOW_US, Opener
from tests.store.reading import everything, put


async def test_windows_come_in_order_whatever_the_order_of_arrival(opened: Opener) -> None:
    rng = random.Random(3)
    async with opened(commit_interval_s=0.05) as store:
        series = [store.series("plc", str(n)) for n in range(5)]
        rows = {(s, NOW_US - rng.randrange(3600_000_000)): n for n, s in enumerate(series * 6000)}
        rows |= {(s, NOW_US - rng.randrange(900) * DAY_US): n for n, s in enumerate(series * 50)}
        samples = [Sample(s, t, value) for (s, t), value in rows.items()]
        rng.shuffle(samples)
        for start in range(0, len(samples), 3000):
            await (await store.put(Batch.of(samples[start : start + 3000])))
        assert store.state().blocks > 10
        ordered = sorted(samples, key=lambda x: (x.ts, x.series))
        assert await everything(store, series) == ordered
        low, high = NOW_US - 1800_000_000, ordered[-10].ts
        expected = [x for x in ordered if low <= x.ts <= high and x.series in series[1:3]]
        assert await everything(store, series[1:3], from_us=low, to_us=high) == expected
        assert await everything(store, series[1:3], from_us=low, to_us=high, limit=17) == expected[:17]
        cursor = (expected[100].ts, expected[100].series)
        assert await everything(store, series[1:3], from_us=low, to_us=high, after=cursor) == expected[101:]  # type: ignore[arg-type]
        assert await everything(store, [99]) == []


async def test_a_block_that_spans_half_an_hour_is_found_by_each_of_its_times(store: Store) -> None:
    s = store.series("plc", "slow")
    times = [NOW_US - minute * 60_000_000 for minute in range(30, -1, -1)]
    await put(store, *((s, ts, n) for n, ts in enumerate(times)))
    assert store.state().blocks == 1
    for n, ts in enumerate(times):
        assert [x.value for x in await everything(store, [s], from_us=ts, to_us=ts)] == [n]
        assert await put(store, (s, ts, n)) == (0, 1, 0)


async def test_a_step_that_holds_too_much_is_read_in_parts(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.window._KEPT_ROWS", 70)
    rng = random.Random(5)
    async with opened() as store:
        series = [store.series("plc", str(n)) for n in range(3)]
        samples = [Sample(s, NOW_US + n * 1000, n) for n in range(400) for s in series]
        shuffled = rng.sample(samples, len(samples))
        for start in range(0, len(samples), 90):
            await (await store.put(Batch.of(shuffled[start : start + 90])))
        assert await everything(store, series) == samples
        assert (
            await everything(store, series[1:2], limit=333)
            == [x for x in samples if x.series == series[1]][:333]
        )


async def test_pages_by_cursor_meet_without_hole_or_double(store: Store) -> None:
    one, two = store.series("plc", "a"), store.series("plc", "b")
    batch = Batch.of(Sample(s, NOW_US + n, n) for n in range(500) for s in (one, two))
    await (await store.put(batch))
    after, pages = None, []
    while page := await everything(store, [one, two], limit=7, after=after):  # type: ignore[arg-type]
        pages += page
        after = page[-1].ts, page[-1].series
    assert pages == list(batch)


async def test_buckets_are_of_good_numbers_only(store: Store) -> None:
    s = store.series("plc", "a")
    numbers = [float(n % 7) for n in range(1000)]
    rows: list[tuple[object, ...]] = [
        (s, 1_000_000 * 60 * 29_000_000 + n * 1_000, v) for n, v in enumerate(numbers)
    ]
    start = 1_000_000 * 60 * 29_000_000
    noise = [
        (s, start + 500, "x"),
        (s, start + 501, float("nan")),
        (s, start + 502, True),
        (s, start + 503, 1e9, 1 << 31),
    ]
    await put(store, *rows, *noise)
    found = await store.buckets([s], start, start + 999_999, 100_000)
    assert [(b.start_us, b.n) for b in found] == [(start + n * 100_000, 100) for n in range(10)]
    assert [b.avg for b in found] == [statistics.fmean(numbers[n * 100 : n * 100 + 100]) for n in range(10)]
    assert {(b.min, b.max) for b in found} == {(0.0, 6.0)}


async def test_runs_and_gaps_are_listed_newest_first(opened: Opener) -> None:
    async with opened() as store:
        for n in range(5):
            run = RunRecord(
                store.next_run_id(), f"d{n % 2}", "poll", NOW_US + n, 10, n, "ok" if n else "error", None
            )
            store.run_ended(run)
        store.gap(Gap(1, 2, "lost", device="d1", count=3))
        store.gap(Gap(5, 9, "not sent", upload="cloud"))
        await store.flush()
        assert [run.samples for run in await store.runs(device="d0")] == [4, 2, 0]
        assert [run.id for run in await store.runs(status="error")] == [1]
        assert [run.id for run in await store.runs(before_id=3, limit=1)] == [2]
        assert [gap for _, gap in await store.gaps(from_us=3)] == [Gap(5, 9, "not sent", upload="cloud")]
        assert [gap.count for _, gap in await store.gaps(device="d1")] == [3]
        last = await store.last_run("d0")
        assert last is not None and last.id == 5
        assert len(await store.unit_gaps(0, store.state().newest_seq)) == 2
    async with opened() as store:
        assert store.next_run_id() == 6


async def test_a_unit_of_measure_holds_from_the_commit_on_that_brought_it(opened: Opener) -> None:
    async with opened() as store:
        s = store.series("plc", "speed", "rpm")
        await put(store, (s, NOW_US, 1))
        first = store.state().newest_seq
    async with opened() as store:
        assert store.info(s) == SeriesInfo("plc", "speed", "rpm")
        assert store.series("plc", "speed", "1/s") == s
        await put(store, (s, NOW_US + 1, 1))
        assert await store.unit_infos([s], first) == {s: SeriesInfo("plc", "speed", "rpm")}
        assert await store.unit_infos([s], first + 1) == {s: SeriesInfo("plc", "speed", "1/s")}
        assert store.series_of("plc") == {"speed": s} and store.find_series("plc", "other") is None
    async with opened() as store:
        assert store.info(s).unit == "1/s"
