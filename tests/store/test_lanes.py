"""What is done to all at once comes to the same as one by one: lanes, strides, batches of known series."""

import random
from array import array
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.model import Batch, Value
from gateway.store import lanes, planes
from gateway.store.codec import BlockHeader, Kind, decode, encode
from gateway.store.columns import Source
from gateway.store.columns_of_fold import Column, Sorter, ordered, sort_in
from gateway.store.newest import Newest
from gateway.store.values import Checked, checked, cut_out, joined, packed, same_value
from tests.store.conftest import NOW_US

pytestmark = pytest.mark.timeout(60)

edges = st.sampled_from(
    [0, 1, -1, 127, 128, -128, -129, 2**31, -(2**31), 2**38, 2**53 - 1, -(2**53) + 1, 2**53]
)
seeds = st.integers(0, 2**64 - 1)
units = st.sampled_from([1, 2, 3, 7, 1000, 1_000_000, 2**24 - 1, 2**24, 2**24 + 1])
small = st.lists(st.integers(-300, 300), min_size=3, max_size=200)
walks = st.tuples(small, units, st.integers(-(2**62), 2**62), st.integers(-1000, 1000)).map(
    lambda t: [t[2] + n * t[1] + place * t[3] * t[1] for place, n in enumerate(t[0])]
)
numbers = walks | st.lists(edges | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=80)


@settings(max_examples=500, deadline=None)
@given(numbers, st.lists(st.tuples(st.integers(0, 200), edges), max_size=2))
def test_integers_come_back_whatever_a_few_of_them_are(
    column: list[int], strays: list[tuple[int, int]]
) -> None:
    """The shape is chosen by some: strays between them must be found out."""
    for place, stray in strays:
        column[place % len(column)] = stray
    for given_as in (column, array("q", column)):
        source = Source(planes.encode_integers(given_as))
        assert planes.decode_integers(source, len(column)).tolist() == column
        source.end()


@settings(max_examples=300, deadline=None)
@given(small, units, st.integers(-(2**40), 2**40), st.sampled_from(["plain", "steps", "even"]))
def test_lanes_do_hold_what_is_small(rests: list[int], unit: int, offset: int, kind: str) -> None:
    column = [offset + rest * unit for rest in rests]
    if kind == "steps":
        column = [offset + sum(rests[: place + 1]) * unit for place in range(len(rests))]
    if kind == "even":
        column = [place * 10**7 * unit + number for place, number in enumerate(column)]
    assume(max(map(abs, column)) < 2**53 and 600 * unit < 2**30)
    n = len(column)
    found = lanes.shape(lanes.of_integers(packed("q", column)), n, column.__getitem__, 10**7 * unit)
    assert found is not None and lanes.shape(-1, n, column.__getitem__, 0) is None


@pytest.mark.parametrize("unit", [2, 1000, 2**23, 2**24, 2**40, 2**50])
@pytest.mark.parametrize("stray", [1, -1, 2**32, 2**60])
def test_one_that_is_no_multiple_is_found_out(unit: int, stray: int) -> None:
    column = [place * place % 97 * unit for place in range(300)]
    for place in (100, 101, 298, 299):
        other = [*column[:place], column[place] + stray, *column[place + 1 :]]
        assert planes.decode_integers(Source(planes.encode_integers(other)), 300).tolist() == other


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**51) + 1, 2**51 - 1) | st.integers(-200, 200), min_size=1, max_size=200))
def test_whole_doubles_come_back(column: list[int]) -> None:
    source = Source(planes.encode_wholes(list(map(float, column))))
    assert planes.decode_integers(source, len(column)).tolist() == column


def _blocks(rng: random.Random) -> list[Batch]:
    """Make the blocks of a plant: mostly the same series in the same order, of types that mostly stay."""
    kinds: list[type] = [rng.choice((float, int, bool, type(None), str)) for _ in range(6)]
    if rng.random() < 0.7:
        kinds = [kind if kind is not str else float for kind in kinds]
    batches, order = [], rng.sample(range(1, 7), rng.randrange(1, 7))
    for second in range(rng.randrange(1, 30)):
        if rng.random() < 0.1:
            order = [rng.randrange(1, 7) for _ in range(rng.randrange(1, 9))]
        batch = Batch()
        for series in order:
            kind = kinds[series - 1] if rng.random() < 0.98 else rng.choice((float, int))
            ts = NOW_US + second * 1_000_000 + rng.choice((0, rng.randrange(-2_000_000, 10**6)))
            status, flags = rng.choice([(0, 0)] * 9 + [(2**31, 3)])
            batch.add(series, ts, _value(kind, rng), status, flags)
        batches.append(batch)
    return batches


