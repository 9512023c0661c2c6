"""The byte budget: what goes, in which order, and what is said of it."""

import os
import sqlite3
from contextlib import closing

from gateway.model import Batch, Sample
from gateway.store import Store, outbox, retention
from gateway.store.outbox import RefusedRow
from tests.store.conftest import NOW_US, Opener
from tests.store.reading import everything, put

BUDGET = 1_000_000


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
        assert await store.ride(lambda tx: retention.trim_rows(tx.conn, tx.newest_seq, kept=4)) == 6
        left = await store.read(lambda conn: outbox.quarantined(conn, "cloud"))
        assert [row.sample.value for row in left] == [9.0, 8.0, 7.0, 6.0]
        ((_, gap),) = await store.gaps(upload="cloud")
        assert gap.count == 6 and "quarantine was full" in gap.reason
