"""Seven days offline, then the receiver comes back: `python -m tests.chaos.offline STEP_S DRAIN_S FOLDER`.

A block of 500 samples each STEP_S seconds of an injected clock while the receiver is away (1: all of it, 600:
one in 600); then it is drained at full speed while 500 samples/s come in, for DRAIN_S seconds or to its end.
Store, forwarder and HTTP are the real ones; the receiver is a process of its own. Prints figures as JSON.
A folder that has a store already is drained as it is.
"""

import asyncio
import json
import resource
import socket
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, web

from gateway.forward import Forwarder
from gateway.model import Batch
from gateway.store import Store, StoreSettings
from gateway.supervise import Supervisor
from gateway.uploaders.http import Settings

RATE = 500
WEEK_S = 7 * 86_400


class OffsetClock:
    """The machine's clocks, and what was added to them."""

    def __init__(self) -> None:
        self.added_ns = 0

    def wall_us(self) -> int:
        return (time.time_ns() + self.added_ns) // 1000

    def mono_ns(self) -> int:
        return time.monotonic_ns() + self.added_ns

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def receive(bound: socket.socket) -> None:
    """Take units; know each by its key, and when the newest sample of each lane was put."""
    kept: dict[str, int] = {}
    lags: list[float] = []
    ranges: list[tuple[int, int]] = []
    counts = {"live": 0, "backlog": 0, "repeats": 0}

    async def ingest(request: web.Request) -> web.Response:
        document = orjson.loads(await request.read())
        if document["key"] in kept:
            counts["repeats"] += 1
            return web.json_response({})
        columns = document["series"]
        kept[document["key"]] = n = sum(len(column["v"]) for column in columns)
        counts[document["lane"]] += n
        ranges.append((document["from_seq"], document["to_seq"]))
        if document["lane"] == "live":
            # The value is the wall time at which the sample was put, in milliseconds.
            lags.append(time.time() * 1000 - max(max(column["v"]) for column in columns))
        return web.json_response({})

    async def tell(_: web.Request) -> web.Response:
        return web.json_response({**counts, "lags_ms": lags, "ranges": ranges})

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/ingest", ingest), web.get("/told", tell)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, bound).start()
    await asyncio.Event().wait()


def memory_mib() -> int:
    """Return the memory in use now, not the most there ever was."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


class Offline:
    """One run."""

    def __init__(self, step_s: int, drain_s: float, folder: Path, budget_bytes: int) -> None:
        self.step_s, self.drain_s, self.folder = step_s, drain_s, folder
        self.settings = StoreSettings(max_bytes=budget_bytes)
        self.clock = OffsetClock()
        self.port = socket.socket()  # bound, it refuses connections until the receiver listens at it
        self.port.bind(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self.port.getsockname())
        self.found: dict[str, Any] = {"most_bytes": 0, "most_mib": 0}
        self.put = 0
        self.acks_ms: list[float] = []

    def look(self, store: Store) -> None:
        used, mib = store.state().bytes_used, memory_mib()
        self.found["most_bytes"] = max(self.found["most_bytes"], used)
        self.found["most_mib"] = max(self.found["most_mib"], mib)

    def batch(self, store: Store) -> Batch:
        batch, now_us = Batch(), self.clock.wall_us()
        for n in range(RATE):
            batch.add(
                store.series("plc", f"tag-{n}"), now_us - RATE * 1000 + n * 1000, int(time.time() * 1000)
            )
        self.put += RATE
        return batch

    def forwarder(self, store: Store, supervisor: Supervisor) -> Forwarder:
        store.pin(["cloud"])
        settings = Settings(url=f"{self.url}/ingest")  # type: ignore[call-arg]
        forwarder = Forwarder("cloud", "http", settings, store, self.clock, "gw")
        supervisor.keep("upload cloud", forwarder.run)
        return forwarder

    async def away(self) -> None:
        """Seven days without a receiver."""
        async with Store.open(self.folder, self.settings, self.clock) as store:
            supervisor = Supervisor(self.clock)
            self.forwarder(store, supervisor)
            for _ in range(WEEK_S // self.step_s):
                self.clock.added_ns += self.step_s * 1_000_000_000
                ticket = await store.put(self.batch(store))
                await store.flush()
                await ticket
                self.look(store)
            self.found["bytes_offline"] = store.state().bytes_used
            self.found["lost_offline"] = store.state().counters["lost"]
            await supervisor.close()

    async def back(self) -> None:
        """The receiver is there again: drain, with samples coming in all the while."""
        port = self.port.fileno()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.offline", "receive", str(port)), pass_fds=[port]
        )
        began, cpu = time.monotonic(), time.process_time()
        try:
            async with Store.open(self.folder, self.settings, self.clock) as store:
                self.found["open_s"] = round(time.monotonic() - began, 2)
                self.found["open_cpu_s"] = round(time.process_time() - cpu, 2)
                self.found["blocks"] = store.state().blocks
                await asyncio.sleep(1.5)
                supervisor = Supervisor(self.clock)
                await self._drain(store, self.forwarder(store, supervisor))
                await supervisor.close()
                self.found["lost"] = store.state().counters["lost"]
            async with ClientSession() as session, session.get(f"{self.url}/told") as answer:
                self._judge(await answer.json())
        finally:
            process.kill()
            await process.wait()

    async def _drain(self, store: Store, forwarder: Forwarder) -> None:
        began, cpu = time.monotonic(), time.process_time()
        first = store.state().newest_seq
        while time.monotonic() - began < self.drain_s:
            at = time.monotonic()
            ticket = await store.put(self.batch(store))
            ticket.add_done_callback(lambda _, at=at: self.acks_ms.append((time.monotonic() - at) * 1000))
            self.look(store)
            backlog = forwarder.status().backlog
            if backlog.oldest_us is not None and time.monotonic() - began > 10:
                oldest = await store.read(
                    lambda conn: conn.execute("SELECT max(to_seq) FROM acked WHERE from_seq = 0").fetchone()[
                        0
                    ]
                )
                if (oldest or 0) >= first:
                    break
            await asyncio.sleep(max(0.0, 1 - (time.monotonic() - at)))
        self.found["drain_s"] = round(time.monotonic() - began, 1)
        self.found["drain_cpu_s"] = round(time.process_time() - cpu, 1)
        await asyncio.sleep(2.5)

    def _judge(self, told: dict[str, Any]) -> None:
        lags, ranges = sorted(told.pop("lags_ms")), sorted(told.pop("ranges"))
        acks = sorted(self.acks_ms)
        self.found |= {
            **told, "put": self.put, "samples_per_s": int(told["backlog"] / self.found["drain_s"]),
            "ack_ms": [round(acks[len(acks) // 2]), round(acks[-1])],
            "live_lag_ms": [round(lags[len(lags) // 2]), round(lags[-1])],
            "overlapping": sum(b[0] <= a[1] for a, b in pairwise(ranges)),
            "holes": sum(b[0] > a[1] + 1 for a, b in pairwise(ranges)),
        }  # fmt: skip


def main(step_s: int, drain_s: float, folder: Path, budget_bytes: int) -> dict[str, Any]:
    """Run it; return the figures."""
    run = Offline(step_s, drain_s, folder, budget_bytes)
    if not (folder / "hot.db").exists():
        asyncio.run(run.away())
    asyncio.run(run.back())
    return run.found


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        asyncio.run(receive(socket.socket(fileno=int(sys.argv[2]))))
    else:
        budget = int(sys.argv[4]) if len(sys.argv) > 4 else 4_000_000_000
        figures = main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), budget)
        sys.stdout.write(json.dumps(figures))
