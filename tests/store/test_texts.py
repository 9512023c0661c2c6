"""Texts that no UTF-8 can hold, as decoders make them: kept with escapes, and no harm to others."""

from collections.abc import Callable

import pytest

from gateway.model import Gap, RunRecord, Sample
from gateway.store import Store, file_queue, outbox
from gateway.store.deletions import insert
from gateway.store.outbox import RefusedRow, Transaction
from gateway.store.tombstones import Tombstone
from tests.store.conftest import NOW_US, Opener
from tests.store.reading import put

LATIN1 = b"\xb0C".decode("utf-8", "surrogateescape")
KEPT = "\\udcb0C"


async def test_a_series_with_such_names_is_one_series_also_after_a_restart(opened: Opener) -> None:
    async with opened() as store:
        other = store.series("other", "a", "mm")
        bad = store.series(LATIN1, LATIN1, LATIN1)
        assert await put(store, (other, NOW_US, 1.0), (bad, NOW_US, 2.0)) == (2, 0, 0)
        assert store.series(LATIN1, LATIN1, LATIN1) == store.find_series(LATIN1, LATIN1) == bad
        assert store.info(bad) == (KEPT, KEPT, KEPT)
        store.series("other", "a", LATIN1)
        assert await put(store, (other, NOW_US + 1, 1.0)) == (1, 0, 0)
        assert not await store.gaps() and not store.state().refusing
    async with opened() as store:
        assert store.find_series(LATIN1, LATIN1) == bad and store.last(bad) == Sample(bad, NOW_US, 2.0)
        assert (store.info(bad).unit, store.info(other).unit) == (KEPT, KEPT)


async def test_gaps_and_runs_are_kept(store: Store) -> None:
    store.gap(Gap(1, 2, f"quotes {LATIN1}", device=LATIN1, upload=LATIN1, count=3))
    store.run_ended(RunRecord(1, "d", "cycle", 1, 1, 1, "error", error=LATIN1))
    s = store.series("plc", LATIN1)
    assert await put(store, (s, NOW_US, 1.0), (s, NOW_US, {1})) == (1, 0, 0)
    reasons = sorted(gap.reason for _, gap in await store.gaps())
    assert reasons[0] == f"quotes {KEPT}" and f"tag {KEPT} of plc" in reasons[1]
    rows = await store.read(lambda conn: conn.execute("SELECT error FROM run").fetchall())
    assert rows == [(KEPT,)]


def _quarantined(tx: Transaction) -> None:
    outbox.register(tx, "cloud")
    outbox.cut(tx, "cloud", "live", 0, tx.newest_seq, "{}")
    assert outbox.settle(tx, "cloud", "live", [RefusedRow(Sample(1, NOW_US, 1.0), LATIN1)])


def _etag(tx: Transaction) -> None:
    row = file_queue.enqueue(tx, "cloud", "a.hdf5")
    file_queue.settle(tx, "cloud", row._replace(due=0, etag=LATIN1))


def _deleted(tx: Transaction) -> None:
    insert(tx.conn, Tombstone(1, 1, 1, 0, 1, NOW_US), LATIN1, (LATIN1, LATIN1), None)


@pytest.mark.parametrize(
    ("job", "kept"),
    [
        (_quarantined, "SELECT reason FROM quarantine"),
        (_etag, "SELECT etag FROM file"),
        (_deleted, "SELECT by FROM deletion"),
    ],
)
async def test_what_rides_along_is_kept(store: Store, job: Callable[[Transaction], None], kept: str) -> None:
    await put(store, (store.series("plc", "a"), NOW_US, 1.0))
    await store.ride(job)
    assert await store.read(lambda conn: conn.execute(kept).fetchall()) == [(KEPT,)]
