"""SocketCAN itself: vcan, slcan, an emulated Kvaser pair; in the machine of tests/machine/test_can.py.

The links are this machine's own to break: root, and nothing else on it.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway import canbus
from gateway.canbus import EXTENDED, REMOTE, Bus, Frames
from gateway.canbus.frames import ERROR
from gateway.clock import SystemClock
from tests.can.plant import OIL, RAM, plant, ram, settings
from tests.can.standin import record
from tests.can.test_session import rows, running, stored_last, told, values
from tests.opcua.plant import Plant

_log = logging.getLogger(__name__)

pytestmark = pytest.mark.skipif("REAL_CAN" not in os.environ, reason="only in the machine of test_can.py")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Node:
    """Another participant of a bus."""

    made: ClassVar[list["Node"]] = []

    def __init__(self, channel: str) -> None:
        self.made.append(self)
        self.socket = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        self.socket.setsockopt(101, 5, 1)  # CAN_RAW_FD_FRAMES
        self.socket.bind((channel,))
        self.socket.settimeout(5)

    def send(self, can_id: int, data: bytes = b"", *, fd: bool = False) -> None:
        while True:
            try:
                self.socket.send(record(can_id, data, fd=fd))
            except OSError as error:
                if error.errno != 105:  # ENOBUFS: the link's queue is full
                    raise
                time.sleep(0.001)
            else:
                return


@pytest.fixture(autouse=True)
def nodes_end() -> Iterator[None]:
    yield
    for node in Node.made:
        node.socket.close()


@pytest.fixture
def vcan() -> Iterator[str]:
    add()
    yield "vcan0"
    subprocess.run(["ip", "link", "del", "vcan0"], check=False)


def add() -> None:
    ip("link", "add", "vcan0", "type", "vcan")
    ip("link", "set", "vcan0", "mtu", "72", "up")


def opened(channel: str, **more: Any) -> Any:
    return canbus.opened(canbus.Settings(channel=channel), device="press", clock=SystemClock(), **more)


async def receive(bus: Bus, count: int) -> Frames:
    frames = Frames()
    async with asyncio.timeout(30):
        while len(frames) < count:
            frames.extend(await bus.receive())
    return frames


async def test_frames_of_every_kind(vcan: str) -> None:
    async with opened(vcan) as bus:
        node = Node(vcan)
        sent = [(0x123, b"abc"), (0x123 | EXTENDED, b""), (0x7FF, bytes(range(64))), (5 | REMOTE, b"")]
        before_us = time.time_ns() // 1000
        for can_id, data in sent:
            node.send(can_id, data, fd=len(data) > 8)
        frames = await receive(bus, 4)
        assert list(zip(frames.ids, frames.data, strict=True)) == sent
        assert before_us <= frames.ts[0] <= frames.ts[-1] <= time.time_ns() // 1000
        for can_id, data in sent[:3]:
            await bus.send(can_id, data)
            got = node.socket.recv(72)
            assert struct.unpack_from("=IB", got) == (can_id, len(data))
            assert got[8 : 8 + len(data)] == data
        assert bus.health.frames == 4  # not those that we sent


async def test_filters_of_the_kernel(vcan: str) -> None:
    filters = [(0x100, 0xC00007F0), (0x100 | EXTENDED, 0xDFFFFFFF)]
    async with opened(vcan, filters=filters) as bus:
        node = Node(vcan)
        for number in (0x0FF, 0x100, 0x10F, 0x110):
            node.send(number)
            node.send(number | EXTENDED)
        assert (await receive(bus, 3)).ids == [0x100, 0x100 | EXTENDED, 0x10F]
        await asyncio.sleep(0.6)
        await _nothing(bus)
        assert bus.health.traffic is not None
        assert bus.health.traffic >= 8


async def _nothing(bus: Bus) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await bus.receive()


async def test_error_frames(vcan: str) -> None:
    async with opened(vcan, filters=[(1, 0x7FF)]) as bus:
        node = Node(vcan)
        node.send(ERROR | 0x204, bytes([0, 0x10, 0, 0, 0, 0, 7, 130]))
        node.send(1)
        await receive(bus, 1)
        health = bus.health
        assert (health.state, health.transmit_errors, health.receive_errors) == ("error-passive", 7, 130)


@pytest.mark.parametrize("room", [8 << 20, 100_000], ids=["room", "little room"])
async def test_two_full_buses(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Received and counted as dropped is what was sent, to the frame."""
    from gateway.canbus import socketcan

    monkeypatch.setattr(socketcan, "_BUFFER_BYTES", room)
    names = ("vcan1", "vcan2")
    for name in names:
        ip("link", "add", name, "type", "vcan")
        ip("link", "set", name, "up")
    try:
        async with opened(names[0]) as first, opened(names[1]) as second:
            counts = await asyncio.gather(
                *(
                    _flood(name, bus, unread=room == 100_000)
                    for name, bus in zip(names, (first, second), strict=True)
                )
            )
        for sent, received, dropped in counts:
            assert received + dropped == sent
            assert (dropped > 0) == (room == 100_000), (sent, received, dropped)
            _log.info("%d sent, %d received, %d dropped", sent, received, dropped)
    finally:
        for name in names:
            ip("link", "del", name)


