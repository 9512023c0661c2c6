"""ICOapi's contract as a whole: that every operation is there, and what a client does with them."""

import asyncio

import aiohttp
import pytest

from gateway.api.compat.icoapi.contract import contract
from gateway.api.settings import HttpSettings, IcoapiSettings
from tests.icoapi import shapes
from tests.icoapi.bench import Contract
from tests.icoapi.shapes import check
from tests.icoapi.test_contract_nodes import ADC, connect, instructions
from tests.icotronic.plant import MAC_OF, SPINDLE

pytestmark = pytest.mark.timeout(90)
OPERATIONS = """
GET /state  PUT /reset-can
GET /stu  PUT /stu/reset  GET /stu/connected
GET /sth  PUT /sth/connect  PUT /sth/disconnect  PUT /sth/rename
GET /sth/read-adc  PUT /sth/write-adc  GET /sth/supply-voltage
POST /measurement/start  POST /measurement/stop  POST /measurement/post_meta  GET /measurement
GET /files  GET /files/{name}  DELETE /files/{name}
GET /files/analyze/{name}  POST /files/analyze  GET /files/analyze/meta/{name}
POST /files/{name}/embedded  GET /files/{name}/embedded/{dataset}  DELETE /files/{name}/embedded/{dataset}
POST /files/pre_meta/{name}  POST /files/post_meta/{name}
GET /cloud  POST /cloud/upload  POST /cloud/update  POST /cloud/authenticate
GET /config/meta  POST /config/meta  GET /config/sensors  POST /config/sensors  POST /config/dataspace
GET /config/backup  PUT /config/restore
GET /sensor
GET /logs  GET /logs/view  GET /logs/download/{file}  GET /logs/all
"""
OLDER = "POST /stu/connected  GET /config/env  POST /config/env"
SOCKETS = "GET /measurement/stream  GET /logs/stream"
"""The third, /state, is at the path of an operation."""


def named(text: str) -> list[tuple[str, str]]:
    words = text.split()
    return list(zip(words[::2], words[1::2], strict=True))


async def test_all_43_operations_and_3_sockets_are_there(ico: Contract) -> None:
    app = contract(ico.plant, HttpSettings(), IcoapiSettings())
    there = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert len(named(OPERATIONS)) == 43
    wanted = [*named(OPERATIONS), *named(OLDER), *named(SOCKETS)]
    assert there == {(method, f"/api/v1{path}") for method, path in wanted}


async def test_from_the_search_to_the_file(ico: Contract) -> None:
    """What a client does, one after the other."""
    check(await ico.ask("GET", "/sth"), [shapes.NODE])
    await connect(ico)
    assert await ico.ask("PUT", "/sth/write-adc", ADC) is None
    check(await ico.ask("GET", "/sth/read-adc"), shapes.ADC)
    check(await ico.ask("GET", "/sth/supply-voltage"), shapes.VOLTAGE)
    async with ico.socket("/measurement/stream") as socket:
        begun = await ico.ask("POST", "/measurement/start", instructions(1, 2, 3, time=2))
        check(begun, shapes.STARTED)
        points = []
        async with asyncio.timeout(60):
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                check(message.json(), [shapes.POINT])
                points += [point["counter"] for point in message.json() if point["counter"] is not None]
    done = await ico.plant.measurements.finished(begun["data"]["name"])
    assert points == [n % 256 for n in range(done.received)] and done.loss == 0 and done.received > 1000
    check(await ico.ask("GET", "/files"), shapes.FILES)
    check(await ico.ask("GET", f"/files/analyze/meta/{done.file}"), shapes.PARSED)
    assert await ico.ask("PUT", "/sth/disconnect") is None
    said = await ico.ask("PUT", "/sth/rename", {"mac_address": MAC_OF[SPINDLE], "new_name": "Mill"})
    check(said, shapes.RENAMED)
    assert await ico.ask("PUT", "/stu/reset") is None
    check(await ico.ask("GET", "/config/backup"), shapes.BACKUP)
