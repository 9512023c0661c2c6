"""Files of measurements at a dataspace, through `/v1/cloud` and as `/v1/files` tells it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api.tokens import Role
from gateway.forward import Forwarder
from gateway.supervise import Backoff
from gateway.uploaders import http
from tests.api.plant import Plant
from tests.api.test_files import META, foreign, get, name
from tests.forward.folder import file_settings
from tests.forward.plant import until
from tests.peers.receiver import Receiver, receiver

pytestmark = pytest.mark.timeout(60)
__all__ = ["name"]


@pytest.fixture
async def peer(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Receiver]:
    async with receiver(free_port(), tmp_path / "dataspace") as peer:
        yield peer


def add_upload(gateway: Plant, upload: str, settings: Any, kind: str = "dataspace") -> Forwarder:
    made = Forwarder(
        upload, kind, settings, gateway.store, gateway.clock, gateway.id, Backoff(0.05, 0.1), gateway.files
    )
    gateway.uploads[upload] = made
    gateway.store.pin(list(gateway.uploads))
    gateway.supervisor.keep(f"upload {upload}", made.run)
    if made.files is not None:
        gateway.supervisor.keep(f"files of upload {upload}", made.files.run)
    return made


@pytest.fixture
async def cloud(gateway: Plant, peer: Receiver) -> Forwarder:
    return add_upload(gateway, "cloud", file_settings(peer, manage_url="https://people.example/files"))


async def post(client: aiohttp.ClientSession, path: str, status: int = 200, body: Any = None) -> Any:
    async with client.post(path, json=body) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def state(client: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await get(client, f"/v1/files/{name}/state"))["uploads"]["cloud"]
    return found


async def uploaded(client: aiohttp.ClientSession, name: str) -> bool:
    found = await state(client, name)
    return found["state"] == "up_to_date" and not found["queued"]


@pytest.mark.seed_row(35)
async def test_a_measurement_arrives_by_itself_and_again_when_its_metadata_comes(
    gateway: Plant, admin: aiohttp.ClientSession, peer: Receiver, cloud: Forwarder, name: str
) -> None:
    await until(lambda: uploaded(admin, name), "uploaded", 30)
    (row,) = (await get(admin, "/v1/cloud/files"))["files"]
    content = await asyncio.to_thread((gateway.files.folder / name).stat)
    assert (row["name"], row["size_bytes"], row["stored"]) == (name, content.st_size, True)
    listed = row["details"]["metadata"]
    assert listed["gateway"] == "plant" and listed["node_mac"] and listed["frames_lost"]
    assert listed["pre_metadata"]["parameters"] == {"tool": "T1", "picture_1": 2}
    assert (await state(admin, name))["remote_id"] == row["id"]
    async with admin.put(f"/v1/files/{name}/metadata", json={"post": META}) as answer:
        assert answer.status == 204
    await until(lambda: _stored_twice(peer), "the file with its metadata", 30)
    await until(lambda: uploaded(admin, name), "uploaded", 30)
    (again,) = (await get(admin, "/v1/cloud/files"))["files"]
    assert again["id"] == row["id"] and again["etag"] != row["etag"]
    (shown,) = (await get(admin, "/v1/cloud"))["uploads"]
    assert shown["reachable"]["healthy"] and shown["manage_url"] == "https://people.example/files"
    assert (shown["upload"], shown["kind"], shown["waiting"], shown["failing"]) == (
        "cloud",
        "dataspace",
        0,
        0,
    )
    assert cloud.status().files is not None and (await get(admin, "/v1/state"))["uploads"]["cloud"]["status"]


async def _stored_twice(peer: Receiver) -> bool:
    return any(file["stores"] == 2 for file in await peer.files())


async def test_what_cannot_be_sent_is_told_and_sent_when_it_can(
    gateway: Plant, admin: aiohttp.ClientSession, peer: Receiver, cloud: Forwarder, name: str
) -> None:
    await peer.faults(answers=[{"status": 403, "path": "/storage", "count": -1, "body": "expired"}])
    await until(lambda: _is(admin, name, "error"), "told", 30)
    told = await state(admin, name)
    assert "403: expired" in told["detail"] and told["queued"] and told["attempts"]
    (shown,) = (await get(admin, "/v1/cloud"))["uploads"]
    assert (shown["waiting"], shown["failing"], shown["reachable"]["healthy"]) == (1, 1, False)
    async with admin.get("/metrics") as text:
        metrics = await text.text()
    assert 'edge_gateway_upload_files_waiting{upload="cloud"} 1' in metrics
    assert 'edge_gateway_upload_files_reachable_healthy{upload="cloud"} 0' in metrics
    answer = await post(admin, "/v1/cloud/upload", body={"file": name})
    assert (answer["state"], answer["queued"]) == ("error", True)
    await peer.faults(reset=True)
    assert (await post(admin, "/v1/cloud/upload", body={"file": name}))["state"] == "up_to_date"
    assert (await get(admin, "/v1/cloud"))["uploads"][0]["reachable"]["healthy"]


async def _is(client: aiohttp.ClientSession, name: str, word: str) -> bool:
    return bool((await state(client, name))["state"] == word)


async def test_deleting_what_no_upload_has_is_told(
    gateway: Plant, admin: aiohttp.ClientSession, peer: Receiver, cloud: Forwarder, name: str
) -> None:
    await peer.faults(answers=[{"status": 500, "path": "/storage", "count": -1}])
    await until(lambda: _is(admin, name, "error"), "told", 30)
    async with admin.delete(f"/v1/files/{name}") as answer:
        assert await answer.json() == {"name": name, "never_uploaded": ["cloud"]}
    (gap,) = (await get(admin, "/v1/gaps?upload=cloud"))["gaps"]
    assert name in gap["reason"] and "deleted" in gap["reason"]
    assert (await get(admin, "/v1/cloud"))["uploads"][0]["upload"] == "cloud"


async def test_a_file_of_others_is_sent_when_asked_and_may_replace_another(
    gateway: Plant, admin: aiohttp.ClientSession, peer: Receiver, cloud: Forwarder
) -> None:
    await asyncio.to_thread(gateway.files.folder.mkdir, exist_ok=True)
    await asyncio.to_thread(foreign, gateway.files.folder / "a.hdf5")
    await asyncio.to_thread((gateway.files.folder / "notes.hdf5").write_bytes, b"no HDF5")
    assert (await state(admin, "a.hdf5"))["state"] == "not_uploaded"
    first = await post(admin, "/v1/cloud/upload", body={"file": "a.hdf5"})
    assert first["state"] == "up_to_date"
    update = {"file": "notes.hdf5", "remote_id": first["remote_id"]}
    second = await post(admin, "/v1/cloud/update", body=update)
    assert (second["state"], second["remote_id"]) == ("up_to_date", first["remote_id"])
    (file,) = await peer.files()
    assert (file["stores"], file["size"]) == (2, 7)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/cloud/upload", {"file": "none.hdf5"}, 404),
        ("/v1/cloud/upload", {"file": "../tokens.json"}, 422),
        ("/v1/cloud/upload", {"file": 1}, 422),
        ("/v1/cloud/upload", {}, 422),
        ("/v1/cloud/upload", {"file": "a.hdf5", "more": 1}, 422),
        ("/v1/cloud/upload?upload=none", {"file": "a.hdf5"}, 404),
        ("/v1/cloud/upload?uplod=cloud", {"file": "a.hdf5"}, 422),
        ("/v1/cloud/update", {"file": "none.hdf5", "remote_id": ""}, 422),
        ("/v1/cloud/update", {"file": "none.hdf5"}, 422),
    ],
)
async def test_wrong_requests(
    admin: aiohttp.ClientSession, cloud: Forwarder, path: str, body: Any, status: int
) -> None:
    assert (await post(admin, path, status, body))["error"]["message"]


async def test_which_upload_is_meant(gateway: Plant, admin: aiohttp.ClientSession, peer: Receiver) -> None:
    assert (await get(admin, "/v1/cloud"))["uploads"] == []
    assert "No upload takes files" in (await get(admin, "/v1/cloud/files", 404))["error"]["message"]
    add_upload(gateway, "plain", http.Settings(url=f"{peer.url}/ingest"), "http")
    assert (await get(admin, "/v1/cloud"))["uploads"] == []
    add_upload(gateway, "one", file_settings(peer))
    add_upload(gateway, "two", file_settings(peer, "s3"))
    refused = await get(admin, "/v1/cloud/files", 409)
    assert "one of one, two" in refused["error"]["message"]
    await until(lambda: _listed(admin, "one"), "open", 20)
    assert (await post(admin, "/v1/cloud/authenticate?upload=one"))["healthy"]


async def _listed(client: aiohttp.ClientSession, upload: str) -> bool:
    async with client.get(f"/v1/cloud/files?upload={upload}") as answer:
        return answer.status == 200


async def test_a_dead_dataspace_is_a_503_with_a_sentence_and_holds_up_nothing(
    gateway: Plant, admin: aiohttp.ClientSession, peer: Receiver, cloud: Forwarder, name: str
) -> None:
    await peer.kill()
    refused = await get(admin, "/v1/cloud/files", 503)
    assert "could not be reached" in refused["error"]["message"]
    assert (await post(admin, "/v1/cloud/authenticate", 503))["error"]["code"] == "unavailable"
    assert (await get(admin, "/v1/files"))["files"][0]["uploads"]["cloud"]["state"] != "updating"
    assert not (await get(admin, "/v1/cloud"))["uploads"][0]["reachable"]["healthy"]
    for role, status in ((Role.READ, 403), (Role.OPERATE, 503)):
        async with admin.post("/v1/cloud/authenticate", headers=gateway.bearer(role)) as answer:
            assert answer.status == status
