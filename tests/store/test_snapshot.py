"""The newest samples found again in chunks, where a restore or a lost file left no snapshot of them."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.model import Sample
from gateway.store import snapshot
from tests.store.conftest import DAY_US, NOW_US, Opener
from tests.store.folding import AT_ONCE, eager, folded
from tests.store.reading import everything, put


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)


async def _without_snapshot(opened: Opener, tmp_path: Path, *commits: Sequence[tuple[int, int]]) -> int:
    """Store (time, value) of a series, a chunk for each commit, and lose the snapshot; return the series."""
    async with opened(**AT_ONCE) as store:
        s, t = store.series("plc", "a"), store.series("plc", "b")
        for n, commit in enumerate(commits):
            await put(store, *((s, *row) for row in commit))
            await put(store, (t, NOW_US + n, n))
            await folded(store)
    with sqlite3.connect(tmp_path / "store" / "hot.db") as conn:
        conn.execute("DELETE FROM snapshot")
    conn.close()
    return s


@pytest.mark.parametrize("candidates", [(1, 3), (1, 9), (8, 256)])
async def test_without_a_snapshot_a_series_far_ahead_for_hours_is_not_doubled(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: tuple[int, int]
) -> None:
    monkeypatch.setattr(snapshot, "_CANDIDATES", candidates)
    far = NOW_US + 400 * DAY_US
    commits = [[(NOW_US - 9, 0)], [(NOW_US, 1)], *([(far + n, n)] for n in range(5))]
    s = await _without_snapshot(opened, tmp_path, *commits)
    async with opened() as store:
        for commit in commits:
            assert await put(store, *((s, *row) for row in commit)) == (0, 1, 0)
        assert await put(store, (s, NOW_US + 1, 2), (s, far + 9, 3)) == (2, 0, 0)
        assert store.last(s) == Sample(s, NOW_US + 1, 2)
        assert len(await everything(store, [s])) == 9


async def test_without_a_snapshot_one_time_far_ahead_hides_no_newer_sample(
    opened: Opener, tmp_path: Path
) -> None:
    commits = [[(NOW_US, 0), (NOW_US + 400 * DAY_US, 9)], [(NOW_US + 1, 1)], [(NOW_US + 2, 2)]]
    s = await _without_snapshot(opened, tmp_path, *commits)
    async with opened() as store:
        assert store.last(s) == Sample(s, NOW_US + 2, 2)
        assert await put(store, (s, NOW_US, 0), (s, NOW_US + 1, 1), (s, NOW_US + 2, 2)) == (0, 3, 0)
