"""Print what a full CAN bus costs beside python-can and cantools, in the same run.

    python -m tests.can.bench [--seconds N] [--mutant]

9000 frames a second with 8 signals each (1 Mbit/s, full) come over a datagram socket in place of a raw CAN
socket, to python-can's own SocketCAN code as to ours. Each figure has its bound; one that misses it is
marked, and the exit code is 1. `--mutant` fetches each frame by itself: the bounds must be missed then.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import can
import cantools
from can.interfaces.socketcan import socketcan as stock_socketcan

from gateway.canbus import link_state, records, socketcan
from gateway.clock import SystemClock
from gateway.intake import DeviceSession
from gateway.model import Batch, Device, Receipt, Ticket
from gateway.own_time import OwnTime
from gateway.protocols import can as can_protocol
from gateway.store import Store, StoreSettings
from tests.bench.cost import insert, seed_table
from tests.can.standin import Machine, record
from tests.opcua.recording import RecordingLink

RATE = 9000
MESSAGES = 12
SIGNALS = 8
SAME = 50
"""Frames of a message with the same values, where the signals of a calm machine are tried."""
_WARM = 500

_SIGNAL = ' SG_ S{n} : {start}|8@1{sign} ({scale},{offset}) [0|0] "rpm" gateway\n'
DBC = 'VERSION ""\nNS_ :\nBS_:\nBU_: gateway\n' + "".join(
    f"BO_ {0x100 + message} M{message}: 8 gateway\n"
    + "".join(
        _SIGNAL.format(n=n, start=8 * n, sign="-" if n % 2 else "+", scale=[1, 0.5][n % 4 > 1], offset=-5 * n)
        for n in range(SIGNALS)
    )
    for message in range(MESSAGES)
)


def send(port: int, count: int, same: int) -> None:
    """Send so many frames, evenly; run in a process of its own."""
    chance = random.Random(6)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", port))
    frames = []
    for number in range(min(count, RATE * 5)):
        if number < MESSAGES or number // MESSAGES % same == 0:
            frames.append(record(0x100 + number % MESSAGES, chance.randbytes(8)))
        else:
            frames.append(frames[-MESSAGES])
    began = time.perf_counter()
    for number in range(count):
        ahead_s = began + number / RATE - time.perf_counter()
        if ahead_s > 0:
            time.sleep(ahead_s)
        sender.send(frames[number % len(frames)])


class Figures:
    """Says each, and remembers those that missed their bounds."""

    def __init__(self) -> None:
        self.missed = 0

    def say(self, sentence: str, value: float = 0.0, most: float = 0.0) -> None:
        mark = "" if value <= most else f"   MISSED: at most {most:.3f}"
        self.missed += value > most
        sys.stdout.write(f"can: {sentence}{mark} (load {os.getloadavg()[0]:.1f})\n")
        sys.stdout.flush()


class Dropping(RecordingLink):
    """Takes batches like a store that costs nothing."""

    values = 0

    def try_emit(self, batch: Batch) -> Ticket:
        self.values += len(batch)
        ticket = Ticket()
        ticket.resolve(Receipt(len(batch), 0, 0))
        return ticket

    def gap(self, from_us: int, to_us: int, reason: str, count: int | None = None) -> None:
        raise AssertionError(f"a gap: {reason}")


async def sent(port: int, count: int, arrived: Callable[[], int], same: int = 1) -> float:
    """Have frames sent and wait for them; return the CPU of this process in s a frame."""
    for wanted in (_WARM, count):
        before, began = arrived(), time.process_time()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.can.bench", "--send", str(port), str(wanted), str(same)
        )
        await process.wait()
        async with asyncio.timeout(20):
            while arrived() - before < wanted:
                await asyncio.sleep(0.02)
    return (time.process_time() - began) / count


class Stock:
    """python-can's Notifier over its own SocketCAN code, and cantools."""

    def __init__(self, rows: list[Any] | None) -> None:
        self.frames = 0
        self._rows = rows
        self._database = cantools.database.load_string(DBC, "dbc")

    def take(self, message: can.Message) -> None:
        decoded = self._database.decode_message(message.arbitration_id, message.data)
        if self._rows is not None:
            ts = int(message.timestamp * 1e6)
            self._rows.extend(("press", ts, name, value) for name, value in decoded.items())
        self.frames += 1


@contextlib.asynccontextmanager
async def stock(rows: list[Any] | None) -> AsyncIterator[tuple[Stock, int]]:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    made = Stock(rows)
    with (
        patch.object(stock_socketcan, "create_socket", lambda: receiver),
        patch.object(stock_socketcan, "bind_socket", lambda *_: None),
        can.Bus(interface="socketcan", channel="can0", ignore_config=True) as bus,
    ):
        notifier = can.Notifier(bus, [made.take])
        try:
            yield made, receiver.getsockname()[1]
        finally:
            await asyncio.to_thread(notifier.stop)


