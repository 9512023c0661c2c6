"""Every kind of value from `put` to `samples`, and what cannot be stored."""

import math
import struct
from collections.abc import Sequence

import pytest

from gateway.model import Batch, Sample, Value
from gateway.store import Store
from gateway.store.values import FIRST_TS, LAST_TS, same_value
from tests.store.conftest import NOW_US, Opener
from tests.store.folding import AT_ONCE, eager, folded
from tests.store.reading import everything, put

NASTY: Sequence[Value] = [
    0.0, -0.0, math.inf, -math.inf, math.nan, struct.unpack("<d", b"\x01\0\0\0\0\0\xf4\x7f")[0], 5e-324,
    1, True, 1.0, False, 0, None, -(2**63), 2**63 - 1, 2**63, 2**64 - 1,
    "", "\0", "a\0b", "\ud800", "ü" * 500_000, b"", b"\0\xff",
    [], [1, 1.0, True, None, "x", b"y", [2**64 - 1, []]], [[[]]], list(range(5000)),
]  # fmt: skip


async def test_every_value_is_stored_bit_for_bit_also_over_a_restart(opened: Opener) -> None:
    async with opened() as store:
        series = store.series("plc", "nasty")
        batch = Batch()
        for place, value in enumerate(NASTY):
            batch.add(series, NOW_US + place, value, 0x80340000 + place, place % 3)
        assert await (await store.put(batch)) == (len(NASTY), 0, 0)
        assert await (await store.put(batch)) == (0, len(NASTY), 0)
    async with opened() as store:
        found = await everything(store, [series])
        assert len(found) == len(NASTY)
        for sample, expected in zip(found, batch, strict=True):
            assert sample[:2] == expected[:2] and sample[3:] == expected[3:]
            assert same_value(sample.value, expected.value), (sample.value, expected.value)
        assert await (await store.put(batch)) == (0, len(NASTY), 0)


@pytest.mark.parametrize("ts", [-(2**62), -1, 0, -62_135_596_800_000_000, 2**62])
async def test_any_time_is_kept_as_given(store: Store, ts: int) -> None:
    series = store.series("plc", "old")
    assert await put(store, (series, ts, 1.5)) == (1, 0, 0)
    assert await put(store, (series, ts, 1.5)) == (0, 1, 0)
    (found,) = await everything(store, [series])
    assert (found.ts, found.value) == (ts, 1.5)


async def test_a_sample_moved_past_the_last_time_harms_nobody(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands among the newest samples, which the snapshot of each commit here writes."""
    eager(monkeypatch)
    rows = [(1, LAST_TS, 1.0), (1, LAST_TS, 2.0), (1, FIRST_TS, 3.0)]
    async with opened(**AT_ONCE) as store:
        assert (store.series("pusher", "t"), store.series("press", "speed")) == (1, 2)
        assert await put(store, *rows) == (2, 0, 1)
        assert await put(store, (2, NOW_US, 1.0)) == (1, 0, 0)
        await folded(store)
    async with opened(**AT_ONCE) as store:
        assert await put(store, *rows, (2, NOW_US + 1, 1.0)) == (1, 3, 0)
        times = [sample.ts for sample in await everything(store, [1])]
        assert times == [FIRST_TS, LAST_TS, LAST_TS + 1]
        await store.delete(1, "technician")
        assert await everything(store, [1]) == []


async def test_what_cannot_be_stored_is_a_gap_and_harms_no_neighbour(store: Store) -> None:
    good, bad = store.series("plc", "good"), store.series("plc", "bad")
    deep: Value = 1
    for _ in range(17):
        deep = [deep]
    rows = [
        (good, NOW_US, 1.0),
        (bad, NOW_US, 2**64),
        (good, NOW_US + 1, 2.0),
        (bad, NOW_US, {1}),
        (bad, 2**63, 1),
    ]
    rows += [(bad, NOW_US, deep), (bad, NOW_US, 1, -1), (bad, NOW_US, 2**70), (bad, NOW_US, 2**70)]
    assert await put(store, *rows) == (2, 0, 0)
    await store.flush()
    assert [sample.value for sample in await everything(store, [good, bad])] == [1.0, 2.0]
    gaps = [gap for _, gap in await store.gaps(device="plc")]
    assert sorted(gap.count or 0 for gap in gaps) == [1, 1, 1, 2, 2]
    assert all("tag bad of plc" in gap.reason for gap in gaps)
    reasons = " | ".join(gap.reason for gap in gaps)
    for word in (
        "outside the 64-bit integers",
        "type set",
        "nested deeper than 16",
        "not integers of their size",
    ):
        assert word in reasons
    assert store.state().counters["refused"] == 7


async def test_last_is_known_after_commit_only(store: Store) -> None:
    series = store.series("plc", "speed", "rpm")
    ticket = await store.put(Batch.of([Sample(series, NOW_US, 1.0)]))
    assert store.last(series) is None
    await ticket
    assert store.last(series) == Sample(series, NOW_US, 1.0)
    await put(store, (series, NOW_US - 5, 0.5))
    assert store.last(series) == Sample(series, NOW_US, 1.0)
