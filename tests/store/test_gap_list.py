"""The list of gaps is bounded, and loses nothing that an upload has not had: neighbours become one record."""

import sqlite3

import pytest

from gateway.model import Batch, Gap, Sample
from gateway.store import Store, examine, outbox, retention
from tests.store.conftest import NOW_US


async def commits(store: Store, count: int) -> None:
    """Commit so many blocks, each with two gap records: of a value, and of a device of its own."""
    store.pin(["cloud", "plant"])
    s = store.series("plc", "a")
    for n in range(count):
        store.gap(Gap(n, n, "a value that is too long", device="plc", count=2))
        store.gap(Gap(n, n + 5, f"unplugged, {n}", device=f"press-{n % 2}"))
        ticket = await store.put(Batch.of([Sample(s, NOW_US + n, n)]))
        await store.flush()
        assert await ticket == (1, 0, 0)


async def trimmed(store: Store, kept: int) -> list[tuple[int, Gap]]:
    """Trim the list; return what is left, oldest first, once every row was found to be what was written."""

    def job(tx: outbox.Transaction) -> None:
        retention.trim_rows(tx.conn, tx.newest_seq, 10**9, kept)

    await store.ride(job)
    assert not await store.read(lambda conn: list(examine.changed_rows(conn)))
    return (await store.gaps(limit=1000))[::-1]


async def newest(store: Store) -> int:
    return store.state().newest_seq


async def test_what_every_upload_has_had_goes_first(store: Store) -> None:
    await commits(store, 20)
    first = (await newest(store)) - 19
    await store.ride(lambda tx: outbox.acknowledge(tx.conn, "cloud", 0, first + 9))
    await store.ride(lambda tx: outbox.acknowledge(tx.conn, "plant", 0, first + 4))
    assert len(await trimmed(store, 37)) == 37
    left = [gap for _, gap in await trimmed(store, 30)]
    assert len(left) == 30 and {gap.from_us for gap in left} == set(range(5, 20)), "none of them was joined"
    left = [gap for _, gap in await trimmed(store, 28)]
    assert len(left) == 28 and sum(gap.count or 0 for gap in left) == 30, "none of these was dropped"


async def test_what_no_upload_has_had_is_joined_by_reason_and_none_is_lost(store: Store) -> None:
    await commits(store, 40)
    before = [gap for _, gap in (await store.gaps(limit=1000))]
    assert len(before) == 80
    for kept in (70, 60, 45):
        left = [gap for _, gap in await trimmed(store, kept)]
        assert len(left) == kept
        values = [gap for gap in left if gap.reason == "a value that is too long"]
        assert sum(gap.count or 0 for gap in values) == 80 and {gap.device for gap in values} == {"plc"}
        assert max(gap.to_us - gap.from_us for gap in values) < 16, "neighbours"
        assert len(left) - len(values) == 40, "other reasons are left as they are"
        for gap in before:
            assert any(
                gap.device == one.device and one.from_us <= gap.from_us <= gap.to_us <= one.to_us
                for one in left
            )


async def test_where_there_are_only_reasons_of_their_own_neighbours_of_a_device_are_joined(
    store: Store,
) -> None:
    await commits(store, 40)
    before = [gap for _, gap in (await store.gaps(limit=1000))]
    left = [gap for _, gap in await trimmed(store, 12)]
    assert len(left) == 12 and "the list of gaps was full" in "".join(gap.reason for gap in left)
    assert sum(gap.count or 0 for gap in left) == 80
    for gap in before:
        assert any(
            gap.device == one.device and one.from_us <= gap.from_us <= gap.to_us <= one.to_us for one in left
        )


@pytest.mark.parametrize("upload", ["cloud", "plant"])
async def test_a_unit_in_flight_keeps_its_gaps(store: Store, upload: str) -> None:
    await commits(store, 20)
    first = (await newest(store)) - 19
    await store.ride(lambda tx: outbox.cut(tx, upload, "live", first + 3, first + 7, "{}"))
    body = await store.unit_gaps(first + 3, first + 7)
    assert len(body) == 10 and len(await trimmed(store, 18)) == 18
    assert await store.unit_gaps(first + 3, first + 7) == body
    assert sum(gap.count or 0 for _, gap in await store.gaps(limit=1000)) == 40


async def test_no_record_that_one_upload_has_had_is_joined_with_one_that_it_has_not(store: Store) -> None:
    await commits(store, 20)
    first = (await newest(store)) - 19
    await store.ride(lambda tx: outbox.acknowledge(tx.conn, "cloud", first + 4, first + 9))
    await trimmed(store, 12)

    def counted(conn: sqlite3.Connection) -> list[int]:
        query = "SELECT total(count) FROM gap WHERE seq BETWEEN ? AND ?"
        parts = (0, first + 3), (first + 4, first + 9), (first + 10, first + 99)
        return [int(conn.execute(query, part).fetchone()[0]) for part in parts]

    assert await store.read(counted) == [8, 12, 20]
