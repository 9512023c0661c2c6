"""ICOapi's file, cloud, config, sensor and log operations: statuses and shapes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import h5py
import pytest
import yarl

from gateway.api.compat.icoapi import forms
from gateway.logs import Logs
from tests.icoapi import shapes
from tests.icoapi.bench import Contract
from tests.icoapi.shapes import check
from tests.icoapi.test_contract_nodes import connect, instructions
from tests.measurements.reading import table

pytestmark = pytest.mark.timeout(60)

META = {"version": "1", "profile": "turning", "parameters": {"speed": {"value": 12, "unit": "rpm"}}}
SENSORS = b"""\
info: {schema_name: sensors_schema, schema_version: 0.0.1, config_name: Press, config_version: 0.0.2,
  config_date: '2025-10-07T13:52:40+0200'}
sensors:
- {name: Force, sensor_type: null, sensor_id: force_01, unit: kN, dimension: Force, phys_min: 0, phys_max: 50,
   volt_min: 0.5, volt_max: 2.5}
"""
FOREIGN_NAMES = (
    "../config/EVIL.hdf5", "..%2FEVIL.hdf5", "a/b.hdf5", "a\\b.hdf5", ".hidden.hdf5", "evil.yaml",
    "x" * 300 + ".hdf5", "a..b.hdf5", "a%2Fb.hdf5",
)  # fmt: skip


async def measured(ico: Contract, **more: Any) -> str:
    """Measure something; return the name of its file."""
    if ico.nodes.connected is None:
        await connect(ico)
    begun = await ico.ask("POST", "/measurement/start", instructions(time=0.3, **more))
    done = await ico.plant.measurements.finished(begun["data"]["name"])
    assert done.file
    return done.file


def form(field: str, data: bytes, name: str, kind: str) -> aiohttp.FormData:
    made = aiohttp.FormData(quote_fields=False)  # names as a browser sends them
    made.add_field(field, data, filename=name, content_type=kind)
    return made


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.seed_row(25, 26)
async def test_list_download_and_delete(ico: Contract) -> None:
    check(await ico.ask("GET", "/files"), shapes.FILES)
    name = await measured(ico)
    listed = await ico.ask("GET", "/files")
    check(listed, shapes.FILES)
    (file,) = listed["files"]
    path = Path(listed["directory"]) / name
    assert file["name"] == name and file["size"] == path.stat().st_size
    assert file["cloud"] == {"status": "not_uploaded", "id": None, "upload_timestamp": None}
    async with ico.client.get(f"/api/v1/files/{name}") as answer:
        assert answer.status == 200 and await answer.read() == await asyncio.to_thread(path.read_bytes)
        assert name in answer.headers["Content-Disposition"]
    assert await ico.ask("DELETE", f"/files/{name}") == {"detail": f"File '{name}' deleted successfully"}
    for method in ("GET", "DELETE"):
        check(await ico.ask(method, f"/files/{name}", status=404), shapes.DETAIL)
    assert (await ico.ask("GET", "/files"))["files"] == []


@pytest.mark.seed_row(26)
async def test_names_that_are_no_files_of_ours(ico: Contract) -> None:
    before = {path for path in ico.plant.state.rglob("*") if path.is_file()}
    for name in FOREIGN_NAMES:
        at = f"/files/{quote(name, safe='%')}"
        for method, path in (
            ("GET", at), ("DELETE", at), ("GET", f"{at}/embedded/x"), ("DELETE", f"{at}/embedded/x"),
        ):  # fmt: skip
            url = yarl.URL(f"{ico.url}/api/v1{path}", encoded=True)
            async with ico.client.request(method, url) as answer:
                assert answer.status == 405 and (await answer.json())["detail"], name
        sent = form("file", b"x", name, "text/plain")
        async with ico.client.post("/api/v1/files/analyze", data=sent) as answer:
            assert answer.status == 405, name
    after = {path for path in ico.plant.state.rglob("*") if path.is_file()}
    assert not any("EVIL" in path.name or "evil" in path.name for path in after - before)


async def lines(ico: Contract, path: str) -> list[Any]:
    async with ico.client.get(f"/api/v1{path}") as answer:
        assert answer.status == 200 and answer.content_type == "application/json"
        return [json.loads(line) for line in (await answer.read()).splitlines()]


@pytest.mark.seed_row(22, 27)
async def test_analyze(ico: Contract) -> None:
    name = await measured(ico, meta=META)
    first, *rest = await lines(ico, f"/files/analyze/{name}")
    check(first, shapes.PARSED)
    assert first["acceleration"]["attributes"]["pre_metadata"] == META
    assert first["sensors"][0]["sensor_id"] == "acc100g_01"
    assert rest[-1] == {"progress": 1.0}
    rows = [line for line in rest if "datasets" in line]
    check(rows, [shapes.ROWS])
    taken = table(ico.plant.measurements.folder / name)
    assert [n for row in rows for n in row["counter"]] == [
        int(row["counter"])
        for start in range(0, len(taken), 1000)
        for row in taken[start : start + 1000 : 10]
    ]
    assert rows[0]["name"] == name and rows[0]["datasets"][0]["name"] == "x"
    progress = [line["progress"] for line in rest if "progress" in line]
    assert progress == sorted(progress) and len(progress) == len(rows) + 1
    assert await ico.ask("GET", f"/files/analyze/meta/{name}") == first
    for path in (f"/files/analyze/{name}x.hdf5", f"/files/analyze/meta/{name}x.hdf5"):
        check(await ico.ask("GET", path, status=404), shapes.DETAIL)


@pytest.mark.seed_row(27)
async def test_a_file_of_others_is_taken_in_once_more_under_another_name(ico: Contract) -> None:
    name = await measured(ico)
    data = await asyncio.to_thread((ico.plant.measurements.folder / name).read_bytes)
    stored = []
    for _ in range(2):
        sent = form("file", data, "foreign.hdf5", "application/octet-stream")
        async with ico.client.post("/api/v1/files/analyze", data=sent) as answer:
            assert answer.status == 200 and answer.content_type == "text/plain"
            stored.append(await answer.text())
    assert stored[0] == "foreign.hdf5" and stored[1] not in (stored[0], "") and stored[1].endswith(".hdf5")
    assert len(await lines(ico, f"/files/analyze/{stored[1]}")) > 2
    sent = form("file", b"no HDF5", "x.hdf5", "application/octet-stream")
    check(await ico.ask("POST", "/files/analyze", data=sent, status=422), shapes.DETAIL)
    for path, field in (("files/analyze", "file"), (f"files/{name}/embedded", "files"),
                        ("config/sensors", "file"), ("config/env", "file")):  # fmt: skip
        sent = form("other", data, "x.hdf5", "application/octet-stream")
        for said in (
            await ico.ask("POST", f"/{path}", data=sent, status=422),
            await ico.ask("POST", f"/{path}", {"file": "x"}, status=422),
        ):
            check(said, shapes.FIELDS)
            assert (said["detail"][0]["type"], said["detail"][0]["loc"]) == ("missing", ["body", field])
    assert len((await ico.ask("GET", "/files"))["files"]) == 3


async def test_forms_that_are_none_and_uploads_that_stop_leave_nothing(
    ico: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.hdf5"\r\n\r\n'
    for kind, body in (
        ("multipart/form-data", b"x"), ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", head + b"half"), ("multipart/form-data; boundary=b", b""),
    ):  # fmt: skip
        async with ico.client.post(
            "/api/v1/files/analyze", data=body, headers={"Content-Type": kind}
        ) as answer:
            assert answer.status in (400, 422), body
            check(await answer.json(), shapes.DETAIL if answer.status == 400 else shapes.FIELDS)
    monkeypatch.setattr(forms, "BODY_S", 0.3)
    going = asyncio.Event()

    async def stands_still() -> AsyncIterator[bytes]:
        yield head + b"\x89HDF\r\n\x1a\n" + bytes(200_000)
        await going.wait()

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with ico.client.post("/api/v1/files/analyze", data=stands_still(), headers=headers) as answer:
        assert answer.status == 408
    going.set()
    folder = ico.plant.measurements.folder
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.seed_row(29)
async def test_embedded_files(ico: Contract) -> None:
    name, picture = await measured(ico), bytes(range(256)) * 40
    sent = form("files", picture, "Fräse 1.png", "image/png")
    sent.add_field("files", b"a,b\n", filename="table.csv", content_type="text/csv")
    added = await ico.ask("POST", f"/files/{name}/embedded", data=sent)
    check(added, [shapes.EMBEDDED])
    assert [(each["original_name"], each["mime"], each["size"]) for each in added] == [
        ("Fräse 1.png", "image/png", len(picture)), ("table.csv", "text/csv", 4),
    ]  # fmt: skip
    listed = (await ico.ask("GET", f"/files/analyze/meta/{name}"))["embedded_files"]
    check(listed, [shapes.EMBEDDED | {"download_path": str}])
    one = next(each for each in listed if each["original_name"] == "Fräse 1.png")
    async with ico.client.get(one["download_path"]) as answer:
        assert await answer.read() == picture and answer.content_type == "image/png"
        assert "filename*=UTF-8''Fr%C3%A4se%201.png" in answer.headers["Content-Disposition"]
    dataset = one["dataset_name"]
    said = await ico.ask("DELETE", f"/files/{name}/embedded/{dataset}")
    assert said == {"file_name": name, "dataset_name": dataset}
    for method in ("GET", "DELETE"):
        check(await ico.ask(method, f"/files/{name}/embedded/{dataset}", status=404), shapes.DETAIL)
    other = form("files", b"x", "x.txt", "text/plain")
    check(await ico.ask("POST", "/files/nope.hdf5/embedded", data=other, status=404), shapes.DETAIL)
    broken = ico.plant.measurements.folder / "broken.hdf5"
    await asyncio.to_thread(broken.write_bytes, b"no HDF5")
    other = form("files", b"x", "x.txt", "text/plain")
    check(await ico.ask("POST", "/files/broken.hdf5/embedded", data=other, status=422), shapes.DETAIL)
    check(await ico.ask("GET", "/files/broken.hdf5/embedded/x", status=422), shapes.DETAIL)


@pytest.mark.seed_row(28)
async def test_metadata_later_also_where_there_was_none(ico: Contract) -> None:
    name = await measured(ico)
    for where, version in (("pre_meta", "2"), ("post_meta", "3")):
        meta = META | {"version": version}
        assert await ico.ask("POST", f"/files/{where}/{name}", meta) is None
        check(await ico.ask("POST", f"/files/{where}/nope.hdf5", meta, status=404), shapes.DETAIL)
        check(await ico.ask("POST", f"/files/{where}/{name}", {"version": "1"}, status=422), shapes.FIELDS)
    await ico.plant.measurements.finished(name.removesuffix(".hdf5"))
    attributes = (await ico.ask("GET", f"/files/analyze/meta/{name}"))["acceleration"]["attributes"]
    assert attributes["pre_metadata"]["version"] == "2" and attributes["post_metadata"]["version"] == "3"
    with h5py.File(ico.plant.measurements.folder / name) as file:
        assert json.loads(file["acceleration"].attrs["post_metadata"]) == META | {"version": "3"}


# -- cloud, without one ------------------------------------------------------------------------------------


async def test_without_a_dataspace_nothing_is_said_to_be_uploaded(ico: Contract) -> None:
    name = await measured(ico)
    assert await ico.ask("GET", "/cloud") == []
    check(await ico.ask("POST", "/cloud/upload", {"filename": name}, status=400), shapes.DETAIL)
    check(await ico.ask("POST", "/cloud/upload", {}, status=422), shapes.FIELDS)
    check(await ico.ask("POST", "/cloud/update", {"filename": name}, status=400), shapes.DETAIL)
    update = {"filename": name, "file_id": "7"}
    check(await ico.ask("POST", "/cloud/update", update, status=400), shapes.DETAIL)
    check(await ico.ask("POST", "/cloud/authenticate", status=400), shapes.DETAIL)


# -- config, sensors ---------------------------------------------------------------------------------------


def yaml_form(data: bytes, kind: str = "application/x-yaml") -> aiohttp.FormData:
    return form("file", data, "x.yaml", kind)


@pytest.mark.seed_row(30, 33)
async def test_sensors_uploaded_and_restored(ico: Contract) -> None:
    before = await ico.ask("GET", "/config/sensors")
    sensors = await ico.ask("GET", "/sensor")
    check(sensors["sensors"], [shapes.SENSOR])
    assert sensors.keys() == {"sensors", "configurations", "default_configuration_id"}
    for configuration in sensors["configurations"]:
        assert configuration.keys() == {"configuration_id", "configuration_name", "channels"}
        check(list(configuration["channels"].values()), [shapes.SENSOR])
    header = await ico.ask("POST", "/config/sensors", data=yaml_form(SENSORS))
    check(header, shapes.HEADER)
    assert header["config_name"] == "Press"
    async with ico.client.get("/api/v1/config/sensors") as answer:
        assert answer.content_type == "application/x-yaml" and await answer.read() == SENSORS
        assert "sensors.yaml" in answer.headers["Content-Disposition"]
    assert [each["sensor_id"] for each in (await ico.ask("GET", "/sensor"))["sensors"]] == ["force_01"]
    await ico.ask("POST", "/config/sensors", data=yaml_form(SENSORS.replace(b"Force,", b"Load,")))
    listed = await ico.ask("GET", "/config/backup")
    check(listed, shapes.BACKUP)
    assert [file["endpoint"] for file in listed["files"]] == ["meta", "sensors", "dataspace"]
    version = listed["files"][1]["backup"][0]["filename"]
    restored = {"filename": "sensors.yaml", "backup_filename": version}
    done = {"detail": "Configuration restored successfully."}
    assert await ico.ask("PUT", "/config/restore", restored) == done
    assert await ico.ask("GET", "/config/sensors") == SENSORS != before
    for body, status in (
        ({"filename": "passwd", "backup_filename": version}, 400),
        ({"filename": "sensors.yaml", "backup_filename": "../../x"}, 404),
    ):  # fmt: skip
        check(await ico.ask("PUT", "/config/restore", body, status=status), shapes.DETAIL)
    check(await ico.ask("PUT", "/config/restore", {}, status=422), shapes.FIELDS)


@pytest.mark.seed_row(31)
async def test_documents_that_will_not_do(ico: Contract) -> None:
    await ico.ask("GET", "/config/meta")
    for name in ("sensors", "meta", "dataspace"):
        for data, kind, status in (
            (b"a: [", "application/x-yaml", 400), (b"", "text/yaml", 400), (SENSORS, "image/png", 415),
            (b"info: 1\n", "text/plain", 422), (b"&a [*a, *a]", "text/plain", 400),
        ):  # fmt: skip
            said = await ico.ask("POST", f"/config/{name}", data=yaml_form(data, kind), status=status)
            check(said, shapes.DETAIL)
    broken = SENSORS.replace(b"volt_max: 2.5", b"volt_max: high").replace(b"unit: kN, ", b"")
    said = (await ico.ask("POST", "/config/sensors", data=yaml_form(broken), status=422))["detail"]
    assert "Errors: " in said and "sensors -> 0 -> volt_max: " in said and "unit" in said
    assert [each["sensor_id"] for each in (await ico.ask("GET", "/sensor"))["sensors"]] != ["force_01"]


@pytest.mark.seed_row(32)
async def test_the_password_of_a_dataspace_is_never_shown(ico: Contract) -> None:
    document = b"""\
