"""Print what OPC UA costs beside asyncua's own ways, in the same run, from a server that replays node-opcua.

    python -m tests.opcua.bench [--seconds N] [--mutant]

Each figure has its bound; one that misses it is marked, and the exit code is 1. `--mutant` switches our fast
path off: the bounds must be missed then. `--seconds`: how long 50 000 values a second are taken.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

from asyncua import Client

from gateway.clock import SystemClock
from gateway.intake import DeviceSession, OwnTime
from gateway.model import Batch, Device, Receipt, Ticket
from gateway.protocols import opcua
from gateway.protocols.opcua import collect, discovery, nodes, opening, selftest
from gateway.protocols.opcua.items import Condition, listed
from gateway.protocols.opcua.polling import Poller
from gateway.store import Store, StoreSettings
from tests.bench.cost import insert, seed_table
from tests.opcua.capture import captured
from tests.opcua.recording import RecordingLink, tags
from tests.peers.opcua_peer import NODE_OPCUA, REPLAY, Peer, running

TAGS = 1000
RATE = 50_000
FOUND = 5000
ROUND_MS = 1000 * TAGS / RATE
LISTED = tags({f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(TAGS)})
ROUNDS, STOCK_ROUNDS, STOCK_MS = 500, 60, 100
READS = 30
WATCHED_S = 3
"""asyncua's watchdog reads the server's state each second: it is to be in the capture."""


class Figures:
    """Says each, and remembers those that missed their bounds."""

    def __init__(self) -> None:
        self.missed = 0

    def say(self, sentence: str, value: float, most: float) -> None:
        mark = "" if value <= most else f"   MISSED: at most {most:.3f}"
        self.missed += value > most
        sys.stdout.write(f"opcua: {sentence}{mark} (load {os.getloadavg()[0]:.1f})\n")
        sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Dropping(RecordingLink):
    """Takes batches like a store that costs nothing."""

    values = 0

    async def emit(self, batch: Batch) -> Ticket:
        self.values += len(batch)
        ticket = Ticket()
        ticket.resolve(Receipt(len(batch), 0, 0))
        return ticket


@asynccontextmanager
async def ours(peer: Peer, link: Any) -> AsyncIterator[None]:
    """Enter while the gateway's protocol is subscribed."""
    peer.events.clear()  # asyncua's client has said it too
    task = asyncio.create_task(opcua.run(Device(link.device, LISTED), settings(peer.url), link))
    await subscribed(peer, task)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def subscribed(peer: Peer, task: "asyncio.Task[None]") -> None:
    waiting = asyncio.create_task(peer.event("subscribed"))
    await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    await waiting


def settings(url: str, mode: Any = "subscribe") -> opcua.Settings:
    return opcua.Settings(
        url=url, mode=mode, publishing_interval_ms=20, sampling_interval_ms=0, max_tags=100_000
    )


class Handler:
    """asyncua's SubHandler, counting, or gathering rows of the seed's table."""

    def __init__(self, rows: list[Any] | None = None) -> None:
        self.values = 0
        self.rows = rows

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.values += 1
        if self.rows is not None:
            ts = int(data.monitored_item.Value.SourceTimestamp.timestamp() * 1e6)
            self.rows.append(("plant", ts, node.nodeid.Identifier, value))


@asynccontextmanager
async def stock(url: str, handler: Handler) -> AsyncIterator[None]:
    """Enter while asyncua's client is subscribed."""
    async with Client(url) as client:
        subscription = await client.create_subscription(20, handler)
        asked = [client.get_node(tag.node) for tag in LISTED.values()]
        await subscription.subscribe_data_change(asked, queuesize=10)
        yield


async def written(
    peer: Peer, rounds: int, interval_ms: float, arrived: Callable[[], int]
) -> tuple[float, Any]:
    """Have so many rounds written; return the CPU of this process in s, and what the server says of it."""
    before, began = arrived(), time.process_time()
    peer.say("write", rounds, interval_ms)
    told = (await peer.event("done", rounds * interval_ms / 1000 + 60))["peers"][-1]
    wanted = before + (rounds - told["lost"]) * TAGS
    for _ in range(2000):
        if arrived() >= wanted:
            break
        await asyncio.sleep(0.01)
    return time.process_time() - began, told | {"arrived": arrived() - before}


