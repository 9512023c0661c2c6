"""The contract in the running gateway: off by default, shown as insecure, taken by a reload."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from gateway.api.settings import HttpSettings
from gateway.config import ConfigProblems, load
from gateway.config.dropin import needed
from tests.e2e.gateway_process import gateway

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow]
Port = Callable[[], int]


async def test_on_and_off_by_a_reload(tmp_path: Path, free_port: Port) -> None:
    port = free_port()
    on = f"  compat: {{icoapi: {{listen: '127.0.0.1:{port}', tls: off, anonymous: operate}}}}\n"
    async with gateway(tmp_path / "g", free_port()) as running, aiohttp.ClientSession() as client:
        listen = f"http:\n  listen: '127.0.0.1:{running.port}'\n  tls: off\n"
        tools = "devices: {tools: {icotronic: {interface: virtual, channel: nobody-there}}}\n"
        running.folder.mkdir(exist_ok=True)
        await asyncio.to_thread(running.file.write_text, listen + tools)
        await running.start()
        assert (await running.get("/v1/state"))["compat"] == {}
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(f"http://127.0.0.1:{port}/api/v1/state")
        await asyncio.to_thread(running.file.write_text, listen + on + tools)
        assert (await running.reload())[0] == 0
        async with asyncio.timeout(15):
            while (await running.get("/v1/state"))["compat"].get("icoapi", {}).get("state") != "running":
                await asyncio.sleep(0.1)
        insecure = (await running.get("/v1/state"))["insecure"]
        assert any(f"port {port} can measure, configure and delete files" in each for each in insecure)
        async with client.get(f"http://127.0.0.1:{port}/api/v1/state") as answer:
            state = await answer.json()
        assert state["can_ready"] is False and state["measurement_status"]["running"] is False
        async with client.get(f"http://127.0.0.1:{port}/api/v1/sth") as answer:
            assert answer.status == 502 and "tools" in (await answer.json())["detail"]
        async with client.get(f"http://127.0.0.1:{port}/api/v1/logs") as answer:
            assert answer.status == 200
        await asyncio.to_thread(running.file.write_text, listen + tools)
        assert (await running.reload())[0] == 0
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(f"http://127.0.0.1:{port}/api/v1/state")
        assert await running.stop() == 0


def loaded(folder: Path, text: str) -> HttpSettings:
    file = folder / "gateway.yaml"
    file.write_text(text)
    return load(file, {}).http


def test_settings(tmp_path: Path) -> None:
    http = loaded(tmp_path, "http: {tls: off, compat: {icoapi: {}}}")
    settings = http.compat.icoapi
    assert settings is not None
    assert (settings.listen, settings.tls, settings.anonymous) == ("0.0.0.0:33215", "self-signed", "off")
    assert not any("icoapi" in sentence for sentence in http.insecure())
    text = "http: {compat: {icoapi: {tls: off, anonymous: read, cors: ['http://localhost:5173']}}}"
    sentences = [each for each in loaded(tmp_path, text).insecure() if "icoapi" in each]
    assert len(sentences) == 2 and "see everything" in sentences[0] and "plain HTTP" in sentences[1]
    file = tmp_path / "gateway.yaml"
    file.write_text("http: {compat: {icoapi: {listen: '0.0.0.0:80'}}}")
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in needed(load(file, {}))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{compat: {icoapi: {cors: ['*']}}}", '"*" is not an origin'),
        ("{compat: {icoapi: {cors: ['http://a.example/path']}}}", "is not an origin"),
        ("{compat: {icoapi: {anonymous: admin}}}", "admin"),
        (
            "{listen: '127.0.0.1:33215', compat: {icoapi: {}}}",
            "listen and compat.icoapi.listen are both on port 33215",
        ),
        (
            "{compat: {icoapi: {listen: '0.0.0.0:5000'}, timeseries: {users: u.json}}}",
            "compat.timeseries.listen and compat.icoapi.listen are both on port 5000",
        ),
    ],
)
def test_settings_that_will_not_do(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigProblems) as refused:
        loaded(tmp_path, f"http: {text}")
    assert sentence in "\n".join(refused.value.problems)
