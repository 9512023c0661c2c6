"""An interface of this machine: what it is that is wrong with it, and how it comes back."""

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gateway import canbus
from gateway.canbus import EXTENDED, Bus, BusProblem, Frames, link_state
from gateway.canbus.frames import ERROR
from gateway.clock import SystemClock
from gateway.model import Flag
from tests.can.standin import ETHERNET, Machine


def opened(**kwargs: Any) -> Any:
    names = ("filters", "batch_ms", "stamp")
    apart = {name: kwargs.pop(name) for name in names if name in kwargs}
    return canbus.opened(canbus.Settings(**kwargs), device="press", clock=SystemClock(), **apart)


async def refused(**kwargs: Any) -> BusProblem:
    with pytest.raises(BusProblem) as problem:
        async with opened(**kwargs):
            pass
    return problem.value


async def until(condition: Callable[[], bool], receive: Bus | None = None) -> Frames:
    frames = Frames()
    async with asyncio.timeout(5):
        while not condition():
            if receive is not None:
                frames.extend(await receive.receive())
            else:
                await asyncio.sleep(0.01)
    return frames


async def test_frames_and_their_bus(machine: Machine) -> None:
    machine.plug(mtu=72)
    filters = [(0x123, 0xC00007FF)]
    async with opened(filters=filters) as bus:
        assert machine.filters == filters
        assert machine.fd
        machine.send(0x123, b"abc")
        machine.send(0x456 | EXTENDED, bytes(range(12)), fd=True)
        frames = await until(lambda: bus.health.frames == 2, bus)
        assert frames.ids == [0x123, 0x456 | EXTENDED]
        assert frames.data == [b"abc", bytes(range(12))]
        await bus.send(0x321, b"hello")
        assert machine.sent() == (0x321, b"hello")
        await bus.send(0x18FEF100 | EXTENDED, bytes(16))
        assert machine.sent() == (0x18FEF100 | EXTENDED, bytes(16))


async def test_a_busy_bus_is_fetched_in_batches(machine: Machine) -> None:
    machine.plug()
    async with opened(batch_ms=100) as bus:
        machine.send(0, b"")
        await bus.receive()
        for number in range(1500):
            machine.send(number, b"")
        assert len(await bus.receive()) == 1500
    async with opened(batch_ms=1000) as bus:
        machine.send(0, b"")
        await bus.receive()
        asyncio.get_running_loop().call_later(0.01, machine.send, 1)
        asyncio.get_running_loop().call_later(0.3, machine.send, 2)
        assert (await bus.receive()).ids == [1, 2]


async def test_error_frames_between_do_not_end_a_batch(machine: Machine) -> None:
    machine.plug()
    async with opened(batch_ms=100) as bus:
        machine.send(0, b"")
        await bus.receive()
        for number in range(1500):
            if number % 400 == 100:
                machine.send(ERROR | 0x4, bytes(8))
            machine.send(number, b"")
        assert len(await bus.receive()) == 1500
        assert bus.health.error_frames == 4


async def test_error_frames_alone_are_fetched_in_batches_too(machine: Machine) -> None:
    machine.plug()
    async with opened(batch_ms=200) as bus, asyncio.TaskGroup() as group:
        receiving = group.create_task(bus.receive())
        began_s = asyncio.get_running_loop().time()
        for count in (1, 2):
            machine.send(ERROR | 0x4, bytes(8))
            await until(lambda wanted=count: bus.health.error_frames == wanted)  # type: ignore[misc]
        assert asyncio.get_running_loop().time() - began_s >= 0.2
        receiving.cancel()


async def test_no_such_interface_names_those_that_are_there(machine: Machine) -> None:
    machine.plug("can1")
    machine.plug("eth0", kind=ETHERNET)
    problem = await refused()
    assert problem.bus_state == "absent"
    assert str(problem) == (
        "device press: can0 does not exist: is the adapter plugged in and its driver loaded "
        "(`ip link`, `dmesg`)? CAN interfaces here: can1"
    )


async def test_an_interface_of_another_kind(machine: Machine) -> None:
    machine.plug("eth0", kind=ETHERNET)
    problem = await refused(channel="eth0")
    assert str(problem) == "device press: eth0 is no CAN interface; CAN interfaces here: none"


async def test_an_interface_that_is_down_comes_with_the_command(machine: Machine) -> None:
    machine.plug(up=False)
    problem = await refused(bitrate=250_000)
    assert problem.bus_state == "down"
    assert "can0 is down: `sudo ip link set can0 up type can bitrate 250000 restart-ms 100`" in str(problem)


