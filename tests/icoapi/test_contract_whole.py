"""ICOapi's contract as a whole: each operation and WebSocket, and what any answer of it has to be."""

import asyncio
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from gateway.api import measurement
from gateway.api.compat.icoapi import cloud
from gateway.api.compat.icoapi.contract import contract as application
from gateway.api.compat.icoapi.guard import Doorkeeper
from gateway.api.settings import HttpSettings, IcoapiSettings
from gateway.settings import Secret
from gateway.uploaders import dataspace
from tests.api.test_cloud import add_upload
from tests.forward.folder import file_settings
from tests.icoapi import shapes
from tests.icoapi.bench import TOOLS, Contract, contract, until
from tests.icoapi.operations import OLDER, OPERATIONS, PREFIX, SOCKETS, Watching
from tests.icoapi.shapes import check
from tests.icoapi.test_contract_cloud import becomes
from tests.icoapi.test_contract_files import META, SENSORS, form, lines, logged, yaml_form
from tests.icoapi.test_contract_nodes import ADC, connect, instructions
from tests.icotronic.plant import MAC_OF, SPINDLE
from tests.peers.receiver import receiver

__all__ = ["logged"]
pytestmark = pytest.mark.timeout(120)

EMPTY = type(None)
MAC = {"mac_address": MAC_OF[SPINDLE]}
Rows = list[tuple[str, str, Any, Any]]
"""Method, path, body, and the shape of the answer."""
AT_THE_STU: Rows = [
    ("GET", "/state", None, shapes.STATE),
    ("PUT", "/reset-can", None, EMPTY),
    ("GET", "/stu", None, [shapes.STU]),
    ("PUT", "/stu/reset", None, EMPTY),
    ("GET", "/stu/connected", None, bool),
    ("POST", "/stu/connected", {"name": "STU 1"}, bool),
    ("GET", "/sth", None, [shapes.NODE]),
    ("PUT", "/sth/rename", MAC | {"new_name": "Mill"}, shapes.RENAMED),
    ("PUT", "/sth/connect", MAC, EMPTY),
    ("PUT", "/sth/write-adc", ADC, EMPTY),
    ("GET", "/sth/read-adc", None, shapes.ADC),
    ("GET", "/sth/supply-voltage", None, shapes.VOLTAGE),
    ("GET", "/measurement", None, shapes.STATUS),
]
CONFIGURED: Rows = [
    ("GET", "/sensor", None, shapes.SENSORS),
    ("GET", "/config/backup", None, shapes.BACKUP),
    ("GET", "/config/env", None, bytes),
    ("GET", "/logs", None, shapes.LOGS),
    ("GET", "/logs/view?file=edge-gateway.log&limit=5", None, shapes.LOG),
    ("GET", "/logs/download/edge-gateway.log", None, bytes),
    ("GET", "/logs/all", None, bytes),
]
PASSWORD = Secret("file password", "right")
DATASPACE = b"""\
info: {schema_name: dataspace_schema, schema_version: 1.0.0, config_name: X,
  config_date: '2025-10-07', config_version: '1'}
connection: {enabled: false, connector: trident, protocol: http, domain: "127.0.0.1:9", base_path: api,
  username: me, password: strongPw123, bucket: common}
"""


async def test_all_43_operations_and_3_sockets_are_there(ico: Contract) -> None:
    app = application(ico.plant, HttpSettings(), IcoapiSettings())
    there = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert len(OPERATIONS) == 43
    assert there == {(method, PREFIX + path) for method, path in (*OPERATIONS, *OLDER, *SOCKETS)}


