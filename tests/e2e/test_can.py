"""The whole gateway at a CAN bus over socketcand: a server that dies is told, and nothing spins."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cantools
import pytest

from gateway.demo.bus.press import DATABASE
from tests.e2e.bus_process import bus
from tests.e2e.gateway_process import GatewayProcess, gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

CONFIG = """\
store: {{commit_interval: 200ms}}
devices:
  press:
    can: {{interface: socketcand, host: 127.0.0.1, port: {port}, database: {database}}}
"""
_SPIN_S = 2.0


async def until(box: GatewayProcess, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until the device is as wanted; return what the API says of it."""
    async with asyncio.timeout(30):
        while True:
            found: dict[str, Any] = await box.get("/v1/devices/press")
            if condition(found):
                return found
            await asyncio.sleep(0.1)


def cpu_s(process: asyncio.subprocess.Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_bus_whose_server_dies(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    async with gateway(tmp_path / "g", free_port()) as box:
        box.write(CONFIG.format(port=port, database=DATABASE))
        async with bus(port):
            await box.start()
            await until(box, lambda found: found["health"]["state"] == "running")
            samples = await some(box, "PressStatus.Position")
            assert all(0 <= sample["value"] <= 300 for sample in samples)
            known = {
                f"{message.name}.{signal.name}"
                for message in cantools.database.load_file(DATABASE).messages
                for signal in message.signals
            }
            listed = {tag["tag"] for tag in (await box.get("/v1/devices/press"))["tags"]}
            assert len(listed - known) == len({tag for tag in listed if tag.startswith("bus:")})
            assert len(listed & known) > len(known) / 2
        failed = await until(box, lambda found: found["health"]["state"] == "failed")
        assert "socketcand" in failed["health"]["detail"]
        assert box.process is not None
        before_s = cpu_s(box.process)
        await asyncio.sleep(_SPIN_S)
        assert cpu_s(box.process) - before_s < 0.5 * _SPIN_S
        async with bus(port):
            await until(box, lambda found: found["health"]["state"] == "running")
            newest = (await box.get("/v1/gaps"))["gaps"]
            assert [gap["device"] for gap in newest] == ["press"]
            gap = newest[0]
            assert gap["to_us"] - gap["from_us"] >= _SPIN_S * 1e6
            after = await some(box, "PressStatus.Position", since_us=gap["to_us"])
            assert after
        assert await box.stop() == 0
        assert "Traceback" not in box.log.read_text()


async def some(box: GatewayProcess, tag: str, since_us: int = 0) -> list[dict[str, Any]]:
    """Wait for samples of a tag, which is made when its message first comes."""
    await until(box, lambda found: any(each["tag"] == tag for each in found["tags"]))
    path = "/v1/devices/press/samples"
    async with asyncio.timeout(20):
        while True:
            found = (await box.get(path, tags=tag, **{"from": since_us}))["samples"]
            if len(found) >= 2:
                return list(found)
            await asyncio.sleep(0.2)
