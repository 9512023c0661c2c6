"""timeseries-api's contract as a whole: each operation with each of its statuses, on one connection."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.api.compat.timeseries import contract
from gateway.controls.devices import Push
from tests.timeseries.bench import EVE, ROBIN, SERIES, Bench, bench, look

OPERATIONS = {
    ("GET", "/series"), ("GET", "/series/{id}"), ("PUT", "/series/{id}"), ("DELETE", "/series/{id}"),
    ("GET", "/points/count"), ("GET", "/point/{id}"), ("PUT", "/point/{id}"), ("DELETE", "/point/{id}"),
}  # fmt: skip


async def test_all_operations_are_there(api: Bench) -> None:
    """Each GET is a HEAD too, as in Flask."""
    there = contract.Contract(api.plant, *[None] * 3).app().router.routes()  # type: ignore[arg-type]
    found = {(route.method, route.resource.canonical) for route in there if route.resource}
    assert found == OPERATIONS | {("HEAD", path) for method, path in OPERATIONS if method == "GET"}


async def test_each_status_of_each_operation_and_the_connection_goes_on(
    api: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = await api.register()
    point, other = await api.add(series, temp_C=13), await api.add(series, temp_C=14)
    ours, eves = {"token": ROBIN}, {"token": EVE}
    new: dict[str, Any] = ours | {"series_id": series, "fields": {"a": 1}}
    text = {"data": "{}", "headers": {"Content-Type": "text/plain"}}
    rows: list[tuple[str, str, dict[str, Any], int]] = [
        ("GET", "/series", {}, 200),
        ("GET", "/series?callback=1", {}, 400),
        ("PUT", "/series/new", {"json": SERIES}, 201),
        ("PUT", "/series/new", {"json": ours}, 400),
        ("PUT", "/series/new", {"json": SERIES | {"token": None}}, 403),
        ("PUT", "/series/7", {"json": SERIES}, 404),
        ("PUT", "/series/new", text, 415),
        (
            "PUT",
            "/series/new",
            {"data": b"{" + b" " * 65_536, "headers": {"Content-Type": "application/json"}},
            413,
        ),
        ("GET", f"/series/{series}", {}, 200),
        ("GET", f"/series/{series}?callback=a.", {}, 400),
        ("GET", "/series/77", {}, 404),
        ("GET", "/series/x", {}, 404),
        ("PUT", "/point/new", {"json": new}, 201),
        ("PUT", "/point/new", {"json": new | {"fields": {}}}, 400),
        ("PUT", "/point/new", {"json": new | eves}, 403),
        ("PUT", "/point/new", {"json": new | {"series_id": 77}}, 404),
        ("PUT", "/point/7", {"json": new}, 404),
        ("PUT", "/point/new", text, 415),
        ("GET", f"/point/{point}", {}, 200),
        ("GET", f"/point/{point}?callback=;", {}, 400),
        ("GET", "/point/7", {}, 404),
        ("GET", "/point/x", {}, 404),
        ("DELETE", f"/point/{point}", {"json": eves}, 403),
        ("DELETE", f"/point/{point}", text, 415),
        ("DELETE", f"/point/{point}", {"json": ours}, 204),
        ("DELETE", f"/point/{point}", {"json": ours}, 204),
        ("GET", "/points/count", {}, 200),
        ("GET", "/points/count?callback=1", {}, 400),
        ("POST", "/points/count", {}, 405),
        ("GET", "/", {}, 404),
        ("DELETE", f"/series/{series}", {"json": eves}, 403),
        ("DELETE", f"/series/{series}", {}, 403),
    ]
    looking, made = aiohttp.TraceConfig(), []
    looking.on_request_end.append(look)

    async def connected(*_: object) -> None:
        made.append(1)

    looking.on_connection_create_end.append(connected)
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(api.url, connector=connector, trace_configs=[looking]) as client:

        async def answered(method: str, path: str, more: Any, *statuses: int) -> int:
            async with client.request(method, path, **more) as answer:
                assert answer.status in statuses, (method, path, await answer.text())
                return answer.status

        for row in rows:
            await answered(*row)
        for path in ("/series", f"/series/{series}", f"/point/{other}", "/points/count?callback=f"):
            await answered("HEAD", path, {}, 200)
        with monkeypatch.context() as patch:
            patch.setattr(api.plant.store, "samples", _fails)
            await answered("GET", f"/point/{other}?callback=f", {}, 500)
        with monkeypatch.context() as patch:
            patch.setattr(api.plant.devices["timeseries"].control(Push), "push", _waits_too_long)
            await answered("PUT", "/point/new", {"json": new}, 503)
        guess = {"json": SERIES | {"token": "guess"}}
        while await answered("PUT", "/series/new", guess, 403, 429) != 429:
            pass
        await answered("DELETE", f"/series/{series}", {"json": ours}, 204)
        await answered("DELETE", f"/series/{series}", {"json": ours}, 204)
    assert made == [1]


def _fails(*_: object) -> None:
    raise RuntimeError("of the inside")


async def _waits_too_long(_samples: object) -> None:
    raise TimeoutError


@pytest.mark.parametrize("name", ["Cache-Control", "X-Content-Type-Options", "Content-Type"])
async def test_a_wrong_header_fails_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The positive control."""
    really = contract._headers

    async def headers(request: web.Request, response: web.StreamResponse) -> None:
        await really(request, response)
        response.headers[name] = "text/html"

    monkeypatch.setattr(contract, "_headers", headers)
    async with bench(tmp_path) as api:
        for path in ("/series", "/series?callback=f", "/nope"):
            with pytest.raises(AssertionError, match=path.partition("?")[0]):
                await api.ask("GET", path)
