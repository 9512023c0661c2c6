"""The script of restarts and faults against the whole daemon: nothing is missing without a gap record.

OPCUA_BREAKS: how often each fault comes, 1 unless given, and then short; OPCUA_RECONNECTS: how often the
connection breaks, 20 unless given. The Shows: OPCUA_BREAKS=10 OPCUA_RECONNECTS=1000.
"""

import asyncio
import gc
import logging
import os
import random
import sys
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.protocols import opcua
from gateway.supervise import Backoff
from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.opcua.plant import Plant, plant
from tests.opcua.proxy import Proxy, proxy
from tests.opcua.recording import tags
from tests.peers.opcua_peer import NODE_OPCUA, Peer, running

pytestmark = [pytest.mark.slow]
BREAKS = int(os.environ.get("OPCUA_BREAKS", "1"))
RECONNECTS = int(os.environ.get("OPCUA_RECONNECTS", "20"))
LONGEST_S = float(os.environ.get("OPCUA_LONGEST_S", "25" if BREAKS > 1 else "2"))
TAGS = 20
PATIENCE_S = 40
P50_S, P99_S = 5.0, 10.0
MUTANT = [sys.executable, "-m", "tests.opcua.reports_nothing", "run"]
URI = "urn:edge-gateway:line"


def configuration(url: str) -> str:
    tags = "".join(f"      Tag{n}: 'nsu={URI};s=Line1.Tag{n}'\n" for n in range(TAGS))
    opcua = f"{{url: '{url}', publishing_interval: 100ms, sampling_interval: 0, queue_size: 20}}"
    return f"store: {{commit_interval: 100ms}}\ndevices:\n  plc:\n    opcua: {opcua}\n    tags:\n{tags}"


class Script:
    """A server that writes without end, a proxy before it, and the gateway behind that."""

    def __init__(self, server: Peer, between: Proxy, gateway: GatewayProcess) -> None:
        self.server, self.between, self.gateway = server, between, gateway
        self.back_s: dict[str, list[float]] = defaultdict(list)

    async def begin(self) -> None:
        self.gateway.write(configuration(self.between.url))
        await self.gateway.start()
        self.server.say("write", 1_000_000, 100)
        await self._fresh()

    async def fault(self, kind: str) -> None:
        """Break something, mend it, and wait for the first value that was written after that."""
        faults: dict[str, Callable[[], Awaitable[None]]] = {
            "restart": self._restart,
            "half-open": self._half_open,
            "stopped": self._stopped,
            "lost": self._lost,
            "cut": self._cut,
            "reset": self._reset,
        }
        await faults[kind]()
        began = time.monotonic()
        await self._fresh()
        self.back_s[kind].append(time.monotonic() - began)

    async def judged(self, *, ahead_us: int = 0) -> tuple[int, int, int]:
        """Return how many samples are stored, missing, and missing without a gap record."""
        self.server.say("stop")
        await self.server.event("done")
        await self._fresh(more=False)
        samples = await self.gateway.pages("/v1/devices/plc/samples", "samples", limit=10_000)
        rows = Counter((sample["tag"], sample["ts"], sample["value"]) for sample in samples)
        gaps = await self.gateway.pages("/v1/gaps", "gaps", device="plc")
        ledger = Counter(self.server.ledger)
        assert rows - ledger == Counter(), "stored what was never written, or twice"
        first = min(row[1] for row in rows)
        missing = [row for row in ledger - rows if row[1] > first]
        unreported = [
            row for row in missing if not any(g["from_us"] <= row[1] - ahead_us <= g["to_us"] for g in gaps)
        ]
        return len(samples), len(missing), len(unreported)

    async def _fresh(self, *, more: bool = True) -> None:
        """Wait until what the server writes from now on is stored."""
        known = len(self.server.ledger)
        while more and len(self.server.ledger) <= known:
            await asyncio.sleep(0.01)
        tag, ts, _value = self.server.ledger[-1]
        until = time.monotonic() + PATIENCE_S
        while True:
            device = await self.gateway.get("/v1/devices/plc")
            newest = [row["last"]["ts"] for row in device["tags"] if row["tag"] == tag and row["last"]]
            if newest and newest[0] >= ts:
                return
            assert time.monotonic() < until, f"{tag} at {ts} never came: {newest}, {device}"
            await asyncio.sleep(0.1)

    async def _restart(self) -> None:
        await self.server.kill()
        await _some_time()
        others = random.sample([f"urn:other:{n}" for n in range(9)], random.randint(1, 9))
        await self.server.start("--before", ",".join(others))
        self.server.say("write", 1_000_000, 100)

    async def _half_open(self) -> None:
        self.between.freeze()
        await _some_time()
        self.between.heal()

    async def _stopped(self) -> None:
        self.server.pause()
        await _some_time()
        self.server.resume()

    async def _lost(self) -> None:
        self.server.say("forget", random.choice(["yes", "no"]))
        self.server.say("lose", random.randint(1, 5))
        await asyncio.sleep(1.5)

    async def _cut(self) -> None:
        self.server.say("forbid", random.choice(["yes", "no"]))
        self.between.cut()
        await _some_time()
        self.between.heal()

    async def _reset(self) -> None:
        self.server.say("forbid", random.choice(["yes", "no"]))
        self.between.reset()


