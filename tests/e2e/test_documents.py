"""A dataspace.yaml uploaded to a running gateway is an upload like any other; its password stays inside."""

import asyncio
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.peers.receiver import Receiver, receiver

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow]
PASSWORD = "right"
"""That of the simulated dataspace."""
CANARY = "c4nary-9f3e71"
"""A password that is stored too, and is nowhere else by chance."""
DATASPACE = """\
info:
  schema_name: dataspace_schema
  schema_version: 1.0.0
  config_name: Simulated
  config_date: '2026-03-20T13:52:40+0200'
  config_version: {version}
connection:
  enabled: {enabled}
  connector: trident
  username: press
  password: {password}
  bucket: common
  bucket_folder: hall-3
  protocol: http
  domain: 127.0.0.1:{port}
  base_path: /
"""


class Client:
    """An administrator."""

    def __init__(self, running: GatewayProcess) -> None:
        token = (running.state / "admin-token").read_text().strip()
        self._running = running
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{running.port}", headers={"Authorization": f"Bearer {token}"}
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def store(self, peer: Receiver, **said: Any) -> Any:
        text = DATASPACE.format(
            **{"version": "1", "enabled": "true", "password": PASSWORD, "port": peer.port, **said}
        ).replace("config_version: ", "config_version: v")
        async with self._session.post(
            "/v1/config/dataspace", data=text, headers={"Content-Type": "text/yaml"}
        ) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def restore(self, backup: str) -> Any:
        said = {"filename": "dataspace.yaml", "backup_filename": backup}
        async with self._session.put("/v1/config/restore", json=said) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def push(self, value: float) -> None:
        async with self._session.post(
            "/v1/devices/box/samples", json=[{"tag": "t", "value": value}]
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def uploads(self) -> dict[str, Any]:
        return {each["id"]: each for each in (await self._running.get("/v1/uploads"))["uploads"]}

    async def log(self) -> str:
        async with self._session.get("/v1/logs/view") as answer:
            return str((await answer.json())["content"])


async def delivered(peer: Receiver, value: float, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while value not in [each["value"] for each in await peer.samples()]:
            await asyncio.sleep(0.2)


async def test_a_dataspace_is_stored_used_changed_and_kept(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    async with (
        receiver(free_port(), tmp_path / "cloud") as peer,
        gateway(tmp_path / "gw", free_port()) as running,
    ):
        running.write("devices: {box: {push: {}}}\n")
        await running.start(LOGS_DIRECTORY=str(logs))
        async with Client(running) as client:
            assert await client.uploads() == {}
            answer = await client.store(peer)
            assert answer["changed"] == ["upload dataspace"]
            upload = (await client.uploads())["dataspace"]
            assert (upload["kind"], upload["url"]) == ("dataspace", f"http://127.0.0.1:{peer.port}")
            assert "unencrypted" in upload["insecure"]
            await client.push(1.5)
            await delivered(peer, 1.5, 80)

            # As little is restarted as for an edit of the YAML.
            assert (await client.store(peer))["changed"] == []
            assert (await client.store(peer, version="2"))["changed"] == []
            off = await client.store(peer, enabled="false", version="3", password=CANARY)
            assert off["changed"] == ["upload dataspace"] and await client.uploads() == {}
            assert "dataspace" in (await client.restore(off["backup"]))["changed"][0]
            assert "dataspace" in await client.uploads()
            assert "stored dataspace.yaml" in await client.log()

            # The YAML has the last word.
            running.write(
                "devices: {box: {push: {}}}\nuploads: {dataspace: {http: {url: 'http://127.0.0.1:1/x'}}}\n"
            )
            assert (await running.reload())[0] == 0
            assert (await client.uploads())["dataspace"]["kind"] == "http"
            warned = "names an upload"
            assert warned in str((await running.get("/v1/state"))["config"]["warnings"])
            assert warned in str((await client.store(peer, version="4"))["warnings"])
            running.write("devices: {box: {push: {}}}\n")
            assert (await running.reload())[0] == 0
            assert (await client.uploads())["dataspace"]["kind"] == "dataspace"

        await check_secrecy(running, tmp_path, logs)
        assert await running.stop() == 0
        await running.start(LOGS_DIRECTORY=str(logs))
        async with Client(running) as client:
            await client.push(2.5)
            await delivered(peer, 2.5, 80)
        await check_patience(running, peer)


async def check_patience(running: GatewayProcess, peer: Receiver) -> None:
    """Without its password, as after a restore on another box, the upload waits and loses nothing."""
    await peer.kill()
    async with Client(running) as client:
        await client.push(3.5)
        gaps = await running.pages("/v1/gaps", "gaps", upload="dataspace")
    assert await running.stop() == 0
    for secret in (running.state / "documents" / "secrets").iterdir():
        secret.unlink()
    await running.start()
    await peer.start()
    async with Client(running) as client:
        assert await client.uploads() == {}
        assert "upload the file anew" in str((await running.get("/v1/state"))["config"]["warnings"])
        await client.push(4.5)
        assert (await client.store(peer, version="9"))["changed"] == ["upload dataspace"]
        await delivered(peer, 3.5, 80)
        await delivered(peer, 4.5, 80)
        assert await running.pages("/v1/gaps", "gaps", upload="dataspace") == gaps


async def check_secrecy(running: GatewayProcess, folder: Path, logs: Path) -> None:
    """A password is in one place of the state directory, in no log, in no backup and in no bundle."""
    (secret,) = holding(running.state)
    assert (secret.parent.name, secret.stat().st_mode & 0o777) == ("secrets", 0o600)
    copy, bundle = folder / "copy", folder / "bundle.tar.gz"
    code, said = await running.run("backup", str(copy), "--state", str(running.state))
    assert code == 0, said
    assert (copy / "documents" / "dataspace.yaml").is_file() and list(
        (copy / "documents" / "backup").iterdir()
    )
    asked = ("support-bundle", str(bundle), "--config", str(running.file), "--state", str(running.state))
    code, said = await running.run(*asked)
    assert code == 0, said
    with tarfile.open(bundle) as opened:
        opened.extractall(folder / "bundle")
    assert list((folder / "bundle").rglob("documents/dataspace.yaml"))
    for place in (logs, copy, folder / "bundle"):
        assert holding(place) == []
    assert CANARY not in running.log.read_text()


def holding(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
