"""The base: tickets, scaling, back-off, supervision, own time, and that blocking the loop fails a test."""

import asyncio
import random
from pathlib import Path

import blockbuster
import pytest

from gateway import identity
from gateway.clock import SystemClock
from gateway.model import Batch, DeviceProblem, Flag, Gap, NotStored, Receipt, Sample, Ticket
from gateway.own_time import OwnTime
from gateway.scaling import Scaling
from gateway.supervise import Backoff, Keeper, Supervisor


class HandClock:
    """A clock that the test moves."""

    def __init__(self, wall_us: int = 1_800_000_000_000_000, synchronised: bool = True) -> None:
        self.now_us, self.now_ns, self.synced = wall_us, 0, synchronised
        self.waits_s: list[float] = []

    def wall_us(self) -> int:
        return self.now_us

    def mono_ns(self) -> int:
        return self.now_ns

    def synchronised(self) -> bool:
        return self.synced

    async def sleep(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.pass_s(seconds)
        await asyncio.sleep(0)

    def pass_s(self, seconds: float) -> None:
        self.now_us += int(seconds * 1e6)
        self.now_ns += int(seconds * 1e9)


async def test_a_blocking_call_in_the_loop_fails(tmp_path: Path) -> None:
    with pytest.raises(blockbuster.BlockingError):
        identity.gateway_id(tmp_path)


async def test_the_gateway_id_is_kept(tmp_path: Path) -> None:
    first = await asyncio.to_thread(identity.gateway_id, tmp_path)
    assert identity.ID.match(first)
    assert await asyncio.to_thread(identity.gateway_id, tmp_path) == first


async def test_a_ticket_gives_its_receipt_or_raises_and_needs_no_reader() -> None:
    kept, lost, unread = Ticket(), Ticket(), Ticket()
    kept.resolve(Receipt(2, 0, 0))
    lost.fail(NotStored("given up"))
    unread.fail(NotStored("nobody asks"))
    assert await kept == Receipt(2, 0, 0)
    with pytest.raises(NotStored, match="given up"):
        await lost


async def test_cancelling_a_waiter_leaves_the_ticket() -> None:
    ticket = Ticket()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_wait(ticket), 0.01)
    ticket.resolve(Receipt(1, 0, 0))
    assert await ticket == Receipt(1, 0, 0)


async def _wait(ticket: Ticket) -> Receipt:
    return await ticket


def test_a_batch_keeps_its_columns_in_step() -> None:
    samples = [Sample(1, 10, 1.5), Sample(2, 11, None, 0x80000000, Flag.SERVER_TIME)]
    batch = Batch.of(samples)
    batch.extend(Batch.of(samples[:1]))
    assert list(batch) == [*samples, samples[0]]
    assert len(batch) == 3


@pytest.mark.parametrize(
    ("raw", "physical"), [(10, 25.0), (True, True), ("text", "text"), ([1, 2.0], [7.0, 9.0]), (None, None)]
)
def test_scaling_touches_numbers_only(raw: object, physical: object) -> None:
    scaled = Scaling(2.0, 5.0)(raw)  # type: ignore[arg-type]  # object covers every Value of the table
    assert scaled == physical
    assert type(scaled) is type(physical)


def test_an_integer_passes_unscaled_exactly() -> None:
    assert Scaling()(2**63 + 1) == 2**63 + 1


def test_back_off_doubles_to_its_cap_with_jitter() -> None:
    random.seed(1)
    backoff = Backoff(first_s=0.5, cap_s=10)
    for failures in range(1, 200):
        ceiling = min(0.5 * 2 ** (failures - 1), 10)
        assert ceiling / 2 <= backoff.wait_s(failures) <= ceiling


async def test_a_kept_coroutine_is_started_again_and_its_health_is_told() -> None:
    clock, ended = HandClock(), []
    supervisor, running = Supervisor(clock), asyncio.Event()

    async def run(keeper: Keeper) -> None:
        match keeper.health.starts:
            case 1:
                raise DeviceProblem("press-07: no such node")
            case 2:
                raise OSError("unplugged")
        keeper.report("running")
        running.set()
        await asyncio.Event().wait()

    keeper = supervisor.keep("device press-07", run, ended=ended.append)
    await running.wait()
    assert [type(error) for error in ended] == [DeviceProblem, OSError]
    assert (keeper.health.state, keeper.health.failures, keeper.health.starts) == ("running", 0, 3)
    assert len(clock.waits_s) == 2
    await supervisor.close()
    assert isinstance(ended[-1], asyncio.CancelledError)


