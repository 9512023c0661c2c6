"""The dataspace is down, answers 500, loses answers, and returns: each sample is there once after the key."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.plant import Plant, plant

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
EARLY = [sys.executable, "-m", "tests.e2e.acknowledges_early", "run"]


async def bad_times(run: Plant) -> None:
    """Down for the first half, then 500 for a while, then some answers lost after storing, then well."""
    await run.gateway.start()
    run.plc.say("write", 10_000, 100)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(run.push(f"client-{n}")) for n in range(3)]
        await asyncio.sleep(8)
        await run.cloud.start()
        await run.cloud.faults(answers=[{"status": 500, "count": 3}])
        await asyncio.sleep(4)
        await run.cloud.faults(forget=2)
        await asyncio.sleep(4)
        for client in clients:
            client.cancel()


async def test_every_sample_is_delivered_once(tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with plant(tmp_path, free_port, cloud=False) as run:
        await bad_times(run)
        await run.plc.kill()
        stored = await run.drained()
        counts = await run.cloud.counts()
        assert counts["repeated"] >= 1, "no delivery was repeated: the key was not tested"
        assert counts["bodies_per_key"] == 1
        await run.check(stored)
        assert len(run.acknowledged) > 500
        assert {s["lane"] for s in await run.delivered("cloud")} == {"live", "backlog"}
        assert await run.gateway.stop() == 0


async def test_a_receiver_without_the_key_check_fails(tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with plant(tmp_path, free_port) as run:
        await run.cloud.faults(dedupe=False, forget=4)
        await run.gateway.start()
        run.plc.say("write", 50, 100)
        await run.plc.event("done")
        await asyncio.sleep(8)
        stored = await run.drained()
        with pytest.raises(AssertionError, match="arrived twice"):
            await run.check(stored)
