"""The writer: group commit, back-pressure, a disk that fails midway, batches that cannot be written."""

import asyncio
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from gateway.model import Batch, Gap, NotStored, RunRecord, Sample
from gateway.store import Store, StoreSettings, commit, hotfile, outbox
from gateway.store.compact import delete_folded
from gateway.store.schema import connect
from tests.store.conftest import NOW_US, MovableClock, Opener
from tests.store.reading import everything, put


def batch(series: int, start: int, count: int, value: object = 1.0) -> Batch:
    return Batch.of(Sample(series, NOW_US + n, value) for n in range(start, start + count))  # type: ignore[arg-type]


def _blocks_after_the_snapshot(conn: sqlite3.Connection) -> int:
    query = "SELECT count(*) FROM block WHERE seq > (SELECT seq FROM snapshot)"
    count: int = conn.execute(query).fetchone()[0]
    return count


class FaultyDisk:
    """Fails the next COMMITs of the writer's real connection, before or after they took effect."""

    def __init__(self) -> None:
        self.plan: list[str] = []

    def connect(self, path: Path) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
                if sql != "COMMIT" or not disk.plan:
                    return super().execute(sql, *parameters)  # type: ignore[arg-type]
                if disk.plan.pop(0) == "after":
                    super().execute(sql)
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error

        real, sqlite3.connect = sqlite3.connect, lambda *a, **k: real(*a, factory=Connection, **k)  # type: ignore[assignment, misc]
        try:
            return connect(path)
        finally:
            sqlite3.connect = real


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FaultyDisk:
    disk = FaultyDisk()
    monkeypatch.setattr(hotfile, "connect", disk.connect)
    return disk


@pytest.mark.parametrize("plan", [["before"], ["after"], ["before", "before", "after"]])
async def test_a_commit_that_failed_is_settled_by_looking(
    opened: Opener, disk: FaultyDisk, plan: list[str]
) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        ran: list[int] = []
        disk.plan[:] = plan
        ticket = await store.put(batch(s, 0, 10))
        ride = asyncio.ensure_future(store.ride(lambda tx: ran.append(tx.newest_seq)))
        for _ in range(200):
            if store.state().refusing:
                break
            await asyncio.sleep(0.01)
        assert "the disk refuses" in store.state().refusing
        assert not ticket.done and not ride.done()
        assert await ticket == (10, 0, 0)
        await ride
        assert len(set(ran)) == 1
        assert store.state().refusing == "" and not disk.plan
        assert len(await everything(store, [s])) == 11
        assert store.state().blocks == 2 and store.state().newest_seq == 2
        assert await put(store, (s, NOW_US, 1.0)) == (0, 1, 0)


async def test_a_commit_of_jobs_alone_is_settled_too(opened: Opener, disk: FaultyDisk) -> None:
    async with opened() as store:
        for plan in (["after"], ["before"]):
            disk.plan[:] = plan
            await store.ride(
                lambda tx: tx.conn.execute("INSERT INTO upload VALUES (hex(randomblob(8)), 0, 0)") and None
            )
        count = await store.read(lambda conn: conn.execute("SELECT count(*) FROM upload").fetchone()[0])
        assert count == 2


async def test_a_commit_of_jobs_alone_is_not_taken_for_one_of_an_earlier_life(
    opened: Opener, disk: FaultyDisk, tmp_path: Path, clock: MovableClock
) -> None:
    """In both lives it is the first commit, and in the first one the last without samples."""
    async with opened() as store:
        await store.ride(lambda tx: outbox.register(tx, "old"))
        await put(store, (store.series("plc", "a"), NOW_US, 1.0))
        shutil.copytree(tmp_path / "store", tmp_path / "after")  # the power goes: closing writes no more
    async with Store.open(tmp_path / "after", StoreSettings(commit_interval_s=0.05), clock) as store:
        disk.plan[:] = ["before"]
        s = store.series("plc", "new")
        await store.ride(lambda tx: outbox.register(tx, "cloud"))
        assert await store.read(outbox.uploads) == ["cloud", "old"]
    async with Store.open(tmp_path / "after", StoreSettings(commit_interval_s=0.05), clock) as store:
        assert store.find_series("plc", "new") == s


async def test_what_a_failed_commit_moved_is_not_taken_for_stored(opened: Opener, disk: FaultyDisk) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, *((s, NOW_US, value) for value in range(100)))
        disk.plan[:] = ["before"]
        assert await put(store, (s, NOW_US, -1), (s, NOW_US, -2)) == (0, 0, 2)
        assert not disk.plan
        assert [x.value for x in await everything(store, [s])][-2:] == [-1, -2]