def test_own_stamps_follow_a_synchronised_clock() -> None:
    clock = HandClock()
    stamp = OwnTime(clock, clock.now_us + 10**9, [].append)
    assert stamp() == (clock.now_us, Flag.OWN_TIME)


def test_own_stamps_after_a_boot_in_1970_start_after_the_newest_in_the_store() -> None:
    newest = 1_800_000_000_000_000
    clock = HandClock(wall_us=5_000_000, synchronised=False)
    stamp = OwnTime(clock, newest, [].append)
    first, flags = stamp()
    assert first == newest + 1
    assert flags == Flag.OWN_TIME | Flag.UNSYNCED
    clock.pass_s(10)
    assert stamp()[0] == first + 10_000_000
    clock.now_us = newest + 3_600_000_000  # somebody sets the date by hand
    assert stamp()[0] == clock.now_us


def test_own_stamps_never_run_backwards_while_unsynchronised() -> None:
    random.seed(7)
    clock = HandClock(synchronised=False)
    stamp, last = OwnTime(clock, 0, [].append), 0
    for _ in range(1000):
        clock.pass_s(random.random())
        if random.random() < 0.1:
            clock.now_us += random.randrange(-10, 10) * 3_600_000_000
        now, _flags = stamp()
        assert now >= last
        last = now


def test_what_own_stamps_were_wrong_by_is_recorded_once_the_clock_is_set() -> None:
    newest, told = 1_800_000_000_000_000, list[Gap]()
    clock = HandClock(wall_us=5_000_000, synchronised=False)
    stamp = OwnTime(clock, newest, told.append)
    stamps = [stamp()[0]]
    clock.pass_s(100)
    stamps.append(stamp()[0])
    clock.now_us = newest + 50_000_000  # by hand, before what was stamped already
    stamps.append(stamp()[0])
    clock.pass_s(10)
    stamps.append(stamp()[0])
    assert [s - newest for s in stamps] == [1, 100_000_001, 100_000_002, 110_000_002]
    assert not told
    true_us = newest + 3 * 86_400_000_000
    clock.now_us, clock.synced = true_us, True
    assert stamp() == (true_us, Flag.OWN_TIME)
    assert [(gap.from_us, gap.to_us) for gap in told] == [tuple(stamps[:2]), tuple(stamps[2:])]
    assert ["259090.000 s too early" in gap.reason for gap in told] == [True, True]
    stamp()
    assert len(told) == 2
    clock.synced = False  # the time server is gone: the clock goes on rightly
    assert stamp()[0] == true_us + 1
    clock.synced = True
    stamp()
    assert len(told) == 2


def test_own_stamps_go_on_after_a_second_fall_to_1970() -> None:
    clock = HandClock(wall_us=5_000_000, synchronised=False)
    stamp, last = OwnTime(clock, 0, [].append), 0
    stamp()
    clock.now_us, clock.synced = 1_800_000_000_000_000, True
    stamp()
    clock.now_us, clock.synced = 5_000_000, False
    for _ in range(5):
        clock.pass_s(1)
        assert stamp()[0] > max(last, 1_800_000_000_000_000)
        last = stamp()[0]


async def test_the_system_clock_tells_microseconds_and_whether_it_is_set() -> None:
    clock = SystemClock()
    before = clock.mono_ns()
    await clock.sleep(0.01)
    assert clock.mono_ns() - before >= 10_000_000
    assert clock.wall_us() > 1_700_000_000_000_000
    assert clock.synchronised() in (True, False)


async def test_a_part_outlives_what_a_task_group_left_behind() -> None:
    """Python 3.11 leaves a task marked as cancelled where a TaskGroup failed while it waited for its end."""
    attempts = 0

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise OSError("gone")

    async def run(_keeper: Keeper) -> None:
        nonlocal attempts
        attempts += 1
        async with asyncio.timeout(0.01):
            if attempts > 1:
                await asyncio.sleep(10)
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    supervisor = Supervisor(SystemClock())
    keeper = supervisor.keep("part", run, backoff=Backoff(0.001, 0.01))
    async with asyncio.timeout(5):
        while attempts < 4:
            assert keeper.task is not None and not keeper.task.done()
            await asyncio.sleep(0.01)
    await keeper.stop()
