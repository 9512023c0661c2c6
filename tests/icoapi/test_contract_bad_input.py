"""Bad input at ICOapi's operations and WebSockets: a 4xx with a sentence, or that one socket ends."""

import asyncio
import json
import logging
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yarl

from gateway.protocols.icotronic import asking
from tests.api.test_bytes import HOST, UPGRADE, status
from tests.api.test_bytes import mutated as changed
from tests.icoapi import shapes
from tests.icoapi.bench import Contract, contract
from tests.icoapi.operations import PREFIX
from tests.icoapi.shapes import check
from tests.icoapi.test_contract_files import FOREIGN_NAMES, META, SENSORS, form, logged, yaml_form
from tests.icoapi.test_contract_nodes import ADC, connect, instructions, measuring
from tests.icotronic.plant import MAC_OF, SPINDLE
from tests.timeseries.test_security import mutated

__all__ = ["logged"]
pytestmark = pytest.mark.timeout(90)
MAC = {"mac_address": MAC_OF[SPINDLE]}


async def test_no_name_leads_out_of_a_folder(logged: Contract) -> None:
    """At the operations that test_names_that_are_no_files_of_ours leaves out."""
    ico = logged
    for name in FOREIGN_NAMES:
        at = quote(name, safe="%")
        sent = form("files", b"x", "x.txt", "text/plain")
        rows: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", f"/files/analyze/{at}", {}),
            ("GET", f"/files/analyze/meta/{at}", {}),
            ("POST", f"/files/pre_meta/{at}", {"json": META}),
            ("POST", f"/files/post_meta/{at}", {"json": META}),
            ("POST", f"/files/{at}/embedded", {"data": sent}),
        ]
        for method, path, more in rows:
            url = yarl.URL(f"{ico.url}{PREFIX}{path}", encoded=True)
            async with ico.client.request(method, url, **more) as answer:
                assert answer.status == 405, (path, await answer.text())
        for path in ("/cloud/upload", "/cloud/update"):
            body = {"filename": name, "file_id": "1"}
            async with ico.client.post(PREFIX + path, json=body) as answer:
                assert answer.status in (400, 422), name
        url = yarl.URL(f"{ico.url}{PREFIX}/logs/download/{at}", encoded=True)
        async with ico.client.get(url) as answer:
            assert answer.status == 403
        body = {"filename": "sensors.yaml", "backup_filename": name}
        await ico.ask("PUT", "/config/restore", body, status=404)
        body = {"filename": name, "backup_filename": "sensors__20250101T000000Z.yaml"}
        await ico.ask("PUT", "/config/restore", body, status=400)


async def test_a_foreign_mac_is_not_renamed(ico: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CONNECT_S", 0.8)
    foreign = {"mac_address": "00-11-22-33-44-55", "new_name": "Mill"}
    check(await ico.ask("PUT", "/sth/rename", foreign, status=404), shapes.DETAIL)
    for mac in ("nonsense", "", "00-11-22-33-44", "00-11-22-33-44-5G", "é", "08-6B-D7-01-DE-81\n", 8, None):
        for path in ("/sth/rename", "/sth/connect"):
            await ico.ask("PUT", path, {"mac_address": mac, "new_name": "Mill"}, status=422)
    assert ico.nodes.connected is None
    assert [node["name"] for node in await ico.ask("GET", "/sth")] == list(MAC_OF)


LAUGHS = b"a: &a [x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 9)) for n in range(97, 110)
)
BOMBS = [
    LAUGHS,
    b"[" * 100_000,
    b"{a: " * 50_000,
    b"- " * 100_000,
    b"? " * 50_000,
    b"a: " + b"9" * 1_000_000,
    b"a: !!python/object/apply:os.system [id]",
    b"<<: " * 10_000,
    b"a: *nobody",
    b"\xff\xfe\x00",
    b"a: \x00",
    b"--- a\n--- b\n",
    b"".join(b"%d: {}\n" % n for n in range(20_000)),
    b"x" * 300_000 + b": 1\n",
]


@pytest.mark.parametrize("name", ["sensors", "meta", "dataspace"])
async def test_yaml_that_is_meant_to_grow_does_not(ico: Contract, name: str) -> None:
    for data in (*BOMBS, SENSORS + LAUGHS):
        async with ico.client.post(f"{PREFIX}/config/{name}", data=yaml_form(data)) as answer:
            said = (await answer.json())["detail"]
            assert answer.status in (400, 422) and len(said) < 20_000, (data[:20], said[:1000])


TEXTS = ["{", "", "nonsense", "[" * 5000, "\U0001f600", "null", '{"message": {}}', "x" * 70_000]