async def decoding(peer: Peer, folder: Path, figures: Figures) -> None:
    link = Dropping("plant", folder)
    async with ours(peer, link):
        await written(peer, 20, ROUND_MS, lambda: link.values)
        cpu, told = await written(peer, ROUNDS, ROUND_MS, lambda: link.values)
    handler = Handler()
    async with stock(peer.url, handler):
        await written(peer, 5, STOCK_MS, lambda: handler.values)
        stock_cpu, stock_told = await written(peer, STOCK_ROUNDS, STOCK_MS, lambda: handler.values)
    us, stock_us = cpu / told["arrived"] * 1e6, stock_cpu / stock_told["arrived"] * 1e6
    figures.say(
        f"from the wire to columns: {us:.2f} us CPU a value at {RATE} values/s, SubHandler {stock_us:.2f}: "
        f"1/{stock_us / us:.1f} of it",
        us / stock_us,
        1 / 15,
    )


@asynccontextmanager
async def into_a_store(folder: Path, count: list[int]) -> AsyncIterator[tuple[Store, DeviceSession]]:
    clock = SystemClock()
    async with Store.open(folder / "store", StoreSettings(), clock) as store:

        def heard(_: str, batch: Batch) -> None:
            count[0] += len(batch)

        yield store, DeviceSession(
            "plant", "opcua", store=store, clock=clock, own_time=OwnTime(clock, 0, store.gap), state=folder,
            gateway_id="bench", listeners=[heard],
        )  # fmt: skip


async def committing(peer: Peer, folder: Path, figures: Figures) -> None:
    count = [0]
    async with into_a_store(folder / "a", count) as (store, link), ours(peer, link):
        await written(peer, 20, ROUND_MS, lambda: count[0])
        began = time.process_time()
        _, told = await written(peer, ROUNDS, ROUND_MS, lambda: count[0])
        await store.flush()
        us = (time.process_time() - began) / told["arrived"] * 1e6
    rows: list[Any] = []
    handler = Handler(rows)
    with closing(seed_table(folder / "seed.db")) as conn:

        async def each_second() -> None:
            while True:
                await asyncio.sleep(1)
                insert(conn, rows)
                rows.clear()

        async with stock(peer.url, handler):
            task = asyncio.create_task(each_second())
            await written(peer, 5, STOCK_MS, lambda: handler.values)
            began = time.process_time()
            _, stock_told = await written(peer, STOCK_ROUNDS, STOCK_MS, lambda: handler.values)
            task.cancel()
            insert(conn, rows)
            stock_us = (time.process_time() - began) / stock_told["arrived"] * 1e6
    figures.say(
        f"from the wire to a committed block: {us:.2f} us CPU a value at {RATE} values/s, SubHandler with "
        f"executemany into the seed's table {stock_us:.2f}: 1/{stock_us / us:.1f} of it",
        us / stock_us,
        1 / 6,
    )


async def endurance(peer: Peer, folder: Path, seconds: float, figures: Figures) -> None:
    count = [0]
    rounds = int(seconds * RATE / TAGS)
    async with into_a_store(folder / "b", count) as (store, link), ours(peer, link):
        began = time.process_time()
        _, told = await written(peer, rounds, ROUND_MS, lambda: count[0])
        await store.flush()
        share = (time.process_time() - began) / seconds
        gaps = store.state().counters
        missing = await incomplete(store, rounds)
    figures.say(
        f"{RATE} values/s for {seconds:.0f} s: {share * 100:.1f} % of a core; {told['arrived']} arrived, "
        f"server {told}",
        share,
        0.15,
    )
    figures.say(
        f"of {rounds * TAGS} values {missing} are not in the store as written; counters {gaps}", missing, 0
    )


async def incomplete(store: Store, rounds: int) -> int:
    """Return how many of the values that were written are not in the store, or more than once."""
    series = {store.find_series("plant", tag): place for place, tag in enumerate(LISTED)}
    seen = [bytearray(rounds + 1) for _ in series]
    wrong = 0
    async for batch in store.samples(list(series), -(2**62), 2**62):
        for number, value in zip(batch.series, batch.values, strict=True):
            turn, place = divmod(int(value), 1000)
            if place != series[number] or turn > rounds or seen[place][turn]:
                wrong += 1
            else:
                seen[place][turn] = 1
    return wrong + sum(rounds - sum(marks) for marks in seen)


class Opened(NamedTuple):
    session: Any
    link: RecordingLink


@asynccontextmanager
async def opened(url: str, folder: Path, mode: str) -> AsyncIterator[Opened]:
    link = Dropping("plant", folder)
    device = Device("plant", LISTED)
    await asyncio.to_thread(selftest.fast_path_works)
    async with opening.open_session(device, settings(url, mode), link) as session:
        yield Opened(session, link)


