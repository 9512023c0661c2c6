"""The key (device, tag, ts): one sample, moved ones, implausible ones, in any order, over restarts."""

import math
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model import Batch, Flag, Sample
from gateway.store import Store, StoreSettings
from tests.store.conftest import DAY_US, NOW_US, MovableClock, Opener
from tests.store.reading import everything, put


async def test_newer_is_new_and_equal_is_the_same(store: Store) -> None:
    s = store.series("plc", "a")
    assert await put(store, (s, NOW_US, 1.0), (s, NOW_US + 1, 1.0), (s, NOW_US, 1.0)) == (2, 1, 0)
    assert await put(store, (s, NOW_US, 1.0), (s, NOW_US - 1, 1.0), (s, NOW_US + 2, 3.0)) == (2, 1, 0)
    assert [(x.ts - NOW_US, x.value) for x in await everything(store, [s])] == [
        (-1, 1.0),
        (0, 1.0),
        (1, 1.0),
        (2, 3.0),
    ]


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), (0.0, -0.0), (None, 0), ("", b""), ([], [[]]), (math.nan, 0.0)]
)
async def test_another_value_under_the_same_key_is_moved_once(
    opened: Opener, one: object, other: object
) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        assert await put(store, (s, NOW_US, one)) == (1, 0, 0)
        assert await put(store, (s, NOW_US, other)) == (0, 0, 1)
        assert await put(store, (s, NOW_US, other), (s, NOW_US, one)) == (0, 2, 0)
    async with opened() as store:
        assert await put(store, (s, NOW_US, other), (s, NOW_US, one)) == (0, 2, 0)
        first, second = await everything(store, [s])
        assert (first.ts, first.flags, second.ts, second.flags) == (NOW_US, 0, NOW_US + 1, Flag.MOVED)
        assert store.state().counters["moved"] == 0


async def test_another_status_is_moved_and_a_taken_microsecond_is_passed_over(store: Store) -> None:
    s = store.series("plc", "a")
    rows = [(s, NOW_US, 1), (s, NOW_US + 1, 7), (s, NOW_US, 1, 5), (s, NOW_US, 2), (s, NOW_US + 1, 8)]
    assert await put(store, *rows) == (2, 0, 3)
    stored = await everything(store, [s])
    assert [(x.ts - NOW_US, x.value, x.status, x.flags) for x in stored] == [
        (0, 1, 0, 0), (1, 7, 0, 0), (2, 1, 5, Flag.MOVED), (3, 2, 0, Flag.MOVED), (4, 8, 0, Flag.MOVED),
    ]  # fmt: skip
    for _ in range(5):
        random.shuffle(rows)
        assert await put(store, *rows) == (0, 5, 0)
    assert await everything(store, [s]) == stored


async def test_many_values_under_one_key(store: Store) -> None:
    s = store.series("plc", "a")
    rows = [(s, NOW_US, value) for value in range(300)]
    assert await put(store, *rows) == (1, 0, 299)
    random.shuffle(rows)
    assert await put(store, *rows) == (0, 300, 0)


async def test_a_time_in_the_far_future_does_not_raise_the_newest(
    opened: Opener, clock: MovableClock
) -> None:
    far = NOW_US + 400 * DAY_US
    async with opened() as store:
        s = store.series("plc", "a")
        assert await put(store, (s, NOW_US, 1), (s, far, 9), (s, NOW_US + 1, 2)) == (3, 0, 0)
        assert await put(store, (s, far, 9), (s, far, 8), (s, NOW_US + 2, 3)) == (1, 1, 1)
        assert store.last(s) == Sample(s, NOW_US + 2, 3)
        assert store.state().counters["implausible"] == 2
    async with opened() as store:
        assert store.last(s) == Sample(s, NOW_US + 2, 3)
        assert await put(store, (s, far, 9), (s, far, 8), (s, NOW_US + 3, 4), (s, far - 1, 7)) == (2, 2, 0)
        clock.wall = far + 1000  # time has come: what was implausible is looked up all the same
        assert await put(store, (s, far, 9), (s, far + 500, 5), (s, far - 1, 7), (s, far, 8)) == (1, 3, 0)
        assert store.last(s) == Sample(s, far + 500, 5)
        flags = [x.flags & Flag.IMPLAUSIBLE for x in await everything(store, [s], from_us=far - 1)]
        assert flags == [8, 8, 8, 0]


async def test_a_time_of_long_ago_is_flagged(store: Store) -> None:
    s = store.series("plc", "a")
    await put(store, (s, NOW_US - 3700 * DAY_US, 1), (s, NOW_US - 3600 * DAY_US, 2))
    assert [x.flags for x in await everything(store, [s])] == [Flag.IMPLAUSIBLE, 0]


async def test_a_box_that_boots_in_1970_loses_and_doubles_nothing(
    opened: Opener, clock: MovableClock
) -> None:
    clock.wall, clock.synced = 60_000_000, False
    rows = [(1, NOW_US + n * 1000, n) for n in range(500)]
    async with opened() as store:
        assert store.series("plc", "a") == 1
        assert await put(store, *rows) == (500, 0, 0)
    async with opened() as store:
        clock.wall, clock.synced = NOW_US + 10_000_000, True
        later = [(1, NOW_US + n * 1000, n) for n in range(400, 600)]
        random.shuffle(later)
        assert await put(store, *later) == (100, 100, 0)
        assert await put(store, *rows) == (0, 500, 0)


keys = st.tuples(
    st.integers(1, 3), st.integers(-3, 6), st.sampled_from([0, 1, True, 1.0, None]), st.sampled_from([0, 5])
)
steps = st.lists(st.lists(keys, min_size=1, max_size=8), min_size=1, max_size=5)


@pytest.mark.timeout(60)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.randoms(use_true_random=False))
async def test_any_history_sent_again_in_any_order_adds_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[list[tuple[int, int, object, int]]],
    rng: random.Random,
) -> None:
    """And every distinct (series, value, status) sent under a key is there, at it or moved after it."""
    folder: Path = tmp_path_factory.mktemp("keys")
    async with Store.open(folder, StoreSettings(commit_interval_s=0.001), MovableClock()) as store:
        for tag in "abc":
            store.series("plc", tag)
        sent = []
        for batch in history:
            rows = [(s, NOW_US + t, value, status) for s, t, value, status in batch]
            added, same, moved = await put(store, *rows)
            assert added + same + moved == len(rows)
            sent += rows
        stored = await everything(store, [1, 2, 3])
    assert len({(x.series, x.ts) for x in stored}) == len(stored)
    for s, t, value, status in sent:
        assert any(
            x.series == s and type(x.value) is type(value) and x.value == value and x.status == status
            and (x.ts == t or (x.ts > t and x.flags & Flag.MOVED))
            for x in stored
        )  # fmt: skip
    async with Store.open(folder, StoreSettings(commit_interval_s=0.001), MovableClock()) as store:
        rng.shuffle(sent)
        ticket = await store.put(Batch.of(Sample(*row) for row in sent))
        assert await ticket == (0, len(sent), 0)
        assert await everything(store, [1, 2, 3]) == stored
