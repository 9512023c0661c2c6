"""An orderly stop: within 10 s, whatever the devices and targets do, and with nothing lost."""

import asyncio
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.gateway_process import gateway
from tests.e2e.test_opcua_ledger import configuration, has
from tests.peers.opcua_peer import NODE_OPCUA, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
HOW = "mode: subscribe, publishing_interval: 100ms, sampling_interval: 0"
UNDER_WAY_S = 0.5


async def test_what_was_received_is_stored(tmp_path: Path, free_port: Callable[[], int]) -> None:
    options = ("--tags", "50")
    async with running(NODE_OPCUA, free_port(), *options) as peer, gateway(tmp_path, free_port()) as plant:
        # The next commit lies far off: only a stop that commits what waits keeps the last seconds.
        plant.write("store: {commit_interval: 5s}\n" + configuration(peer.url, HOW))
        await plant.start()
        peer.say("write", 10_000, 100)
        await asyncio.sleep(7)
        asked_us = time.time_ns() // 1000
        assert await plant.stop() == 0
        await plant.start()
        await asyncio.sleep(1)
        await has(plant, peer)
        rows = await plant.pages("/v1/devices/plc/samples", "samples")
        stored = {(row["tag"], row["ts"]) for row in rows}
        first = min(ts for _tag, ts in stored)
        before = [r for r in peer.ledger if first < r[1] <= asked_us - UNDER_WAY_S * 1e6]
        assert len(before) > 50 * 30
        assert [r for r in before if (r[0], r[1]) not in stored] == []


@pytest.mark.parametrize("full_disk", [False, True])
async def test_a_device_that_hangs_a_target_that_is_gone_and_a_full_disk_hold_up_no_stop(
    tmp_path: Path, free_port: Callable[[], int], full_disk: bool
) -> None:
    uploads = f"uploads: {{cloud: {{http: 'http://127.0.0.1:{free_port()}/ingest'}}}}\n"
    async with running(NODE_OPCUA, free_port()) as peer, gateway(tmp_path, free_port()) as plant:
        plant.write(configuration(peer.url, HOW) + uploads)
        await plant.start()
        await has(plant, peer)
        assert plant.process is not None
        if full_disk:  # no file of the process may grow
            resource.prlimit(plant.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            await peer.ask("write", 5, 100, answer="done")
            await asyncio.sleep(1)
            assert (await plant.get("/v1/state"))["store"]["refusing"] != ""
        peer.pause()
        await asyncio.sleep(1)
        began = time.monotonic()
        assert await plant.stop() == 0
        assert time.monotonic() - began < 10
        assert ("were given up" in plant.log.read_text()) is full_disk
