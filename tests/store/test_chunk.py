"""Chunks come back bit for bit, or not at all; their headers say what buckets need."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Value
from gateway.store import chunk
from gateway.store.columns import CorruptBlock
from gateway.store.values import same_value
from tests.store.test_codec import doubles, ints, values

pytestmark = pytest.mark.timeout(60)

decimal = st.integers(-(10**9), 10**9).flatmap(lambda n: st.integers(0, 8).map(lambda d: n / 10**d))
int64 = st.integers(-(2**63), 2**63 - 1)
columns = st.one_of(
    st.lists(decimal, min_size=1, max_size=60),
    st.lists(doubles, min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.lists(ints, min_size=1, max_size=60),
    st.lists(st.integers(-50, 50), min_size=1, max_size=300),
    st.lists(values, min_size=1, max_size=30),
)
times = st.one_of(
    st.lists(st.integers(-(2**62), 2**62), min_size=300, max_size=300),
    st.tuples(int64.map(lambda n: n // 4), st.integers(1, 10**9), st.integers(1, 10**6)).map(
        lambda t: [t[0] + n * t[1] + n * n % t[2] for n in range(300)]
    ),
)


@settings(max_examples=300, deadline=None)
@given(columns, times, st.integers(0, 2**31 - 1), st.data())
def test_every_chunk_comes_back_bit_for_bit(
    column: list[Value], ts: list[int], series: int, data: st.DataObject
) -> None:
    n = len(column)
    ts = sorted(ts)[:n]
    statuses = data.draw(st.just([0] * n) | st.lists(st.integers(0, 2**32 - 1), min_size=n, max_size=n))
    flags = data.draw(st.just([0] * n) | st.lists(st.integers(0, 255), min_size=n, max_size=n))
    header, back = chunk.decode(chunk.encode(series, ts, column, statuses, flags))
    assert (back.series, back.ts, back.statuses, back.flags) == ([series] * n, ts, statuses, flags)
    assert same_value(back.values, column)
    assert (header.series, header.n, header.t0, header.t1) == (series, n, ts[0], ts[-1])
    numbers = [
        v for v, s in zip(column, statuses, strict=True) if type(v) in (int, float) and not s >> 31 and v == v
    ]
    sums = header.bucket()
    if sums is not None:
        assert sums[3] == len(numbers)
        if numbers:
            assert sums[:2] == [min(numbers), max(numbers)]  # type: ignore[type-var]
            assert sums[2] == sum(numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "column", [[0.0, math.nan], [1.5, math.nan, 2.5], [1.0, math.inf, -math.inf], [math.nan]]
)
def test_what_is_no_number_among_numbers_comes_back(column: list[Value]) -> None:
    n = len(column)
    _, back = chunk.decode(chunk.encode(1, list(range(n)), column, [0] * n, [0] * n))
    assert same_value(back.values, column)


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_bit_may_differ(rng: random.Random) -> None:
    ts = [1_790_000_000_000_000 + n * 1_000_000 + rng.randrange(1000) * 1000 for n in range(100)]
    data = chunk.encode(7, ts, [round(rng.random(), 2) for _ in ts], [0] * 100, [0] * 100)
    broken = bytearray(data)
    broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    with pytest.raises(CorruptBlock):
        chunk.decode(bytes(broken))
    with pytest.raises(CorruptBlock):
        chunk.decode(data[: rng.randrange(len(data))])


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**63, 2**60, 1.5])
def test_a_header_says_nothing_that_it_does_not_know(value: Value) -> None:
    header, _ = chunk.decode(chunk.encode(1, [1, 2], [value, 3], [0, 0], [0, 0]))
    assert header.bucket() is None, "mixed, infinite or beyond what a double holds exactly"


@pytest.mark.parametrize("column", [None, 7, 1.5, "text", b""])
def test_what_a_damaged_row_holds_instead_is_a_damaged_chunk(column: object) -> None:
    for read in (chunk.decode_header, chunk.check, chunk.PackedChunk):
        with pytest.raises(CorruptBlock):
            read(column)  # type: ignore[operator]