@pytest.mark.parametrize("nodes", [1, 3])
async def test_each_operation_does_it_from_the_search_to_the_cloud(
    logged: Contract,
    nodes: int,
    tmp_path: Path,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of them once, with what is simplest, as a client asks one after the other."""
    monkeypatch.setattr(cloud, "_PATIENCE_S", 60)
    ico = logged
    del ico.stage.stu.nodes[nodes:]
    async with receiver(free_port(), tmp_path / "cloud") as peer:
        add_upload(ico.plant, "dataspace", file_settings(peer))
        assert len(await ico.ask("GET", "/sth")) == nodes
        await in_a_row(ico, AT_THE_STU)
        name = await measured_and_watched(ico)
        await in_the_cloud(ico, name)
        await with_files(ico, name)
        await configured(ico)
    sockets = {(operation, 101) for operation in (*SOCKETS, ("GET", "/state"))}
    assert ico.watching.answered >= {(each, 200) for each in (*OPERATIONS, *OLDER)} | sockets


async def in_a_row(ico: Contract, rows: Rows) -> None:
    for method, path, body, shape in rows:
        check(await ico.ask(method, path, body), shape, path)


async def measured_and_watched(ico: Contract) -> str:
    """Measure for a moment; return the name of the file, once it is there."""
    async with ico.socket("/state") as state, ico.socket("/measurement/stream") as stream:
        check((await state.receive_json())["data"], shapes.STATE)
        begun = await ico.ask("POST", "/measurement/start", instructions(1, 2, 3, wait_for_post_meta=True))
        check(begun, shapes.STARTED)
        check(await stream.receive_json(), [shapes.POINT])
        assert await ico.ask("POST", "/measurement/stop") is None
        await said(state, "post_meta_request")
        assert await ico.ask("POST", "/measurement/post_meta", META) is None
        await said(state, "post_meta_completed")
        points: list[Any] = []
        while (message := await stream.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
            points += message.json()
        check(points, [shapes.POINT])
    done = await ico.plant.measurements.finished(begun["data"]["name"])
    assert done.loss == 0 and done.file
    assert await ico.ask("PUT", "/sth/disconnect") is None
    return done.file


async def said(socket: aiohttp.ClientWebSocketResponse, word: str) -> None:
    """Wait for a message."""
    async with asyncio.timeout(30):
        while (await socket.receive_json())["message"] != word:
            pass


async def in_the_cloud(ico: Contract, name: str) -> None:
    remote = (await becomes(ico, name, "up_to_date"))["id"]
    assert await ico.ask("POST", "/cloud/authenticate") is None
    assert await ico.ask("POST", "/cloud/upload", {"filename": name}) is None
    check(await ico.ask("POST", "/cloud/update", {"filename": name, "file_id": remote}), shapes.CLOUD)
    assert remote in [each["id"] for each in await ico.ask("GET", "/cloud")]


async def with_files(ico: Contract, name: str) -> None:
    check(await ico.ask("GET", "/files"), shapes.FILES)
    data = await ico.ask("GET", f"/files/{name}")
    sent = form("file", data, "Fräse 2.hdf5", "application/octet-stream")
    other = (await ico.ask("POST", "/files/analyze", data=sent)).decode()
    at = quote(other)
    assert other == "Fräse 2.hdf5" and await ico.ask("GET", f"/files/{at}") == data
    part = {"Range": "bytes=100-"}
    assert await ico.ask("GET", f"/files/{at}", headers=part, status=206) == data[100:]
    check((await lines(ico, f"/files/analyze/{at}"))[0], shapes.PARSED)
    check(await ico.ask("GET", f"/files/analyze/meta/{at}"), shapes.PARSED)
    for kind in ("pre_meta", "post_meta"):
        assert await ico.ask("POST", f"/files/{kind}/{at}", META) is None
    sent = form("files", b"a,b\n", "Maße.csv", "text/csv")
    (inside,) = await ico.ask("POST", f"/files/{at}/embedded", data=sent)
    check(inside, shapes.EMBEDDED)
    path = f"/files/{at}/embedded/{inside['dataset_name']}"
    async with ico.client.get(f"{PREFIX}{path}") as answer:
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.content_disposition and answer.content_disposition.filename == "Maße.csv"
        assert await answer.read() == b"a,b\n"
    check(await ico.ask("DELETE", path), shapes.DELETED_INSIDE)
    check(await ico.ask("DELETE", f"/files/{at}"), shapes.DETAIL)


async def configured(ico: Contract) -> None:
    await in_a_row(ico, CONFIGURED)
    environment = form("file", await ico.ask("GET", "/config/env"), ".env", "text/plain")
    check(await ico.ask("POST", "/config/env", data=environment), shapes.DETAIL)
    for name in ("meta", "sensors"):
        document = await ico.ask("GET", f"/config/{name}")
        check(await ico.ask("POST", f"/config/{name}", data=yaml_form(document)), shapes.HEADER)
    for name, document in (("dataspace", DATASPACE), ("sensors", SENSORS)):
        check(await ico.ask("POST", f"/config/{name}", data=yaml_form(document)), shapes.HEADER)
    listed = (await ico.ask("GET", "/config/backup"))["files"]
    version = {each["filename"]: each["backup"] for each in listed}["sensors.yaml"][0]["filename"]
    given = {"filename": "sensors.yaml", "backup_filename": version}
    check(await ico.ask("PUT", "/config/restore", given), shapes.DETAIL)
    async with ico.socket("/logs/stream"):
        pass


async def test_a_silent_stu_is_a_502_and_the_rest_goes_on(ico: Contract) -> None:
    ico.stage.stu.faults.mute = True
    await until(lambda: ico.plant.devices[TOOLS].health.state == "failed")
    statuses = {"/state": 200, "/measurement": 200}
    for method, path, body, _ in (*AT_THE_STU, ("PUT", "/sth/disconnect", None, None)):
        said = await ico.ask(method, path, body, status=statuses.get(path, 502))
        assert path in statuses or TOOLS in said["detail"], path
    check(await ico.ask("POST", "/measurement/start", instructions(), status=502), shapes.DETAIL)
    assert await ico.ask("POST", "/measurement/stop") is None
    check(await ico.ask("GET", "/files"), shapes.FILES)
    ico.stage.stu.faults.mute = False
    await until(lambda: ico.plant.devices[TOOLS].health.state == "running")
    await in_a_row(ico, AT_THE_STU)


async def test_a_stop_whose_frames_cannot_be_committed_is_a_504(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "STOP_S", 0.5)
    async with contract(tmp_path) as ico:
        await connect(ico)
        await ico.ask("POST", "/measurement/start", instructions())
        takes, riding = asyncio.Event(), ico.plant.store.riding

        async def waits(job: Any) -> Any:
            await takes.wait()
            return await riding(job)

        monkeypatch.setattr(ico.plant.store, "riding", lambda job: asyncio.ensure_future(waits(job)))
        said = await ico.ask("POST", "/measurement/stop", status=504)
        assert "not committed" in said["detail"]
        takes.set()
        assert await ico.ask("POST", "/measurement/stop") is None


# -- what any answer is ------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str]]:
    """Return each operation with a path that fits."""
    return [(method, re.sub(r"\{\w+\}", "x.hdf5", path)) for method, path in (*OPERATIONS, *OLDER)]


async def test_nothing_is_open_where_nobody_may(tmp_path: Path) -> None:
    """Of no operation; a page of ours may read the refusal, and ask before it sends its token."""
    ours, foreign = {"Origin": "http://web.example:5173"}, {"Origin": "http://evil.example"}
    async with contract(tmp_path, anonymous="off", cors=tuple(ours.values())) as ico:
        for method, path in examples():
            await ico.ask(method, path, status=401, headers=ours)
            asking = {
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization",
            }
            async with ico.client.options(PREFIX + path, headers=ours | asking) as answer:
                assert answer.status == 200 and await answer.read() == b""
                assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
                assert answer.headers["Access-Control-Allow-Headers"] == "authorization"
                assert int(answer.headers["Access-Control-Max-Age"]) > 0
            check(await ico.ask("OPTIONS", path, status=403, headers=foreign | asking), shapes.DETAIL)
        for _, path in SOCKETS:
            await ico.ask("GET", path, status=401, headers=ours)
    async with contract(tmp_path, anonymous="read") as ico:
        for method, path in examples():
            if method != "GET" or path.startswith("/logs"):
                await ico.ask(method, path, status=403)


async def test_an_error_has_its_form_and_the_connection_goes_on(
    ico: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, a 500 was no JSON, and the next request on its connection failed."""
    file = ico.plant.measurements.folder / "x.hdf5"
    await asyncio.to_thread(file.parent.mkdir, exist_ok=True)
    await asyncio.to_thread(file.write_bytes, b"no HDF5")
    add_upload(
        ico.plant, "dataspace", dataspace.Settings(url="http://127.0.0.1:9", user="me", password=PASSWORD)
    )
    login, long = {"Authorization": "Bearer nonsense"}, b"{" + b" " * 200_000
    rows: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/config/sensors", {"data": yaml_form(b"a: [")}, 400),
        ("PUT", "/sth/disconnect", {}, 400),
        ("GET", "/state", {"headers": login}, 401),
        ("PUT", "/sth/write-adc", {"data": long, "headers": login}, 401),
        ("PUT", "/sth/write-adc", {"data": long, "headers": {"Origin": "http://evil.example"}}, 403),
        ("GET", "/nope", {}, 404),
        ("GET", "/files/y.hdf5", {}, 404),
        ("PATCH", "/sth", {"data": long}, 405),
        ("DELETE", "/files/x.yaml", {}, 405),
        ("PUT", "/sth/write-adc", {"data": io.BytesIO(b" " * 8_500_000)}, 413),
        ("PUT", "/sth/write-adc", {"json": [[]] * 60_000}, 413),
        ("POST", "/config/sensors", {"data": yaml_form(SENSORS, "image/png")}, 415),
        ("GET", "/files/x.hdf5", {"headers": {"Range": "bytes=100-"}}, 416),
        ("GET", "/state", {"headers": {"Host": "rebound.example"}}, 421),
        ("GET", "/files/analyze/x.hdf5", {}, 422),
        ("PUT", "/sth/write-adc", {"data": long}, 422),
        ("GET", "/logs/view", {}, 422),
        ("POST", "/cloud/authenticate", {}, 502),
    ]
    failing = iter((RuntimeError("of the inside"), TimeoutError()))

    async def fail() -> None:
        raise next(failing)

    watching, connector = Watching(()), aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(
        ico.url, connector=connector, trace_configs=[watching.trace()]
    ) as client:
        for method, path, more, status in rows:
            async with client.request(method, PREFIX + path, **more) as answer:
                assert answer.status == status, (method, path, await answer.text())
            async with client.get(f"{PREFIX}/measurement") as answer:
                assert answer.status == 200
        said = 0
        while said != 429:
            async with client.get(f"{PREFIX}/state", headers=login) as answer:
                said = answer.status
                assert said in (401, 429)
        with monkeypatch.context() as broken:
            broken.setattr(ico.plant.files, "listed", fail)
            for status in (500, 503):
                async with client.get(f"{PREFIX}/files") as answer:
                    assert answer.status == status and "inside" not in await answer.text()
        async with client.get(f"{PREFIX}/files") as answer:
            assert answer.status == 200
    assert watching.connections == 1


@pytest.mark.parametrize("name", ["Vary", "Cache-Control", "X-Content-Type-Options", "Content-Type"])
async def test_a_missing_header_fails_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The positive control."""
    really = Doorkeeper.headers

    async def headers(self: Doorkeeper, request: web.Request, response: web.StreamResponse) -> None:
        await really(self, request, response)
        response.headers[name] = "text/html"

    monkeypatch.setattr(Doorkeeper, "headers", headers)
    async with contract(tmp_path) as ico:
        for path in ("/state", "/nope"):
            with pytest.raises(AssertionError, match=path):
                await ico.client.get(PREFIX + path)
