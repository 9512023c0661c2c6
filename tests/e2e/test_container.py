"""What a container needs of the process: no file, a health check, and a stop that works as PID 1 too."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.gateway_process import gateway
from tests.e2e.test_edits import plc
from tests.e2e.test_watchdog import CONFIG, FAST

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]


@pytest.mark.seed_row("L8")
async def test_the_environment_alone_configures_it(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    async with plc(port), gateway(tmp_path / "gw", free_port()) as running:
        running.folder.mkdir()
        await running.start(
            EDGE_GATEWAY__HTTP=f"{{listen: '127.0.0.1:{running.port}', tls: off}}",
            EDGE_GATEWAY__DEVICES=f"{{press: {{opcua: 'opc.tcp://127.0.0.1:{port}/demo'}}}}",
        )
        async with asyncio.timeout(20):
            while not await running.pages("/v1/devices/press/samples", "samples"):
                await asyncio.sleep(0.1)
        assert await running.run("health", "--state", str(running.state)) == (0, "alive\n")
        _code, said = await running.run("status", "--state", str(running.state))
        assert json.loads(said)["commits"] > 0
        assert (await running.reload())[0] == 0
        assert await running.stop() == 0
        code, said = await running.run("health", "--state", str(running.state))
        assert code == 1
        assert "no daemon answers" in said


async def test_without_file_and_environment_it_says_what_it_lacks(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with gateway(tmp_path / "gw", free_port()) as running:
        running.folder.mkdir()
        await running.start(ready=False)
        assert running.process is not None
        assert await running.process.wait() == 78
        assert "name the devices in the environment, in EDGE_GATEWAY__DEVICES" in running.log.read_text()


async def test_a_part_that_stands_and_an_api_that_cannot_listen_are_not_healthy(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    async with plc(port), gateway(tmp_path / "gw", free_port()) as running:
        running.command = FAST
        running.write(CONFIG.format(plc=port, dead=free_port()))
        async with await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", running.port):
            await running.start(BLOCK_FORWARDER="1")
            code, said = await running.run("health", "--state", str(running.state))
            assert code == 1
            assert said.startswith("the API does not listen: ")
        async with asyncio.timeout(40):
            while True:
                code, said = await running.run("health", "--state", str(running.state))
                if said.startswith("the forwarder of upload cloud has not turned over"):
                    break
        assert code == 1


async def test_a_stop_while_it_starts_ends_it_also_as_pid_1(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("a PID namespace of its own is made by root")
    async with gateway(tmp_path / "gw", free_port()) as running:
        running.write("devices: {}\n")
        running.command = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            sys.executable,
            "-m",
            "gateway",
            "run",
        ]
        await running.start(ready=False)
        assert running.process is not None
        async with asyncio.timeout(20):
            while not (running.state / "hot.db").exists():  # it has begun, and is not ready
                await asyncio.sleep(0.001)
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await running.process.wait() == 0
