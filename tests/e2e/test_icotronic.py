"""The gateway is killed while a sensor node measures: the node is back, and so is what was measured."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.e2e.bus_process import bus
from tests.e2e.gateway_process import GatewayProcess, gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

CONFIG = """\
store: {{commit_interval: 100ms}}
devices:
  tools:
    icotronic: {{interface: socketcand, host: 127.0.0.1, port: {port}, channel: can0}}
"""
_NODE = {"name": "Spindle"}
_BACK_S = 10


async def connected(box: GatewayProcess) -> None:
    """Wait for the STU, and connect the node."""
    async with asyncio.timeout(_BACK_S):
        while (await box.get("/v1/devices/tools"))["health"]["state"] != "running":
            await asyncio.sleep(0.1)
        await box.ask("PUT", "/v1/sth/connect", _NODE)


async def measuring(box: GatewayProcess, frames: int) -> str:
    """Begin to measure; return the name once so many frames have come."""
    sensor = (await box.get("/v1/sensor"))["sensors"][0]["sensor_id"]
    plan = {"channels": [{"number": 1, "sensor_id": sensor}, None, None]}
    name: str = (await box.ask("POST", "/v1/measurement/start", plan, status=201))["name"]
    while (await box.get(f"/v1/measurement/{name}"))["received"] < frames:
        await asyncio.sleep(0.1)
    return name


async def written(box: GatewayProcess, name: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (found := await box.get(f"/v1/measurement/{name}"))["state"] != "written":
            await asyncio.sleep(0.1)
    return dict(found)


async def test_killed_while_a_node_measures(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    async with gateway(tmp_path / "g", free_port()) as box, bus(port):
        box.write(CONFIG.format(port=port))
        await box.start()
        for turn in range(3):
            await connected(box)
            name = await measuring(box, 2000)
            before = (await box.get(f"/v1/measurement/{name}"))["received"]
            await box.kill()
            await box.start()
            found = await written(box, name)
            assert before - 1000 < found["received"] and found["interrupted"], (turn, before, found)
            with h5py.File(box.state / "measurements" / found["file"]) as file:
                assert len(file["acceleration"]) == 3 * found["received"]
        await connected(box)
