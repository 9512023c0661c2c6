"""Deletion on request: at once for every reader, for good, recorded; never of what is sent again later."""

import asyncio
import errno
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model import Batch, Flag, Sample
from gateway.store import Store, StoreSettings, deletes, history, outbox, survey, tombstones
from gateway.store.columns import CorruptBlock
from gateway.store.outbox import Transaction
from gateway.store.recovery import restored
from gateway.store.tombstones import FIRST_US, LAST_US, Tombstone, Tombstones
from tests.store.conftest import DAY_US, NOW_US, MovableClock, Opener
from tests.store.folding import AT_ONCE, eager, folded, rows, segments
from tests.store.reading import everything, put

S_US = 1_000_000


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)


def times(samples: list[Sample]) -> list[int]:
    return [(x.ts - NOW_US) // S_US for x in samples]


async def ten(store: Store, tag: str = "a") -> int:
    """Store ten samples, a second apart."""
    s = store.series("plc", tag)
    assert await put(store, *((s, NOW_US + n * S_US, n) for n in range(10))) == (10, 0, 0)
    return s


def kept(store: Store) -> int:
    """Return how many tombstones hold."""
    return len(store._history.deleted)


async def released(store: Store) -> None:
    for _ in range(500):
        if not kept(store):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{list(store._history.deleted)} still hold")


@pytest.mark.parametrize("where", ["block", "chunk"])
async def test_what_is_deleted_is_gone_from_windows_buckets_and_last_values(
    opened: Opener, where: str
) -> None:
    async with opened(**AT_ONCE) as store:
        s, other = await ten(store), await ten(store, "b")
        if where == "chunk":
            await put(store, (store.series("plc", "c"), NOW_US, 0))
            await folded(store)
        made = await store.delete(s, "ann", NOW_US + 2 * S_US, NOW_US + 3 * S_US)
        assert made is not None and (made.count, made.by, made.tag) == (2, "ann", "a")
        for _ in range(2):
            assert times(await everything(store, [s])) == [0, 1, 4, 5, 6, 7, 8, 9]
            assert len(await everything(store, [s, other])) == 18
            whole = await store.buckets([s], NOW_US, NOW_US + 10 * S_US, 10 * S_US)
            assert sum(bucket.n for bucket in whole) == 8
            assert sum(bucket.avg * bucket.n for bucket in whole) == 40
            await folded(store)
        assert store.last(s) == Sample(s, NOW_US + 9 * S_US, 9)
        assert (await store.delete(s, "ann", NOW_US + 9 * S_US, NOW_US + 9 * S_US)).count == 1  # type: ignore[union-attr]
        assert store.last(s) == Sample(s, NOW_US + 8 * S_US, 8)
        assert await store.delete(s, "ann", NOW_US + 9 * S_US, NOW_US + 9 * S_US) is None
    async with opened(**AT_ONCE) as store:
        assert times(await everything(store, [s])) == [0, 1, 4, 5, 6, 7, 8]
        assert store.last(s) == Sample(s, NOW_US + 8 * S_US, 8)
        assert [(d.by, d.count) for d in await store.deletions()] == [("ann", 1), ("ann", 2)]
        assert await store.deletions(device="other") == []


async def test_buckets_of_blocks_that_are_not_folded_leave_it_out(store: Store) -> None:
    s = await ten(store)
    await store.delete(s, "ann", NOW_US + 2 * S_US, NOW_US + 3 * S_US)
    (bucket,) = await store.buckets([s], NOW_US, NOW_US + 10 * S_US, 60 * S_US)
    assert (bucket.n, bucket.min, bucket.max, bucket.avg) == (8, 0, 9, 5)
    assert store.state().segments == 0


@pytest.mark.parametrize("where", ["block", "chunk"])
async def test_what_is_sent_again_after_a_deletion_is_a_new_sample(opened: Opener, where: str) -> None:
    async with opened(**AT_ONCE) as store:
        s = await ten(store)
        if where == "chunk":
            await put(store, (store.series("plc", "c"), NOW_US, 0))
            await folded(store)
        await store.delete(s, "ann", NOW_US + 2 * S_US, NOW_US + 3 * S_US)
        assert await put(store, (s, NOW_US + 2 * S_US, 2), (s, NOW_US + 3 * S_US, 33)) == (2, 0, 0)
        assert await put(store, (s, NOW_US + 2 * S_US, 2), (s, NOW_US + 4 * S_US, 4)) == (0, 2, 0)
        for _ in range(2):
            assert [x.value for x in await everything(store, [s])] == [0, 1, 2, 33, 4, 5, 6, 7, 8, 9]
            assert not any(x.flags & Flag.MOVED for x in await everything(store, [s]))
            await folded(store)
        assert await put(store, (s, NOW_US + 2 * S_US, 2), (s, NOW_US + 3 * S_US, 33)) == (0, 2, 0)


async def test_the_newest_is_lowered_so_that_late_samples_are_still_looked_up(opened: Opener) -> None:
    async with opened() as store:
        s = await ten(store)
        await store.delete(s, "ann", NOW_US + 8 * S_US, NOW_US + 20 * S_US)
        assert await put(store, (s, NOW_US + 7 * S_US, 7), (s, NOW_US + 9 * S_US, 9)) == (1, 1, 0)
        assert store.last(s) == Sample(s, NOW_US + 9 * S_US, 9)
        await store.delete(s, "ann")
        assert store.last(s) is None
        assert await put(store, (s, NOW_US, 5)) == (1, 0, 0)
        assert store.last(s) == Sample(s, NOW_US, 5)


async def test_a_batch_that_follows_others_of_its_series_is_looked_up_again_after_a_deletion(
    store: Store,
) -> None:
    """Batches of the same series one after the other are taken without a look at each."""
    series = [store.series("plc", str(n)) for n in range(4)]
    for n in range(5):
        await put(store, *((s, NOW_US + n * S_US, n) for s in series))
    await store.delete(series[1], "ann", NOW_US + 3 * S_US, LAST_US)
    assert [store.last(s).value for s in series] == [4, 2, 4, 4]  # type: ignore[union-attr]
    assert await put(store, *((s, NOW_US + 4 * S_US, 4) for s in series)) == (1, 3, 0)
    assert await put(store, (series[1], NOW_US + 2 * S_US, 2)) == (0, 1, 0)
    assert times(await everything(store, [series[1]])) == [0, 1, 2, 4]


async def test_the_newest_left_is_found_far_back(opened: Opener) -> None:
    async with opened(**AT_ONCE) as store:
        s, busy = store.series("plc", "a"), store.series("plc", "b")
        await put(store, *((s, NOW_US - 30 * DAY_US + n, n) for n in range(9000)))
        await put(store, (s, NOW_US, -1), *((busy, NOW_US - n, n) for n in range(5000)))
        for _ in range(2):
            assert (await store.delete(s, "ann", NOW_US, LAST_US)).count == 1  # type: ignore[union-attr]
            assert store.last(s) == Sample(s, NOW_US - 30 * DAY_US + 8999, 8999)
            assert await put(store, (s, NOW_US, -1)) == (1, 0, 0)
            await folded(store)


async def test_a_search_that_takes_too_long_leaves_the_key_rule_and_no_value(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "_SURVEY_S", -1.0)
    monkeypatch.setattr(survey, "_TURN_S", -1.0)
    async with opened() as store:
        s = await ten(store)
        made = await store.delete(s, "ann", NOW_US + 8 * S_US, LAST_US)
        assert made is not None and made.count is None
        assert times(await everything(store, [s])) == [0, 1, 2, 3, 4, 5, 6, 7]
        assert store.last(s) is None
        assert await put(store, (s, NOW_US + 7 * S_US, 7), (s, NOW_US + 8 * S_US, 8)) == (1, 1, 0)
        assert store.last(s) == Sample(s, NOW_US + 8 * S_US, 8)


async def test_what_cannot_be_read_now_is_deleted_too(opened: Opener, tmp_path: Path) -> None:
    """Nothing found is not nothing there: of a file that cannot be opened for a moment."""
    async with opened(**AT_ONCE) as store:
        s = await ten(store)
        await put(store, (store.series("plc", "b"), NOW_US, 0))
        await folded(store)
    (segment,) = segments(tmp_path / "store")
    away = segment.with_name("away")
    async with opened() as store:
        assert store.series("plc", "a") == s
        segment.rename(away)
        made = await store.delete(s, "ann", NOW_US + 5 * S_US, LAST_US)
        away.rename(segment)
        assert made is not None and made.count is None
        assert store.last(s) is None  # not an older one than there is
        assert times(await everything(store, [s])) == [0, 1, 2, 3, 4]
        assert (await store.delete(s, "ann")).count == 5  # type: ignore[union-attr]
    async with opened() as store:
        assert await everything(store, [s]) == []


async def test_samples_of_the_implausible_future_are_deleted_too(opened: Opener) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        far = [NOW_US + n * 400 * DAY_US for n in (1, 2, 3)]
        await put(store, *((s, ts, n) for n, ts in enumerate(far)))
        assert (await store.delete(s, "ann", far[2], far[2])).count == 1  # type: ignore[union-attr]
        assert store.last(s) == Sample(s, far[1], 1, 0, Flag.IMPLAUSIBLE)
        assert await put(store, (s, far[2], 7), (s, far[1], 1)) == (1, 1, 0)
        await store.delete(s, "ann")
        assert store.last(s) is None and await everything(store, [s]) == []
        assert await put(store, (s, far[0], 0)) == (1, 0, 0)


async def test_what_arrives_while_a_deletion_waits_is_counted_exactly(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block is committed between the count and the deletion's own commit."""
    async with opened(commit_interval_s=0.01) as store:
        s = await ten(store)
        original = store._in_turns

        async def slowly(turn: object) -> None:
            await original(turn)  # type: ignore[arg-type]
            await put(store, (s, NOW_US + 20 * S_US, 20), (s, NOW_US - S_US, -1))

        monkeypatch.setattr(store, "_in_turns", slowly)
        made = await store.delete(s, "ann", NOW_US, LAST_US)
        assert made is not None and made.count == 11
        assert store.last(s) == Sample(s, NOW_US - S_US, -1)


async def test_deletions_of_one_series_at_once_count_each_sample_once(store: Store) -> None:
    s = await ten(store)
    made = await asyncio.gather(*(store.delete(s, "ann", NOW_US, NOW_US + n * S_US) for n in range(5)))
    assert [d.count for d in made if d] == [1, 1, 1, 1, 1]


async def test_what_is_folded_later_does_not_have_it_and_the_tombstone_goes(
    opened: Opener, tmp_path: Path
) -> None:
    async with opened(**AT_ONCE) as store:
        s = await ten(store)
        await store.delete(s, "ann", NOW_US, NOW_US + 6 * S_US)
        assert kept(store) == 1
        await put(store, (store.series("plc", "b"), NOW_US, 0))
        await folded(store)
        await put(store, (store.series("plc", "b"), NOW_US + 1, 0))
        await folded(store)
        await released(store)
        assert times(await everything(store, [s])) == [7, 8, 9]
        assert len(await store.deletions()) == 1
    assert sum(n for path in segments(tmp_path / "store") for (n,) in rows(path, "SELECT n FROM fold")) >= 4
    assert rows(segments(tmp_path / "store")[0], "SELECT n FROM fold ORDER BY id LIMIT 1") == [(3,)]


async def test_a_tombstone_over_chunks_holds_as_long_as_their_file(opened: Opener, tmp_path: Path) -> None:
    async with opened(**AT_ONCE) as store:
        s, b = await ten(store), store.series("plc", "b")
        await put(store, (b, NOW_US, 0))
        await folded(store)
        await store.delete(s, "ann", NOW_US, NOW_US + 6 * S_US)
        for n in range(1, 4):
            await put(store, (b, NOW_US + n, 0))
            await folded(store)
        await asyncio.sleep(0.1)
        assert kept(store) == 1
        await store.delete(s, "ann")
        for n in range(4, 7):
            await put(store, (b, NOW_US + n, 0))
            await folded(store)
        for _ in range(200):
            if kept(store) == 1:
                break
            await asyncio.sleep(0.01)
        assert kept(store) == 1, "the earlier one lies within the later one"
    segments(tmp_path / "store")[0].unlink()
    async with opened(**AT_ONCE) as store:
        assert kept(store) == 1
        await released(store)
    async with opened() as store:
        assert kept(store) == 0 and len(await store.deletions()) == 2


async def test_an_older_deletion_found_in_a_damaged_file_lets_no_newer_one_go(opened: Opener) -> None:
    """It comes later, and covers more of the series, but fewer of the blocks."""
    async with opened(**AT_ONCE) as store:
        s, b = store.series("plc", "a"), store.series("plc", "b")
        await put(store, (s, NOW_US - S_US, -1))
        old_seq = store.state().newest_seq
        await put(store, (b, NOW_US, 0))
        await folded(store)
        await ten(store)
        await put(store, (b, NOW_US + 1, 0))
        await folded(store)
        await store.delete(s, "ann", NOW_US, NOW_US + 6 * S_US)
        restored([Tombstone(9, old_seq, s, FIRST_US, LAST_US, 0)], store._history, 2)
        for n in range(2, 5):
            await put(store, (b, NOW_US + n, 0))
            await folded(store)
        for _ in range(200):
            if store._writer.compactor.releaser._held_by.keys() == {1, 2}:
                break
            await asyncio.sleep(0.01)
        assert kept(store) == 2
        assert times(await everything(store, [s])) == [7, 8, 9]


async def test_a_tombstone_holds_where_the_disk_may_bring_its_file_back(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut undoes the removal of a file while the folder is not synced."""
    real = history.sync

    def refused(path: Path) -> None:
        if path.name == "history":
            raise OSError(errno.EIO, "refused")
        real(path)

    async with opened(**AT_ONCE) as store:
        await ten(store)
        await put(store, (store.series("plc", "b"), NOW_US, 0))
        await folded(store)
        await store.delete(store.series("plc", "a"), "ann", NOW_US, NOW_US + 6 * S_US)
    with monkeypatch.context() as patched:
        patched.setattr(history, "sync", refused)
        async with opened(max_bytes=1, **AT_ONCE) as store:
            b = store.series("plc", "b")
            for n in range(1, 20):
                await put(store, (b, NOW_US + n, 0))
            assert not store.state().segments
            await asyncio.sleep(0.2)
            assert kept(store) == 1
    async with opened(**AT_ONCE) as store:
        await released(store)


async def test_a_deletion_while_a_fold_is_under_way_holds_for_it(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.compact._ENCODED_SAMPLES", 1)
    monkeypatch.setattr("gateway.store.writer._SLICE_PAUSE_S", 0.05)
    async with opened(commit_interval_s=0.01, **AT_ONCE) as store:
        series = [store.series("plc", str(n)) for n in range(40)]
        await put(store, *((s, NOW_US + n, n) for s in series for n in range(50)))
        await put(store, (store.series("plc", "c"), NOW_US, 0))
        for _ in range(500):
            if store._writer.compactor.busy:
                break
            await asyncio.sleep(0.005)
        assert store._writer.compactor.busy
        await store.delete(series[-1], "ann", NOW_US, NOW_US + 9)
        await store.delete(series[0], "ann")
        busy = store._writer.compactor.folds == 0
        await folded(store)
        assert busy, "the fold ended before the deletion came: the test shows nothing"
        assert len(await everything(store, series)) == 40 * 50 - 10 - 50
        assert await everything(store, [series[0]]) == []


async def test_a_unit_not_cut_yet_leaves_it_out_and_one_that_is_cut_does_not_change(opened: Opener) -> None:
    async with opened(**AT_ONCE) as store:
        store.pin(["cloud"])
        s = await ten(store)
        first = store.state().newest_seq
        await store.ride(lambda tx: outbox.cut(tx, "cloud", "live", 0, first, "{}"))
        await store.delete(s, "ann", NOW_US, NOW_US + 3 * S_US)
        await store.ride(lambda tx: outbox.cut(tx, "cloud", "backlog", 0, first, "{}"))
    async with opened(**AT_ONCE) as store:
        units = {unit.lane: unit for unit in await store.read(lambda conn: outbox.units(conn, "cloud"))}
        bodies = {
            lane: len(await store.unit_samples(unit.from_seq, unit.to_seq, unit.deletion))
            for lane, unit in units.items()
        }
        assert bodies == {"live": 10, "backlog": 6}


async def test_a_deleted_sample_that_an_upload_never_got_is_not_lost(store: Store) -> None:
    store.pin(["cloud", "other"])
    s = await ten(store)
    await store.delete(s, "ann", NOW_US, NOW_US + 3 * S_US)
    store.pin(["other"])
    await store.flush()
    assert [gap.count for _, gap in await store.gaps(upload="cloud")] == [6]
    await store.delete(s, "ann")
    store.pin([])
    await store.flush()
    assert await store.gaps(upload="other") == []


async def test_a_name_that_nothing_uses_is_not_listed(opened: Opener) -> None:
    async with opened() as store:
        s = await ten(store)
        await ten(store, "b")
        assert set(store.series_of("plc")) == {"a", "b"}
        await store.delete(s, "ann")
        assert set(store.series_of("plc")) == {"b"}
        assert set(store.series_of("plc", ["a"])) == {"a", "b"}
    async with opened() as store:
        assert set(store.series_of("plc")) == {"b"}
        await put(store, (store.find_series("plc", "a"), NOW_US, 1))
        assert set(store.series_of("plc")) == {"a", "b"}


async def test_a_hot_file_that_is_lost_while_running_keeps_what_was_deleted(
    opened: Opener, tmp_path: Path
) -> None:
    async with opened(**AT_ONCE) as store:
        s = await ten(store)
        await put(store, (store.series("plc", "b"), NOW_US, 0))
        await folded(store)
        await store.delete(s, "ann", NOW_US, NOW_US + 3 * S_US)
        writer = store._writer
        _lose(store)
        assert await put(store, (s, NOW_US + 30 * S_US, 30)) == (1, 0, 0)
        assert writer.generation == 1
        assert times(await everything(store, [s])) == [4, 5, 6, 7, 8, 9, 30]
        assert await put(store, (s, NOW_US, 0)) == (1, 0, 0)
    async with opened(**AT_ONCE) as store:
        assert times(await everything(store, [s])) == [0, 4, 5, 6, 7, 8, 9, 30]


def _lose(store: Store) -> None:
    """Have the writer set its file aside at its next commit."""
    told = False

    def malformed(_: Transaction) -> None:
        nonlocal told
        if not told:
            told = True
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    store._writer._corrupt_tries = 99
    store.post(malformed)


async def test_a_new_hot_file_goes_on_after_the_blocks_of_the_history(opened: Opener, tmp_path: Path) -> None:
    """A deletion in it covers all that is in chunks, and nothing that comes later."""
    async with opened(**AT_ONCE) as store:
        s = await ten(store)
        for n in range(5):
            await put(store, (store.series("plc", "b"), NOW_US + n, 0))
        await folded(store)
        newest = store.state().newest_seq
    for path in (tmp_path / "store").glob("hot.db*"):
        path.unlink()
    async with opened(**AT_ONCE) as store:
        assert store.state().newest_seq >= newest - 1
        assert (await store.delete(s, "ann")).count == 10  # type: ignore[union-attr]
        assert await everything(store, [s]) == []
        assert await put(store, (s, NOW_US, 0)) == (1, 0, 0)
        await put(store, (store.series("plc", "b"), NOW_US + 9, 0))
        await folded(store)
        assert times(await everything(store, [s])) == [0]


async def test_a_start_without_a_snapshot_finds_the_newest_that_is_left(
    opened: Opener, tmp_path: Path
) -> None:
    async with opened(**AT_ONCE) as store:
        s, b = store.series("plc", "a"), store.series("plc", "b")
        for n in range(12):
            await put(store, (s, NOW_US + n * S_US, n))
            await put(store, (b, NOW_US + n * S_US, n))
            await folded(store)
        await store.delete(s, "ann", NOW_US + S_US, LAST_US)
    rows(tmp_path / "store" / "hot.db", "DELETE FROM snapshot")
    async with opened(**AT_ONCE) as store:
        assert store.last(s) == Sample(s, NOW_US, 0)
        assert await put(store, (s, NOW_US, 0)) == (0, 1, 0)


async def test_a_start_without_a_snapshot_does_not_take_a_deleted_block_for_the_newest(
    opened: Opener, tmp_path: Path
) -> None:
    async with opened() as store:
        s = await ten(store)
        await store.delete(s, "ann", NOW_US + 5 * S_US, LAST_US)
    rows(tmp_path / "store" / "hot.db", "DELETE FROM snapshot")
    async with opened() as store:
        assert store.last(s) == Sample(s, NOW_US + 4 * S_US, 4)


@pytest.mark.parametrize("hours", [0, 1], ids=["snapshot due", "snapshot not due"])
async def test_a_kill_after_a_deletion_leaves_the_newest_that_is_left(
    opened: Opener, clock: MovableClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """What stands in the files when the deletion is acknowledged is all that a next start has."""
    async with opened() as store:
        s = await ten(store)
    monkeypatch.setattr("gateway.store.writer._SNAPSHOT_NS", hours * 3_600_000_000_000 - 1)
    async with opened() as store:
        await store.delete(s, "ann", NOW_US + 9 * S_US, LAST_US)
        await asyncio.to_thread(shutil.copytree, tmp_path / "store", tmp_path / "killed")
    async with Store.open(tmp_path / "killed", StoreSettings(), clock) as store:
        assert store.last(s) == Sample(s, NOW_US + 8 * S_US, 8)
        assert times(await everything(store, [s])) == [0, 1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_damaged_tombstone_is_reported_and_the_rest_holds(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s = await ten(store)
        await store.delete(s, "ann", NOW_US, NOW_US)
        await store.delete(s, "ann", NOW_US + S_US, NOW_US + S_US)
    path = tmp_path / "store" / "hot.db"
    (record,) = rows(path, "SELECT record FROM tombstone WHERE id = 1")[0]
    broken = bytearray(record)  # type: ignore[arg-type]
    broken[20] ^= 1
    rows(path, f"UPDATE tombstone SET record = x'{broken.hex()}' WHERE id = 1")
    async with opened() as store:
        assert times(await everything(store, [s])) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
        await store.flush()
        assert ["deletion 1 of the store is damaged" in gap.reason for _, gap in await store.gaps()] == [True]


async def test_more_deletions_than_can_be_held_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletes, "MOST_DELETIONS", 1)
    s = await ten(store)
    await store.delete(s, "ann", NOW_US, NOW_US)
    with pytest.raises(deletes.TooManyDeletions, match="whole series"):
        await store.delete(s, "ann", NOW_US + S_US, NOW_US + S_US)


def test_a_record_is_read_back_or_refused() -> None:
    one = Tombstone(7, 2**40, 3, FIRST_US, LAST_US, NOW_US)
    record = tombstones.encode(one)
    assert tombstones.decode(record) == one and record.startswith(tombstones.MAGIC)
    for place in range(len(record)):
        broken = bytearray(record)
        broken[place] ^= 4
        with pytest.raises(CorruptBlock):
            tombstones.decode(bytes(broken))


def test_a_filter_for_whoever_scans_raw_blocks() -> None:
    deleted = Tombstones([Tombstone(1, 5, 1, 10, 20, 0)])
    batch = Batch.of([Sample(1, 9, 0), Sample(1, 10, 1), Sample(2, 15, 2), Sample(1, 20, 3)])
    assert [x.value for x in deleted.filtered(batch, 5)] == [0, 2]
    assert deleted.filtered(batch, 6) is batch
    assert not Tombstones() and len(deleted) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 1)), max_size=12),
        ),
        st.tuples(st.just("delete"), st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 15))),
        st.tuples(st.just("one"), st.tuples(st.integers(0, 2), st.integers(0, 40))),
        st.tuples(st.just("all"), st.integers(0, 2)),
        st.sampled_from([("fold", None), ("reopen", None), ("check", None)]),
    ),
    min_size=4,
    max_size=30,
)


class Model:
    """What the store should hold: a plain dict of (series, ts) to (value, flags)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], tuple[int, int]] = {}

    def put(self, series: int, ts: int, value: int) -> None:
        key = series, ts
        if key not in self.rows:
            self.rows[key] = value, 0
            return
        if self.rows[key][0] == value:
            return
        while (key := (series, key[1] + 1)) in self.rows:
            if self.rows[key] == (value, Flag.MOVED):
                return
        self.rows[key] = value, Flag.MOVED

    def delete(self, series: int, from_us: int, to_us: int) -> int:
        gone = [key for key in self.rows if key[0] == series and from_us <= key[1] <= to_us]
        for key in gone:
            del self.rows[key]
        return len(gone)

    def samples(self, series: int) -> list[Sample]:
        rows = sorted((key, row) for key, row in self.rows.items() if key[0] == series)
        return [Sample(s, ts, value, 0, flags) for (s, ts), (value, flags) in rows]


async def agree(store: Store, model: Model, series: list[int]) -> None:
    """Compare windows, last values and buckets of two widths with the model."""
    for s in series:
        expected = model.samples(s)
        assert await everything(store, [s]) == expected
        assert store.last(s) == (expected[-1] if expected else None)
        for width in (7 * S_US, 60 * S_US):
            found = {
                b.start_us: (b.min, b.max, b.n)
                for b in await store.buckets([s], NOW_US, NOW_US + 99 * S_US, width)
            }
            wanted: dict[int, list[int]] = {}
            for x in expected:
                wanted.setdefault(x.ts - x.ts % width, []).append(x.value)  # type: ignore[arg-type]
            assert found == {start: (min(v), max(v), len(v)) for start, v in wanted.items()}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
async def test_random_puts_deletions_folds_and_starts_agree_with_a_dict(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    folder, clock, model = tmp_path_factory.mktemp("deletion") / "store", MovableClock(), Model()
    wanted = StoreSettings(commit_interval_s=0.002, chunk_minutes=0)
    todo = [*steps, ("check", None)]
    while todo:
        async with Store.open(folder, wanted, clock) as store:
            series = [store.series("plc", str(n)) for n in range(3)]
            while todo:
                step, what = todo.pop(0)
                if step == "reopen":
                    break
                await _done(store, model, series, step, what)
            await agree(store, model, series)


async def _done(store: Store, model: Model, series: list[int], step: str, what: object) -> None:
    if step == "put":
        batch = [(series[s], NOW_US + t * S_US, v) for s, t, v in what]  # type: ignore[attr-defined]
        await put(store, *batch)
        _put_in_order(model, batch)
    elif step == "fold":
        await folded(store)
    elif step == "check":
        await agree(store, model, series)
    else:
        s, from_us, to_us = _range(series, step, what)
        made = await store.delete(s, "ann", from_us, to_us)
        assert (made.count if made else 0) == model.delete(s, from_us, to_us)


def _range(series: list[int], step: str, what: object) -> tuple[int, int, int]:
    if step == "all":
        return series[what], FIRST_US, LAST_US  # type: ignore[call-overload, no-any-return]
    s, start, *length = what  # type: ignore[misc]
    from_us = NOW_US + start * S_US  # type: ignore[has-type]
    return series[s], from_us, from_us + sum(length) * S_US  # type: ignore[has-type]


def _put_in_order(model: Model, batch: list[tuple[int, int, int]]) -> None:
    for row in batch:
        model.put(*row)


async def test_intake_goes_on_while_a_long_series_is_deleted(opened: Opener) -> None:
    """One row, however long the series is: what waits with it for the commit is taken as ever."""
    rng = random.Random(1)
    async with opened(commit_interval_s=0.01, **AT_ONCE) as store:
        s, live = store.series("plc", "a"), store.series("plc", "b")
        for part in range(10):
            batch = Batch.of(
                Sample(s, NOW_US - DAY_US + (part * 9000 + n) * 1000, rng.random()) for n in range(9000)
            )
            await (await store.put(batch))
        await folded(store)
        deleting = asyncio.ensure_future(store.delete(s, "ann"))
        assert await put(store, (live, NOW_US, 1)) == (1, 0, 0)
        made = await deleting
        assert made is not None and made.count == 90_000
        assert await everything(store, [s, live]) == [Sample(live, NOW_US, 1)]
