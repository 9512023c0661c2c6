"""Interfaces of python-can: its virtual bus, and an slcan adapter on a pseudo-terminal."""

import asyncio
import errno
import os
import sys
import threading
import time
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import can
import pytest

from gateway import canbus
from gateway.canbus import EXTENDED, Bus, BusProblem, Frames
from gateway.canbus.frames import EXTENDED_BITS
from gateway.clock import SystemClock


def opened(**kwargs: Any) -> Any:
    apart = {name: kwargs.pop(name) for name in ("filters", "batch_ms") if name in kwargs}
    return canbus.opened(canbus.Settings(**kwargs), device="press", clock=SystemClock(), **apart)


async def receive(bus: Bus, count: int) -> Frames:
    frames = Frames()
    async with asyncio.timeout(5):
        while len(frames) < count:
            frames.extend(await bus.receive())
    return frames


@pytest.fixture
async def other(request: pytest.FixtureRequest) -> AsyncIterator[can.BusABC]:
    with can.Bus(interface="virtual", channel=request.node.name, protocol=can.CanProtocol.CAN_FD) as bus:
        yield bus


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


async def test_frames_both_ways(other: can.BusABC, channel: str) -> None:
    async with opened(interface="virtual", channel=channel) as bus:
        sent = [(0x123, b"abc"), (0x123 | EXTENDED, b""), (0x456, bytes(64))]
        for can_id, data in sent:
            extended = bool(can_id & EXTENDED)
            other.send(can.Message(arbitration_id=can_id & EXTENDED_BITS, is_extended_id=extended,
                                   is_fd=len(data) > 8, data=data))  # fmt: skip
        other.send(can.Message(is_error_frame=True))
        frames = await receive(bus, 3)
        assert list(zip(frames.ids, frames.data, strict=True)) == sent
        await bus.send(0x18FEF100 | EXTENDED, b"12345678")
        heard = other.recv(1)
        assert heard is not None
        assert (heard.arbitration_id, heard.is_extended_id, heard.data) == (0x18FEF100, True, b"12345678")


async def test_filters(other: can.BusABC, channel: str) -> None:
    filters = [(0x100, 0xC00007F0), (0x100 | EXTENDED, 0xDFFFFFFF)]
    async with opened(interface="virtual", channel=channel, filters=filters) as bus:
        for number in (0x0FF, 0x100, 0x10F, 0x110):
            other.send(can.Message(arbitration_id=number, is_extended_id=False))
            other.send(can.Message(arbitration_id=number, is_extended_id=True))
        assert (await receive(bus, 3)).ids == [0x100, 0x100 | EXTENDED, 0x10F]


