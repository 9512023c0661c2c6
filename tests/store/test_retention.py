"""The byte budget: what goes, in which order, and what is said of it."""

import os
import sqlite3
from contextlib import closing

import pytest

from gateway.model import Batch, RunRecord, Sample
from gateway.store import Store, outbox, retention, shares
from gateway.store.outbox import RefusedRow
from tests.store.conftest import NOW_US, Opener
from tests.store.folding import AT_ONCE, eager, folded
from tests.store.reading import everything, put

BUDGET = 1_000_000
LESS = 3_000_000


async def fill(store: Store, series: int, blocks: int, start: int = 0) -> None:
    """Commit blocks of 10 kB that do not compress, the n-th with the time NOW + n."""
    for n in range(start, start + blocks):
        ticket = await store.put(Batch.of([Sample(series, NOW_US + n, os.urandom(10_000))]))
        await store.flush()
        await ticket


async def test_the_file_stays_within_its_bytes_and_the_newest_stay(opened: Opener) -> None:
    async with opened(max_bytes=BUDGET) as store:
        s = store.series("plc", "a")
        await fill(store, s, 250)
        state = store.state()
        assert state.bytes_used <= BUDGET + 50_000
        kept = [x.ts - NOW_US for x in await everything(store, [s])]
        assert kept == list(range(250 - len(kept), 250)) and 50 < len(kept) < 100
        assert (state.blocks, state.oldest_seq) == (len(kept), state.newest_seq - len(kept) + 1)
        assert not await store.gaps(), "no upload was owed anything"
        assert await put(store, (s, NOW_US + 249, 1)) == (0, 0, 1)


async def test_delivered_blocks_go_first_and_unsent_ones_leave_a_gap(opened: Opener) -> None:
    async with opened(max_bytes=BUDGET) as store:
        store.pin(["cloud"])
        s = store.series("plc", "a")
        await fill(store, s, 70)
        await store.ride(lambda tx: outbox.acknowledge(tx.conn, "cloud", 31, 60))
        await fill(store, s, 25, 70)
        kept = {x.ts - NOW_US for x in await everything(store, [s])}
        assert set(range(30)) <= kept and not await store.gaps(upload="cloud"), "unsent ones are spared"
        assert len(kept) < 95
        await store.ride(lambda tx: outbox.cut(tx, "cloud", "backlog", 3, 8, "{}"))
        await fill(store, s, 60, 95)
        kept = {x.ts - NOW_US for x in await everything(store, [s])}
        gaps = [gap for _, gap in await store.gaps(upload="cloud")]
        lost = set(range(155)) - kept - set(range(30, 60))
        assert lost and sum(gap.count or 0 for gap in gaps) == len(lost | set(range(2, 8)))
        assert store.state().counters["lost"] == sum(gap.count or 0 for gap in gaps)
        for n in lost:
            assert any(gap.from_us <= NOW_US + n <= gap.to_us for gap in gaps)
        assert not await store.read(lambda conn: outbox.units(conn, "cloud")), (
            "the unit in the range is closed"
        )
        assert not await store.ride(lambda tx: outbox.settle(tx, "cloud", "backlog"))
        assert (await store.read(lambda conn: outbox.acked(conn, "cloud")))[0][1] >= 60
        assert await store.unit_gaps(0, store.state().newest_seq + 1) == gaps[::-1], (
            "the gaps are uploaded too"
        )


async def test_no_seq_is_used_twice_even_after_all_was_removed(opened: Opener) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await fill(store, s, 30)
        newest = store.state().newest_seq
    async with opened(max_bytes=1) as store:
        for n in range(20):
            await fill(store, s, 1, 100 + n)
        assert store.state().blocks == 1
        assert store.state().newest_seq == newest + 20
        path = store._hot.path
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("DELETE FROM block")
    async with opened(max_bytes=1) as store:
        await put(store, (s, NOW_US + 500, 1))
        assert store.state().newest_seq == newest + 21


async def test_a_smaller_budget_shrinks_the_file(opened: Opener) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await fill(store, s, 200)
        path = store._hot.path
    before = path.stat().st_size
    async with opened(max_bytes=BUDGET) as store:
        for n in range(30):
            await put(store, (s, NOW_US + 1000 + n, n))
    assert before > 2_000_000 and path.stat().st_size < BUDGET + 100_000


async def test_refused_samples_that_the_quarantine_cannot_keep_leave_a_gap(opened: Opener) -> None:
    async with opened() as store:
        store.pin(["cloud"])
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1.0))
        refused = [RefusedRow(Sample(s, NOW_US + n, float(n)), "no such asset") for n in range(10)]
        await store.ride(lambda tx: outbox.cut(tx, "cloud", "live", 1, 1, "{}"))
        await store.ride(lambda tx: outbox.settle(tx, "cloud", "live", refused))
        assert await store.ride(lambda tx: retention.trim_rows(tx.conn, tx.newest_seq, 10**9, 4)) == 6
        left = await store.read(lambda conn: outbox.quarantined(conn, "cloud"))
        assert [row.sample.value for row in left] == [9.0, 8.0, 7.0, 6.0]
        ((_, gap),) = await store.gaps(upload="cloud")
        assert gap.count == 6 and "quarantine was full" in gap.reason


async def run(
    store: Store, runs: int, device: str = "plc", error: str = "x" * 8000, at_once: int = 20
) -> None:
    """Record runs that failed in part: a commit for each 20 of them."""
    for n in range(runs):
        store.run_ended(RunRecord(store.next_run_id(), device, "cycle", NOW_US + n, 1, 0, "partial", error))
        if n % at_once == at_once - 1:
            await store.flush()


