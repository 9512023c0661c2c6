"""ICOapi's cloud operations with a real dataspace that fails: the truth, in ICOapi's shapes."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.api.compat.icoapi import cloud
from tests.api.test_cloud import add_upload
from tests.forward.folder import file_settings
from tests.icoapi import shapes
from tests.icoapi.bench import Contract
from tests.icoapi.shapes import check
from tests.icoapi.test_contract_files import measured
from tests.icoapi.test_contract_nodes import connect, measuring
from tests.peers.receiver import receiver

pytestmark = pytest.mark.timeout(90)
REMOTE = {
    "id", "bucket", "objectname", "name", "description", "metadata", "created_at", "s3_lastmodified",
    "s3_size", "origin", "author", "type", "etag", "last_status", "last_status_time", "secrets_count",
    "access_total_count", "access_week_count", "last_access_time", "active_offerings_count", "virtual_group",
}  # fmt: skip


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer than a client waits for: then it gets a 202."""
    monkeypatch.setattr(cloud, "_PATIENCE_S", 60)


async def status(ico: Contract, name: str) -> dict[str, Any]:
    listed = await ico.ask("GET", "/files")
    check(listed, shapes.FILES)
    found: dict[str, Any] = next(file["cloud"] for file in listed["files"] if file["name"] == name)
    return found


async def becomes(ico: Contract, name: str, word: str) -> dict[str, Any]:
    """Wait for a status of a file."""
    async with asyncio.timeout(40):
        while (found := await status(ico, name))["status"] != word:
            await asyncio.sleep(0.1)
    return found


@pytest.mark.seed_row(25, 35, 36, 38)
async def test_the_cloud_operations(ico: Contract, tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with receiver(free_port(), tmp_path / "cloud") as peer:
        add_upload(ico.plant, "dataspace", file_settings(peer, manage_url="https://people.example/files"))
        name = await measured(ico)
        uploaded = await becomes(ico, name, "up_to_date")
        assert datetime.fromisoformat(uploaded["upload_timestamp"]).tzinfo is not None
        listed = await ico.ask("GET", "/cloud")
        assert all(each.keys() == REMOTE for each in listed)
        (remote,) = [each for each in listed if each["name"] == name]
        assert remote["id"] == uploaded["id"]
        assert await ico.ask("POST", "/cloud/upload", {"filename": name}) is None
        assert [file["stores"] for file in await peer.files() if file["name"] == name] == [1], "not twice"
        said = await ico.ask("POST", "/cloud/update", {"filename": name, "file_id": remote["id"]})
        check(said, shapes.CLOUD)
        assert said["status"] == "up_to_date" and said["id"] == remote["id"]
        assert await ico.ask("POST", "/cloud/authenticate") is None
        state = await ico.ask("GET", "/state")
        assert state["cloud"] == {
            "enabled": True, "healthy": True, "manage_url": "https://people.example/files",
        }  # fmt: skip
        for body, wrong in (({"filename": "none.hdf5"}, 404), ({"filename": "../x"}, 422), ({}, 422)):
            said = await ico.ask("POST", "/cloud/upload", body, status=wrong)
            check(said, shapes.DETAIL if isinstance(said["detail"], str) else shapes.FIELDS)
        check(await ico.ask("POST", "/cloud/update", {"filename": name}, status=400), shapes.DETAIL)
        await peer.faults(answers=[{"status": 403, "path": "/storage", "count": -1, "body": "expired"}])
        other = await measured(ico)
        await becomes(ico, other, "error")
        said = await ico.ask("POST", "/cloud/upload", {"filename": other}, status=502)
        assert "403" in said["detail"] and "tried again" in said["detail"]
        assert (await ico.ask("GET", "/state"))["cloud"]["healthy"] is False
        await peer.faults(reset=True)
        assert await ico.ask("POST", "/cloud/upload", {"filename": other}) is None
        await becomes(ico, other, "up_to_date")
        await peer.kill()
        for method, path in (("GET", "/cloud"), ("POST", "/cloud/authenticate")):
            check(await ico.ask(method, path, status=502), shapes.DETAIL)
        assert (await ico.ask("GET", "/state"))["cloud"]["healthy"] is False


async def test_a_slow_dataspace_freezes_nothing(
    ico: Contract, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """Defect 8: there, an answer that takes 4 s stopped everything, and ended the measurement."""
    async with receiver(free_port(), tmp_path / "cloud") as peer:
        await peer.faults(delay_s=30)
        add_upload(ico.plant, "dataspace", file_settings(peer, timeout_s=60.0))
        await connect(ico)
        asking = asyncio.create_task(ico.client.get("/api/v1/cloud"))
        async with measuring(ico) as name:
            found = ico.plant.measurements.find(name)
            assert found is not None
            for _ in range(10):
                before = found.received
                await ico.ask("GET", "/files")
                await ico.ask("GET", "/state")
                await ico.ask("GET", "/sth/supply-voltage")
                await asyncio.sleep(0.05)
            assert not asking.done() and found.received > before and found.lost == 0
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await peer.kill()
