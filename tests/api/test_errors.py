"""Every way to fail has the one shape: {"error": {"code", "message", "details": [...]}}."""

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.answers import stream
from gateway.api.errors import CODES, ApiError, errors
from gateway.model import NotStored
from gateway.store import StoreProblem
from tests.api.plant import Plant

BOX = "/v1/devices/box/samples"


def check(status: int, body: bytes, expected: int) -> dict[str, Any]:
    assert status == expected, body
    document = json.loads(body)
    assert set(document) == {"error"}
    error: dict[str, Any] = document["error"]
    assert set(error) == {"code", "message", "details"}
    assert error["code"] == CODES[expected]
    assert error["message"].endswith((".", "]"))
    assert isinstance(error["details"], list)
    return error


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/v1/devices/nope", {}, 404),
        ("GET", "/v1/devices/nope/samples", {}, 404),
        ("GET", "/v1/devices/nope/browse", {}, 404),
        ("POST", "/v1/devices/nope/poll", {}, 404),
        ("POST", "/v1/devices/nope/samples", {"json": []}, 404),
        ("GET", "/v1/uploads/nope/quarantine", {}, 404),
        ("GET", "/static/../api/auth.py", {}, 404),
        ("GET", "/static/%2e%2e%2fapi%2fauth.py", {}, 404),
        ("GET", "/v1/devices/counter/browse?node=nope", {}, 404),
        ("GET", f"{BOX}?tags=nope", {}, 404),
        ("PUT", "/v1/devices", {}, 405),
        ("DELETE", "/v1/devices/box", {}, 405),
        ("GET", BOX, {"headers": {"Accept": "image/png"}}, 406),
        ("POST", "/v1/devices/box/poll", {}, 409),
        ("GET", "/v1/devices/box/browse", {}, 409),
        ("POST", "/v1/devices/counter/samples", {"json": []}, 409),
        ("POST", BOX, {"data": b"x", "headers": {"Content-Type": "image/png"}}, 415),
        ("POST", BOX, {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", BOX, {"json": {"a": 1}}, 422),
        ("PUT", "/v1/config/restore", {"json": {"filename": [[]] * 60_000}}, 413),
        ("GET", f"{BOX}?from=yesterday", {}, 422),
        ("GET", f"{BOX}?from=2026-01-01T00:00:00", {}, 422),
        ("GET", f"{BOX}?from=2026-13-01T00:00:00Z", {}, 422),
        ("GET", f"{BOX}?to=99999999999999999999", {}, 422),
        ("GET", f"{BOX}?limit=0", {}, 422),
        ("GET", f"{BOX}?limit=x", {}, 422),
        ("GET", f"{BOX}?cursor=x", {}, 422),
        ("GET", f"{BOX}?format=xml", {}, 422),
        ("GET", f"{BOX}?bucket=fast", {}, 422),
        ("GET", f"{BOX}?bucket=1s&limit=5", {}, 422),
        ("GET", f"{BOX}?form=json", {}, 422),
        ("GET", "/v1/devices?verbose=1", {}, 422),
        ("GET", "/v1/runs?status=great", {}, 422),
        ("GET", "/v1/gaps?cursor=-1", {}, 422),
        ("GET", "/v1/gaps?cursor=99999999999999999999", {}, 422),
        ("GET", "/v1/stream", {}, 400),
        ("POST", "/v1/session", {"json": {}}, 422),
        ("POST", "/v1/session", {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/v1/session", {"data": b"token=x"}, 415),
        ("POST", "/v1/session", {"json": {"token": "\ud800"}}, 401),
        ("GET", "/v1/state", {"headers": {"Expect": "a-miracle"}}, 417),
        ("GET", "/v1/devices/\ud800/samples", {}, 404),
    ],
)
async def test_every_failure_has_the_shape(
    admin: aiohttp.ClientSession, method: str, path: str, more: dict[str, Any], status: int
) -> None:
    from yarl import URL

    target = URL(path.replace("\ud800", "%ED%A0%80"), encoded=True)
    async with admin.request(method, target, **more) as answer:
        error = check(answer.status, await answer.read(), status)
    if status == 422 and "?" in path:
        assert error["details"][0]["field"] in path


async def test_wrong_parameters_are_named_all_at_once(admin: aiohttp.ClientSession) -> None:
    async with admin.get(BOX, params={"from": "x", "limit": "0", "frmo": "1"}) as answer:
        error = check(answer.status, await answer.read(), 422)
    assert {detail["field"] for detail in error["details"]} == {"from", "limit", "frmo"}


async def test_a_fault_of_ours_shows_a_reference_and_nothing_else(
    gateway: Plant, admin: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        id = "secret-inside"
        kind = property(lambda self: 1 / 0)

    gateway.devices["broken"] = Broken()  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        async with admin.get("/v1/devices") as answer:
            error = check(answer.status, await answer.read(), 500)
    del gateway.devices["broken"]
    assert "ZeroDivision" not in error["message"]
    reference = error["message"].split()[-1].rstrip(".")
    assert f"reference {reference}" in caplog.text
    assert "ZeroDivisionError" in caplog.text


RAW = [
    b"NONSENSE\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
    b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(500)) + b"\r\n",
    b"POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
async def test_bytes_that_are_not_http_get_the_shape_too(url: str, raw: bytes) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 8)
    writer.close()
    await writer.wait_closed()
    if answer or not raw.startswith(b"\x16"):
        head, _, body = answer.partition(b"\r\n\r\n")
        check(int(head.split()[1]), body, 400)
        assert b"aiohttp" not in head


async def test_a_malformed_chunked_body_is_400(url: str, gateway: Plant) -> None:
    from gateway.api.tokens import Role

    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    token = gateway.texts[Role.ADMIN].encode()
    writer.write(
        b"POST " + BOX.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + token + b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    answer = await asyncio.wait_for(reader.read(), 8)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    check(int(head.split()[1]), body, 400)


async def test_a_body_that_says_it_is_compressed_and_is_not_is_400(admin: aiohttp.ClientSession) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with admin.post(BOX, data=b"not gzip at all", headers=headers) as answer:
        check(answer.status, await answer.read(), 400)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TimeoutError(), 503),
        (NotStored("the budget is full"), 503),
        (StoreProblem("the store cannot be read now: disk I/O error"), 503),
        (ApiError(409, "Not now."), 409),
        (web.HTTPGone(), 410),
        (RuntimeError("secret"), 500),
        (RecursionError("secret"), 500),
        (ExceptionGroup("secret", [ValueError("secret")]), 500),
    ],
)
async def test_each_exception_has_its_status_and_the_shape(error: Exception, status: int) -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise error

    app = web.Application(middlewares=[errors])
    app.router.add_get("/", fail)
    async with TestClient(TestServer(app)) as client, client.get("/") as answer:
        document = await answer.json()
        assert answer.status == status
        assert set(document["error"]) == {"code", "message", "details"}
        assert "secret" not in await answer.text()
        assert (answer.headers.get("Retry-After") is not None) == (status == 503)


async def test_what_fails_after_the_answer_began_is_cut_and_not_answered_twice() -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        async with stream(request, "application/json") as out:
            await out.write(b'{"samples":[')
            raise ApiError(409, "Not now.")

    app = web.Application(middlewares=[errors])
    app.router.add_get("/", fail)
    async with TestClient(TestServer(app)) as client, client.get("/") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
