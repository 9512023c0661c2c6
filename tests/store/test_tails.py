"""A source clock that stands still: thousands of samples under one key, each of them moved."""

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model import Batch, Flag, Sample
from gateway.store import Store, StoreSettings, late, tails
from gateway.store.blocks import overlapping
from tests.store.conftest import NOW_US, MovableClock, Opener
from tests.store.folding import AT_ONCE, eager, folded
from tests.store.reading import everything, put

_LONG = 10_000


class Looks:
    """Counts how often the writer looks samples up in the blocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        monkeypatch.setattr(late, "overlapping", self._overlapping)

    def _overlapping(self, *window: object) -> Iterator[tuple[int, bytes]]:
        self.n += 1
        return overlapping(*window)  # type: ignore[arg-type]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


async def _stand_still(store: Store, series: int, count: int) -> None:
    """Store what a clock that stood still for so many samples has left."""
    rows = (Sample(series, NOW_US + n, float(n), 0, Flag.MOVED if n else 0) for n in range(count))
    assert await (await store.put(Batch.of(rows))) == (count, 0, 0)


async def _is_contiguous(store: Store, series: int, count: int) -> None:
    found = await everything(store, [series])
    assert [x.ts for x in found] == list(range(NOW_US, NOW_US + count))
    assert [x.flags for x in found] == [0] + [Flag.MOVED] * (count - 1)


async def test_where_the_moved_ones_end_is_looked_up_once(store: Store, looks: Looks) -> None:
    s, t = store.series("plc", "a"), store.series("plc", "b")
    rows = [(series, NOW_US, value) for value in range(100) for series in (s, t)]
    assert await put(store, *rows) == (2, 0, 198)
    before = looks.n
    for value in range(100, 130):
        assert await put(store, (s, NOW_US, value), (t, NOW_US, value)) == (0, 0, 2)
        assert await put(store, (s, NOW_US, value - 99), (t, NOW_US, 0)) == (0, 2, 0)
    assert looks.n == before
    await _is_contiguous(store, s, 130)
    await _is_contiguous(store, t, 130)


@pytest.mark.parametrize("fold", [False, True])
async def test_a_long_standstill_is_looked_through_in_few_steps_after_a_restart(
    opened: Opener, looks: Looks, monkeypatch: pytest.MonkeyPatch, fold: bool
) -> None:
    if fold:
        eager(monkeypatch)
    async with opened(**AT_ONCE if fold else {}) as store:
        s = store.series("plc", "a")
        await _stand_still(store, s, _LONG)
        if fold:
            await put(store, (store.series("plc", "b"), NOW_US, 1))
            await folded(store)
    async with opened() as store:
        assert await put(store, (s, NOW_US, -1.0)) == (0, 0, 1)
        assert looks.n == 5, "at the key, 8 and 32 after it, 4096, and up to four times as many"
        near, beyond = (s, NOW_US, 4096.0), (s, NOW_US, 4097.0)
        assert await put(store, near, (s, NOW_US, 0.0), (s, NOW_US, 17.0)) == (0, 3, 0)
        assert await put(store, beyond, (s, NOW_US, -1.0)) == (0, 0, 2), "these are compared no more"
        assert looks.n == 5
        await _is_contiguous(store, s, _LONG + 3)


async def test_a_long_look_tells_that_it_goes_on_and_holds_little(opened: Opener) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await _stand_still(store, s, 30_000)
        turns = []
        turned = store._writer._turned
        store._writer._turned = lambda: turned() or turns.append(1)  # type: ignore[method-assign]
        tracemalloc.start()
        try:
            assert await put(store, (s, NOW_US, -1.0)) == (0, 0, 1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 5_000_000
        assert len(turns) > 30_000 / 8192
        await _is_contiguous(store, s, 30_001)


@pytest.mark.parametrize("remembered", [False, True])
async def test_a_sample_of_its_own_time_behind_the_moved_ones_stays_alone_there(
    store: Store, remembered: bool
) -> None:
    s = store.series("plc", "a")
    await _stand_still(store, s, 100)
    own, moved = (s, NOW_US + 103, 7), (s, NOW_US, -1.0)
    for row in (moved, own) if remembered else (own, moved):
        await put(store, row)
    assert await put(store, *((s, NOW_US, value) for value in range(200, 206))) == (0, 0, 6)
    found = await everything(store, [s])
    assert [x.ts - NOW_US for x in found] == list(range(108))
    assert [x.value for x in found[100:]] == [-1.0, 200, 201, 7, 202, 203, 204, 205]


async def test_what_was_deleted_is_new_again(store: Store) -> None:
    s = store.series("plc", "a")
    await _stand_still(store, s, 100)
    assert await put(store, (s, NOW_US, -1.0)) == (0, 0, 1)
    await store.delete(s, "technician")
    assert await put(store, (s, NOW_US, -1.0), (s, NOW_US, 5.0)) == (1, 0, 1)
    assert [x.value for x in await everything(store, [s])] == [-1.0, 5.0]


async def test_more_than_can_be_remembered_is_kept_without_a_look(
    store: Store, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "_SEEN", 150)
    s, t = store.series("plc", "a"), store.series("plc", "b")
    for series in (s, t):
        await _stand_still(store, series, 100)
        assert await put(store, (series, NOW_US, -1.0)) == (0, 0, 1)
    before = looks.n
    assert await put(store, (s, NOW_US, 7.0), (t, NOW_US, 7.0)) == (0, 1, 1)
    assert await put(store, (s, NOW_US, 101.0), (t, NOW_US, 101.0)) == (0, 0, 2)
    assert looks.n == before
    await _is_contiguous(store, t, 103)


samples = st.tuples(
    st.integers(1, 2), st.integers(-2, 4), st.sampled_from([0, 1, True, 1.0, -0.0, 0.0, None, "x" * 20, [1]]),
    st.sampled_from([0, 5]),
)  # fmt: skip
batches = st.lists(st.lists(samples, min_size=1, max_size=12), min_size=1, max_size=6)


@pytest.mark.timeout(60)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches, st.integers(1, 6), st.randoms(use_true_random=False))
async def test_with_short_looks_too_nothing_is_lost_or_kept_twice(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    history: list[list[tuple[int, int, object, int]]],
    width_us: int,
    rng: random.Random,
) -> None:
    """As of any history in test_keys.py, where tails are looked for at once, and in steps of a few."""
    monkeypatch.setattr(late, "_REACHES", (0, 1))
    monkeypatch.setattr(tails, "_LOOKED_AT_US", width_us)
    folder: Path = tmp_path_factory.mktemp("tails")
    async with Store.open(folder, StoreSettings(commit_interval_s=0.001), MovableClock()) as store:
        for tag in "ab":
            store.series("plc", tag)
        sent = [(s, NOW_US + t, value, status) for batch in history for s, t, value, status in batch]
        for batch in history:
            await put(store, *((s, NOW_US + t, value, status) for s, t, value, status in batch))
        stored = await everything(store, [1, 2])
        assert len({(x.series, x.ts) for x in stored}) == len(stored)
        rng.shuffle(sent)
        assert await put(store, *sent) == (0, len(sent), 0)
    async with Store.open(folder, StoreSettings(commit_interval_s=0.001), MovableClock()) as store:
        assert await put(store, *sent) == (0, len(sent), 0)
        assert await everything(store, [1, 2]) == stored
    for s, t, value, status in sent:
        assert any(
            x.series == s and repr(x.value) == repr(value) and x.status == status
            and (x.ts == t or (x.ts > t and x.flags & Flag.MOVED))
            for x in stored
        )  # fmt: skip
