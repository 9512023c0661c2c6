"""Rows of the seeds' feature table that ask for the whole gateway, seen from ICOapi's listener."""

import asyncio
import contextlib
import io
import json
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.appliance.test_support_bundle import encodings
from tests.e2e.bus_process import bus
from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.icoapi.test_contract_files import form
from tests.icoapi.test_contract_nodes import instructions
from tests.icotronic.plant import MAC_OF, SPINDLE
from tests.peers.receiver import receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
Port = Callable[[], int]
THE_NODE = {"mac_address": MAC_OF[SPINDLE]}


class Outside:
    """A client of the contract of a gateway in a process of its own; `heard` is all that was answered."""

    def __init__(self, url: str) -> None:
        self.address, self.heard = url.partition("://")[2], bytearray()
        self.session = aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=False))

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        if body is not None:
            more["json"] = body
        async with self.session.request(method, f"/api/v1{path}", **more) as answer:
            data = await answer.read()
            self.heard += repr(answer.headers).encode() + data
            assert answer.status == status, (answer.status, data)
            return json.loads(data) if answer.content_type == "application/json" else data

    async def until(self, can_ready: bool) -> None:
        """Wait until it answers, and the STU can be asked or not."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    if (await self.ask("GET", "/state"))["can_ready"] is can_ready:
                        return
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def outside(url: str) -> AsyncIterator[Outside]:
    made = Outside(url)
    async with made.session:
        yield made


async def write(box: GatewayProcess, compat: str, rest: str) -> None:
    http = f"http: {{listen: '127.0.0.1:{box.port}', tls: off, compat: {{icoapi: {{{compat}}}}}}}\n"
    box.folder.mkdir(exist_ok=True)
    await asyncio.to_thread(box.file.write_text, http + rest)


def stu_at(port: int) -> str:
    return f"devices: {{tools: {{icotronic: {{interface: socketcand, host: 127.0.0.1, port: {port}}}}}}}\n"


@pytest.mark.seed_row(1, 8)
async def test_started_before_its_bus_and_killed_whatever_it_does_with_a_node_it_connects_it_again(
    tmp_path: Path, free_port: Port
) -> None:
    """ICOapi never tried again; and the STU held the link of its process before, until PUT /stu/reset."""
    can, control = free_port(), free_port()
    async with (
        gateway(tmp_path / "g", free_port()) as box,
        contextlib.AsyncExitStack() as plugged,
        outside(f"http://127.0.0.1:{free_port()}") as ico,
        aiohttp.ClientSession(f"http://127.0.0.1:{control}") as watching,
    ):

        async def stu() -> dict[str, Any]:
            async with watching.get("/state") as answer:
                return dict(await answer.json())

        await write(box, f"listen: '{ico.address}', tls: off, anonymous: operate", stu_at(can))
        await box.start()
        await ico.until(can_ready=False)
        for method, path, body in (
            ("GET", "/stu", None), ("PUT", "/stu/reset", None), ("GET", "/sth", None),
            ("PUT", "/sth/connect", THE_NODE), ("PUT", "/reset-can", None),
        ):  # fmt: skip
            assert "tools" in (await ico.ask(method, path, body, status=502))["detail"], path
        await plugged.enter_async_context(bus(can, control))
        for doing in ("connected", "measuring", "connecting"):
            await ico.until(can_ready=True)
            assert await ico.ask("GET", "/stu/connected") is False
            connecting = asyncio.create_task(ico.ask("PUT", "/sth/connect", THE_NODE))
            if doing == "connecting":
                while not ((await stu())["bluetooth"] or connecting.done()):
                    await asyncio.sleep(0.01)
            else:
                await connecting
                assert (await stu())["connected"] == SPINDLE
            if doing == "measuring":
                await ico.ask("POST", "/measurement/start", instructions())
                while not (await stu())["nodes"][SPINDLE]["sent"]:
                    await asyncio.sleep(0.05)
            await box.kill()
            await asyncio.gather(connecting, return_exceptions=True)
            assert doing == "connecting" or (await stu())["connected"] == SPINDLE, "the STU holds the link"
            await box.start()
        await ico.until(can_ready=True)
        assert (await ico.ask("GET", "/measurement"))["running"] is False
        await ico.ask("PUT", "/sth/connect", THE_NODE)
        assert await ico.ask("GET", "/stu/connected") is True
        assert (await ico.ask("GET", "/sth/read-adc"))["prescaler"] == 2
        assert await box.stop() == 0
        left = await stu()
        assert (left["connected"], left["resets"]) == (None, 0), "who has stopped holds nothing"


PASSWORDS = ("c4nary/Ä9+f e", "seconD-c4nary&%")
DATASPACE = """\
info: {{schema_name: dataspace_schema, schema_version: 1.0.0, config_name: X, config_date: '2026-03-20',
  config_version: '{version}'}}
connection: {{enabled: true, connector: trident, protocol: http, domain: "127.0.0.1:{port}", base_path: /,
  username: press, password: "{password}", bucket: common}}
