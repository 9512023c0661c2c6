"""A technician's edits: a broken one changes nothing, also at boot; a good one restarts what it changes."""

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.api import tls
from gateway.api.settings import HttpSettings
from tests.e2e.gateway_process import GatewayProcess, gateway

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow]
TWO = """\
devices:
  one: {{opcua: "opc.tcp://127.0.0.1:{one}/demo"}}
  two:
    opcua: {{url: "opc.tcp://127.0.0.1:{two}/demo", publishing_interval: {publishing}}}
"""
BROKEN = """\
devices:
  one: {opcua: "opc.tcp://127.0.0.1:1/demo", opcau: 3}
  two: {opcua: {ulr: 7}}
"""


@asynccontextmanager
async def plc(port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.demo.plc", "--port", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def newest(running: GatewayProcess, device: str) -> int:
    answer: dict[str, Any] = await running.get(f"/v1/devices/{device}")
    return max((tag["last"]["ts"] for tag in answer["tags"] if tag["last"]), default=0)


async def flows(running: GatewayProcess, device: str, within_s: float = 15) -> None:
    """Wait until a sample comes that is newer than all that are there now."""
    before = await newest(running, device)
    async with asyncio.timeout(within_s):
        while await newest(running, device) <= before:
            await asyncio.sleep(0.2)


async def starts(running: GatewayProcess, device: str) -> list[int]:
    """Return the ids of the device's runs: a restarted session has begun a new one."""
    runs = await running.pages("/v1/runs", "runs", device=device)
    return [run["id"] for run in runs if run["kind"] != "connect"]


async def test_edits(tmp_path: Path, free_port: Callable[[], int]) -> None:
    one, two = free_port(), free_port()
    async with plc(one), plc(two), gateway(tmp_path / "gw", free_port()) as running:
        running.write(TWO.format(one=one, two=two, publishing="200ms"))
        await running.start()
        await flows(running, "one")
        await flows(running, "two")

        before = await starts(running, "one")
        good = running.file.read_text()
        running.write(BROKEN)
        code, said = await running.reload()
        assert code == 1
        assert f'{running.file}:3:46: "opcau"' in said
        assert f'{running.file}:4:17: "ulr"' in said
        await flows(running, "one")
        await flows(running, "two")
        assert len((await running.get("/v1/state"))["config"]["problems"]) >= 2
        assert await starts(running, "one") == before

        assert await running.stop() == 0
        await running.start()  # a boot with the broken file
        await flows(running, "one")
        await flows(running, "two")
        assert len((await running.get("/v1/state"))["config"]["problems"]) >= 2
        before_one, before_two = await starts(running, "one"), await starts(running, "two")

        running.file.write_text(good.replace("200ms", "300ms"))
        code, said = await running.reload()
        assert (code, said.splitlines()[-1]) == (0, "restarted: device two")
        await flows(running, "two")
        assert await starts(running, "one") == before_one
        assert len(await starts(running, "two")) == len(before_two) + 1
        assert (await running.get("/v1/state"))["config"]["problems"] == []
        reasons = [gap["reason"] for gap in await running.pages("/v1/gaps", "gaps", device="two")]
        assert "its configuration was changed" in reasons

        before_one = await starts(running, "one")
        row = await running.ask("POST", "/v1/devices/one/reconnect", {})
        assert row["health"]["state"] == "running"
        await flows(running, "one")
        assert len(await starts(running, "one")) == len(before_one) + 1
        assert len(await starts(running, "two")) == len(before_two) + 1
        reasons = [gap["reason"] for gap in await running.pages("/v1/gaps", "gaps", device="one")]
        assert "it was told to reconnect" in reasons

        running.file.write_text(good.replace("200ms", "400ms"))
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in await running.told("RELOADING=1")
        await running.told("READY=1")
        await flows(running, "two")
        assert len(await starts(running, "two")) == len(before_two) + 2
        assert await running.stop() == 0
        await running.told("STOPPING=1")


async def test_a_first_start_with_a_broken_file_ends_with_78(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with gateway(tmp_path / "gw", free_port()) as running:
        running.write(BROKEN)
        await running.start(ready=False)
        assert running.process is not None
        assert await running.process.wait() == 78
        assert "no valid configuration ever existed" in running.log.read_text()


async def test_a_gateway_starts_without_any_device_and_stops_in_time(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with gateway(tmp_path / "gw", free_port()) as running:
        running.write(f"devices: {{press: {{opcua: 'opc.tcp://127.0.0.1:{free_port()}'}}}}\n")
        await running.start()
        device = await running.get("/v1/devices/press")
        assert device["health"]["state"] in ("starting", "failed")
        assert await running.stop() == 0


async def test_a_reload_takes_a_renewed_certificate(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    pairs = []
    for name in ("one", "two"):
        await asyncio.to_thread(tls.context, HttpSettings(), tmp_path / name)
        pairs.append((tmp_path / name / "tls/self-signed.pem").read_text())
    async with gateway(tmp_path / "gw", port) as running:
        running.folder.mkdir()
        pem = running.folder / "plant.pem"
        pem.write_text(pairs[0])
        running.file.write_text(
            f"http: {{listen: '127.0.0.1:{port}', tls: {{certificate: plant.pem, key: plant.pem}}}}\n"
        )
        await running.start()

        async def fingerprint() -> str:
            _code, said = await running.run("status", "--state", str(running.state))
            return str(json.loads(said)["fingerprint"])

        before = await fingerprint()
        assert (await running.reload())[1].startswith("restarted: nothing")
        pem.write_text(pairs[1])
        code, said = await running.reload()
        assert (code, said) == (0, f"restarted: certificate {pem}\n")
        assert await fingerprint() != before
        served = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
        assert served in pairs[1]
        pem.write_text("broken")
        code, said = await running.reload()
        assert code == 0
        assert "What was loaded before is used on." in said
        assert await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port)) == served


async def test_a_secret_that_is_gone_at_a_boot_costs_only_what_needs_it(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    one, two = free_port(), free_port()
    cloud, password = secrets = [tmp_path / "cloud.txt", tmp_path / "two.txt"]
    rest = (
        f"devices:\n  one: {{opcua: 'opc.tcp://127.0.0.1:{one}/demo'}}\n"
        f"  two: {{opcua: {{url: 'opc.tcp://127.0.0.1:{two}', user: a, password: {{file: {password}}}}}}}\n"
        f"uploads:\n  cloud: {{http: {{url: 'http://127.0.0.1:1', token: {{file: {cloud}}}}}}}\n"
    )
    async with plc(one), gateway(tmp_path / "gw", free_port()) as running:
        running.write(rest)
        await running.start()  # the first boot of all
        await flows(running, "one")
        _code, said = await running.run("status", "--state", str(running.state))
        status = json.loads(said)
        assert not status["ok"]
        assert [each.split(": ")[0].rpartition(":")[0] for each in status["problems"]] == [
            f"{running.file}:4",
            f"{running.file}:6",
        ]
        assert "running without device two, upload cloud" in running.log.read_text()
        assert "two.txt cannot be read" in (await running.get("/v1/devices/two"))["health"]["detail"]
        (upload,) = (await running.get("/v1/uploads"))["uploads"]
        assert upload["health"]["state"] == "failed"
        assert "cloud.txt cannot be read" in upload["health"]["detail"]

        running.write(rest.replace("  one: {", "  three: {push: {}}\n  one: {"))
        code, said = await running.reload()
        assert (code, said.splitlines()[-1]) == (0, "restarted: device three, device two, upload cloud")
        assert "two.txt cannot be read" in said
        for secret in secrets:
            secret.touch(0o600)
            secret.write_text("hunter2")
        async with asyncio.timeout(30):  # nobody has to say so
            while (await running.get("/v1/state"))["config"]["problems"]:
                await asyncio.sleep(0.2)
        assert "cannot be had" not in (await running.get("/v1/devices/two"))["health"]["detail"]
        assert await running.stop() == 0
