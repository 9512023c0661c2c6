"""Reads out of memory, by group, by fold and by column: each answers what was told."""

import asyncio
import random
from dataclasses import dataclass, field
from math import fsum
from typing import Any

import pytest

from gateway.model import Batch, Sample
from gateway.store import Store, buckets, commit, compact, reads, taking, window, writer
from gateway.store.memo import Memo
from gateway.store.stretch import Stretch, merged
from tests.store.conftest import NOW_US, Opener
from tests.store.folding import AT_ONCE, folded, keeping_blocks
from tests.store.reading import everything, put

SECOND_US = 1_000_000


@dataclass
class Told:
    """What a store was told, as one would note it down."""

    there: dict[tuple[int, int], Sample] = field(default_factory=dict)

    def window(self, series: list[int], from_us: int, to_us: int) -> list[Sample]:
        keys = sorted(key for key in self.there if from_us <= key[0] <= to_us and key[1] in series)
        return [self.there[key] for key in keys]

    def forget(self, series: int, from_us: int, to_us: int) -> None:
        for sample in self.window([series], from_us, to_us):
            del self.there[sample.ts, series]

    def buckets(self, series: list[int], from_us: int, to_us: int, width_us: int) -> list[tuple[object, ...]]:
        found: dict[tuple[int, int], list[float]] = {}
        for sample in self.window(series, from_us, to_us):
            if type(sample.value) in (int, float) and not sample.status >> 31:
                start_us = sample.ts - sample.ts % width_us
                found.setdefault((start_us, sample.series), []).append(sample.value)  # type: ignore[arg-type]
        return [
            (s, start, min(v), max(v), pytest.approx(fsum(v) / len(v)), len(v))
            for (start, s), v in sorted(found.items())
        ]


def value(rng: random.Random, series: int) -> object:
    kinds = (
        lambda: round(rng.uniform(-5, 5), 2),
        lambda: rng.randrange(-9, 99),
        lambda: rng.choice((True, None, 1.5, 2, 2**63)),
        lambda: rng.choice(("a", "b", b"c", [1, "x"])) if rng.random() < 0.1 else rng.gauss(0, 1),
    )
    return kinds[series % 4]()


async def send(store: Store, told: Told, rng: random.Random, series: list[int], at_us: int) -> None:
    """Store some samples, a few of them late; a key that is taken is passed over."""
    batch = Batch()
    for number in rng.sample(series, rng.randrange(1, len(series))):
        ts = at_us + rng.randrange(2) - (rng.randrange(300) * SECOND_US if rng.random() < 0.05 else 0)
        if (ts, number) not in told.there:
            sample = Sample(number, ts, value(rng, number), rng.choice((0, 0, 0, 1 << 31)))  # type: ignore[arg-type]
            told.there[ts, number] = sample
            batch.add(*sample)
    await (await store.put(batch))


async def compare(store: Store, told: Told, rng: random.Random, series: list[int]) -> None:
    last_us = max(ts for ts, _ in told.there)
    span_us = rng.choice((5, 60, 500)) * SECOND_US
    from_us = last_us - rng.randrange(400) * SECOND_US
    some = rng.sample(series, rng.choice((1, 3, len(series))))
    right = told.window(some, from_us, from_us + span_us)
    assert await everything(store, some, from_us=from_us, to_us=from_us + span_us) == right
    if len(right) > 10:
        place = rng.randrange(len(right) - 5)
        after = right[place].ts, right[place].series
        rest = await everything(store, some, from_us=from_us, to_us=from_us + span_us, after=after)  # type: ignore[arg-type]
        assert rest == right[place + 1 :]
    width_us = rng.choice((1, 7, 1000)) * SECOND_US
    found = await store.buckets(some, from_us, from_us + span_us, width_us)
    assert [tuple(b) for b in found] == told.buckets(some, from_us, from_us + span_us, width_us)


async def one_fold(store: Store) -> None:
    before, store._writer.compactor._period_ns = store._writer.compactor.folds, 0
    for _ in range(500):
        await store.flush()
        if store._writer.compactor.folds > before:
            break
        await asyncio.sleep(0.01)
    store._writer.compactor._period_ns = 3600 * 1_000_000_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(4))