"""


def holding(folder: Path) -> list[Path]:
    """Return the files that hold a password in whatever form."""
    forms = [form.encode() for each in PASSWORDS for form in (*encodings(each), json.dumps(each)[1:-1])]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(each in path.read_bytes() for each in forms)]


@pytest.mark.seed_row(32)
async def test_a_password_is_in_no_log_no_answer_and_no_file_but_the_secret_one(
    tmp_path: Path, free_port: Port
) -> None:
    """At level DEBUG, rightly and wrongly uploaded, with a dataspace that says it back in its errors."""
    logs = tmp_path / "logs"
    logs.mkdir()
    async with (
        gateway(tmp_path / "g", free_port()) as box,
        receiver(free_port(), tmp_path / "cloud") as peer,
        outside(f"http://127.0.0.1:{free_port()}") as ico,
    ):
        compat = f"listen: '{ico.address}', tls: off, anonymous: operate"
        await write(box, compat, "logs: DEBUG\ndevices: {box: {push: {}}}\n")
        await box.start(LOGS_DIRECTORY=str(logs))
        await ico.until(can_ready=False)
        assert b'LOG_LEVEL="DEBUG"' in await ico.ask("GET", "/config/env")

        async def upload(text: str, status: int = 200) -> Any:
            sent = form("file", text.encode(), "x.yaml", "application/x-yaml")
            return await ico.ask("POST", "/config/dataspace", data=sent, status=status)

        async with ico.session.ws_connect("/api/v1/logs/stream") as live:
            for version, password in enumerate(PASSWORDS):
                good = DATASPACE.format(version=version, port=peer.port, password=password)
                await upload(good.replace("password:", "pasword:"), 422)
                await upload(good.replace(f'"{password}"', f'["{password}"]'), 422)
                await upload(good.replace(f'"{password}"', f'"{password}'), 400)
                await upload(good.replace(f'"{password}"', f'&a "{password}"'), 422)
                await upload(good)
                async with asyncio.timeout(30):
                    while not (await ico.ask("GET", "/state"))["cloud"]["healthy"]:
                        await asyncio.sleep(0.1)
                await ico.ask("POST", "/cloud/authenticate")
                await ico.ask("GET", "/cloud")
            for code in (400, 422, 401):
                said_back = {"status": code, "path": "/auth", "count": -1, "body": f"no {PASSWORDS}"}
                await peer.faults(answers=[said_back], token_requests=1)
                await ico.ask("POST", "/cloud/authenticate", status=502)
                await ico.ask("GET", "/cloud", status=502)
            await box.ask("POST", "/v1/devices/box/samples", [{"tag": "t", "value": 1}])
            async with asyncio.timeout(60):
                while "upload dataspace: failed: " not in box.log.read_text():
                    await asyncio.sleep(0.2)
            (version,) = [
                each for each in (await ico.ask("GET", "/config/backup"))["files"] if each["backup"]
            ]
            restored = {"filename": "dataspace.yaml", "backup_filename": version["backup"][0]["filename"]}
            await ico.ask("PUT", "/config/restore", restored)
            await ico.ask("GET", "/config/dataspace", status=405)
            for path in ("config/dataspace", "config/backup", "uploads", "state", "cloud", "devices"):
                async with box._client().get(f"/v1/{path}") as answer:
                    ico.heard += await answer.read()
            (file,) = (await ico.ask("GET", "/logs"))["files"]
            view = await ico.ask("GET", f"/logs/view?file={file['name']}&limit=0")
            assert "stored dataspace.yaml" in view["content"]
            await ico.ask("GET", f"/logs/download/{file['name']}")
            with zipfile.ZipFile(io.BytesIO(await ico.ask("GET", "/logs/all"))) as archive:
                ico.heard += b"".join(map(archive.read, archive.namelist()))
            while "restored dataspace.yaml" not in (line := await live.receive_str(timeout=30)):
                ico.heard += line.encode()
        assert await box.stop() == 0
        bundle = ("support-bundle", str(tmp_path / "b.tar.gz"), "--config", str(box.file))
        assert (await box.run(*bundle, "--state", str(box.state)))[0] == 0
        copied = await box.run("backup", str(tmp_path / "copy"), "--state", str(box.state))
        assert copied[0] == 0, copied
    with tarfile.open(tmp_path / "b.tar.gz") as opened:
        opened.extractall(tmp_path / "bundle")
    (tmp_path / "heard").write_bytes(ico.heard)
    for place in (logs, tmp_path / "copy", tmp_path / "bundle"):
        assert any(path.is_file() for path in place.rglob("*"))
    found = [path for path in holding(tmp_path) if tmp_path / "cloud" not in path.parents]
    assert {path.parent for path in found} == {box.state / "documents" / "secrets"}, found
    assert all(path.stat().st_mode & 0o077 == 0 for path in found) and len(found) == len(PASSWORDS)


async def environment(ico: Outside) -> dict[str, str]:
    text = (await ico.ask("GET", "/config/env")).decode()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in text.splitlines())}


async def measure(ico: Outside) -> AsyncIterator[float]:
    """Measure for as long as somebody wants to know when it was started and messages of the stream came."""
    async with ico.session.ws_connect("/api/v1/measurement/stream") as stream:
        await ico.ask("PUT", "/sth/connect", THE_NODE)
        yield time.monotonic()
        await ico.ask("POST", "/measurement/start", instructions())
        try:
            while True:
                if json.loads(await stream.receive_str(timeout=30))[0]["counter"] is not None:
                    yield time.monotonic()
        finally:
            await ico.ask("POST", "/measurement/stop")
            await ico.ask("PUT", "/sth/disconnect")


async def allowed(ico: Outside, origin: str) -> str | None:
    """Return which origin a page of this one is told to be allowed."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    async with ico.session.options("/api/v1/sth/connect", headers=headers) as answer:
        return answer.headers.get("Access-Control-Allow-Origin")


