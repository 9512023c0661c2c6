"""The contract of timeseries-api in front of a real store and a real push device, on loopback."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.api.compat import timeseries
from gateway.api.settings import POINTS_DEVICE, HttpSettings, TimeseriesSettings
from gateway.controls.devices import Push, PushedSample
from gateway.model import Device
from gateway.protocols import push
from tests.api.plant import Plant, plant

_JSON = {"Content-Type": "application/json"}
ROBIN, EVE, GUEST = "robins-long-token", "eves-other-token", "guests-token"
USERS = {
    ROBIN: {"name": "Robin", "id": 1},
    EVE: {"name": "Eve", "id": 2},
}
SERIES = {
    "desc": "Temperature in Tokyo",
    "device_desc": "ESP32 with DS18B20",
    "device_id": "12:AB:CD:XY:ZU:57",
    "token": ROBIN,
}


@dataclass
class Bench:
    """A client of the contract, each of whose answers `look` looks at, and what stands behind it."""

    plant: Plant
    users: Path
    url: str
    client: aiohttp.ClientSession
    reports: list[tuple[str, str]] = field(default_factory=list)

    async def ask(
        self, method: str, path: str, body: Any = None, **more: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Return status, JSON (None for an empty body) and headers."""
        if body is not None:
            more["json"] = body
        async with self.client.request(method, path, **more) as answer:
            data = await answer.read()
            return answer.status, json.loads(data) if data else None, answer.headers

    async def register(self, token: str = ROBIN, **changed: Any) -> int:
        status, number, _ = await self.ask("PUT", "/series/new", SERIES | {"token": token} | changed)
        assert status == 201 and isinstance(number, int), number
        return number

    async def add(self, series: int, token: str = ROBIN, **fields: Any) -> int:
        body = {"token": token, "series_id": series, "fields": fields}
        status, number, _ = await self.ask("PUT", "/point/new", body)
        assert status == 201 and isinstance(number, int), number
        return number

    async def points(self, series: int, **query: str) -> list[dict[str, Any]]:
        status, points, _ = await self.ask("GET", f"/series/{series}", params=query)
        assert status == 200
        assert isinstance(points, list)
        return points

    async def told(self, state: str) -> str:
        """Wait until the contract reports a state; return its sentence."""
        async with asyncio.timeout(10):
            while not self.reports or self.reports[-1][0] != state:
                await asyncio.sleep(0.05)
        return self.reports[-1][1]


async def look(_session: object, _context: object, asked: aiohttp.TraceRequestEndParams) -> None:
    """Raise AssertionError where an answer's headers are not those that any answer of its kind has."""
    answer = asked.response
    try:
        _check_headers(answer.headers, answer.status, is_script=bool(asked.url.query.get("callback")))
        if answer.status >= 400 and asked.method != "HEAD":
            said = json.loads(await answer.read())
            assert said.keys() == {"message"} and said["message"]
            assert isinstance(said["message"], str) or all(
                isinstance(each, str) for each in said["message"].values()
            )
    except AssertionError as error:
        raise AssertionError(asked.method, asked.url, answer.status, dict(answer.headers)) from error


def _check_headers(headers: Mapping[str, str], status: int, *, is_script: bool) -> None:
    assert (headers["Server"], headers["Cache-Control"]) == ("edge-gateway", "no-store")
    assert headers["X-Content-Type-Options"] == "nosniff" and "Date" in headers
    assert "Connection" not in headers, "it goes on, also after an error"
    assert not any(
        name.lower().startswith(("access-control", "cross-origin", "set-cookie")) for name in headers
    )
    assert ("Allow" in headers) == (status == 405)
    assert ("Retry-After" in headers) == (status in (429, 503))
    assert int(headers.get("Retry-After", "1")) > 0
    if status == 204:
        assert "Content-Type" not in headers and "Content-Length" not in headers
        return
    script = "application/javascript; charset=utf-8"
    assert headers["Content-Type"] == (script if is_script and status < 400 else "application/json")
    assert ("Content-Length" in headers) != (headers.get("Transfer-Encoding") == "chunked" and status == 200)


def write_users(file: Path, text: str) -> None:
    """Write the file as one that holds secrets."""
    file.touch(0o600)
    file.write_text(text)


@contextlib.asynccontextmanager
async def bench(
    folder: Path, users: Mapping[str, Any] = USERS, commit_interval_s: float = 0.05
) -> AsyncIterator[Bench]:
    """The contract over a plant whose devices `timeseries` and `Eve` take points."""
    file = folder / "users.json"
    write_users(file, json.dumps(users))
    async with plant(folder / "state", commit_interval_s) as made:
        for name in (POINTS_DEVICE, "Eve"):
            made.add(name, "push", lambda link, name=name: push.run(Device(name), push.Settings(), link))
        async with serving(made, file) as served:
            yield served


@contextlib.asynccontextmanager
async def serving(made: Plant, users: Path) -> AsyncIterator[Bench]:
    reports: list[tuple[str, str]] = []
    settings = TimeseriesSettings(listen="127.0.0.1:0", tls="off", users=users)
    task = asyncio.create_task(
        timeseries.run(made, HttpSettings(), settings, made.state, lambda *told: reports.append(told))
    )
    try:
        async with asyncio.timeout(10):
            while not reports:
                await asyncio.sleep(0.01)
                if task.done():
                    await task
            while any(device.health.state != "running" for device in made.devices.values()):
                await asyncio.sleep(0.01)
        url = "http://" + reports[-1][1].partition("listening on ")[2].partition(";")[0]
        connector = aiohttp.TCPConnector(limit=24)  # the listener takes 32 connections from one address
        looking = aiohttp.TraceConfig()
        looking.on_request_end.append(look)
        async with aiohttp.ClientSession(url, connector=connector, trace_configs=[looking]) as client:
            yield Bench(made, users, url, client, reports)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def busy(api: Bench) -> AsyncIterator[None]:
    """Enter while others push samples to another device, and ask rightly and wrongly."""
    push_ = api.plant.devices["box"].control(Push)
    assert push_ is not None
    counts = dict.fromkeys(("stored", "asked", "wrong"), 0)

    async def send() -> None:
        for start in itertools.count(0, 200):
            await push_.push([PushedSample("a", n, n) for n in range(start, start + 200)])
            counts["stored"] += 200
            await asyncio.sleep(0.02)

    async def ask() -> None:
        while True:
            status, _, _ = await api.ask("GET", "/series")
            counts["asked"] += status == 200
            async with api.client.put("/point/new", data=b"{", headers=_JSON) as answer:
                assert 400 <= answer.status < 500, answer.status
                counts["wrong"] += 1
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in (send(), ask(), ask())]
        try:
            async with asyncio.timeout(10):
                while not all(counts.values()):
                    await asyncio.sleep(0.01)
            yield
        finally:
            for task in tasks:
                task.cancel()