async def _flood(name: str, bus: Bus, *, unread: bool) -> tuple[int, int, int]:
    """Send many frames; `unread`: nobody reads until they are all sent."""
    sent = 20_000
    sending = asyncio.create_task(asyncio.to_thread(_send_all, name, sent))
    if unread:
        await sending

    async def receiving() -> None:
        while True:
            await bus.receive()

    reading = asyncio.create_task(receiving())
    await sending
    await asyncio.sleep(1)
    reading.cancel()
    return sent, bus.health.frames, bus.health.dropped


def _send_all(name: str, count: int) -> None:
    node = Node(name)
    for number in range(count):
        node.send(number % 0x800, number.to_bytes(8, "little"))


async def back_within_2_s(site: Plant, node: Callable[[], Node], value: float) -> None:
    """Send until it is stored; say how long that took."""
    began = time.monotonic()
    other: Node | None = None
    while (await values(site, "Ram.Force"))[-1:] != [value]:
        try:
            other = other or node()
            other.send(RAM, ram(value))
        except OSError:
            other = None
        await asyncio.sleep(0.1)
        assert time.monotonic() - began < 20
    took_s = time.monotonic() - began
    _log.info("back after %.2f s", took_s)
    assert took_s < 2


async def test_down_up_and_made_anew(vcan: str, tmp_path: Path) -> None:
    async with plant(tmp_path, settings(tmp_path, channel=vcan)) as site:
        await site.until(told(site, "running"), 60)
        await back_within_2_s(site, lambda: Node(vcan), 1.0)
        breaks: list[tuple[Callable[[], None], Callable[[], None], str]] = [
            (lambda: ip("link", "set", vcan, "down"), lambda: ip("link", "set", vcan, "up"), "down"),
            (lambda: ip("link", "del", vcan), add, "absent"),
        ]
        for turn, (gone, back, word) in enumerate(breaks):
            gone()
            await site.until(told(site, "failed", vcan))
            await site.until(stored_last(site, "bus:state", word))
            await asyncio.sleep(1)
            back()
            await back_within_2_s(site, lambda: Node(vcan), 2.0 + turn)
            await running(site)
        gaps = await site.gaps()
        assert len(gaps) == 2
        assert all(900_000 < gap.to_us - gap.from_us < 10_000_000 for gap in gaps)


async def test_what_came_before_the_link_went_is_not_lost(vcan: str) -> None:
    async with opened(vcan) as bus:
        node = Node(vcan)
        for number in range(10):
            node.send(number)
        ip("link", "set", vcan, "down")
        assert (await receive(bus, 10)).ids == list(range(10))
        with pytest.raises(canbus.BusProblem, match="is down"):
            await bus.receive()


async def test_down_and_up_at_once(vcan: str, tmp_path: Path) -> None:
    async with plant(tmp_path, settings(tmp_path, channel=vcan)) as site:
        await site.until(told(site, "running"), 60)
        for turn in range(3):
            ip("link", "set", vcan, "down")
            ip("link", "set", vcan, "up")
            await back_within_2_s(site, lambda: Node(vcan), float(turn))
            # Frames behind the error are still read: the value may be there before the bus is opened again.
            await gaps_told(site, Node(vcan), turn + 1)
        ip("link", "del", vcan)
        add()
        await back_within_2_s(site, lambda: Node(vcan), 9.0)
        await gaps_told(site, Node(vcan), 4)


async def gaps_told(site: Plant, node: Node, count: int) -> None:
    async with asyncio.timeout(20):
        while len(found := await site.gaps()) < count:
            node.send(RAM, ram(7.0))
            await asyncio.sleep(0.1)
    assert len(found) == count