info: {schema_name: dataspace_schema, schema_version: 1.0.0, config_name: X,
  config_date: '2025-10-07', config_version: '1'}
connection: {enabled: true, connector: trident, protocol: http, domain: "127.0.0.1:9", base_path: api,
  username: me, password: strongPw123, bucket: common}
"""
    check(await ico.ask("POST", "/config/dataspace", data=yaml_form(document)), shapes.HEADER)
    assert b"strongPw123" not in json.dumps(await ico.ask("GET", "/config/backup")).encode()
    kept = [
        path for path in ico.plant.state.rglob("*") if path.is_file() and b"strongPw123" in path.read_bytes()
    ]
    assert all(path.stat().st_mode & 0o077 == 0 and "secret" in str(path) for path in kept) and len(kept) == 1


@pytest.mark.seed_row(43)
async def test_the_environment(ico: Contract) -> None:
    text = (await ico.ask("GET", "/config/env")).decode()
    named = dict(line.split("=", 1) for line in text.splitlines())
    assert named["VITE_API_PROTOCOL"] == '"http"' and named["VITE_API_ORIGINS"] == '"http://web.example:5173"'
    assert named["WEBSOCKET_UPDATE_RATE"] == '"60"' and named["VITE_API_VERSION"] == '"v1"'
    assert not any(word in text.lower() for word in ("password", "token", "secret"))
    same = form("file", text.encode() + b"# a comment\nVITE_THEME=dark\n", ".env", "text/plain")
    done = {"detail": "Environment file uploaded successfully."}
    assert await ico.ask("POST", "/config/env", data=same) == done
    changed = form("file", b"WEBSOCKET_UPDATE_RATE=300\nVITE_API_VERSION=v2\n", ".env", "text/plain")
    said = (await ico.ask("POST", "/config/env", data=changed, status=409))["detail"]
    assert "http.compat.icoapi.updates_per_s" in said and "VITE_API_VERSION cannot be changed" in said
    check(await ico.ask("POST", "/config/env", data=form("file", b"\xff", ".env", "text/plain"), status=400),
          shapes.DETAIL)  # fmt: skip
    check(await ico.ask("POST", "/config/env", data=form("file", b"", ".env", "image/png"), status=415),
          shapes.DETAIL)  # fmt: skip


# -- logs --------------------------------------------------------------------------------------------------


@pytest.fixture
async def logged(ico: Contract, tmp_path: Path) -> AsyncIterator[Contract]:
    """The contract of a gateway with log files."""
    root, folder = logging.getLogger(), tmp_path / "logs"
    before, level = root.handlers[:], root.level
    await asyncio.to_thread(folder.mkdir)
    root.handlers = []
    ico.plant.logs = Logs("INFO", {"LOGS_DIRECTORY": str(folder)})
    yield ico
    for handler in root.handlers:
        await asyncio.to_thread(handler.close)
    root.handlers = before
    root.setLevel(level)


@pytest.mark.seed_row(42)
async def test_logs(logged: Contract) -> None:
    logging.getLogger("gateway.test").info("the spindle turns")
    listed = await logged.ask("GET", "/logs")
    check(listed, shapes.LOGS)
    name = listed["files"][0]["name"]
    said = await logged.ask("GET", f"/logs/view?file={name}&limit=1")
    assert said.keys() == {"filename", "content"} and said["filename"] == name
    assert len(said["content"].splitlines()) == 1
    whole = await logged.ask("GET", f"/logs/view?file={name}&limit=0")
    assert "the spindle turns" in whole["content"] and whole["filename"] == name
    for query, field in (("", "file"), (f"?file={name}&limit=x", "limit")):
        said = await logged.ask("GET", f"/logs/view{query}", status=422)
        check(said, shapes.FIELDS)
        assert said["detail"][0]["loc"] == ["query", field]
    async with logged.client.get(f"/api/v1/logs/download/{name}") as answer:
        assert answer.status == 200 and "the spindle turns" in await answer.text()
    async with logged.client.get("/api/v1/logs/all") as answer:
        assert answer.content_type == "application/zip" and (await answer.read())[:2] == b"PK"
        assert "logs.zip" in answer.headers["Content-Disposition"]
    for path, status in (
        ("view?file=../../etc/passwd", 403), ("view?file=edge-gateway.log.3", 404),
        ("download/passwd", 403),
    ):  # fmt: skip
        check(await logged.ask("GET", f"/logs/{path}", status=status), shapes.DETAIL)


@pytest.mark.seed_row(42)
async def test_the_live_log_speaks(logged: Contract) -> None:
    async with logged.socket("/logs/stream") as socket:
        writing = asyncio.create_task(_say_again())
        async with asyncio.timeout(20):
            while "again and again" not in (line := await socket.receive_str()):
                pass
        writing.cancel()
    assert "gateway.test" in line


async def _say_again() -> None:
    while True:
        logging.getLogger("gateway.test").warning("again and again")
        await asyncio.sleep(0.05)