@contextlib.asynccontextmanager
async def ours(
    folder: Path, link: Any, keep_interval_ms: int
) -> AsyncIterator[tuple[Callable[[], int], int]]:
    """Enter while the protocol listens; yield what counts its frames, and its port."""
    file = folder / "press.dbc"
    file.write_text(DBC)
    net = folder / "net"
    net.mkdir()
    machine = Machine(net, anyone=True)
    machine.plug()
    buses: list[socketcan.SocketBus] = []

    class Counted(socketcan.SocketBus):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            buses.append(self)

    settings = can_protocol.Settings(database=file, keep_interval_ms=keep_interval_ms)
    with ExitStack() as patched:
        patched.enter_context(patch.object(link_state, "NET", net))
        patched.enter_context(patch.object(socketcan, "raw_socket", machine.raw_socket))
        patched.enter_context(patch("gateway.canbus.SocketBus", Counted))
        task = asyncio.create_task(can_protocol.run(Device("press"), settings, link))
        try:
            while not buses:
                await asyncio.sleep(0.05)
                if task.done():
                    await task
            receiver = machine.receivers[-1]
            port = receiver.getsockname()[1]
            yield (lambda: buses[-1].health.frames), port
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            machine.close()


async def decoding(folder: Path, count: int, figures: Figures) -> None:
    link = Dropping("press", folder)
    async with ours(folder, link, 0) as (arrived, port):
        us = await sent(port, count, arrived) * 1e6
    assert link.values >= count * SIGNALS, link.values
    async with stock(None) as (other, port):
        stock_us = await sent(port, count, lambda: other.frames) * 1e6
    figures.say(
        f"{RATE} frames/s of {SIGNALS} signals received and decoded: {us:.2f} us CPU a frame "
        f"({us * RATE / 1e4:.1f} % of a core), python-can's Notifier with cantools {stock_us:.2f} "
        f"({stock_us * RATE / 1e4:.1f} %): 1/{stock_us / us:.1f} of it",
        us / stock_us,
        1 / 4,
    )


async def storing(folder: Path, count: int, figures: Figures) -> None:
    us = await stored(folder / "every", count, 0)
    rows: list[Any] = []
    with closing(seed_table(folder / "seed.db")) as conn:

        async def each_second() -> None:
            while True:
                await asyncio.sleep(1)
                now, rows[:] = [*rows], []
                insert(conn, now)

        async with stock(rows) as (other, port):
            task = asyncio.create_task(each_second())
            stock_us = await sent(port, count, lambda: other.frames) * 1e6
            task.cancel()
            began = time.process_time()
            insert(conn, rows)
            stock_us += (time.process_time() - began) / count * 1e6
    figures.say(
        f"every signal of every frame stored: {us:.2f} us CPU a frame ({us * RATE / 1e4:.1f} % of a core), "
        f"Notifier, cantools and executemany into the seed's table {stock_us:.2f} "
        f"({stock_us * RATE / 1e4:.1f} %): 1/{stock_us / us:.1f} of it",
        us / stock_us,
        1 / 4,
    )


async def on_change(folder: Path, count: int, figures: Figures) -> None:
    for same, what in ((1, "every value another one"), (SAME, f"values the same for {SAME} frames")):
        us = await stored(folder / f"change{same}", count, 1000, same)
        figures.say(
            f"stored on change, at most once a second ({what}): {us:.2f} us CPU a frame "
            f"({us * RATE / 1e4:.1f} % of a core)"
        )


async def stored(folder: Path, count: int, keep_interval_ms: int, same: int = 1) -> float:
    """Return the CPU in microseconds a frame from the socket to committed blocks."""
    folder.mkdir()
    clock = SystemClock()
    async with Store.open(folder / "store", StoreSettings(), clock) as store:
        session = DeviceSession(
            "press", "can", store=store, clock=clock, own_time=OwnTime(clock, 0, store.gap), state=folder,
            gateway_id="bench", listeners=[],
        )  # fmt: skip
        async with ours(folder, session, keep_interval_ms) as (arrived, port):
            cost_s = await sent(port, count, arrived, same)
            began = time.process_time()
            await store.flush()
            cost_s += (time.process_time() - began) / count
        gaps = await store.gaps(limit=10)
        assert not gaps, gaps
    return cost_s * 1e6


async def run(seconds: float) -> int:
    figures = Figures()
    count = int(seconds * RATE)
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name) / "decoding").mkdir()
        await decoding(folder, count, figures)
        await storing(Path(name), count, figures)
        await on_change(Path(name), count, figures)
    return figures.missed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument(
        "--mutant", action="store_true", help="fetch each frame by itself: bounds must be missed"
    )
    parser.add_argument("--send", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        send(*options.send)
        return
    if options.mutant:
        records._MOST = records.Records.MOST = 1
    logging.disable(logging.CRITICAL)
    sys.exit(1 if asyncio.run(run(options.seconds)) else 0)


if __name__ == "__main__":
    main()
