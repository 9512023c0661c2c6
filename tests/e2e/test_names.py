"""Dead name servers: what has a name waits for them, the watchdog, the API and a stop do not."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.gateway_process import gateway

pytestmark = [pytest.mark.slow]
PLCS = 30
"""More than the threads that asyncio shares, and fewer than the look-ups that may be under way."""
CONFIG = (
    "devices:\n"
    + "".join(f"  plc-{n}: {{opcua: 'opc.tcp://plc-{n}.invalid:4840'}}\n" for n in range(PLCS))
    + "uploads:\n  cloud: {http: 'http://cloud.invalid/ingest'}\n"
)


@pytest.mark.timeout(60)
async def test_dead_name_servers_keep_only_those_waiting_who_need_a_name(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with gateway(tmp_path / "gw", free_port()) as running:
        running.command = [sys.executable, "-m", "tests.e2e.dead_names", "run"]
        running.write(CONFIG)
        await running.start(WATCHDOG_USEC="3000000")
        async with asyncio.timeout(20):
            while running.log.read_text().count("looking up plc-") < PLCS:
                await asyncio.sleep(0.1)
        for _ in range(3):
            await running.told("WATCHDOG=1")
        assert len((await running.get("/v1/devices"))["devices"]) == PLCS
        assert await running.stop() == 0
