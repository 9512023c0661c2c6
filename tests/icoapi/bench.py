"""The real application with simulated STUs over python-can's virtual bus, on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role
from gateway.controls import SensorNodes
from gateway.model import Device
from gateway.protocols import icotronic
from tests.api.plant import Plant, plant
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
