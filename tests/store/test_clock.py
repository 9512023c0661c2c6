"""The store and the wall clock; whole days of clock steps are in tests/chaos/simulation.py."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway.model import Batch, Flag
from gateway.store import segment
from gateway.store.blocks import cut
from gateway.store.values import checked
from tests.store.conftest import DAY_US, NOW_US, MovableClock, Opener
from tests.store.folding import AT_ONCE, eager, folded
from tests.store.reading import everything, put


async def test_a_box_that_knew_the_time_flags_nothing_after_a_boot_in_1970(
    opened: Opener, clock: MovableClock
) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1))
    clock.wall, clock.synced = 60_000_000, False
    async with opened() as store:
        await put(store, (s, NOW_US + 3_600_000_000, 2), (s, NOW_US + 3 * DAY_US, 3))
        assert [x.flags for x in await everything(store, [s])] == [0, 0, Flag.IMPLAUSIBLE]


async def test_a_clock_that_is_set_folds_nothing_early(
    opened: Opener, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager(monkeypatch)
    async with opened(commit_interval_s=0.005) as store:
        s = store.series("plc", "a")
        for n, step_us in enumerate((3_700_000_000, -9_000_000_000, 3650 * DAY_US, -NOW_US)):
            clock.wall += step_us
            await put(store, (s, NOW_US + n, n))
            await store.flush()
            await asyncio.sleep(0.05)
        assert (store._writer.compactor.folds, store.state().blocks) == (0, 4)
        store._writer.compactor._period_ns = 0
        await folded(store)
        assert [x.value for x in await everything(store, [s])] == [0, 1, 2, 3]


@pytest.mark.parametrize("left", ["nothing", "half a transaction"])
async def test_a_segment_that_the_disk_did_not_let_be_finished_harms_nobody(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    eager(monkeypatch)
    async with opened(**AT_ONCE) as store:
        s = store.series("plc", "a")
        await put(store, *((s, NOW_US + n, n) for n in range(50)))
        await put(store, (s, NOW_US + 60, 50))
        await folded(store)
    history = tmp_path / "store" / "history"
    (history / "000001.db").rename(history / "000002.db")
    if left == "nothing":
        (history / "000001.db").touch()
    else:
        await asyncio.to_thread(_leave_half, tmp_path / "half.db", history / "000001.db")
    async with opened() as store:
        assert [x.value for x in await everything(store, [s])] == list(range(51))
        # One that is empty may have lost all it held: it is said, and nothing else is touched.
        while left == "nothing" and not await store.gaps():
            await asyncio.sleep(0.01)
        found = [gap.reason for _, gap in await store.gaps()]
        assert bool(found) == (left == "nothing") and all("000001.db" in reason for reason in found)
    assert [path.name for path in history.glob("0*.db")] == ["000002.db"] or left != "nothing"
    assert left == "nothing" or not list(history.glob("*.corrupt*"))


def _leave_half(made: Path, path: Path) -> None:
    """Copy a segment in the middle of a transaction that has reached its file."""
    segment.make(made)
    conn = sqlite3.connect(made, isolation_level=None)
    conn.execute("PRAGMA cache_size=2")
    conn.execute("BEGIN IMMEDIATE")
    conn.executemany("INSERT INTO chunk VALUES (?, ?)", [(n, bytes(3000)) for n in range(200)])
    for suffix in ("", "-journal"):
        shutil.copy(f"{made}{suffix}", f"{path}{suffix}")
    conn.close()
    assert path.with_name("000001.db-journal").stat().st_size


@pytest.mark.parametrize("own", [True, False])
def test_own_stamps_stay_in_order_however_often_the_clock_was_set(*, own: bool) -> None:
    """While the disk refuses, the samples of many settings wait for one commit."""
    batch = Batch()
    for n in range(400):
        stamp = NOW_US + (n // 20 * 7 % 8) * DAY_US + n
        batch.add(1, stamp, n, 0, Flag.OWN_TIME if own else 0)
    parts = cut(checked(batch))
    values = [value for part in parts for value in part.values]
    assert sorted(values) == list(range(400))  # type: ignore[type-var]
    assert (values == list(range(400))) == own
    assert all(part.t1 - part.t0 < 1_000_000 for part in parts) and (own or len(parts) <= 32)
