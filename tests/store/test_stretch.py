"""Stretches and loose samples become one batch: what a dict of them, sorted, gives."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Batch, Sample, Value
from gateway.store.stretch import Stretch, in_order, merged

times = st.integers(0, 30) | st.integers(-(2**62), 2**62)
series = st.integers(1, 4)
parts = st.lists(st.tuples(series, st.lists(times, min_size=1, max_size=12, unique=True)), max_size=6)
loose = st.lists(st.tuples(series, times), max_size=12)


def sample(number: int, ts: int) -> Sample:
    """Return what a key stands for, wherever it is found; each series has values of other types."""
    value: Value = (ts / 7, ts, f"text {ts}", [1.5, None, True, ts][ts % 4])[number - 1]  # type: ignore[assignment]
    return Sample(number, ts, value, 2**31 * (ts % 5 == 0), ts % 3)


def stretch(number: int, ts: list[int]) -> Stretch:
    columns = Batch.of(sample(number, each) for each in sorted(ts)).columns()
    return Stretch.of(number, columns[1:])


@settings(max_examples=150, deadline=None)
@given(parts, loose)
def test_one_of_each_key_comes_in_order(
    some: list[tuple[int, list[int]]], others: list[tuple[int, int]]
) -> None:
    keys = {(at, number) for number, ts in some for at in ts} | {(at, number) for number, at in others}
    right = [sample(number, at) for at, number in sorted(keys)]
    found = merged([stretch(*part) for part in some], Batch.of(sample(*key) for key in others))
    assert list(map(repr, found)) == list(map(repr, right))


@settings(max_examples=60, deadline=None)
@given(parts.filter(bool), st.data())
def test_a_cut_is_a_slice(some: list[tuple[int, list[int]]], data: st.DataObject) -> None:
    number, ts = some[0]
    start = data.draw(st.integers(0, len(ts) - 1))
    end = data.draw(st.integers(start + 1, len(ts) + 3))
    found = merged([stretch(number, ts).cut(start, end)], Batch())
    assert list(found) == [sample(number, at) for at in sorted(ts)[start:end]]


def test_of_one_key_the_last_that_was_there_is_kept() -> None:
    batch = Batch([1, 1, 2, 1], [5, 3, 5, 5], ["first", 0, 0, "last"], [0] * 4, [0] * 4)
    assert list(in_order(batch)) == [Sample(1, 3, 0), Sample(1, 5, "last"), Sample(2, 5, 0)]
