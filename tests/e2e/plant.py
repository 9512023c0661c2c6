"""The run that everything is thrown at: an OPC UA server and pushing clients, the gateway, a dataspace."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.peers.opcua_peer import NODE_OPCUA, Peer, running
from tests.peers.receiver import Receiver, receiver

CONFIG = """\
store: {{commit_interval: 300ms}}
devices:
  plc:
    opcua:
      url: "{plc}"
      root: "/Objects/1:Line1"
      publishing_interval: 100ms
      sampling_interval: 0
      session_timeout: 10s  # the server has ten sessions, and a killed gateway leaves its own behind
  box: {{push: {{}}}}
uploads:
  cloud: {{http: {{url: "{cloud}/ingest", timeout: 3s, gather: 500ms, gather_size: 16kB}}}}
  archive:
    dataspace: {{url: "{cloud}", user: demo, password: {{file: "{password}"}}, timeout: 3s, gather: 2s}}
"""
Key = tuple[str, str, int]


def value_of(number: int) -> float:
    return number * 1.5 + 0.25


@dataclass
class Plant:
    """The four parts and what the pushing clients were told."""

    gateway: GatewayProcess
    plc: Peer
    cloud: Receiver
    acknowledged: dict[Key, float] = field(default_factory=dict)
    sent: dict[Key, float] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def push(self, client: str) -> None:
        """Push numbered samples for ever; what is answered with 200 is acknowledged, the rest sent again."""
        token = (self.gateway.state / "admin-token").read_text().strip()
        url = f"http://127.0.0.1:{self.gateway.port}/v1/devices/box/samples"
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                rows = [next(self.numbers) for _ in range(10)]
                samples = [{"tag": client, "ts": 10**15 + n * 1000, "value": value_of(n)} for n in rows]
                keys = {("box", client, s["ts"]): s["value"] for s in samples}
                self.sent |= keys
                while not await self._answered(session, url, samples):
                    await asyncio.sleep(0.1)
                self.acknowledged |= keys

    async def _answered(self, session: aiohttp.ClientSession, url: str, samples: object) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=12)
            async with session.post(url, json=samples, timeout=timeout) as answer:
                return answer.status == 200
        return False

    async def running(self, device: str, within_s: float = 60) -> None:
        async with asyncio.timeout(within_s):
            while (await self.gateway.get(f"/v1/devices/{device}"))["health"]["state"] != "running":
                await asyncio.sleep(0.2)

    async def stored(self) -> Counter[tuple[Key, float]]:
        """Return what `/v1` shows, with how often."""
        found: Counter[tuple[Key, float]] = Counter()
        for device in ("box", "plc"):
            for sample in await self.gateway.pages(f"/v1/devices/{device}/samples", "samples"):
                found[((device, sample["tag"], sample["ts"]), sample["value"])] += 1
        return found

    async def delivered(self, upload: str) -> list[dict[str, Any]]:
        """Return what the dataspace has of an upload, in order of arrival."""
        # The key names gateway, store, upload and blocks.
        return [s for s in await self.cloud.samples() if s["key"].split("/")[2] == upload]

    async def drained(self, within_s: float = 120) -> Counter[tuple[Key, float]]:
        """Wait until both uploads have all that is stored; return what is stored."""
        async with asyncio.timeout(within_s):
            while True:
                stored = await self.stored()
                counts = [len(await self.delivered(upload)) for upload in ("cloud", "archive")]
                # Again: what was sent last may be stored after the first look and be delivered with the rest.
                if min(counts) >= stored.total() and await self.stored() == stored:
                    return stored
                await asyncio.sleep(1)

    async def check(self, stored: Counter[tuple[Key, float]]) -> None:
        """Nothing acknowledged is missing or doubled, in the store and at each upload's target."""
        doubled = [key for key, count in stored.items() if count > 1]
        assert doubled == [], f"{len(doubled)} samples are stored twice"
        missing = self.acknowledged.items() - stored.keys()
        assert not missing, f"{len(missing)} acknowledged samples are not stored"
        box = {item for item in stored if item[0][0] == "box"}
        assert box <= self.sent.items(), "something is stored that was never sent"
        ledger = {("plc", tag, ts): value for tag, ts, value in self.plc.ledger}
        assert {item for item in stored if item[0][0] == "plc"} <= ledger.items()
        for upload in ("cloud", "archive"):
            await self._check_target(upload, stored)

    async def _check_target(self, upload: str, stored: Counter[tuple[Key, float]]) -> None:
        arrived = await self.delivered(upload)
        got = Counter(((s["device"], s["tag"], s["ts"]), s["value"]) for s in arrived)
        twice = sum(count - 1 for count in got.values())
        assert twice == 0, f"{twice} samples arrived twice at {upload}"
        assert got == stored, f"{upload}: {(stored - got).total()} missing, {(got - stored).total()} too many"
        for lane in ("live", "backlog"):
            newest: dict[str, int] = {}
            for sample in arrived:
                if sample["lane"] == lane and sample["device"] == "plc":
                    assert sample["ts"] >= newest.get(sample["tag"], 0), f"{upload} {lane}: out of order"
                    newest[sample["tag"]] = sample["ts"]


@contextlib.asynccontextmanager
async def plant(folder: Path, free_port: Callable[[], int], *, cloud: bool = True) -> AsyncIterator[Plant]:
    """Enter the plant: the PLC writes 20 tags ten times a second, the gateway is configured, not started."""
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text("right")
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(running(NODE_OPCUA, free_port(), "--tags", "20"))
        target = await stack.enter_async_context(receiver(free_port(), folder / "cloud", started=cloud))
        process = await stack.enter_async_context(gateway(folder / "gw", free_port()))
        process.write(CONFIG.format(plc=peer.url, cloud=target.url, password=password))
        yield Plant(process, peer, target)