async def test_no_carrier_is_bus_off(machine: Machine) -> None:
    machine.plug()
    machine.write("can0", carrier=0)
    problem = await refused()
    assert problem.bus_state == "bus-off"
    assert "terminating resistors" in str(problem)


@pytest.mark.parametrize(
    ("number", "word"), [(errno.EAFNOSUPPORT, "modprobe can_raw"), (errno.ENODEV, "No such device")]
)
async def test_no_socket(machine: Machine, number: int, word: str) -> None:
    machine.plug()
    machine.refuses = OSError(number, "No such device")
    assert word in str(await refused())


@pytest.mark.parametrize(
    ("what", "state"),
    [
        (lambda machine: machine.write("can0", flags="0x40080"), "down"),
        (lambda machine: machine.write("can0", carrier=0), "bus-off"),
        (lambda machine: machine.unplug(), "absent"),
        (lambda machine: (machine.unplug(), machine.plug()), "absent"),
        (lambda machine: machine.send(ERROR | 0x40, bytes(8)), "bus-off"),
        (lambda machine: [machine.send(ERROR | kind, bytes(8)) for kind in (0x40, 0x100)], "bus-off"),
    ],
    ids=["down", "carrier", "unplugged", "made anew", "error frame", "restarted at once"],
)
async def test_the_bus_is_lost(machine: Machine, what: Callable[[Machine], object], state: str) -> None:
    machine.plug()
    async with opened() as bus:
        machine.send(1, b"before")
        assert (await bus.receive()).ids == [1]
        machine.send(2, b"last")
        what(machine)
        async with asyncio.timeout(5):
            assert (await bus.receive()).ids == [2]  # what was there is not lost with the bus
            with pytest.raises(BusProblem) as problem:
                await bus.receive()
    assert problem.value.bus_state == state
    assert "press" in str(problem.value)
    if state != "absent" or "anew" in str(problem.value):
        machine.write("can0", flags="0x40081", carrier=1)
        async with opened() as bus:
            machine.send(3, b"")
            assert (await bus.receive()).ids == [3]


