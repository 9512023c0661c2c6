"""Against an OPC UA server of another make: what it wrote is what `/v1` shows, and holes are gap records."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.peers.opcua_peer import NODE_OPCUA, Peer, running

pytestmark = [pytest.mark.slow]
TAGS = 200
BACKOFF_CAP_S = 10
CONNECT_S = 5
RESTARTS = 20
Row = tuple[str, int, float]


def configuration(url: str, rest: str) -> str:
    return f"devices: {{plc: {{opcua: {{url: '{url}', root: '/Objects/1:Line1', {rest}}}}}}}\n"


async def stored(plant: GatewayProcess) -> list[Row]:
    samples = await plant.pages("/v1/devices/plc/samples", "samples")
    return [(sample["tag"], sample["ts"], sample["value"]) for sample in samples]


def written(peer: Peer) -> list[Row]:
    return [(name, ts, value) for name, ts, value in peer.ledger]


async def has(plant: GatewayProcess, peer: Peer, within_s: float = 15) -> None:
    """Wait until the last write of the server is stored."""
    name, ts, _value = peer.ledger[-1]
    async with asyncio.timeout(within_s):
        while True:
            tags = (await plant.get("/v1/devices/plc"))["tags"]
            if any(tag["tag"] == name and (tag["last"] or {"ts": 0})["ts"] >= ts for tag in tags):
                return
            await asyncio.sleep(0.2)


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("how", "interval_ms"),
    [
        ("mode: subscribe, publishing_interval: 100ms, sampling_interval: 0", 100),
        ("mode: poll, poll_interval: 100ms", 400),
    ],
)
async def test_the_samples_are_exactly_what_the_server_wrote(
    tmp_path: Path, free_port: Callable[[], int], how: str, interval_ms: int
) -> None:
    options = ("--tags", str(TAGS))
    async with (
        running(NODE_OPCUA, free_port(), *options) as peer,
        gateway(tmp_path / "gw", free_port()) as plant,
    ):
        plant.write(configuration(peer.url, how))
        await plant.start()
        await has(plant, peer)
        first = await stored(plant)
        assert len(first) == TAGS
        await peer.ask("write", 8000 // interval_ms, interval_ms, answer="done")
        await has(plant, peer)
        rows = await stored(plant)
        assert Counter(rows) == Counter(written(peer))
        assert len(rows) == TAGS + TAGS * (8000 // interval_ms)
        assert (await plant.pages("/v1/gaps", "gaps", device="plc")) == []


@pytest.mark.timeout(400)
async def test_the_server_is_killed_and_comes_back(tmp_path: Path, free_port: Callable[[], int]) -> None:
    options = ("--tags", str(TAGS))
    back_s: list[float] = []
    async with (
        running(NODE_OPCUA, free_port(), *options) as peer,
        gateway(tmp_path / "gw", free_port()) as plant,
    ):
        how = "mode: subscribe, publishing_interval: 100ms, sampling_interval: 0"
        plant.write(configuration(peer.url, how))
        await plant.start()
        await has(plant, peer)
        for _ in range(RESTARTS):
            peer.say("write", 1000, 100)
            await asyncio.sleep(0.7)
            await peer.kill()
            await asyncio.sleep(0.2)
            await peer.start()
            began = time.monotonic()
            await has(plant, peer, within_s=BACKOFF_CAP_S + CONNECT_S)
            back_s.append(time.monotonic() - began)
        await peer.ask("write", 5, 100, answer="done")
        await has(plant, peer)
        rows, gaps = await stored(plant), await plant.pages("/v1/gaps", "gaps", device="plc")
    ledger = Counter(written(peer))
    assert Counter(rows) - ledger == Counter(), "stored what was never written, or twice"
    missing = ledger - Counter(rows)
    unexplained = [row for row in missing if not any(g["from_us"] <= row[1] <= g["to_us"] for g in gaps)]
    assert unexplained == []
    assert len(gaps) >= RESTARTS
    print(f"back after {sorted(back_s)[len(back_s) // 2]:.1f} s (p50), {max(back_s):.1f} s (most)")  # noqa: T201
    print(f"{len(rows)} stored, {missing.total()} missing, all within {len(gaps)} gap records")  # noqa: T201