async def test_bus_off_of_an_error_frame(vcan: str, tmp_path: Path) -> None:
    async with plant(tmp_path, settings(tmp_path, channel=vcan)) as site:
        await site.until(told(site, "running"), 60)
        node = Node(vcan)
        node.send(RAM, ram(1))
        node.send(ERROR | 0x40, bytes(8))
        await back_within_2_s(site, lambda: node, 2.0)
        await site.until(stored_last(site, "bus:state", "error-active"))
        assert "bus-off" in [value for name, _ts, value in await rows(site) if name == "bus:state"]
        (gap,) = await site.gaps()
        assert "bus-off" in gap.reason


async def test_a_kvaser_pair(tmp_path: Path) -> None:
    for name in ("can0", "can1"):
        ip("link", "set", name, "type", "can", "bitrate", "250000")
    ip("link", "set", "can1", "up")
    async with plant(tmp_path, settings(tmp_path, bitrate=250_000)) as site:
        await site.until(told(site, "failed", "can0 is down"), 60)
        ip("link", "set", "can0", "up")
        await back_within_2_s(site, lambda: Node("can1"), 1.0)
        node = Node("can1")
        for number in range(500):
            node.send(OIL, number.to_bytes(2, "little"))
        await site.until(stored_last(site, "Oil.Pressure", 4.99))
        ip("link", "set", "can0", "down")
        await site.until(told(site, "failed", "ip link set can0 up type can bitrate 250000"))
        ip("link", "set", "can0", "up")
        await back_within_2_s(site, lambda: Node("can1"), 3.0)
        # The emulated controller may run over as well, and says so.
        assert len([gap for gap in await site.gaps() if "is down" in gap.reason]) == 1


class Slcan:
    """A kernel's slcan link over a pseudo-terminal; the adapter is ours."""

    N_SLCAN = 17

    def __init__(self) -> None:
        import fcntl
        import termios
        import tty

        before = {each.name for each in Path("/sys/class/net").iterdir()}
        self.adapter, self._line = os.openpty()
        tty.setraw(self._line)
        # The driver waits until what it says was read.
        threading.Thread(target=self._listen, daemon=True).start()
        fcntl.ioctl(self._line, termios.TIOCSETD, struct.pack("i", self.N_SLCAN))
        (self.channel,) = {each.name for each in Path("/sys/class/net").iterdir()} - before

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(self.adapter, 4096):
                pass

    def say(self, *lines: bytes) -> None:
        os.write(self.adapter, b"".join(line + b"\r" for line in lines))

    def close(self) -> None:
        os.close(self._line)
        os.close(self.adapter)


async def test_bus_off_of_a_driver(tmp_path: Path) -> None:
    """slcan's state letters: s, error counters; a bus-off driver takes the carrier away."""
    adapter = Slcan()
    try:
        name = adapter.channel
        ip("link", "set", name, "type", "can", "bitrate", "500000")
        ip("link", "set", name, "up")
        async with plant(tmp_path, settings(tmp_path, channel=name)) as site:
            await site.until(told(site, "running"), 60)
            adapter.say(b"t1008" + ram(1).hex().encode())
            await site.until(stored_last(site, "Ram.Force", 1.0))
            adapter.say(b"sp000130")  # error-passive
            await site.until(stored_last(site, "bus:state", "error-passive"))
            adapter.say(b"sb000000")
            await site.until(stored_last(site, "bus:state", "bus-off"))
            await site.until(told(site, "failed", "bus-off"))
            ip("link", "set", name, "down")
            ip("link", "set", name, "up")
            began = time.monotonic()
            while (await values(site, "Ram.Force"))[-1:] != [5.0]:
                adapter.say(b"t1008" + ram(5).hex().encode())
                await asyncio.sleep(0.1)
                assert time.monotonic() - began < 20
            _log.info("back after %.2f s", time.monotonic() - began)
            assert len(await site.gaps()) == 1
    finally:
        adapter.close()


async def test_another_bus_is_another_bus(vcan: str) -> None:
    """The positive control: the same frames on another link are not received."""
    ip("link", "add", "vcan9", "type", "vcan")
    ip("link", "set", "vcan9", "up")
    try:
        async with opened(vcan) as bus:
            Node("vcan9").send(1)
            await _nothing(bus)
    finally:
        ip("link", "del", "vcan9")