@pytest.mark.parametrize("path", ["/state", "/measurement/stream", "/logs/stream"])
async def test_what_a_socket_says_harms_no_other(logged: Contract, path: str) -> None:
    ico = logged
    await connect(ico)
    async with ico.socket("/measurement/stream") as other, measuring(ico) as name:
        for text in (*TEXTS, b"\xff\xfe"):
            async with ico.socket(path) as socket:
                await (socket.send_bytes(text) if isinstance(text, bytes) else socket.send_str(text))
        async with ico.socket(path) as socket:  # no UTF-8, which is a fault of the frame
            await socket._writer.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
            async with asyncio.timeout(20):
                while not (await socket.receive()).type & 0x100 and not socket.closed:
                    pass
            assert socket.close_code == aiohttp.WSCloseCode.INVALID_TEXT
        found = ico.plant.measurements.find(name)
        assert found is not None
        check(await other.receive_json(), [shapes.POINT])
    assert not found.interrupted and found.lost == 0


async def test_parallel_requests_right_and_wrong_all_get_their_own_answer(ico: Contract) -> None:
    await connect(ico)
    rows: list[tuple[str, str, Any, int]] = [
        ("GET", "/sth/read-adc", None, 200),
        ("PUT", "/sth/write-adc", ADC, 200),
        ("PUT", "/sth/write-adc", ADC | {"prescaler": 0}, 422),
        ("PUT", "/sth/connect", MAC, 400),
        ("PUT", "/sth/rename", MAC | {"new_name": "nine byte"}, 422),
        ("GET", "/sth", None, 200),
        ("POST", "/measurement/start", instructions(adc=None), 422),
        ("GET", "/files/nope.hdf5", None, 404),
        ("POST", "/cloud/upload", {}, 422),
        ("GET", "/config/sensors", None, 200),
    ]
    async with asyncio.TaskGroup() as group:
        for method, path, body, status in rows * 5:
            group.create_task(ico.ask(method, path, body, status=status))
    assert ico.nodes.connected is not None


async def test_no_document_makes_the_gateway_fail(tmp_path: Path) -> None:
    """Each body that an operation takes, with something in it replaced, removed or added."""
    rows: list[tuple[str, str, Any]] = [
        ("POST", "/measurement/start", instructions(1, 2, 3, meta=META, time=5)),
        ("POST", "/measurement/post_meta", META),
        ("POST", "/files/pre_meta/x.hdf5", META),
        ("PUT", "/sth/rename", MAC | {"new_name": "Mill"}),
        ("PUT", "/sth/write-adc", ADC),
        ("PUT", "/config/restore", {"filename": "sensors.yaml", "backup_filename": "x"}),
        ("POST", "/cloud/update", {"filename": "x.hdf5", "file_id": "1"}),
        ("POST", "/stu/connected", {"name": "STU 1"}),
    ]
    chosen, seen = random.Random(7), set()
    async with contract(tmp_path) as ico:
        for method, path, document in rows * 40:
            for _ in range(chosen.randrange(1, 4)):
                document = mutated(chosen, document)
            async with ico.client.request(method, PREFIX + path, data=json.dumps(document)) as answer:
                assert answer.status in (200, 400, 404, 422), (path, document, await answer.text())
                seen.add(answer.status)
        await ico.ask("GET", "/state")
    assert seen == {200, 400, 404, 422}


def seeds() -> list[bytes]:
    """Return requests as bytes: what most of them are made of."""
    form_head = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.yaml"\r\n'
        b"Content-Type: text/yaml\r\n\r\ninfo: {a: 1}\r\n--b--\r\n"
    )
    adc = json.dumps(ADC).encode()
    origin = b"Origin: http://web.example:5173\r\n"
    return [
        b"GET /api/v1/files/analyze/a%20b.hdf5?device=tools" + HOST + origin + b"Range: bytes=0-5\r\n\r\n",
        b"PUT /api/v1/sth/write-adc" + HOST + b"Content-Length: %d\r\n\r\n" % len(adc) + adc,
        b"POST /api/v1/config/sensors" + HOST + form_head % len(body) + body,
        b"POST /api/v1/files/analyze" + HOST + form_head % len(body) + body,
        b"OPTIONS /api/v1/state" + HOST + origin + b"Access-Control-Request-Method: PUT\r\n\r\n",
        b"GET " + UPGRADE.replace(b"/v1/stream?devices=box", b"/api/v1/state")
        + b'\r\n\x81\x8a\x00\x00\x00\x00{"message"',
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionParam")
async def test_no_bytes_make_the_gateway_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chance, originals, seen = random.Random(7), seeds(), set()
    async with contract(tmp_path, cors=("http://web.example:5173",)) as ico:
        expected = ["404", "404", "422", "405", "200", "101"]
        assert [await status(ico.url, seed) for seed in originals] == expected
        for _ in range(30):
            batch = [changed(chance.choice(originals), chance) for _ in range(8)]
            codes = await asyncio.gather(*(status(ico.url, sent) for sent in batch))
            for sent, code in zip(batch, codes, strict=True):
                assert not code.startswith("5"), (code, sent)
                seen.add(code)
        await ico.ask("GET", "/state")
    assert seen >= {"400", "404", "405", "422"}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