async def reading(peer: Peer, folder: Path, figures: Figures) -> None:
    async with opened(peer.url, folder, "poll") as (session, link):
        items = listed(Device("plant", LISTED), settings(peer.url), link, {})
        await nodes.resolve(session, items)
        poller = Poller(session, link, Condition(link, items, []))
        async with link.run("cycle") as run:
            await poller.read(items, run)
            began = time.process_time()
            for _ in range(READS):
                await poller.read(items, run)
            us = (time.process_time() - began) / READS / TAGS * 1e6
        assert link.values == (READS + 1) * TAGS, link.values
    async with Client(peer.url) as client:
        asked = [client.get_node(tag.node) for tag in LISTED.values()]
        await client.read_values(asked)
        began = time.process_time()
        for _ in range(READS):
            await client.read_values(asked)
        stock_us = (time.process_time() - began) / READS / TAGS * 1e6
    figures.say(
        f"cyclic read of {TAGS} nodes: {us:.2f} us CPU a value, new ones found and batched; read_values "
        f"{stock_us:.2f}: 1/{stock_us / us:.1f} of it",
        us / stock_us,
        1 / 10,
    )


async def browsing(peer: Peer, folder: Path, figures: Figures) -> None:
    taken, cpu = [], []
    for _ in range(5):
        async with opened(peer.url, folder, "poll") as (session, link):
            began, cpu_began = time.perf_counter(), time.process_time()
            items, _ = await discovery.discovered(session, settings(peer.url), link)
            taken.append(time.perf_counter() - began)
            cpu.append(time.process_time() - cpu_began)
            assert len(items) >= FOUND, len(items)
    figures.say(
        f"{FOUND} nodes found and looked at in {min(taken):.2f} s, {min(cpu):.2f} s CPU", min(taken), 0.3
    )


async def capture(folder: Path) -> tuple[Path, Path]:
    """Record node-opcua answering both clients; return the file of the values and that of the browse."""
    values, found = folder / "values", folder / "found"
    port = free_port()
    async with (
        running(NODE_OPCUA, free_port(), "--tags", str(TAGS)) as server,
        captured(port, server.port) as record,
    ):
        url = f"opc.tcp://127.0.0.1:{port}/node"
        link = Dropping("plant", folder)
        task = asyncio.create_task(opcua.run(Device("plant", LISTED), settings(url), link))
        await link.until(lambda: link.values >= TAGS, timeout=60)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        handler = Handler()
        async with stock(url, handler):
            while handler.values < TAGS:
                await asyncio.sleep(0.05)
            await asyncio.sleep(WATCHED_S)
        async with opened(url, folder, "poll") as (session, dropping):
            items = listed(Device("plant", LISTED), settings(url), dropping, {})
            await nodes.resolve(session, items)
            async with dropping.run("cycle") as run:
                await Poller(session, dropping, Condition(dropping, items, [])).read(items, run)
        async with Client(url) as client:
            await client.read_values([client.get_node(tag.node) for tag in LISTED.values()])
        record.save(values)
    port = free_port()
    async with (
        running(NODE_OPCUA, free_port(), "--tags", str(FOUND)) as server,
        captured(port, server.port) as record,
    ):
        url = f"opc.tcp://127.0.0.1:{port}/node"
        async with opened(url, folder, "poll") as (session, dropping):
            await discovery.discovered(session, settings(url), dropping)
        record.save(found)
    return values, found


async def run(seconds: float) -> int:
    figures = Figures()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        values, found = await capture(folder)
        async with running(REPLAY, free_port(), "--capture", str(values)) as peer:
            await decoding(peer, folder, figures)
            await committing(peer, folder, figures)
            await reading(peer, folder, figures)
            await endurance(peer, folder, seconds, figures)
        async with running(REPLAY, free_port(), "--capture", str(found)) as peer:
            await browsing(peer, folder, figures)
    return figures.missed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--mutant", action="store_true", help="without the fast path: the bounds must be missed"
    )
    options = parser.parse_args()
    if options.mutant:
        for name, module in list(sys.modules.items()):
            if name.startswith(collect.__package__ or "") and hasattr(module, "fast_path_works"):
                module.fast_path_works = lambda: False  # type: ignore[attr-defined]
    logging.disable(logging.CRITICAL)
    sys.exit(1 if asyncio.run(run(options.seconds)) else 0)


if __name__ == "__main__":
    main()
