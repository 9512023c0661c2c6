"""The watchdog: an hour of full disk or dead uplink is no reason to restart, a blocked forwarder is."""

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.fast_gateway import SPEED
from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.e2e.test_edits import plc

pytestmark = [pytest.mark.slow]
FAST = [sys.executable, "-m", "tests.e2e.fast_gateway", "run"]
WATCHDOG_S = 180
"""WatchdogSec in the gateway's own, fast time: three seconds of ours."""
CONFIG = """\
devices:
  line: {{opcua: {{url: "opc.tcp://127.0.0.1:{plc}/demo", request_timeout: 300s, session_timeout: 3600s}}}}
uploads:
  cloud: {{http: "http://127.0.0.1:{dead}/ingest"}}
"""


async def restarts(running: GatewayProcess, hours: float) -> int:
    """Do as systemd does for so long (in fast time): no ping within WatchdogSec is a restart."""
    count, until = 0, time.monotonic() + hours * 3600 / SPEED
    while time.monotonic() < until:
        try:
            await running.told("WATCHDOG=1", WATCHDOG_S / SPEED)
        except AssertionError:
            count += 1
            await running.kill()
            await running.start(WATCHDOG_USEC=str(WATCHDOG_S * 1_000_000))
    return count


@pytest.mark.timeout(200)
async def test_an_hour_of_full_disk_and_dead_uplink_is_no_restart(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    async with plc(port), gateway(tmp_path / "gw", free_port()) as running:
        running.command = FAST
        running.write(CONFIG.format(plc=port, dead=free_port()))
        await running.start(WATCHDOG_USEC=str(WATCHDOG_S * 1_000_000))
        assert await restarts(running, 0.5) == 0
        assert running.process is not None
        # No file of the process may grow: the disk is full for it.
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        assert await restarts(running, 1) == 0
        assert (await running.get("/v1/state"))["store"]["refusing"] != ""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, unlimited)
        async with asyncio.timeout(5):
            while (await running.get("/v1/state"))["store"]["refusing"]:
                await asyncio.sleep(0.1)


@pytest.mark.timeout(100)
async def test_a_blocked_forwarder_is_restarted_once(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    async with plc(port), gateway(tmp_path / "gw", free_port()) as running:
        running.command = FAST
        running.write(CONFIG.format(plc=port, dead=free_port()))
        await running.start(WATCHDOG_USEC=str(WATCHDOG_S * 1_000_000), BLOCK_FORWARDER="1")
        assert await restarts(running, 0.5) == 1
        assert "the forwarder of upload cloud has not turned over" in running.log.read_text()
