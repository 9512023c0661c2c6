"""The file system's fill level is said once at 85 and 95 %; at 95 % only the newest runs are kept."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.model import RunRecord
from gateway.store import Store, StoreSettings, writer
from gateway.store import disk as disk_module
from gateway.store.room import Room
from tests.chaos.mounts import fill, tmpfs
from tests.chaos.oracle import samples, tags_of


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", "40m") as mounted:
        yield mounted


def test_each_level_is_said_once_and_left_with_hysteresis(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    room = Room(disk, 4_000_000_000)
    steps = [(50, 0), (84, 0), (86, 85), (84, 85), (86, 85), (96, 95), (94, 95), (96, 95), (92, 85), (99, 95),
             (82, 0), (84, 0)]  # fmt: skip
    said = []
    for percent, level in steps:
        fill(disk, percent)
        caplog.clear()
        room.look(10_000_000)
        assert room.state.level == level, (percent, room.state)
        assert bool(room.state.warning) == bool(level) and room.tight == (level == 95)
        assert abs(room.state.used_percent - percent) < 0.5
        said.append(len(caplog.records))
    assert said == [0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0]
    fill(disk, 90)
    room.look(10_000_000)
    said = "the store keeps to 10 MB instead of the 4000 MB of store.max: lower store.max or make room"
    assert said in room.state.warning


def test_a_disk_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    room = Room(tmp_path / "gone", 7_000_000)
    room.look(0)
    assert room.state.level == 0 and room.budget_bytes == 7_000_000


def test_the_budget_is_what_the_disk_leaves_of_max(disk: Path) -> None:
    total = 40 * 2**20
    plenty, much, little = Room(disk, 5_000_000), Room(disk, 4_000_000_000), Room(disk, 1)
    for percent, there in ((20, 0), (50, 0), (50, 12_000_000), (97, 15_000_000), (97, 0)):
        fill(disk, percent)
        for room in (plenty, much, little):
            room.look(there)
        left = there + much.state.free_bytes - total // 10
        assert much.budget_bytes == max(left, total // 10), "a tenth stays free, a tenth stays its own"
        assert plenty.budget_bytes == min(5_000_000, max(left, 1_000_000)) and little.budget_bytes == 1
    assert much.budget_bytes > left and plenty.budget_bytes == 1_000_000


@pytest.mark.timeout(30)
async def test_a_nearly_full_disk_keeps_taking_samples_and_keeps_only_the_newest_runs(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "_LOOK_NS", 0)
    monkeypatch.setattr(writer, "_SNAPSHOT_NS", -1)
    async with Store.open(disk / "store", StoreSettings(commit_interval_s=0.05), SystemClock()) as store:
        for number in range(1, 3001):
            kind = "subscription" if number in (5, 700) else "poll"
            device = "seldom" if number == 5 else "plc"
            store.run_ended(RunRecord(number, device, kind, number, 1, 1, "ok"))
        await store.flush()
        await store.flush()
        assert len(await store.runs(limit=5000)) == 3000
        await asyncio.to_thread(fill, disk, 96)
        for turn in range(4):
            await asyncio.sleep(0.6)
            await (await store.put(samples(range(turn * 50, turn * 50 + 50), tags_of(store))))
        assert store.state().disk.level == 95 and not store.state().refusing
        left = {run.id for run in await store.runs(limit=5000)}
        assert left == {5, 700, *range(2001, 3001)}, "and of each device the newest in which it was heard"
        assert await store.last_collected("seldom") is not None