async def test_closing_while_the_disk_refuses_gives_up_and_says_so(
    opened: Opener, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.store._CLOSE_S", 0.3)
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        disk.plan[:] = ["before"] * 1000
        ticket = await store.put(batch(s, 0, 10))
        ride = asyncio.ensure_future(store.ride(lambda tx: None))
        await asyncio.sleep(0.2)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    with pytest.raises(NotStored, match="closed while it could not be written"):
        await ticket
    with pytest.raises(NotStored):
        await ride
    with pytest.raises(NotStored, match="the store is closed"):
        await store.put(batch(s, 0, 1))
    disk.plan.clear()
    async with opened() as store:
        assert len(await everything(store, [s])) == 1


async def test_what_waits_is_committed_when_the_store_is_closed(opened: Opener) -> None:
    async with opened(commit_interval_s=60.0) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        ticket = await store.put(batch(s, 0, 100_000))
    assert await ticket == (100_000, 0, 0)
    async with opened() as store:
        assert store.last(s) == Sample(s, NOW_US + 99_999, 1.0)


async def test_closing_at_any_moment_leaves_a_snapshot(opened: Opener) -> None:
    for n in range(20):
        async with opened(commit_interval_s=0.001) as store:
            s = store.series("plc", "a")
            await put(store, (s, NOW_US + n, n))
            await asyncio.sleep(n % 5 * 0.0005)
        async with opened() as store:
            assert await store.read(_blocks_after_the_snapshot) == 0


async def test_commits_are_grouped_by_the_interval(opened: Opener) -> None:
    async with opened(commit_interval_s=0.5) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        began, first = time.monotonic(), store.state().newest_seq
        tickets = []
        for n in range(20):
            tickets.append(await store.put(batch(s, n, 1)))
            await asyncio.sleep(0.005)
        seqs = await asyncio.gather(*(store.ride(lambda tx: tx.newest_seq) for _ in range(5)))
        assert time.monotonic() - began > 0.3
        assert set(seqs) == {first + 1} == {store.state().newest_seq}
        assert all(ticket.done for ticket in tickets)
        began = time.monotonic()
        ticket = await store.put(batch(s, 100, 1))
        await store.flush()
        assert ticket.done and time.monotonic() - began < 0.3, "flush does not wait for the tick"


async def test_a_steady_stream_is_committed_once_an_interval(opened: Opener) -> None:
    async with opened(commit_interval_s=0.4) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        first, until, n = store.state().newest_seq, time.monotonic() + 1.8, 0
        while time.monotonic() < until:
            await store.put(batch(s, n, 1))
            n += 1
            await asyncio.sleep(0.001)
        assert n > 200
        assert 3 <= store.state().newest_seq - first <= 5


async def test_a_full_budget_makes_put_wait_in_line_and_try_put_refuse(opened: Opener) -> None:
    async with opened(commit_interval_s=0.3, memory_bytes=1_000_000) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        order: list[int] = []

        async def sender(n: int) -> None:
            ticket = await store.put(batch(s, n * 2000, 2000))
            order.append(n)
            await ticket

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for n in range(30):
                group.create_task(sender(n))
            await asyncio.sleep(0.01)
            assert 0 < len(order) < 30
            assert store.try_put(batch(s, 10**6, 1)) is None, "those in line come first"
            assert store.state().pending_bytes <= 1_000_000
        assert order == list(range(30))
        assert time.monotonic() - began < 2, "ten budgets full do not wait for ten ticks of 0.3 s"
        assert store.state().pending_bytes == 0
        assert len(await everything(store, [s])) == 60_001
        assert store.try_put(batch(s, 10**6, 1)) is not None


async def test_a_cancelled_put_gives_its_place_back(opened: Opener) -> None:
    async with opened(commit_interval_s=0.3, memory_bytes=1_000_000) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        await store.put(batch(s, 0, 6000))
        waiting = [asyncio.ensure_future(store.put(batch(s, n * 10_000, 5000))) for n in range(1, 4)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[2].cancel()
        assert await (await waiting[1]) == (5000, 0, 0)
        await store.flush()
        assert store.state().pending_bytes == 0


async def test_a_batch_that_cannot_be_written_harms_no_other(opened: Opener) -> None:
    """A batch changed after it was emitted, against the rule, is given up alone."""
    async with opened(commit_interval_s=0.3) as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US - 1, 1.0))
        batches = [batch(s, n * 10, 10) for n in range(9)]
        batches[4].values[3] = "a text, for numbers are packed when they come"
        tickets = [await store.put(each) for each in batches]
        batches[4].values[3] = {1}  # type: ignore[call-overload]
        for n, ticket in enumerate(tickets):
            if n == 4:
                with pytest.raises(NotStored, match="could not write a commit"):
                    await ticket
            else:
                assert await ticket == (10, 0, 0)
        await store.flush()
        ((_, gap),) = await store.gaps()
        assert (gap.from_us, gap.to_us, gap.count) == (NOW_US + 40, NOW_US + 49, 10)
        assert len(await everything(store, [s])) == 81
        assert store.state().refusing == ""


