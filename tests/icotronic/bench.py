"""Print what a stream of 4762 frames/s costs beside the icotronic library, in the same run.

    python -m tests.icotronic.bench [--seconds N] [--mutant]

The simulated STU runs in a process of its own. Over a datagram socket in place of a raw CAN socket, with
python-can's own SocketCAN code on the library's side, and over socketcand. Each figure has its bound; one
that misses it is marked, and the exit code is 1. `--mutant` takes them one by one: the bounds must be missed.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import can
from can.interfaces.socketcan import socketcan as stock_socketcan

from gateway.canbus import link_state, socketcan
from gateway.canbus.batched import BatchedBus
from gateway.canbus.frames import Frames
from gateway.controls.sensor_nodes import Recording, SensorNodes
from gateway.demo.bus.bus import SimulatedBus
from gateway.demo.bus.frames import Timed
from gateway.demo.bus.socketcand import serve
from gateway.demo.bus.stu import Stu
from gateway.model import Batch, Device, Receipt, Ticket
from gateway.protocols import icotronic
from tests.can.standin import Machine, record
from tests.opcua.recording import RecordingLink

RATE = 4762
CHANNELS = (True, True, False)
NODE = "Spindle"
_WARM = 1000


# -- the STU, in a process of its own --------------------------------------------------------------------


class Datagrams(asyncio.DatagramProtocol):
    """The simulated bus at records of linux/can.h, for whoever spoke last."""

    def __init__(self, bus: SimulatedBus) -> None:
        self._bus = bus
        self._peer: Any = None
        self._transport: Any = None
        bus.attach(self.listen)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        self._peer = peer
        can_id, length, payload = struct.unpack("=IB3x8s", data[:16])
        self._bus.send(can_id, payload[:length], self.listen)

    def listen(self, frames: Sequence[Timed], _wall_us: int) -> None:
        if self._peer is not None:
            for _, can_id, data in frames:
                self._transport.sendto(record(can_id, data), self._peer)


async def simulate() -> None:
    bus = SimulatedBus([Stu()])
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(bus), local_addr=("127.0.0.1", 0))
    async with serve(bus, 0) as port:
        sys.stdout.write(f"{transport.get_extra_info('sockname')[1]} {port}\n")
        sys.stdout.flush()
        await bus.run()


@contextlib.asynccontextmanager
async def simulated() -> AsyncIterator[tuple[int, int]]:
    """Enter while it runs; yield its datagram port and its socketcand port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.icotronic.bench", "--stu", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        datagrams, socketcand = (await process.stdout.readline()).split()
        yield int(datagrams), int(socketcand)
    finally:
        process.kill()
        await process.wait()