@pytest.mark.seed_row(43)
async def test_each_option_is_seen_at_the_listener(tmp_path: Path, free_port: Port) -> None:
    """Address, TLS, origins, rate, folder, level and format of the log: first one way, then another."""
    logs, files, can = tmp_path / "logs", tmp_path / "files", free_port()
    logs.mkdir()
    one, other = "http://one.example:5173", "https://other.example"
    async with (
        gateway(tmp_path / "g", free_port()) as box,
        bus(can) as stu,
        outside(f"http://127.0.0.1:{free_port()}") as ico,
        outside(f"https://127.0.0.2:{free_port()}") as moved,
    ):
        compat = f"tls: off, anonymous: operate, listen: '{ico.address}', cors: ['{one}'], updates_per_s: 4"
        rest = f"logs: {{format: json}}\nmeasurements: {{path: {files}}}\n"
        await write(box, compat, rest + stu_at(can))
        await box.start(LOGS_DIRECTORY=str(logs))
        await ico.until(can_ready=True)
        assert (await environment(ico)).items() >= {
            "VITE_API_PROTOCOL": "http", "VITE_API_WS_PROTOCOL": "ws", "VITE_API_HOSTNAME": "127.0.0.1",
            "VITE_API_PORT": ico.address.partition(":")[2], "VITE_API_VERSION": "v1",
            "VITE_API_ORIGINS": one, "WEBSOCKET_UPDATE_RATE": "4", "LOG_LEVEL": "INFO", "LOG_USE_JSON": "1",
            "LOG_PATH": str(logs), "VITE_APPLICATION_FOLDER": str(files),
        }.items()  # fmt: skip
        assert (await allowed(ico, one), await allowed(ico, other)) == (one, None)
        times: list[float] = []
        async with contextlib.aclosing(measure(ico)) as seen:
            while len(times) < 11:
                times.append(await anext(seen))
        assert times[-1] - times[0] > 2, "ten messages at four a second"
        async with asyncio.timeout(30):
            while not (listed := await ico.ask("GET", "/files"))["files"]:
                await asyncio.sleep(0.1)
        assert listed["directory"] == str(files) and (files / listed["files"][0]["name"]).is_file()
        (log,) = (await ico.ask("GET", "/logs"))["files"]
        said = (await ico.ask("GET", f"/logs/view?file={log['name']}&limit=0"))["content"].splitlines()
        assert "INFO" in {json.loads(line)["level"] for line in said}
        assert await box.stop() == 0

        compat = f"anonymous: operate, listen: '{moved.address}', cors: ['{other}'], updates_per_s: 300"
        rest = f"logs: {{level: WARNING}}\nmeasurements: {{path: {files / 'new'}}}\n"
        await write(box, compat, rest + stu_at(can))
        await box.start(LOGS_DIRECTORY=str(logs))
        await moved.until(can_ready=True)
        for nobody in (ico.address, moved.address.replace("127.0.0.2", "127.0.0.1")):
            with pytest.raises(aiohttp.ClientConnectionError):
                await ico.session.get(f"http://{nobody}/api/v1/state")
        assert (await environment(moved)).items() >= {
            "VITE_API_PROTOCOL": "https", "VITE_API_WS_PROTOCOL": "wss", "VITE_API_HOSTNAME": "127.0.0.2",
            "VITE_API_PORT": moved.address.partition(":")[2], "VITE_API_ORIGINS": other,
            "WEBSOCKET_UPDATE_RATE": "300", "LOG_LEVEL": "WARNING", "LOG_USE_JSON": "0",
            "VITE_APPLICATION_FOLDER": str(files / "new"),
        }.items()  # fmt: skip
        assert (await allowed(moved, one), await allowed(moved, other)) == (None, other)
        times = []
        async with contextlib.aclosing(measure(moved)) as seen:
            while len(times) < 10 or times[-1] - times[-10] > 1.5:
                times.append(await anext(seen))
        assert (await moved.ask("GET", "/files"))["directory"] == str(files / "new")
        async with moved.session.ws_connect("/api/v1/logs/stream") as live:
            stu.kill()
            line = await live.receive_str(timeout=30)
            assert " WARNING gateway." in line and "tools" in line, line
        said = (await moved.ask("GET", f"/logs/view?file={log['name']}&limit=0"))["content"].splitlines()
        news = [line for line in said if not line.startswith("{")]
        assert news and not any(" INFO " in line for line in news), news
