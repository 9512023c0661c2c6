"""`kill -9` of the daemon at random points of the run: nothing acknowledged is missing or doubled."""

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.plant import Plant, plant

pytestmark = [pytest.mark.slow]
KILLS = 50
MUTANT = [sys.executable, "-m", "tests.e2e.acknowledges_early", "run"]


async def kills(run: Plant, count: int) -> None:
    """Kill and start it again while the PLC writes, three clients push and the dataspace loses answers."""
    random.seed(count)
    run.plc.say("write", 100_000, 100)
    await run.gateway.start()
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(run.push(f"client-{n}")) for n in range(3)]
        for number in range(count):
            await asyncio.sleep(random.uniform(0.1, 1.8))
            await run.gateway.kill()
            if number % 10 == 5:
                await run.cloud.faults(forget=2)
            # Also killed while it starts.
            while random.random() < 0.2:
                await run.gateway.start(ready=False)
                await asyncio.sleep(random.uniform(0.05, 0.8))
                await run.gateway.kill()
            await run.gateway.start()
        await run.running("plc")  # a hole that is still open is no record yet
        await asyncio.sleep(3)
        for client in clients:
            client.cancel()
    await run.plc.kill()


@pytest.mark.seed_row("L5")
@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_missing_or_doubled(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with plant(tmp_path, free_port) as run:
        await kills(run, KILLS)
        stored = await run.drained(120)
        await run.check(stored)
        assert len(run.acknowledged) >= 10 * KILLS
        counts = await run.cloud.counts()
        assert counts["repeated"] >= 1
        assert counts["bodies_per_key"] == 1
        gaps = await run.gateway.pages("/v1/gaps", "gaps", device="plc")
        assert any(gap["reason"] == "the gateway was not running" for gap in gaps)
        plc = {key for key, _value in stored if key[0] == "plc"}
        first = min(key[2] for key in plc)  # what was written before the first contact was never asked for
        missing = {("plc", tag, ts) for tag, ts, _ in run.plc.ledger if ts > first} - plc
        now = (await run.gateway.get("/v1/devices/plc"))["hole"]  # since the PLC was killed at the end
        holes = [(gap["from_us"], gap["to_us"]) for gap in gaps] + [(now["since_us"], 2**62)]
        assert [key for key in missing if not any(start <= key[2] <= end for start, end in holes)] == []
        print(f"{len(run.acknowledged)} acknowledged, {stored.total()} stored, {counts}")  # noqa: T201


@pytest.mark.timeout(120)
async def test_a_gateway_that_acknowledges_before_commit_fails(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with plant(tmp_path, free_port) as run:
        run.gateway.command = MUTANT
        await kills(run, 6)
        with contextlib.suppress(TimeoutError):
            await run.drained(15)
        with pytest.raises(AssertionError, match="acknowledged samples are not stored"):
            await run.check(await run.stored())