async def test_long_values_do_not_fill_the_memory(opened: Opener) -> None:
    async with opened() as store:
        series = [store.series("plc", str(n)) for n in range(30)]
        for s in series:
            await put(store, (s, NOW_US, "x" * 1_000_000))
        held = [s for s in series if store.last(s) is not None]
        assert held == series[-len(held) :] and 10 <= len(held) <= 16
        assert await put(store, *((s, NOW_US, "x" * 1_000_000) for s in series[:3])) == (0, 3, 0)
    async with opened() as store:
        assert [s for s in series if store.last(s) is not None] == held
        await put(store, (series[0], NOW_US + 1, "short"))
        assert store.last(series[0]) == Sample(series[0], NOW_US + 1, "short")


async def test_the_writer_turns_while_idle(store: Store) -> None:
    before = store.turned_ns
    await asyncio.sleep(1.2)
    assert store.turned_ns > before
    assert time.monotonic_ns() - store.turned_ns < 1_000_000_000


async def test_a_store_on_a_disk_that_is_full_opens_on_its_reserve(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as store:
        await put(store, (store.series("plc", "a"), NOW_US, 1.0))
    reserve = tmp_path / "store" / "reserve"
    assert reserve.stat().st_blocks > 0

    def full_while_reserved(path: Path) -> sqlite3.Connection:
        if reserve.exists():
            raise OSError(28, "No space left on device")
        return connect(path)

    monkeypatch.setattr(hotfile, "connect", full_while_reserved)
    async with opened() as store:
        assert store.last(1) == Sample(1, NOW_US, 1.0)

    def always_full(path: Path) -> sqlite3.Connection:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hotfile, "connect", always_full)
    with pytest.raises(TimeoutError):  # it waits for the disk: ending would be a loop of restarts
        async with asyncio.timeout(2.5), opened():
            pass
    monkeypatch.setattr(hotfile, "connect", connect)
    async with opened() as store:
        assert store.last(1) == Sample(1, NOW_US, 1.0)


async def test_own_stamps_are_known_again_after_a_restart(opened: Opener, clock: MovableClock) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        await put(store, (s, NOW_US, 1, 0, 2), (s, NOW_US + 5, 1, 0, 0), (s, NOW_US + 3, 1, 0, 2 | 16))
        assert store.newest_own_us == NOW_US + 3
    async with opened() as store:
        assert store.newest_own_us == NOW_US + 3


TOO_LARGE = 2**70


def _poison(store: Store, kind: str) -> None:
    if kind == "gap":
        store.gap(Gap(1, TOO_LARGE, "poison", device="plc"))
    elif kind == "run":
        store.run_ended(RunRecord(TOO_LARGE, "plc", "poison", 1, 1, 1, "ok"))
    elif kind == "series":
        store._writer.submit(lambda work: work.series.append((TOO_LARGE, "plc", "poison", "", True)))
    elif kind == "job":
        store.post(lambda tx: tx.conn.execute("ROLLBACK"))


@pytest.mark.parametrize("kind", ["gap", "run", "series", "job"])
async def test_a_record_that_cannot_be_written_harms_no_other(
    opened: Opener, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(commit_interval_s=0.3) as store:
        s = store.series("plc", "a", "mm")
        tickets = [await store.put(batch(s, n * 10, 10)) for n in range(4)]
        store.gap(Gap(1, 2, "innocent", device="plc", count=3))
        store.run_ended(RunRecord(1, "plc", "innocent", 1, 1, 1, "ok"))
        ride = store.riding(lambda tx: outbox.register(tx, "innocent"))
        _poison(store, kind)
        assert [await ticket for ticket in tickets] == [(10, 0, 0)] * 4
        await ride
        await store.flush()
        reasons = sorted(gap.reason for _, gap in await store.gaps())
        assert len(reasons) == 2 and "innocent" in reasons[1]
        assert ("poison" in reasons[0] or kind == "job") and "could not write a commit" in reasons[0]
        assert reasons[0] in caplog.text
        found = await store.read(
            lambda conn: conn.execute("SELECT (SELECT kind FROM run), (SELECT id FROM upload)").fetchall()
        )
        assert found == [("innocent", "innocent")]
        assert len(await everything(store, [s])) == 40
        assert store.state().counters["lost"] == 0 and not store.state().refusing
    async with opened() as store:
        assert store.info(s) == ("plc", "a", "mm")


async def test_where_no_record_is_at_fault_nothing_is_given_up(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the program in what keeps house: it is told as a disk's refusal is, and tried again."""
    faults = [ZeroDivisionError("simulated")] * 3

    def failing(*args: object) -> tuple[int, object]:
        if faults:
            raise faults.pop()
        return delete_folded(*args)  # type: ignore[arg-type]

    async with opened() as store:
        s = store.series("plc", "a")
        await store.flush()
        monkeypatch.setattr(commit, "delete_folded", failing)
        ticket = await store.put(batch(s, 0, 10))
        store.gap(Gap(1, 2, "innocent"))
        for _ in range(200):
            if store.state().refusing:
                break
            await asyncio.sleep(0.01)
        assert "ZeroDivisionError: simulated" in store.state().refusing and not ticket.done
        assert await ticket == (10, 0, 0)
        assert not faults and [gap.reason for _, gap in await store.gaps()] == ["innocent"]
