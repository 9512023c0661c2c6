"""Files of measurements through `/v1/files` and `/v1/cloud`."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import h5py
import numpy as np
import pytest
from yarl import URL

from gateway.api.tokens import Role
from gateway.measurements import Channel, Plan, incoming
from tests.api.plant import Plant
from tests.measurements.node import DEVICE
from tests.measurements.reading import ADXL1001, table

pytestmark = pytest.mark.timeout(60)
FRAMES = 5000
META = {
    "version": "1",
    "profile": "turning",
    "parameters": {"tool": "T1", "picture_1": {"0": "data:x", "1": "y"}},
}


@pytest.fixture
async def name(request: pytest.FixtureRequest, gateway: Plant) -> str:
    """A file of a measurement that lost a tenth of its frames."""
    gateway.node.frames, gateway.node.loss = getattr(request, "param", FRAMES), 0.1
    plan = Plan((Channel(1, ADXL1001), None, None), name="Wörk 1", metadata=META)
    await gateway.measurements.start(DEVICE, plan)
    streaming = gateway.node.streaming
    assert streaming is not None
    await streaming.drained.wait()
    m = await gateway.measurements.stop(DEVICE)
    await gateway.measurements.finished(m.name)
    return m.file


async def test_two_readers_that_take_their_time_leave_turns_to_others(gateway: Plant, name: str) -> None:
    async with (
        gateway.files.analysis(name, 1, pictures=False),
        gateway.files.analysis(name, 1, pictures=False),
        gateway.files.analysis(name, 1, pictures=False, brief=True),
        asyncio.timeout(15),
    ):
        assert (await gateway.files.metadata(name))["pre"]
        assert await gateway.files.embedded(name) == []


async def get(client: aiohttp.ClientSession, path: str, status: int = 200, **more: Any) -> Any:
    async with client.get(URL(path, encoded=True), **more) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def lines(client: aiohttp.ClientSession, name: str, **query: str) -> list[dict[str, Any]]:
    async with client.get(f"/v1/files/{name}/analysis", params=query) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "application/x-ndjson"
        return [json.loads(line) for line in (await answer.read()).splitlines()]


async def test_files_are_listed_downloaded_and_deleted(
    gateway: Plant, admin: aiohttp.ClientSession, name: str
) -> None:
    path = gateway.files.folder / name
    (row,) = (found := await get(admin, "/v1/files"))["files"]
    content = await asyncio.to_thread(path.read_bytes)
    assert row["name"] == name and name.startswith("Woerk_1__plant__")
    assert row["size_bytes"] == len(content) and row["measurement"] == name.removesuffix(".hdf5")
    assert found["folder"] == str(gateway.files.folder) and found["disk"]["free_bytes"] > 0
    assert row["uploads"] == {} and await get(admin, f"/v1/files/{name}/state") == row
    async with admin.get(f"/v1/files/{name}") as answer:
        assert await answer.read() == content and answer.content_type == "application/x-hdf5"
        assert answer.headers["Content-Length"] == str(len(content))
        assert name in answer.headers["Content-Disposition"]
        tag = answer.headers["ETag"]
    size = len(content)
    for asked, first, last in (
        ("bytes=0-99", 0, 99), ("bytes=100-", 100, size - 1), ("bytes=-7", size - 7, size - 1),
        (f"bytes=10-{size * 9}", 10, size - 1),
    ):  # fmt: skip
        async with admin.get(f"/v1/files/{name}", headers={"Range": asked, "If-Range": tag}) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
            assert await answer.read() == content[first : last + 1]
    for asked, tag_of in (
        ("bytes=9-1", tag),
        ("bytes=0-1,3-4", tag),
        ("lines=1-2", tag),
        ("bytes=0-9", '"x"'),
    ):
        async with admin.get(f"/v1/files/{name}", headers={"Range": asked, "If-Range": tag_of}) as answer:
            assert answer.status == 200 and await answer.read() == content
    refused = await get(admin, f"/v1/files/{name}", 416, headers={"Range": f"bytes={size}-"})
    assert str(size) in refused["error"]["message"]
    async with admin.delete(f"/v1/files/{name}") as answer:
        assert answer.status == 200
        assert await answer.json() == {"name": name, "never_uploaded": []}
    assert not path.exists() and (await get(admin, "/v1/files"))["files"] == []
    assert "no file" in (await get(admin, f"/v1/files/{name}", 404))["error"]["message"]


@pytest.mark.parametrize("name", [20_000], indirect=True)
async def test_a_file_is_read_through_with_its_statistics_and_its_loss(
    gateway: Plant, admin: aiohttp.ClientSession, name: str
) -> None:
    rows = await asyncio.to_thread(table, gateway.files.folder / name)
    m = gateway.measurements.find(name.removesuffix(".hdf5"))
    assert m is not None and m.lost > 100
    found = await lines(admin, name, every="1", pictures="true")
    about = found[0]["about"]
    assert about["rows"] == len(rows) == 3 * m.received
    assert about["columns"] == ["counter", "timestamp", "x"]
    assert about["pictures"] == {"pre__picture_1": ["data:x", "y"]}
    assert about["acceleration"]["attributes"]["pre_metadata"]["parameters"] == {"tool": "T1"}
    assert about["sensors"][0]["sensor_id"] == "acc100g_01"
    parts = [line["rows"] for line in found if "rows" in line]
    assert [value for part in parts for value in part["counter"]] == rows["counter"].tolist()
    assert [value for part in parts for value in part["timestamp"]] == rows["timestamp"].tolist()
    x = np.array([value for part in parts for value in part["datasets"][0]["data"]], dtype="f4")
    assert (x == rows["x"]).all() and parts[0]["datasets"][0]["name"] == "x"
    progress = [line["progress"] for line in found if "progress" in line]
    assert progress == sorted(progress) and progress[-1] == 1.0 and found[-1] == {"progress": 1.0}
    (statistics,) = [line["statistics"] for line in found if "statistics" in line]
    assert (statistics["frames_received"], statistics["frames_lost"]) == (m.received, m.lost)
    assert statistics["loss"] == pytest.approx(m.loss)
    values = rows["x"].astype("f8")
    column = statistics["columns"]["x"]
    assert (column["count"], column["invalid"]) == (len(values), 0)
    assert column["min"] == values.min() and column["max"] == values.max()
    assert column["mean"] == pytest.approx(values.mean()) and column["std"] == pytest.approx(
        values.std(ddof=1)
    )
    tenth = [line["rows"] for line in await lines(admin, name) if "rows" in line]
    assert [value for part in tenth for value in part["counter"]] == rows["counter"][::10].tolist()
    assert (await lines(admin, name))[0]["about"]["pictures"] == {"pre__picture_1": 2}


async def test_metadata_is_shown_and_may_come_later(
    gateway: Plant, admin: aiohttp.ClientSession, name: str
) -> None:
    path = f"/v1/files/{name}/metadata"
    assert await get(admin, path) == {"pre": META, "post": None}
    before = await asyncio.to_thread(table, gateway.files.folder / name)
    later = {"version": "2", "profile": "turning", "parameters": {"wear": {"value": 0.5, "unit": "mm"}}}
    changed = {**META, "parameters": {"tool": "T2"}}
    async with admin.put(path, json={"pre": changed, "post": later}) as answer:
        assert answer.status == 204
    assert await get(admin, path) == {"pre": changed, "post": later}  # on its way, or there
    await gateway.measurements.finished(name.removesuffix(".hdf5"))
    assert await get(admin, path) == {"pre": changed, "post": later}
    assert (await asyncio.to_thread(table, gateway.files.folder / name) == before).all()


def foreign(path: Path) -> None:
    """A file as ICOapi makes one, with something embedded."""
    with h5py.File(path, "w") as file:
        rows = np.zeros(10, dtype=[("counter", "u1"), ("timestamp", "<u8"), ("x", "<f4")])
        rows["counter"] = np.arange(10)
        rows["x"][3] = np.nan
        file["acceleration"] = rows
        group = file.create_group("embedded_files")
        data = group.create_dataset("notes", data=np.frombuffer(b"\x00hello" * 400_000, dtype="u1"))
        data.attrs["original_name"], data.attrs["mime"], data.attrs["size"] = (
            "Nötiz.txt",
            "text/plain",
            2_400_000,
        )


async def test_files_of_others_are_looked_into_and_changed(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    await asyncio.to_thread(gateway.files.folder.mkdir, exist_ok=True)
    await asyncio.to_thread(foreign, gateway.files.folder / "foreign.hdf5")
    (row,) = (await get(admin, "/v1/files"))["files"]
    assert row["measurement"] is None
    assert await get(admin, "/v1/files/foreign.hdf5/metadata") == {"pre": None, "post": None}
    async with admin.put("/v1/files/foreign.hdf5/metadata", json={"pre": META}) as answer:
        assert answer.status == 204
    assert await get(admin, "/v1/files/foreign.hdf5/metadata") == {"pre": META, "post": None}
    statistics = next(
        line["statistics"] for line in await lines(admin, "foreign.hdf5") if "statistics" in line
    )
    assert (statistics["columns"]["x"]["count"], statistics["columns"]["x"]["invalid"]) == (9, 1)
    (inside,) = (await get(admin, "/v1/files/foreign.hdf5/embedded"))["embedded"]
    assert inside == {"dataset": "notes", "name": "Nötiz.txt", "mime": "text/plain", "size_bytes": 2_400_000}
    async with admin.get("/v1/files/foreign.hdf5/embedded/notes") as answer:
        assert await answer.read() == b"\x00hello" * 400_000
        assert (
            answer.content_type == "text/plain"
            and quote("Nötiz.txt") in answer.headers["Content-Disposition"]
        )
    assert "no file" in (await get(admin, "/v1/files/foreign.hdf5/embedded/x", 404))["error"]["message"]


async def test_a_hundred_megabytes_that_are_no_file_are_refused_by_their_head(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1_000_000)
            drafts.append(sum(draft.stat().st_size for draft in gateway.files.folder.glob("*")))

    drafts: list[int] = []
    headers, query = {"Content-Type": "application/octet-stream"}, {"name": "big.hdf5"}
    async with admin.post("/v1/files", params=query, data=body(), headers=headers) as answer:
        assert answer.status == 422 and "no HDF5 file" in (await answer.json())["error"]["message"]
    assert max(drafts, default=0) == 0 and not list(gateway.files.folder.glob("*"))


async def test_files_of_others_are_taken_in(
    gateway: Plant, admin: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(foreign, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()

    async def take(name: str, data: bytes, kind: str = "application/x-hdf5") -> tuple[int, Any]:
        headers, query = {"Content-Type": kind}, {"name": name}
        async with admin.post("/v1/files", params=query, data=io.BytesIO(data), headers=headers) as answer:
            return answer.status, await answer.json()

    assert await take("lab 1.hdf5", content) == (201, {"name": "lab 1.hdf5"})
    assert await take("lab 1.hdf5", content) == (201, {"name": "lab 1__1.hdf5"})
    async with admin.get("/v1/files/lab 1__1.hdf5") as answer:
        assert await answer.read() == content
    longest = "y" * 195 + ".hdf5"
    assert await take(longest, content) == (201, {"name": longest})
    again = "y" * 192 + "__1.hdf5"
    assert await take(longest, content) == (201, {"name": again})
    for each in (longest, again):
        async with admin.delete(f"/v1/files/{each}") as answer:
            assert answer.status == 200
    for name, data, kind, status in (
        ("y" * 196 + ".hdf5", content, "application/x-hdf5", 422),
        ("../evil.hdf5", content, "application/x-hdf5", 422),
        ("evil.yaml", content, "application/x-hdf5", 422),
        ("", content, "application/x-hdf5", 422),
        ("text.hdf5", b"no HDF5", "application/x-hdf5", 422),
        ("empty.hdf5", b"", "application/octet-stream", 422),
        ("lab.hdf5", content, "text/yaml", 415),
    ):
        assert (found := await take(name, data, kind))[0] == status, found
    monkeypatch.setattr(incoming, "_KEPT_SHARE", 1.0)
    status, refused = await take("lab.hdf5", content)
    assert status == 503 and "delete files first" in refused["error"]["message"]
    names = sorted(file.name for file in gateway.files.folder.iterdir())
    assert names == ["lab 1.hdf5", "lab 1__1.hdf5"], "nothing half is left"
    (gateway.files.folder / ".x.incoming").touch()
    await gateway.files.clear()
    assert sorted(file.name for file in gateway.files.folder.iterdir()) == names


def test_the_disk_of_a_folder_that_is_yet_to_be_made_is_that_of_its_parents(tmp_path: Path) -> None:
    assert incoming.disk_of(tmp_path / "a" / "b" / "c").total_bytes == incoming.disk_of(tmp_path).total_bytes


async def test_a_file_is_changed_where_there_is_room_for_its_copy(
    gateway: Plant, admin: aiohttp.ClientSession, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(foreign, gateway.files.folder / "lab.hdf5")
    added = "/v1/files/lab.hdf5/embedded"
    async with admin.post(added, params={"name": "x"}, data=io.BytesIO(b"x")) as answer:
        row = await answer.json()
    with monkeypatch.context() as full:
        full.setattr(incoming, "_KEPT_SHARE", 1.0)
        async with admin.delete(f"{added}/{row['dataset']}") as answer:
            assert answer.status == 503
            assert "MB would be needed for a while" in (await answer.json())["error"]["message"]
        async with admin.put("/v1/files/lab.hdf5/metadata", json={"pre": META}) as answer:
            assert answer.status == 503
    async with (
        gateway.measurements.changing(name),  # another file, so that this one waits for nothing
        asyncio.timeout(20),
        admin.delete(f"{added}/{row['dataset']}") as answer,
    ):
        assert answer.status == 204


async def test_a_file_is_put_into_a_file_and_removed(
    gateway: Plant, admin: aiohttp.ClientSession, name: str
) -> None:
    before = await asyncio.to_thread(table, gateway.files.folder / name)
    content, path = bytes(range(256)) * 5000, f"/v1/files/{name}/embedded"
    names = []
    for _ in range(2):
        headers = {"Content-Type": "image/png"}
        async with admin.post(
            path, params={"name": "Bild ä.png"}, data=io.BytesIO(content), headers=headers
        ) as answer:
            assert answer.status == 201
            names.append((await answer.json())["dataset"])
    async with admin.post(path, params={"name": "empty"}, data=io.BytesIO(b"")) as answer:
        assert (await answer.json())["size_bytes"] == 0
    listed = (await get(admin, path))["embedded"]
    assert [row["name"] for row in listed] == ["Bild ä.png", "Bild ä.png", "empty"] and len(set(names)) == 2
    async with admin.get(f"{path}/{names[1]}") as answer:
        assert await answer.read() == content and answer.content_type == "image/png"
    async with admin.delete(f"{path}/{names[0]}") as answer:
        assert answer.status == 204
    for gone in (names[0], "../acceleration", "%2e%2e%2facceleration"):
        async with admin.delete(URL(f"{path}/{quote(gone, safe='%')}", encoded=True)) as answer:
            assert answer.status == 404
    assert [row["dataset"] for row in (await get(admin, path))["embedded"]] == [names[1], "empty"]
    assert (await asyncio.to_thread(table, gateway.files.folder / name) == before).all()
    assert (await get(admin, f"/v1/files/{name}/metadata"))["pre"] == META


def harmful(folder: Path) -> dict[str, str]:
    """Files that are no measurements: name to a word of the sentence."""
    (folder / "text.hdf5").write_text("no HDF5 at all")
    (folder / "empty.hdf5").touch()
    foreign(folder / "cut.hdf5")
    with (folder / "cut.hdf5").open("r+b") as file:
        file.truncate(3000)
    with h5py.File(folder / "other.hdf5", "w") as made:
        made["x"] = 1
    row = np.dtype([("counter", "u1"), ("timestamp", "<u8"), ("x", "<f4")])
    with h5py.File(folder / "bomb.hdf5", "w") as made:
        made.create_dataset("acceleration", (1 << 40,), dtype=row)
    with h5py.File(folder / "wide.hdf5", "w") as made:
        made.create_dataset("acceleration", (1000,), dtype=np.dtype([("x", "<f4", (1 << 20,))]))
    foreign(folder / "elsewhere.hdf5")
    with h5py.File(folder / "elsewhere.hdf5", "r+") as made:
        made.create_dataset("loot", (9,), dtype="u1", external=[(str(folder / "text.hdf5"), 0, 9)])
    return {
        "text": "HDF5",
        "elsewhere": "/loot points elsewhere",
        "empty": "HDF5",
        "cut": "read",
        "other": "no table",
        "bomb": "more",
        "wide": "rows",
    }


async def test_what_is_no_measurement_is_a_422_with_a_sentence_and_harms_nothing(
    gateway: Plant, admin: aiohttp.ClientSession, name: str
) -> None:
    words = await asyncio.to_thread(harmful, gateway.files.folder)
    for stem, word in words.items():
        refused = await get(admin, f"/v1/files/{stem}.hdf5/analysis", 422)
        assert word in refused["error"]["message"], (stem, refused)
    refused = await get(admin, "/v1/files/text.hdf5/metadata", 422)
    assert refused["error"]["code"] == "invalid"
    async with admin.put("/v1/files/other.hdf5/metadata", json={"pre": META}) as answer:
        assert answer.status == 422
    assert {file.name for file in gateway.files.folder.iterdir()} == {f"{stem}.hdf5" for stem in words} | {
        name
    }
    assert (await lines(admin, name))[-1] == {"progress": 1.0}


async def test_nothing_outside_the_folder_is_reached(
    gateway: Plant, admin: aiohttp.ClientSession, name: str
) -> None:
    secret = gateway.state / "secret.hdf5"
    await asyncio.to_thread(foreign, secret)
    link = gateway.files.folder / "link.hdf5"
    await asyncio.to_thread(link.symlink_to, secret)
    (gateway.files.folder / ".hidden.hdf5").touch()
    (gateway.files.folder / "folder.hdf5").mkdir()
    tries = [
        "..%2Fsecret.hdf5", "..%5Csecret.hdf5", "%2E%2E%2Fsecret.hdf5", ".hidden.hdf5", "%00.hdf5",
        "a%00.hdf5", "a%0A.hdf5", "tokens.json", quote(str(secret), safe=""), "x" * 300 + ".hdf5",
    ]  # fmt: skip
    for each in tries:
        for tail in ("", "/state", "/analysis", "/metadata", "/embedded", "/embedded/x"):
            await get(admin, f"/v1/files/{each}{tail}", 422)
        async with admin.delete(URL(f"/v1/files/{each}", encoded=True)) as answer:
            assert answer.status == 422
    for each in ("link.hdf5", "folder.hdf5", "none.hdf5"):
        for tail in ("", "/state", "/analysis", "/metadata", "/embedded"):
            await get(admin, f"/v1/files/{each}{tail}", 404)
        async with admin.delete(f"/v1/files/{each}") as answer:
            assert answer.status == 404
    assert [row["name"] for row in (await get(admin, "/v1/files"))["files"]] == [name]
    assert secret.exists() and link.is_symlink()


async def test_roles(gateway: Plant, admin: aiohttp.ClientSession, name: str) -> None:
    for role, put, delete in ((Role.READ, 403, 403), (Role.OPERATE, 204, 403), (Role.ADMIN, 204, 200)):
        headers = gateway.bearer(role)
        await get(admin, "/v1/files", headers=headers)
        async with admin.put(f"/v1/files/{name}/metadata", json={"post": {}}, headers=headers) as answer:
            assert answer.status == put
        async with admin.delete(f"/v1/files/{name}", headers=headers) as answer:
            assert answer.status == delete
        await gateway.measurements.finished(name.removesuffix(".hdf5"))


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"picture_1": {"0": "A" * 10_000_000}}, 204, ""),
        ({"picture_1": {"0": "A" * 13_000_000}}, 422, "send smaller pictures"),
        ({"picture_1": {"0": "A" * 14_000_000}}, 413, "larger than 13 MiB"),
        ({"list": [[]] * 60_000}, 413, "more than 100000 values"),
    ],
)
async def test_metadata_may_be_longer_than_other_bodies_by_its_pictures(
    admin: aiohttp.ClientSession, name: str, more: dict[str, Any], status: int, words: str
) -> None:
    body = io.BytesIO(json.dumps({"post": META | {"parameters": more}}).encode())
    headers = {"Content-Type": "application/json"}
    async with admin.put(f"/v1/files/{name}/metadata", data=body, headers=headers) as answer:
        assert answer.status == status and words in await answer.text()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"pre": []}, 422),
        ({"pre": {}, "more": {}}, 422),
        ([], 422),
        (b"{", 400),
        ({"post": {"parameters": {"picture": {"0": "x" * 14_000_000}}}}, 413),
    ],
)
async def test_wrong_metadata_changes_nothing(
    admin: aiohttp.ClientSession, name: str, body: Any, status: int
) -> None:
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    headers = {"Content-Type": "application/json"}
    async with admin.put(f"/v1/files/{name}/metadata", data=data, headers=headers) as answer:
        assert answer.status == status, await answer.text()
    assert await get(admin, f"/v1/files/{name}/metadata") == {"pre": META, "post": None}


async def test_many_at_once_all_get_their_answer(admin: aiohttp.ClientSession, name: str) -> None:
    answers = await asyncio.gather(*(lines(admin, name) for _ in range(6)), get(admin, "/v1/state"))
    assert all(answer == answers[0] for answer in answers[:6])
