"""The real application with simulated STUs over python-can's virtual bus, on loopback."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from gateway.api.app import build_app
from gateway.api.compat import icoapi
from gateway.api.server import serve
from gateway.api.settings import HttpSettings, IcoapiSettings
from gateway.api.tokens import Role
from gateway.controls.devices import Push, PushedSample
from gateway.controls.sensor_nodes import SensorNodes
from gateway.model import Device
from gateway.protocols import icotronic
from tests.api.plant import Plant, plant
from tests.icoapi.operations import Watching
from tests.icotronic.plant import Plant as Stage
from tests.icotronic.plant import plant as stage

TOOLS = "tools"
SETTINGS = HttpSettings(listen="127.0.0.1:0", tls="off", max_connections_per_address=200)


@dataclass
class Bench:
    """A client of `/v1`, the gateway, and the buses of its STUs."""

    plant: Plant
    stages: Mapping[str, Stage]
    url: str
    client: aiohttp.ClientSession

    @property
    def stage(self) -> Stage:
        return self.stages[TOOLS]

    @property
    def nodes(self) -> SensorNodes:
        control = self.plant.devices[TOOLS].control(SensorNodes)  # type: ignore[type-abstract]
        assert control is not None
        return control

    async def ask(
        self, method: str, path: str, body: Any = None, *, status: int = 200, role: Role = Role.OPERATE
    ) -> Any:
        """Return the JSON of an answer that has to have this status."""
        more: dict[str, Any] = {} if body is None else {"json": body}
        async with self.client.request(method, path, headers=self.plant.bearer(role), **more) as answer:
            text = await answer.text()
            assert answer.status == status, (answer.status, text)
            return await answer.json()

    def socket(self, path: str = "/v1/measurement/stream") -> Any:
        return self.client.ws_connect(path, headers=self.plant.bearer(Role.READ))


@contextlib.asynccontextmanager
async def gateway(
    folder: Path, stus: Sequence[str] = (TOOLS,)
) -> AsyncIterator[tuple[Plant, dict[str, Stage]]]:
    """A gateway with these STUs, each on a bus of its own with three sensor nodes, all running."""
    async with contextlib.AsyncExitStack() as stack:
        stages = {name: await stack.enter_async_context(stage()) for name in stus}
        made = await stack.enter_async_context(plant(folder))
        for name, each in stages.items():
            add_stu(made, name, each)
        await until(lambda: all(offered(made, name) for name in stus))
        yield made, stages
        for m in made.measurements.listed():  # no child of ours outlives a test
            if m.ended_us is not None:
                await made.measurements.finished(m.name)


def add_stu(made: Plant, name: str, at: Stage) -> None:
    settings = at.settings()
    made.add(name, "icotronic", lambda link: icotronic.run(Device(name), settings, link))


def offered(made: Plant, name: str) -> bool:
    return made.devices[name].control(SensorNodes) is not None  # type: ignore[type-abstract]


@contextlib.asynccontextmanager
async def bench(folder: Path, stus: Sequence[str] = (TOOLS,)) -> AsyncIterator[Bench]:
    async with (
        gateway(folder, stus) as (made, stages),
        serve(build_app(made, SETTINGS), SETTINGS, made.state) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
    ):
        yield Bench(made, stages, f"http://{host}:{port}", client)


async def until(there: Any, limit_s: float = 30.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(limit_s):
        while not there():
            await asyncio.sleep(0.01)


@dataclass
class Contract:
    """A client of ICOapi's contract, the gateway, and the bus of its STU."""

    plant: Plant
    stage: Stage
    url: str
    client: aiohttp.ClientSession
    """Of which each answer's headers are looked at."""
    watching: Watching

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        """Return the JSON of an answer that has to have this status."""
        if body is not None:
            more["json"] = body
        async with self.client.request(method, f"/api/v1{path}", **more) as answer:
            data = await answer.read()
            assert answer.status == status, (answer.status, data)
            return json.loads(data) if answer.content_type == "application/json" else data

    def socket(self, path: str) -> Any:
        return self.client.ws_connect(f"/api/v1{path}")

    @property
    def nodes(self) -> SensorNodes:
        control = self.plant.devices[TOOLS].control(SensorNodes)  # type: ignore[type-abstract]
        assert control is not None
        return control


@contextlib.asynccontextmanager
async def contract(folder: Path, **settings: Any) -> AsyncIterator[Contract]:
    """The contract, open to everybody unless `anonymous` says otherwise, on loopback."""
    chosen = IcoapiSettings(listen="127.0.0.1:0", tls="off", **{"anonymous": "operate"} | settings)
    reports: list[tuple[str, str]] = []
    async with gateway(folder) as (made, stages):
        serving = asyncio.create_task(
            icoapi.run(made, SETTINGS, chosen, made.state, lambda *told: reports.append(told))
        )
        try:
            await until(lambda: reports or serving.done())
            url = f"http://{reports[0][1].removeprefix('listening on ')}"
            watching = Watching(chosen.cors)
            async with aiohttp.ClientSession(url, trace_configs=[watching.trace()]) as client:
                yield Contract(made, stages[TOOLS], url, client, watching)
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


@contextlib.asynccontextmanager
async def busy(ico: Contract) -> AsyncIterator[None]:
    """Others push samples, look on at everything, and ask rightly and wrongly."""
    push = ico.plant.devices["box"].control(Push)
    assert push is not None
    counts = dict.fromkeys(("stored", "asked", "wrong"), 0)
    refusals = (409, 502)  # of what a test does to the STU: a second one, or none that answers

    async def send() -> None:
        for start in itertools.count(0, 200):
            await push.push([PushedSample("a", n, n) for n in range(start, start + 200)])
            counts["stored"] += 200
            await asyncio.sleep(0.02)

    async def ask() -> None:
        while True:
            async with ico.client.get("/api/v1/state") as answer:
                counts["asked"] += answer.status == 200
                assert answer.status in (200, *refusals)
            async with ico.client.put("/api/v1/sth/write-adc", json={"prescaler": 0}) as answer:
                counts["wrong"] += answer.status == 422
                assert answer.status in (422, *refusals)
            await asyncio.sleep(0.02)

    async def look() -> None:
        for path in itertools.cycle(("/measurement/stream", "/state")):
            with contextlib.suppress(aiohttp.WSServerHandshakeError):
                async with ico.socket(path) as socket:
                    with contextlib.suppress(TimeoutError):
                        await socket.receive(timeout=0.2)
                    if path == "/state":
                        await socket.send_str("{")
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in (send(), ask(), ask(), look(), look())]
        try:
            await until(lambda: all(counts.values()))
            yield
        finally:
            for task in tasks:
                task.cancel()