async def test_any_window_is_what_was_told(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Small groups, steps and memories; folds, blocks that stay, deletions and late samples between reads."""
    rng = random.Random(seed)
    monkeypatch.setattr(taking, "_GROUPS", (4, 2))
    monkeypatch.setattr(taking, "FEW", 3)
    monkeypatch.setattr(taking, "_IDLE_S", rng.choice((0, 10)))
    monkeypatch.setattr(taking, "_GROUP_BYTES", 1000)
    monkeypatch.setattr(taking, "_BLOCKS_BYTES", rng.choice((40_000, 40_000_000)))
    monkeypatch.setattr(taking, "_CHUNKS_BYTES", rng.choice((30_000, 40_000_000)))
    monkeypatch.setattr(window, "_STEP_ROWS", rng.choice((40, 16_384)))
    monkeypatch.setattr(window, "_STEP_BLOCKS_OF_FEW", rng.choice((20, 512)))
    monkeypatch.setattr(window, "_KEPT_ROWS", rng.choice((50, 65_536)))
    monkeypatch.setattr(compact, "LOOK_NS", 0)
    monkeypatch.setattr(writer, "_SNAPSHOT_NS", -1)
    told, real = Told(), commit.delete_folded
    async with opened(commit_interval_s=0.001) as store:
        series = [store.series("plc", str(n)) for n in range(6)]
        for turn in range(260):
            await send(store, told, rng, series, NOW_US + turn * SECOND_US)
            if turn > 5 and turn % 3 == 0:
                await compare(store, told, rng, series)
            if turn % 60 == 50:
                keeping_blocks(monkeypatch)
                await one_fold(store)
            elif turn % 60 == 5:
                monkeypatch.setattr(commit, "delete_folded", real)
            if turn % 40 == 30:
                number, from_us = rng.choice(series), NOW_US + (turn - 25) * SECOND_US
                await store.delete(number, "test", from_us, from_us + 9 * SECOND_US)
                told.forget(number, from_us, from_us + 9 * SECOND_US)
        assert store._writer.compactor.folds >= 4


async def test_a_block_is_unpacked_once_for_many_reads_of_few_series(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = []
    real = taking.Packed
    monkeypatch.setattr(taking, "Packed", lambda data, seq: unpacked.append(seq) or real(data, seq))
    async with opened() as store:
        series = [store.series("plc", str(n)) for n in range(20)]
        for n in range(70):
            await put(store, *((s, NOW_US + n * SECOND_US, n) for s in series))
        for s in series:
            assert [x.value for x in await everything(store, [s])] == list(range(70))
        assert len(unpacked) <= 75, "each block was unpacked once"
        await put(store, (series[0], NOW_US + 70 * SECOND_US, 70))
        assert len(await everything(store, series[:1])) == 71
        assert len(unpacked) <= 80


async def test_wide_reads_in_steps_unpack_a_chunk_once(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "_STEP_ROWS", 300)
    monkeypatch.setattr(compact, "LOOK_NS", 0)
    monkeypatch.setattr(writer, "_SNAPSHOT_NS", -1)
    unpacked = []
    real = taking.Stretch.of
    monkeypatch.setattr(
        taking.Stretch, "of", classmethod(lambda cls, s, columns: unpacked.append(s) or real(s, columns))
    )
    async with opened(**AT_ONCE) as store:
        series = [store.series("plc", str(n)) for n in range(10)]
        samples = [Sample(s, NOW_US + n * SECOND_US, n) for n in range(600) for s in series]
        await (await store.put(Batch.of(samples)))
        await put(store, (series[0], NOW_US + 1000 * SECOND_US, 0))
        await folded(store)
        assert (await everything(store, series))[: len(samples)] == samples
        assert 10 <= len(unpacked) <= 12


def test_the_memory_is_bounded_and_the_least_used_goes_first() -> None:
    kept: Memo[str] = Memo(100, 0)
    for key in "abcd":
        kept.put(key, key, 24)
    assert kept.get("a") == "a"
    kept.put("e", "e", 24)
    assert [key for key in "abcde" if kept.get(key)] == ["a", "c", "d", "e"]
    kept.put("large", "x", 26)
    assert kept.get("large") is None, "one read does not empty it"
    kept.put("a", "other", 10)
    kept.put("f", "f", 14)
    assert (kept.get("a"), kept.get("c")) == ("other", "c"), "what was replaced takes no room"


def test_what_is_in_use_is_not_given_up() -> None:
    kept: Memo[str] = Memo(100, 60)
    for key in "abcde":
        kept.put(key, key, 24)
    assert [key for key in "abcde" if kept.get(key)] == ["a", "b", "c", "d"]
    assert kept.has_room(4) and not kept.has_room(24)


def test_a_stretch_is_bit_for_bit_what_it_was_made_of() -> None:
    for values in ([1.5, -0.0, float("inf")], [1, -(2**63)], [2**64 - 1, 0], [True, 1, None, 1.0]):
        n = len(values)
        stretch = Stretch.of(3, (list(range(n)), values, [2**32 - 1] * n, [255] * n))
        part = merged([stretch], Batch())
        assert list(map(repr, part.values)) == list(map(repr, values))
        assert (part.ts, part.statuses, part.flags) == (list(range(n)), [2**32 - 1] * n, [255] * n)


@pytest.mark.parametrize("extra", range(4))
async def test_buckets_count_once_where_a_group_of_blocks_is_folded_in_part(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    monkeypatch.setattr(taking, "_GROUPS", (4, 2))
    monkeypatch.setattr(compact, "LOOK_NS", 0)
    monkeypatch.setattr(writer, "_SNAPSHOT_NS", -1)
    keeping_blocks(monkeypatch)
    async with opened(commit_interval_s=0.001) as store:
        s = store.series("plc", "a")
        for n in range(20 + extra):
            await put(store, (s, NOW_US + n, n))
            if n == 10 + extra:
                await one_fold(store)
        (bucket,) = await store.buckets([s], NOW_US, NOW_US + SECOND_US, 10**18)
        assert (bucket.n, store._writer.compactor.folds) == (20 + extra, 1)


async def test_buckets_of_many_readers_are_made_one_after_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    class Counted(reads.Folder):
        """Counts those that are there at the same time."""

        there = 0

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            Counted.there += 1
            made.append(Counted.there)

        def __del__(self) -> None:
            Counted.there -= 1

    monkeypatch.setattr(reads, "Folder", Counted)
    s = store.series("plc", "a")
    await put(store, *((s, NOW_US + n, float(n)) for n in range(100)))
    store._readers.room.limit_bytes = 3 * 100 * buckets.BUCKET_BYTES
    read = [store.buckets([s], NOW_US, NOW_US + 99, 1) for _ in range(10)]
    assert [len(found) for found in await asyncio.gather(*read)] == [100] * 10
    assert max(made) <= 3 + 2, "each of the two reader threads may still let go of one"
    assert store._readers.room.used_bytes == 0