async def refuse(store: Store, series: int, letters: int) -> None:
    """Have a target refuse samples: a unit of 500 at a time."""
    for start in range(0, letters, 500):
        await put(store, (series, NOW_US + 10**9 + start, 0))
        seq = store.state().newest_seq
        rows = [RefusedRow(Sample(series, NOW_US + n, 1.0), "no such asset " * 140) for n in range(500)]
        await store.ride(lambda tx, seq=seq: outbox.cut(tx, "cloud", "live", seq, seq, "{}"))  # type: ignore[misc]
        await store.ride(lambda tx, rows=rows: outbox.settle(tx, "cloud", "live", rows))  # type: ignore[misc]


async def test_long_runs_go_before_any_block(opened: Opener) -> None:
    async with opened(max_bytes=LESS) as store:
        store.pin(["cloud"])
        s = store.series("plc", "a")
        await run(store, 1, device="plc-far")
        await fill(store, s, 100)
        await run(store, 600)
        await fill(store, s, 20, 100)
        state, runs = store.state(), await store.runs(limit=10_000)
        assert state.blocks == 120 and state.counters["lost"] == 0 and not await store.gaps()
        assert state.bytes_used < LESS + 300_000
        kept = [run.id for run in runs if run.device == "plc"]
        assert kept == list(range(601, 601 - len(kept), -1)) and 50 < len(kept) < 400, "the newest ones"
        assert await store.last_collected("plc-far") is not None


async def test_runs_keep_their_share_where_samples_fill_the_store(opened: Opener) -> None:
    async with opened(max_bytes=LESS) as store:
        s = store.series("plc", "a")
        await run(store, 100, error="tag speed: BadNodeIdUnknown")
        await fill(store, s, 400)
        assert len(await store.runs(limit=1000)) == 100, "100 kB of runs are left alone"
        await run(store, 100)
        await fill(store, s, 60, 400)
        long = sum(len(run.error or "") for run in await store.runs(limit=1000))
        assert 60_000 < long < 100_000
        assert store.state().bytes_used < LESS + 300_000


async def test_dead_letters_go_before_any_block_with_a_gap(opened: Opener) -> None:
    async with opened(max_bytes=LESS) as store:
        store.pin(["cloud"])
        s = store.series("plc", "a")
        await fill(store, s, 100)
        await refuse(store, s, 3000)
        await fill(store, s, 20, 100)
        state = store.state()
        assert state.blocks == 126 and state.bytes_used < LESS + 300_000
        left = len(await store.read(lambda conn: outbox.quarantined(conn, "cloud", limit=10_000)))
        gaps = [gap for _, gap in await store.gaps(upload="cloud")]
        assert 100 < left < 2000 and {gap.reason for gap in gaps} == {
            "the quarantine was full: the oldest samples that the target had refused were dropped"
        }
        assert sum(gap.count or 0 for gap in gaps) == 3000 - left == state.counters["lost"]


async def test_long_runs_go_before_any_segment(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)
    async with opened(max_bytes=LESS, **AT_ONCE) as store:
        s = store.series("plc", "a")
        for part in range(4):
            await fill(store, s, 30, 30 * part)
            await folded(store)
        before = store.state()
        assert before.segments > 2 and before.history_bytes > 1_000_000
        await run(store, 400, at_once=400)
        assert store.state().bytes_used > LESS + 500_000
        await fill(store, s, 20, 200)
        await folded(store)
        state = store.state()
        assert state.segments >= before.segments and state.bytes_used < LESS + 300_000
        assert len(await everything(store, [s])) == 140
        assert len(await store.runs(limit=1000)) < 300


async def test_runs_and_dead_letters_are_added_up_without_reading_them(store: Store) -> None:
    def plans(tx: outbox.Transaction) -> list[str]:
        told: list[str] = []
        tx.conn.set_trace_callback(told.append)
        shares.excess_bytes(tx.conn, 10**9)
        tx.conn.set_trace_callback(None)
        queries = [query for query in told if query.startswith("SELECT total")]
        return [tx.conn.execute(f"EXPLAIN QUERY PLAN {query}").fetchone()[3] for query in queries]

    used = await store.ride(plans)
    assert [plan.split()[-2:] for plan in used] == [
        ["run_long", "(<expr>>?)"],
        ["quarantine_long", "(<expr>>?)"],
    ]


async def test_a_device_that_is_silent_for_long_keeps_the_run_in_which_it_was_heard(store: Store) -> None:
    for device, kind, status in (
        ("far", "subscription", "ok"), ("odd", "cycle", "partial"), ("far", "connect", "error"),
        *[("near", "cycle", "ok")] * 50,
    ):  # fmt: skip
        store.run_ended(RunRecord(store.next_run_id(), device, kind, NOW_US, 1, 1, status))
    await store.flush()
    await store.ride(lambda tx: retention.trim_rows(tx.conn, tx.newest_seq, 10**9, 10))
    assert [run.id for run in await store.runs()] == [*range(53, 43, -1), 2, 1]
    for device in ("far", "odd", "near"):
        assert await store.last_collected(device) is not None
    await store.ride(lambda tx: shares.trim_runs(tx.conn, kept=4, most=3))
    assert [run.id for run in await store.runs()] == [*range(53, 46, -1), 2, 1], "a slice, and no less"