def _value(kind: type, rng: random.Random) -> Value:
    if kind is float:
        return rng.choice((rng.gauss(0, 1), round(rng.random(), 2), -0.0, float("nan")))
    if kind is int:
        return rng.choice((rng.randrange(-9, 9), rng.randrange(-(2**63), 2**63), 2**63 + rng.randrange(9)))
    return {bool: rng.random() < 0.5, str: "text"}.get(kind)


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_blocks_taken_apart_by_strides_or_one_by_one_are_the_same(seed: int) -> None:
    rng = random.Random(seed)
    batches = _blocks(rng)
    one_by_one: dict[int, Column] = {}
    sorter = Sorter()
    for seq, batch in enumerate(batches):
        sort_in(batch, one_by_one)
        sorter.add(encode(BlockHeader(Kind.SAMPLES, seq, bytes(16), 0, 0, 1), batch))
        if rng.random() < 0.2:
            sorter.sort()
    sorter.sort()
    assert sorter.columns.keys() == one_by_one.keys()
    assert sorter.longest == max(len(column.ts) for column in one_by_one.values())
    for series, column in one_by_one.items():
        ts, values, statuses, flags = map(list, ordered(sorter.columns[series]))
        wanted = tuple(map(list, ordered(column)))
        assert (ts, statuses, flags) == (wanted[0], wanted[2], wanted[3])
        assert same_value(values, wanted[1])  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_batches_joined_and_cut_are_packed_as_a_whole_one_is(seed: int) -> None:
    rng = random.Random(seed)
    batches, whole = _blocks(rng), Batch()
    for batch in batches:
        whole.extend(batch)
    header = BlockHeader(Kind.SAMPLES, 1, bytes(16), 0, 0, 1)
    together = joined([checked(batch) for batch in batches])
    assert _same(decode(encode(header, together))[1], whole)
    start = rng.randrange(len(whole))
    end = rng.randrange(start, len(whole)) + 1
    some = cut_out(together, start, end)
    wanted = whole.part(start, end)
    assert _same(decode(encode(header, some))[1], wanted)
    assert (some.t0, some.t1) == (min(wanted.ts), max(wanted.ts))


def _same(one: Batch, other: Batch) -> bool:
    return one.columns()[:2] + one.columns()[3:] == other.columns()[:2] + other.columns()[3:] and same_value(
        one.values, other.values
    )


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_the_newest_are_known_however_batches_come(seed: int) -> None:
    """Against a plain dict: series that recur, overlap, change order, come twice, hold texts."""
    rng = random.Random(seed)
    newest, model = Newest(), dict[int, tuple[int, Value]]()
    layouts = [rng.sample(range(1, 9), rng.randrange(1, 6)) for _ in range(3)] + [[1, 2, 1]]
    now = 0
    for _ in range(rng.randrange(1, 40)):
        batches: list[Checked] = []
        for _ in range(rng.randrange(1, 3)):
            batch, layout = Batch(), rng.choice(layouts)
            for series in layout:
                now += 1
                batch.add(series, now, "text" if rng.random() < 0.02 else now * 0.5)
            batches.append(checked(batch))
        assert all(len(set(held.series)) == len(held) for held in newest.recent.values())
        if newest.recent and rng.random() < 0.5:
            held = rng.choice(list(newest.recent.values()))
            assert newest.follows([replace(held, t0=held.t1 + 1, t1=held.t1 + 2)])
            assert not newest.follows([replace(held, t0=held.t1, t1=held.t1 + 2)])
            twice = [replace(held, t0=held.t1 + at, t1=held.t1 + 2) for at in (1, 2)]
            assert not newest.follows(twice), "the second does not come after the first"
        change = Newest(newer=tuple(batches))
        if rng.random() < 0.1:
            newest = newest.after(change)
        else:
            newest.merge(change)
        for batch in batches:
            model.update((series, (ts, value)) for series, ts, value, *_ in batch)
        for series, (ts, value) in model.items():
            sample = newest.get(series)
            assert sample is not None and (sample.ts, sample.value) == (ts, value)
        if rng.random() < 0.1:
            assert {s: (row[1], row[2]) for s, row in newest.last.items()} == model
    assert newest.own_us == 0