async def test_a_flood_is_received_or_counted(
    other: can.BusABC, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.canbus import threaded

    monkeypatch.setattr(threaded, "_MOST_FRAMES", 100)
    async with opened(interface="virtual", channel=channel, batch_ms=1) as bus:
        for number in range(1000):
            other.send(can.Message(arbitration_id=number, is_extended_id=False))
        async with asyncio.timeout(5):
            while bus.health.dropped + len(bus._frames) < 1000:
                await asyncio.sleep(0.01)
        received = len(await bus.receive())
        assert received + bus.health.dropped == 1000
        assert received >= 100


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"interface": "slcan", "channel": "/dev/ttyACM99"}, "/dev/ttyACM99.*plugged in.*systemd-dropin"),
        ({"interface": "slcan", "channel": "/dev/null", "options": {"sleep_after_open": 0}}, "/dev/null"),
        ({"interface": "pcan", "channel": "PCAN_USBBUS1"}, "PCAN"),
        ({"interface": "gs_usb", "channel": "0"}, "interface: socketcan"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what pcan imports
async def test_an_interface_that_does_not_open(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BusProblem, match=f"device press: {settings['interface']}.*{words}"):
        async with opened(**settings):
            pass


class Adapter:
    """An slcan adapter (Lawicel's protocol) at the other end of a pseudo-terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self.heard = b""

    def say(self, *lines: bytes) -> None:
        assert self._descriptor is not None
        os.write(self._descriptor, b"".join(line + b"\r" for line in lines))

    def listen(self) -> bytes:
        """Return all that came so far."""
        assert self._descriptor is not None
        try:
            self.heard += os.read(self._descriptor, 4096)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        return self.heard

    def unplug(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


@contextmanager
def adapter() -> Iterator[tuple[Adapter, str]]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    name = os.ttyname(theirs)
    made = Adapter(ours)
    try:
        yield made, name
    finally:
        os.close(theirs)
        made.unplug()


async def heard(adapter: Adapter, what: bytes) -> None:
    async with asyncio.timeout(5):
        while what not in adapter.listen():
            await asyncio.sleep(0.01)


async def test_an_slcan_adapter() -> None:
    options = {"sleep_after_open": 0}
    with adapter() as (made, name):
        async with opened(interface="slcan", channel=name, bitrate=250_000, options=options) as bus:
            await heard(made, b"C\rS5\r")
            await heard(made, b"O\r")
            made.say(b"t1233112233", b"T18FEF10020a0b", b"t0010")
            frames = await receive(bus, 3)
            assert frames.ids == [0x123, 0x18FEF100 | EXTENDED, 1]
            assert frames.data == [b"\x11\x22\x33", b"\x0a\x0b", b""]
            await bus.send(0x7FF, b"\x01")
            await heard(made, b"t7FF101\r")
        await heard(made, b"C\r")


async def test_a_disturbed_line_costs_its_line_only() -> None:
    with adapter() as (made, name):
        async with opened(interface="slcan", channel=name, options={"sleep_after_open": 0}) as bus:
            made.say(b"t1#31", b"t1", b"t10019z", b"t456111")
            assert (await receive(bus, 1)).data == [b"\x11"]
            assert bus.health.error_frames == 3


async def test_an_adapter_that_is_unplugged() -> None:
    with adapter() as (made, name):
        async with opened(interface="slcan", channel=name, options={"sleep_after_open": 0}) as bus:
            made.say(b"t12301122")
            await heard(made, b"O\r")
            assert (await receive(bus, 1)).ids == [0x123]
            made.say(b"t4561aa", b"t45612")  # the second one is cut off
            await asyncio.sleep(0.05)
            made.unplug()
            async with asyncio.timeout(5):
                assert (await bus.receive()).data == [b"\xaa"]
                with pytest.raises(BusProblem, match=f"slcan {name}.*plugged in") as problem:
                    while True:
                        await bus.receive()
    assert problem.value.bus_state == "lost"


async def test_leaving_ends_the_thread(other: can.BusABC, channel: str) -> None:
    def ours() -> bool:
        return any(thread.name.startswith("can-press") for thread in threading.enumerate())

    async with opened(interface="virtual", channel=channel):
        assert ours()
    async with asyncio.timeout(5):
        while ours():
            await asyncio.sleep(0.01)


async def test_a_driver_that_hangs_is_given_up(
    other: can.BusABC, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.canbus import threaded

    hangs = threading.Event()
    monkeypatch.setattr(threaded, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(threaded, "_LEAVE_S", 0.2)
    monkeypatch.setattr(can, "Bus", lambda **_: hangs.wait())
    try:
        with pytest.raises(BusProblem, match="has not opened within"):
            async with opened(interface="virtual", channel=channel):
                pass
        with pytest.raises(BusProblem, match="its driver hangs"):  # no further thread is given to it
            async with opened(interface="virtual", channel=channel):
                pass
    finally:
        hangs.set()
    async with asyncio.timeout(5):
        while threaded.ThreadedBus.hanging:
            await asyncio.sleep(0.01)


_HANGS = """
import asyncio, sys, time
import can
from gateway.canbus import BusProblem, Settings, opened, threaded
from gateway.clock import SystemClock

threaded._PATIENCE_S = threaded._LEAVE_S = 0.1
can.Bus = lambda **_: time.sleep(600)

async def main():
    async with opened(Settings(interface="virtual"), device="press", clock=SystemClock()):
        pass

try:
    asyncio.run(main())
except BusProblem as problem:
    sys.exit(str(problem))
"""


async def test_a_driver_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", _HANGS, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(25):
            _, said = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == 1 and b"has not opened within" in said


class Interface(can.BusABC):
    """An interface of python-can that gives what it was told to, and a PCAN's status."""

    def __init__(self, *messages: can.Message) -> None:
        super().__init__(None)
        self.messages = list(messages)
        self.pcan_status = 0

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        pass

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        if self.messages:
            return self.messages.pop(0), True
        time.sleep(min(timeout or 0, 0.01))
        return None, True

    def status(self) -> int:
        return self.pcan_status


def error(can_id: int, *data: int) -> can.Message:
    return can.Message(arbitration_id=can_id, is_extended_id=False, is_error_frame=True, data=data)


def frame() -> can.Message:
    return can.Message(timestamp=time.time(), arbitration_id=1, is_extended_id=False)


async def test_error_frames_of_gs_usb_become_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Interface(error(0x204, 0, 0x20, 0, 0, 0, 0, 130, 5), error(0x004, 0, 0x01), frame())
    monkeypatch.setattr(can, "Bus", lambda **_: made)
    async with asyncio.timeout(10), opened(interface="gs_usb", channel="0", batch_ms=1) as bus:
        await bus.receive()
        health = bus.health
        assert (health.state, health.transmit_errors, health.receive_errors) == ("error-passive", 130, 5)
        assert (health.error_frames, health.overruns) == (2, 1)
        made.messages.append(frame())
        await bus.receive()
        assert health.state == "error-passive"
        made.messages += [error(0x040), frame()]
        with pytest.raises(BusProblem, match=r"gs_usb 0 is bus-off: .*terminating resistors") as problem:
            while True:
                await bus.receive()
    assert problem.value.bus_state == "bus-off"


async def test_error_frames_of_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Interface(error(0x004, 0, 0x20, 100, 100), error(0x040), frame())  # stuff errors, say
    monkeypatch.setattr(can, "Bus", lambda **_: made)
    async with asyncio.timeout(10), opened(interface="kvaser", channel="0", batch_ms=1) as bus:
        await bus.receive()
        assert (bus.health.state, bus.health.error_frames) == ("up", 2)


async def test_a_pcan_tells_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Interface()
    monkeypatch.setattr(can, "Bus", lambda **_: made)
    async with asyncio.timeout(20), opened(interface="pcan", channel="PCAN_USBBUS1", batch_ms=1) as bus:
        for status, state in [(0, "error-active"), (0x08, "error-warning"), (0x40008, "error-passive")]:
            made.pcan_status = status
            while bus.health.state != state:
                made.messages.append(frame())
                await bus.receive()
        made.pcan_status = 0x10
        with pytest.raises(BusProblem, match="is bus-off"):
            await bus.receive()