async def _some_time() -> None:
    await asyncio.sleep(random.uniform(0.2, LONGEST_S))


KINDS = ("restart", "half-open", "stopped", "lost", "cut", "reset")


def told(script: Script, counts: tuple[int, int, int]) -> None:
    stored, missing, unreported = counts
    print(f"{stored} stored, {missing} missing, {unreported} of them unreported")  # noqa: T201
    for kind, times in script.back_s.items():
        print(f"{kind}: p50 {middle(times):.1f} s, most {max(times):.1f} s of {len(times)}")  # noqa: T201


def middle(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


async def play(
    tmp_path: Path, port: Callable[[], int], kinds: list[str], *, ahead_s: int = 0, mutant: bool = False
) -> tuple[Script, tuple[int, int, int]]:
    options = ("--tags", str(TAGS), "--namespace", URI, "--clock-ahead", str(ahead_s))
    async with (
        running(NODE_OPCUA, port(), *options) as server,
        proxy(server.url) as between,
        gateway(tmp_path / "gw", port()) as process,
    ):
        if mutant:
            process.command = MUTANT
        script = Script(server, between, process)
        await script.begin()
        for kind in kinds:
            await script.fault(kind)
            await asyncio.sleep(random.uniform(0, 1))
        counts = await script.judged(ahead_us=ahead_s * 1_000_000)
        told(script, counts)
        return script, counts


@pytest.mark.timeout(120 + 400 * BREAKS)
async def test_nothing_is_missing_without_a_record(tmp_path: Path, free_port: Callable[[], int]) -> None:
    kinds = [kind for _ in range(BREAKS) for kind in random.sample(KINDS, len(KINDS))]
    script, (stored, _missing, unreported) = await play(tmp_path, free_port, kinds)
    assert unreported == 0
    assert stored > 5 * TAGS
    times = sorted(seconds for each in script.back_s.values() for seconds in each)
    if BREAKS > 1:
        assert times[len(times) // 2] <= P50_S
        assert times[int(len(times) * 0.99)] <= P99_S


@pytest.mark.timeout(120 + 400 * BREAKS)
@pytest.mark.parametrize("hours", [17, -17])
async def test_clocks_that_lie(tmp_path: Path, free_port: Callable[[], int], hours: int) -> None:
    kinds = ["restart", "lost", "cut"] * BREAKS
    _script, (stored, _missing, unreported) = await play(tmp_path, free_port, kinds, ahead_s=hours * 3600)
    assert unreported == 0
    assert stored > 5 * TAGS


@pytest.mark.timeout(120)
async def test_a_gateway_that_reports_no_gaps_is_found_out(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    _script, (_stored, missing, unreported) = await play(tmp_path, free_port, ["restart"], mutant=True)
    assert unreported == missing > 0


@pytest.mark.timeout(60 + RECONNECTS)
async def test_memory_does_not_grow_with_reconnects(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Sessions taken up again and new ones in turn; what Python holds is counted, to the byte."""
    nodes = {f"Tag{n}": f"nsu={URI};s=Line1.Tag{n}" for n in range(TAGS)}
    options = ("--tags", str(TAGS), "--namespace", URI, "--max-sessions", "10000")
    async with running(NODE_OPCUA, free_port(), *options) as server, proxy(server.url) as between:
        settings = opcua.Settings(url=between.url, publishing_interval_ms=50, sampling_interval_ms=0)
        async with plant(tmp_path, settings, tags(nodes), backoff=Backoff(0.02, 0.05)) as run:
            await run.until(run.running)
            await reconnects(run, server, between, 20)  # what is made once is made by then
            logging.disable(logging.CRITICAL)  # pytest keeps what is logged
            tracemalloc.start(1)
            try:
                await reconnects(run, server, between, 10)
                before = _held()
                await reconnects(run, server, between, RECONNECTS)
                grown = _held() - before
            finally:
                tracemalloc.stop()
                logging.disable(logging.NOTSET)
            print(f"{RECONNECTS} reconnects: {grown / 1024:+.0f} KiB")  # noqa: T201
            # Caches that are bounded take up to 160 KiB of it.
            assert grown < 192 * 1024 + 256 * RECONNECTS


async def reconnects(run: Plant, server: Peer, between: Proxy, count: int) -> None:
    for number in range(count):
        server.say("forbid", "yes" if number % 2 else "no")
        health = run.keeper.health
        starts = health.starts
        between.reset()
        async with asyncio.timeout(20):
            while health.starts == starts or health.state != "running":
                await asyncio.sleep(0.01)


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
