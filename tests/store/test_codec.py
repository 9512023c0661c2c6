"""Blocks come back bit for bit, or not at all."""

import math
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Batch, Value
from gateway.store.codec import (
    HEADER_BYTES,
    MAGIC,
    BlockHeader,
    CorruptBlock,
    Kind,
    Packed,
    decode,
    encode,
)
from gateway.store.values import Unfit, checked, same_value
from gateway.store.zstd import pack

pytestmark = pytest.mark.timeout(60)  # many examples, and other processes on the box

HEADER = BlockHeader(Kind.SAMPLES, 7, bytes(range(16)), 123, -5, 1)

ints = st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0, 1, -1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
doubles = st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack("<d", raw)[0]) | st.sampled_from(
    [0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, struct.unpack("<d", b"\x01\0\0\0\0\0\xf0\x7f")[0]]
)
texts = st.text(st.characters(exclude_categories=[])) | st.sampled_from(
    ["", "\0", "\ud800", "a\0b", "\U0010ffff"]
)
scalars = st.none() | st.booleans() | ints | doubles | texts | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=20)
rows = st.tuples(
    st.integers(0, 2**31 - 1),
    st.integers(-(2**62), 2**62),
    values,
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
)


def batch_of(samples: list[tuple[int, int, Value, int, int]]) -> Batch:
    batch = Batch()
    for sample in samples:
        batch.add(*sample)
    return batch


def identical(one: Batch, other: Batch) -> bool:
    return (
        one.series == other.series
        and one.ts == other.ts
        and one.statuses == other.statuses
        and one.flags == other.flags
        and same_value(one.values, other.values)
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, max_size=40))
def test_every_value_comes_back_bit_for_bit(samples: list[tuple[int, int, Value, int, int]]) -> None:
    batch = batch_of(samples)
    checked(batch)  # fit to be stored
    data = encode(HEADER, batch)
    header, back = decode(data)
    assert identical(back, batch)
    assert (header.seq, header.boot, header.mono_ns, header.wall_us, header.n) == (
        7,
        HEADER.boot,
        123,
        -5,
        len(batch),
    )
    assert (Packed(data).series, Packed(data).ts) == (batch.series, batch.ts)
    assert data.startswith(MAGIC)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, max_size=10), st.lists(values, max_size=10))
def test_same_value_is_identity_of_what_is_stored(one: list[Value], other: list[Value]) -> None:
    def stored(value: Value) -> bytes:
        return encode(HEADER, batch_of([(1, 1, value, 0, 0)]))

    assert same_value(one, one)
    assert same_value(one, other) == (stored(one) == stored(other))


def test_one_true_and_one_point_zero_are_three_values() -> None:
    _, back = decode(
        encode(HEADER, batch_of([(1, t, v, 0, 0) for t, v in enumerate([1, True, 1.0, [1, True, 1.0]])]))
    )
    assert [type(value) for value in back.values] == [int, bool, float, list]
    assert [type(item) for item in back.values[3]] == [int, bool, float]  # type: ignore[union-attr]


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, min_size=1, max_size=10), st.data())
def test_a_changed_bit_is_never_a_value(
    samples: list[tuple[int, int, Value, int, int]], data: st.DataObject
) -> None:
    block = bytearray(encode(HEADER, batch_of(samples)))
    place = data.draw(st.integers(0, len(block) * 8 - 1))
    block[place // 8] ^= 1 << place % 8
    with pytest.raises(CorruptBlock):
        decode(bytes(block))


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, min_size=1, max_size=10), st.data())
def test_cut_or_lengthened_blocks_are_refused(
    samples: list[tuple[int, int, Value, int, int]], data: st.DataObject
) -> None:
    block = encode(HEADER, batch_of(samples))
    cut = data.draw(st.integers(0, len(block) - 1))
    for bad in (block[:cut], block + b"\0", block[cut + 1 :]):
        with pytest.raises(CorruptBlock):
            decode(bad)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**20), st.integers(0, 3))
def test_any_body_under_a_right_checksum_raises_or_gives_columns_of_its_length(
    raw: bytes, n: int, few: int
) -> None:
    """What no encoder wrote, but with a checksum that holds: bounded, and never anything but CorruptBlock."""
    body = pack(raw)
    head = struct.pack(
        "<4sBBBBIIQ16sQqIqq", MAGIC, 1, 1, 2, 1, len(body), len(raw), 7, bytes(16), 0, 0, few or n, 0, 0
    )
    block = head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body
    assert len(head) + 4 == HEADER_BYTES
    try:
        header, batch = decode(block)
    except CorruptBlock:
        return
    assert {len(column) for column in batch.columns()} == {header.n}


@pytest.mark.parametrize(
    "value", [2**64, -(2**63) - 1, {1}, 1j, object(), bytearray(b"x"), [[2**64]], "x" * 2**25]
)
def test_what_cannot_be_stored_is_told(value: object) -> None:
    with pytest.raises(Unfit, match="its value"):
        checked(Batch([1], [1], [value], [0], [0]))  # type: ignore[list-item]


def test_nesting_is_bounded() -> None:
    deep: Value = 1
    for _ in range(16):
        deep = [deep]
    assert identical(
        decode(encode(HEADER, batch_of([(1, 1, deep, 0, 0)])))[1], batch_of([(1, 1, deep, 0, 0)])
    )
    checked(Batch([1], [1], [deep], [0], [0]))
    with pytest.raises(Unfit, match="nested deeper than 16"):
        checked(Batch([1], [1], [[deep]], [0], [0]))


def test_times_at_both_ends_of_what_is_allowed_are_kept() -> None:
    moved = 2**62 + 2**40
    for ts in (
        [-(2**62), 2**62, 0], [2**62, -(2**62), 0], [-(2**62), 2**62, -(2**62)], [moved],
        [-(2**62), 2**62, moved],
    ):  # fmt: skip
        batch = batch_of([(1, when, n, 0, 0) for n, when in enumerate(ts)])
        assert identical(decode(encode(HEADER, batch))[1], batch)