def datagram_socket(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.connect(("127.0.0.1", port))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    return made


# -- the two clients ---------------------------------------------------------------------------------------


async def library(**bus: Any) -> float:
    """Return the library's CPU in microseconds a frame."""
    from icotronic.can.node.spu import SPU
    from icotronic.can.node.stu import STU
    from icotronic.can.streaming import StreamingConfiguration

    # As inside a daemon: without the library's own log, which costs it more.
    with can.Bus(ignore_config=True, **bus) as opened:
        notifier = can.Notifier(opened, [], loop=asyncio.get_running_loop())
        try:
            async with (
                STU(SPU(opened, notifier)).connect_sensor_node(NODE) as node,
                node.open_data_stream(StreamingConfiguration(*CHANNELS)) as stream,
            ):

                async def take(frames: int) -> int:
                    checked = 0
                    async for data, lost in stream:
                        checked += len(data.values) + lost * 1_000_000
                        frames -= 1
                        if not frames:
                            return checked
                    return 0

                await take(_WARM)
                count = int(OPTIONS.seconds * RATE)
                began = time.process_time()
                assert await take(count) == 2 * count, "frames were lost"
                return (time.process_time() - began) / count * 1e6
        finally:
            await asyncio.to_thread(notifier.stop)


class Dropping(RecordingLink):
    """Takes samples like a store that costs nothing."""

    def try_emit(self, batch: Batch) -> Ticket:
        ticket = Ticket()
        ticket.resolve(Receipt(len(batch), 0, 0))
        return ticket


async def ours(folder: Path, settings: icotronic.Settings) -> float:
    """Return our CPU in microseconds a frame, with the samples of the tags, one a second, and a recording."""
    link = Dropping("tools", folder)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(icotronic.run(Device("tools"), settings, link))
        await link.until(lambda: link.controls)
        control = link.controls[0]
        assert isinstance(control, SensorNodes) and isinstance(control, Recording)
        await control.connect(NODE)
        async with control.stream(CHANNELS) as stream:

            async def take(frames: int) -> tuple[int, int]:
                taken = values = 0
                async for part in stream:
                    taken += len(part)
                    values += len(part.counts)
                    if taken >= frames:
                        return taken, values
                return 0, 0

            await take(_WARM)
            began = time.process_time()
            count, values = await take(int(OPTIONS.seconds * RATE))
            us = (time.process_time() - began) / count * 1e6
            assert stream.lost == 0 and values == 2 * count, "frames were lost"
        running.cancel()
    return us


@contextlib.contextmanager
def sockets(folder: Path, port: int) -> Any:
    """Put datagram sockets in place of raw CAN sockets, ours and python-can's."""
    net = folder / "net"
    net.mkdir()
    machine = Machine(net)
    machine.plug()
    with (
        patch.object(link_state, "NET", net),
        patch.object(socketcan, "raw_socket", lambda *_, **__: datagram_socket(port)),
        patch.object(stock_socketcan, "create_socket", lambda: datagram_socket(port)),
        patch.object(stock_socketcan, "bind_socket", lambda *_: None),
    ):
        yield
    machine.close()


async def run() -> int:
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HOME"] = name
        async with simulated() as (datagrams, socketcand):
            with sockets(folder, datagrams):
                theirs = await library(interface="socketcan", channel="can0")
                own = await ours(folder, icotronic.Settings())
            missed += say("SocketCAN", own, theirs)
            at = {"interface": "socketcand", "host": "127.0.0.1", "port": socketcand}
            theirs = await library(channel="can0", **at)
            own = await ours(folder, icotronic.Settings(**at))  # type: ignore[arg-type]
            missed += say("socketcand", own, theirs)
    return missed


def say(way: str, own: float, theirs: float) -> bool:
    missed = own > theirs / 2
    sys.stdout.write(
        f"icotronic: {RATE} frames/s of two channels over {way}: {own:.2f} us CPU a frame "
        f"({own * RATE / 1e4:.1f} % of a core), the icotronic library {theirs:.2f} "
        f"({theirs * RATE / 1e4:.1f} %): 1/{theirs / own:.1f} of it"
        f"{'   MISSED: at most 1/2' if missed else ''} (load {os.getloadavg()[0]:.1f})\n"
    )
    sys.stdout.flush()
    return missed


def one_by_one(receive: Callable[..., Awaitable[Frames]]) -> Callable[..., Awaitable[Frames]]:
    """Hand over each frame by itself, within a time limit, as the library does."""
    waiting: list[Frames] = []

    async def single(bus: BatchedBus) -> Frames:
        if not waiting:
            frames = await receive(bus)
            rows = zip(frames.ts, frames.ids, frames.data, strict=True)
            waiting.extend(Frames([ts], [can_id], [data], frames.flags) for ts, can_id, data in rows)
            waiting.reverse()
        return await asyncio.wait_for(asyncio.sleep(0, waiting.pop()), 5)

    return single


def main() -> None:
    if OPTIONS.stu:
        asyncio.run(simulate())
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if OPTIONS.mutant:
        BatchedBus.receive = one_by_one(BatchedBus.receive)  # type: ignore[method-assign]
    sys.exit(1 if asyncio.run(run()) else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--mutant", action="store_true", help="take frames one by one: bounds must be missed")
    parser.add_argument("--stu", action="store_true", help=argparse.SUPPRESS)
    OPTIONS = parser.parse_args()
    main()
