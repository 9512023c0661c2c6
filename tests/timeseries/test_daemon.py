"""The contract in the running gateway: off by default, shown as insecure, taken by a reload."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.config import ConfigProblems, load
from gateway.config.dropin import needed
from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.timeseries.bench import EVE, ROBIN, SERIES, USERS, write_users

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow]
ON = "  compat: {{timeseries: {{listen: '127.0.0.1:{port}', tls: off, users: users.json}}}}\n"
Port = Callable[[], int]


def write(running: GatewayProcess, contract: str, rest: str = "") -> None:
    running.folder.mkdir(exist_ok=True)
    listen = f"http:\n  listen: '127.0.0.1:{running.port}'\n  tls: off\n"
    running.file.write_text(listen + contract + rest, encoding="utf-8")


async def until(running: GatewayProcess, state: str) -> str:
    """Wait until the contract is in a state; return its detail."""
    async with asyncio.timeout(15):
        while True:
            health = (await running.get("/v1/state"))["compat"].get("timeseries", {})
            if health.get("state") == state:
                return str(health["detail"])
            await asyncio.sleep(0.1)


async def test_on_and_off_by_a_reload(tmp_path: Path, free_port: Port) -> None:
    port = free_port()
    async with gateway(tmp_path / "g", free_port()) as running, aiohttp.ClientSession() as client:
        write(running, "", "devices: {box: {push: }}\n")
        await running.start()
        assert (await running.get("/v1/state"))["compat"] == {}
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(f"http://127.0.0.1:{port}/series")
        write_users(running.folder / "users.json", json.dumps(USERS))
        write(running, ON.format(port=port), "devices: {box: {push: }, Eve: {push: }}\n")
        code, said = await running.reload()
        assert code == 0 and "device timeseries" in said
        assert await until(running, "running") == f"listening on 127.0.0.1:{port}"
        insecure = (await running.get("/v1/state"))["insecure"]
        assert any(f"port {port} can read the points" in sentence for sentence in insecure)

        async def put(path: str, body: Any) -> Any:
            async with client.put(f"http://127.0.0.1:{port}{path}", json=body) as answer:
                assert answer.status == 201, await answer.text()
                return await answer.json()

        series = await put("/series/new", SERIES)
        eves = await put("/series/new", SERIES | {"token": EVE})
        point = await put("/point/new", {"token": ROBIN, "series_id": series, "fields": {"temp_C": 13.5}})
        await put("/point/new", {"token": EVE, "series_id": eves, "fields": {"temp_C": 1}})
        samples = (await running.get("/v1/devices/timeseries/samples"))["samples"]
        assert samples == [
            {
                "tag": f"{series}/temp_C",
                "ts": point,
                "value": 13.5,
                "status": 0,
                "flags": samples[0]["flags"],
            }
        ]
        assert "own_time" in samples[0]["flags"]
        assert len((await running.get("/v1/devices/Eve/samples"))["samples"]) == 1
        await running.kill()
        await running.start()
        await until(running, "running")
        async with client.get(f"http://127.0.0.1:{port}/point/{point}") as answer:
            assert (await answer.json())["fields"] == {"temp_C": 13.5}, "answered after COMMIT"
        (running.folder / "users.json").write_text("{")
        assert "users.json cannot be used" in await until(running, "degraded")
        code, said = await running.run("status", "--state", str(running.state))
        assert "users.json cannot be used" in said
        write(running, "", "devices: {box: {push: }}\n")
        assert (await running.reload())[0] == 0
        assert (await running.get("/v1/state"))["compat"] == {}
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(f"http://127.0.0.1:{port}/series")
        assert await running.stop() == 0


async def test_a_port_that_is_taken_harms_the_contract_alone(tmp_path: Path, free_port: Port) -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", port)
    async with gateway(tmp_path / "g", free_port()) as running:
        write(running, ON.format(port=port))
        await running.start()
        assert "in use" in await until(running, "failed")
        taken.close()
        await taken.wait_closed()
        await until(running, "degraded")  # there is no users.json: anybody reads, nobody writes
        assert await running.stop() == 0


def loaded(folder: Path, text: str) -> Any:
    file = folder / "gateway.yaml"
    file.write_text(text)
    return load(file, {})


def test_settings(tmp_path: Path) -> None:
    config = loaded(tmp_path, "http: {compat: {timeseries: {users: users.json}}}")
    settings = config.http.compat.timeseries
    assert (settings.listen, settings.tls) == ("0.0.0.0:5000", "self-signed")
    assert settings.users == tmp_path / "users.json"
    assert config.devices["timeseries"].kind == "push", "the points need no device of their own"
    assert loaded(tmp_path, "http: {tls: off}").devices == {}
    low = loaded(tmp_path, "http: {compat: {timeseries: {listen: '0.0.0.0:80', users: users.json}}}")
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in needed(low)
    environ = {
        "EDGE_GATEWAY__HTTP__COMPAT__TIMESERIES__USERS": "/etc/timeseries-api/users.json",
        "EDGE_GATEWAY__HTTP__COMPAT__TIMESERIES__LISTEN": "127.0.0.1:5001",
        "EDGE_GATEWAY__DEVICES": "{}",
    }
    assert load(tmp_path / "none.yaml", environ).http.compat.timeseries.listen == "127.0.0.1:5001"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http: {compat: {timeseries: {tls: off}}}", 'needs the setting "users", such as users: users.json'),
        ("http: {compat: {timeseries: {users: u.json, listen: x}}}", '"x" is not address:port'),
        (
            "http: {listen: '127.0.0.1:5000', compat: {timeseries: {users: u.json}}}",
            "listen and compat.timeseries.listen are both on port 5000",
        ),
        (
            "http: {compat: {timeseries: {users: u.json}}}\n"
            "devices: {timeseries: {opcua: 'opc.tcp://plc:4840'}}",
            '2:11: "timeseries" takes the points of http.compat.timeseries, so it is a device that pushes',
        ),
    ],
)
def test_settings_that_will_not_do(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigProblems) as refused:
        loaded(tmp_path, text)
    assert sentence in "\n".join(refused.value.problems)