async def test_what_came_before_the_link_went_is_not_lost(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of the link first, then gives the frames."""
    machine.plug()
    async with opened() as bus:
        told: list[OSError] = [OSError(errno.ENETDOWN, "Network is down")]
        read = bus._records.read
        monkeypatch.setattr(bus._records, "read", lambda: _raised(told.pop()) if told else read())
        machine.send(1, b"")
        assert (await bus.receive()).ids == [1]
        with pytest.raises(BusProblem, match="can0 is down"):
            await bus.receive()


def _raised(error: OSError) -> Any:
    raise error


async def test_error_frames_become_the_state(machine: Machine) -> None:
    machine.plug()
    async with opened() as bus:
        seen = []
        for classes, controller, counters in [
            (0x204, 0x08, (100, 3)),  # warning, with counters
            (0x204, 0x20, (130, 5)),  # passive
            (0x028, 0x00, (0, 0)),  # nobody acknowledged: the state stays
            (0x204, 0x40, (90, 4)),  # active again
            (0x004, 0x01, (0, 0)),  # the controller's memory ran over, which the link counts
        ]:
            machine.send(ERROR | classes, bytes([0, controller, 0, 0, 0, 0, *counters]))
            machine.send(1, b"")
            await bus.receive()
            health = bus.health
            seen.append((health.state, health.transmit_errors, health.receive_errors))
        machine.count(overruns=1)
        await until(lambda: _heard(machine) and bus.health.overruns > 0, bus)
        assert bus.health.overruns == 1
    assert seen == [
        ("error-warning", 100, 3),
        ("error-passive", 130, 5),
        ("error-passive", 130, 5),
        ("error-active", 90, 4),
        ("error-active", 90, 4),
    ]
    assert health.cause == "nothing acknowledges what is sent"
    assert health.error_frames == 5


async def test_the_load_counts_also_what_filters_keep_away(machine: Machine) -> None:
    machine.plug()
    async with opened(bitrate=500_000, batch_ms=1) as bus:
        machine.send(1, b"")
        await bus.receive()
        machine.count(rx=2000, rx_bytes=16_000)
        seen = []

        async def receive() -> None:
            while True:
                await bus.receive()
                seen.append(bus.health.load_percent)

        receiving = asyncio.create_task(receive())
        try:
            while not any(seen):
                assert not receiving.done()
                machine.send(1, b"")
                await asyncio.sleep(0.05)
        finally:
            receiving.cancel()
        # 2000 frames of 47 + 64 bits are 222 000 bits, over half a second or somewhat more.
        assert 10 < max(load for load in seen if load is not None) <= 222_000 / 500_000 / 0.5 * 100
        assert bus.health.traffic == 2000


async def test_dropped_frames_are_counted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.canbus import socketcan

    monkeypatch.setattr(socketcan, "_BUFFER_BYTES", 20_000)
    machine.plug()
    async with opened(batch_ms=200) as bus:
        for number in range(2000):
            machine.send(number % 0x800, b"")
        await bus.receive()
        assert bus.health.dropped > 0
        assert bus.health.frames + bus.health.dropped == 2000


async def test_the_times_follow_the_gateways_own_while_nothing_sets_the_clock(machine: Machine) -> None:
    machine.plug()
    clock = SystemClock()

    def stamp() -> tuple[int, int]:
        return clock.wall_us() + 3_600_000_000, Flag.OWN_TIME | Flag.UNSYNCED

    async with opened(stamp=stamp) as bus:
        machine.send(1, b"")
        frames = await bus.receive()
        assert frames.flags == Flag.OWN_TIME | Flag.UNSYNCED
        assert abs(frames.ts[0] - stamp()[0]) < 60_000_000


async def test_the_first_frames_are_in_order_though_the_kernel_stamps_late(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plug()
    async with opened() as bus:
        late = Frames([5, 6, 3, 4, 9], [1, 2, 3, 4, 5], [b""] * 5)
        monkeypatch.setattr(bus._records, "read", lambda: (late, []))
        assert (await bus.receive()).ts == [3, 3, 3, 4, 9]


async def test_nobody_acknowledges(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.canbus import socketcan

    monkeypatch.setattr(socketcan, "_SEND_S", 0.05)
    machine.plug()

    class Full:
        def send(self, _record: bytes) -> int:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    async with opened() as bus:
        monkeypatch.setattr(bus, "_socket", Full())
        with pytest.raises(BusProblem, match="nobody acknowledges"):
            await bus.send(1, b"")


async def test_frames_do_not_wait_for_the_executor_of_others(machine: Machine) -> None:
    """Forty jobs that wait for a disk fill the executor that asyncio shares."""
    machine.plug()
    disk, waiting = threading.Event(), []
    loop = asyncio.get_running_loop()
    try:
        waiting = [loop.run_in_executor(None, disk.wait) for _ in range(40)]
        async with asyncio.timeout(10), opened(batch_ms=20, bitrate=500_000) as bus:
            machine.send(1)
            await bus.receive()
            await asyncio.sleep(0.6)  # now it is looked after
            machine.send(2)
            assert (await bus.receive()).ids == [2]
            machine.count(rx=7)
            await until(lambda: _heard(machine) and bus.health.traffic == 7, bus)
    finally:
        disk.set()
        await asyncio.gather(*waiting)


def _heard(machine: Machine) -> bool:
    machine.send(3)
    return True


async def test_frames_do_not_wait_for_a_link_that_is_slow_to_tell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plug()
    async with opened(batch_ms=20) as bus:
        told = threading.Event()
        look = link_state.look
        monkeypatch.setattr(link_state, "look", lambda *link: told.wait() and look(*link))
        try:
            async with asyncio.timeout(10):
                for number in range(30):
                    machine.send(number)
                    assert (await bus.receive()).ids == [number]
                    await asyncio.sleep(0.03)
        finally:
            told.set()


@pytest.mark.parametrize(
    "what",
    [
        lambda machine: [machine.send(ERROR | kind, bytes(8)) for kind in (0x40, 0x100)],
        lambda machine: machine.write("can0", carrier=0),
    ],
    ids=["restarted at once", "carrier"],
)
async def test_a_busy_bus_that_went_off_is_told(machine: Machine, what: Callable[[Machine], object]) -> None:
    machine.plug()

    async def talk() -> None:
        while True:
            machine.send(3)
            await asyncio.sleep(0.005)

    async with opened(batch_ms=50) as bus, asyncio.timeout(10):
        talking = asyncio.create_task(talk())
        try:
            await bus.receive()
            what(machine)
            with pytest.raises(BusProblem, match="bus-off"):
                while True:
                    await bus.receive()
        finally:
            talking.cancel()
