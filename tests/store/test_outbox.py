"""Units, acknowledgements, jobs that ride on the commit, and what retention does with them."""

import asyncio
import sqlite3

import pytest

from gateway.model import Batch, Flag, Gap, Sample
from gateway.store import Store, Transaction, outbox
from tests.store.conftest import NOW_US, Opener
from tests.store.reading import everything, put


async def test_a_unit_is_cut_sent_and_settled(opened: Opener) -> None:
    async with opened() as store:
        store.pin(["cloud"])
        s = store.series("plc", "a")
        for n in range(5):
            await put(store, (s, NOW_US + n, n))
        newest = store.state().newest_seq
        await store.ride(lambda tx: outbox.cut(tx, "cloud", "live", newest - 1, newest, '{"name": "x"}'))
        with pytest.raises(sqlite3.IntegrityError):
            await store.ride(lambda tx: outbox.cut(tx, "cloud", "live", 1, 1, "{}"))
    async with opened() as store:
        (unit,) = await store.read(lambda conn: outbox.units(conn, "cloud"))
        assert (unit.lane, unit.from_seq, unit.to_seq, unit.encoding) == (
            "live",
            newest - 1,
            newest,
            '{"name": "x"}',
        )
        assert unit.created_us == NOW_US
        batch = await store.unit_samples(unit.from_seq, unit.to_seq)
        assert [x.value for x in batch] == [3, 4]
        moved = Sample(s, 2**62 + 1, 1.0, 0, Flag.MOVED)
        refused = [
            outbox.RefusedRow(Sample(s, NOW_US + 3, [1, "x"]), "out of range"),
            outbox.RefusedRow(moved, "absurd time"),
        ]
        assert await store.ride(lambda tx: outbox.settle(tx, "cloud", "live", refused))
        assert not await store.ride(lambda tx: outbox.settle(tx, "cloud", "live"))
        assert await store.read(lambda conn: outbox.acked(conn, "cloud")) == [(newest - 1, newest)]
        letters = await store.read(lambda conn: outbox.quarantined(conn, "cloud"))
        assert [(letter.sample, letter.reason) for letter in letters] == refused[::-1]
        blocks, _, samples, oldest = await store.read(lambda conn: outbox.backlog(conn, "cloud"))
        assert (blocks, samples, oldest) == (newest - 2, 3, NOW_US)


async def test_acknowledged_ranges_merge(store: Store) -> None:
    async def ack(a: int, b: int) -> list[tuple[int, int]]:
        await store.ride(lambda tx: outbox.acknowledge(tx.conn, "u", a, b))
        return await store.read(lambda conn: outbox.acked(conn, "u"))

    assert await ack(5, 6) == [(5, 6)]
    assert await ack(9, 9) == [(5, 6), (9, 9)]
    assert await ack(1, 2) == [(1, 2), (5, 6), (9, 9)]
    assert await ack(7, 8) == [(1, 2), (5, 9)]
    assert await ack(6, 7) == [(1, 2), (5, 9)]
    assert await ack(0, 20) == [(0, 20)]
    assert list(outbox.unacked([(1, 2), (5, 9)], 0, 12)) == [(0, 0), (3, 4), (10, 12)]
    assert list(outbox.unacked([(1, 2), (5, 9)], 6, 8)) == []


async def test_a_job_sees_the_block_of_its_commit_and_fails_alone(store: Store) -> None:
    s = store.series("plc", "a")

    def bad(tx: Transaction) -> None:
        tx.conn.execute("INSERT INTO meta VALUES ('bad', 1, 0)")
        raise KeyError("mine")

    def seen(tx: Transaction) -> tuple[int, int]:
        tx.conn.execute("INSERT INTO meta VALUES ('good', 1, 0)")
        return tx.newest_seq, tx.conn.execute(
            "SELECT n FROM block WHERE seq = ?", (tx.newest_seq,)
        ).fetchone()[0]

    def late(tx: Transaction) -> None:
        raise TimeoutError("an OSError, and yet not the disk's")

    ticket = await store.put(_batch(s))
    results = await asyncio.gather(
        store.ride(bad), store.ride(seen), ticket, store.ride(late), return_exceptions=True
    )
    assert isinstance(results[0], KeyError)
    assert results[1] == (store.state().newest_seq, 1)
    assert results[2] == (1, 0, 0)
    assert isinstance(results[3], TimeoutError)
    assert len(await everything(store, [s])) == 1
    keys = await store.read(lambda conn: [row[0] for row in conn.execute("SELECT key FROM meta")])
    assert "good" in keys and "bad" not in keys


async def test_an_upload_that_left_the_configuration_leaves_a_gap(store: Store) -> None:
    s = store.series("plc", "a")
    store.pin(["cloud", "old"])
    for n in range(4):
        await put(store, (s, NOW_US + n, n))
    await store.ride(lambda tx: outbox.acknowledge(tx.conn, "old", 1, 2))
    store.pin(["cloud"])
    await store.flush()
    assert await store.read(outbox.uploads) == ["cloud"]
    ((_, gap),) = await store.gaps(upload="old")
    assert gap == Gap(
        NOW_US + 2, NOW_US + 3, "the upload was removed from the configuration", upload="old", count=2
    )


async def test_gaps_belong_to_the_block_of_their_commit(store: Store) -> None:
    before = store.state().newest_seq
    store.gap(Gap(1, 2, "lost", device="plc", count=3))
    await store.flush()
    after = store.state().newest_seq
    assert after == before + 1
    assert await store.unit_gaps(after, after) == [Gap(1, 2, "lost", device="plc", count=3)]
    assert len(await store.unit_samples(after, after)) == 0
    await store.flush()
    assert store.state().newest_seq == after, "a commit without samples and gaps makes no block"


def _batch(series: int) -> Batch:
    return Batch.of([Sample(series, NOW_US, 1.0)])
