"""What is kept of the values that come."""

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Batch
from gateway.protocols.can.generated import FAILURE, NOT_AVAILABLE
from gateway.protocols.can.keeping import Keeper

FOR_EVER = 2**62


def kept(batch: Batch) -> list[tuple[int, Any]]:
    return [(sample.ts // 1000, sample.value) for sample in batch]


def taken(
    *values: tuple[int, Any], keep_ms: int = 1000, deadband: float = 0.0, until_ms: int | None = None
) -> list[tuple[int, Any]]:
    """Take (ms, value) at once; return what is kept as (ms, value)."""
    waiting: set[Keeper] = set()
    keeper, batch = Keeper(1, keep_ms * 1000, deadband, waiting), Batch()
    ms, column = zip(*values, strict=True)
    keeper.take(column, [each * 1000 for each in ms], 2, batch)
    assert (keeper in waiting) == bool(waiting)
    if until_ms is not None:
        keeper.release(until_ms * 1000, batch)
    assert set(batch.series) == {1} and set(batch.flags) == {2}
    return kept(batch)


def test_only_changes_are_kept() -> None:
    assert taken((0, 5), (1000, 5), (2000, 6), (3000, 6), (4000, 5)) == [(0, 5), (2000, 6), (4000, 5)]


def test_with_no_interval_every_frame_is_kept() -> None:
    assert taken((0, 5), (1, 5), (2, 6), keep_ms=0) == [(0, 5), (1, 5), (2, 6)]


def test_with_no_interval_but_a_deadband_only_changes_are_kept() -> None:
    assert taken((0, 5.0), (1, 5.1), (2, 6.0), (3, 6.0), keep_ms=0, deadband=0.5) == [(0, 5.0), (2, 6.0)]


def test_a_single_pulse_keeps_both_edges_with_their_times() -> None:
    assert taken((0, 0), (5000, 1), (5100, 0), (5200, 0), (7000, 0)) == [(0, 0), (5000, 1), (5100, 0)]


def test_what_keeps_changing_is_thinned_and_its_end_is_kept() -> None:
    values = [(ms, ms // 100) for ms in range(0, 3050, 100)]
    assert taken(*values, until_ms=5000) == [(0, 0), (900, 9), (1900, 19), (2900, 29), (3000, 30)]


def test_a_change_that_was_undone_while_it_waited_is_not_kept() -> None:
    assert taken((0, 1), (100, 2), (200, 1), until_ms=5000) == [(0, 1)]


def test_what_waits_keeps_the_time_of_its_change() -> None:
    assert taken((0, 1), (100, 2), (200, 2), (300, 2), until_ms=999) == [(0, 1)]
    assert taken((0, 1), (100, 2), (200, 2), (300, 2), until_ms=1000) == [(0, 1), (100, 2)]
    assert taken((0, 1), (100, 2), (200, 3), (300, 2), until_ms=1000) == [(0, 1), (300, 2)]


def test_an_interval_ends_when_it_is_over() -> None:
    keeper, batch = Keeper(1, 1_000_000, 0.0, set()), Batch()
    keeper.take((1,), [0], 0, batch)
    keeper.take((1, 2), [500_000, 1_000_000], 0, batch)
    assert kept(batch) == [(0, 1), (1000, 2)]


def test_a_deadband_counts_from_the_kept_value() -> None:
    creeping = [(1000 * n, 10 + n / 10) for n in range(12)]
    assert [value for _, value in taken(*creeping, deadband=0.45)] == pytest.approx([10.0, 10.5, 11.0])


def test_a_clock_that_is_set_back_does_not_silence_a_tag() -> None:
    assert taken((5_000_000, 1), (1000, 2), (1500, 3), (2500, 3)) == [(5_000_000, 1), (1000, 2), (1500, 3)]
    assert taken((5_000_000, 1), (5_000_100, 2), until_ms=1000) == [(5_000_000, 1), (5_000_100, 2)]


def test_no_number_is_like_no_number_and_like_nothing_else() -> None:
    nan = float("nan")
    rows = taken((0, nan), (2000, float("nan")), (4000, 1.0), (6000, nan), deadband=0.5)
    assert [(ms, str(value)) for ms, value in rows] == [(0, "nan"), (4000, "1.0"), (6000, "nan")]


def test_bad_values_are_kept_as_statuses_and_know_no_deadband() -> None:
    waiting: set[Keeper] = set()
    for keep_ms in (0, 1000):
        keeper, batch = Keeper(1, keep_ms * 1000, 0.0, waiting), Batch()
        column = (7, NOT_AVAILABLE, FAILURE, 7)
        keeper.take(column, [0, 2_000_000, 4_000_000, 6_000_000], 0, batch)
        assert [(s.value, s.status) for s in batch] == [
            (7, 0),
            (None, 0x809E0000),
            (None, 0x808C0000),
            (7, 0),
        ]
    assert taken((0, 7), (2000, NOT_AVAILABLE), (4000, NOT_AVAILABLE), deadband=100.0) == [
        (0, 7),
        (2000, None),
    ]


courses = st.lists(st.tuples(st.integers(1, 700), st.integers(0, 3)), min_size=1, max_size=60)


@given(courses, st.sampled_from([300, 1000]), st.integers(0, 10**6))
def test_any_course(steps: list[tuple[int, int]], keep_ms: int, seed: int) -> None:
    """No two samples are kept within the interval, each was there at its time, the last state is kept.

    And all is the same however the frames are cut into batches, and whenever what waits is asked for.
    """
    ts, values, at = [], [], 0
    for wait, value in steps:
        at += wait
        ts.append(at * 1000)
        values.append(value)
    rows = run(ts, values, keep_ms, [len(ts)])
    assert all(dict(zip(ts, values, strict=True))[t] == v for t, v in rows)
    assert all(a < b and x != y for (a, x), (b, y) in pairwise(rows))
    assert rows[-1][1] == values[-1]
    assert len(rows) <= 2 + (ts[-1] - ts[0]) / (keep_ms * 1000)
    rng = random.Random(seed)
    for _ in range(3):
        assert run(ts, values, keep_ms, [rng.randint(1, 9) for _ in ts], rng) == rows
    assert run(ts, values, keep_ms, [1] * len(ts)) == rows


def run(
    ts: list[int], values: list[int], keep_ms: int, sizes: list[int], rng: random.Random | None = None
) -> list[tuple[int, Any]]:
    waiting: set[Keeper] = set()
    keeper, batch, start = Keeper(1, keep_ms * 1000, 0.0, waiting), Batch(), 0
    for size in sizes:
        if start < len(ts):
            keeper.take(tuple(values[start : start + size]), ts[start : start + size], 0, batch)
            start += size
            if rng is not None and start < len(ts):
                keeper.release(rng.randint(ts[start - 1], ts[start]), batch)
    keeper.release(FOR_EVER, batch)
    assert not waiting
    return [(sample.ts, sample.value) for sample in batch]
