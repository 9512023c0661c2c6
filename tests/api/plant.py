"""A gateway for the API's tests: the real store, real sessions, a pushing device and one that is polled."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gateway.api.contracts import ConfigInfo, LogFilesInfo
from gateway.api.tokens import Role, Tokens
from gateway.clock import SystemClock
from gateway.controls.devices import Node, NodePage, TagAbout, TagState
from gateway.documents import Applied, Documents
from gateway.forward import Forwarder
from gateway.intake import DeviceSession
from gateway.logs import Logs
from gateway.measurements import Catalogue, Measurements
from gateway.model import Batch, BatchListener, Device, DeviceProblem, Link
from gateway.own_time import OwnTime
from gateway.protocols import push
from gateway.protocols.opcua.pki import Pki
from gateway.store import Store, StoreSettings
from gateway.supervise import Health, Keeper, Supervisor
from tests.measurements import node as sensor

C = TypeVar("C")


class Tree:
    """An address space of 25 machines with one speed each (controls.Browse)."""

    async def browse(self, node: str | None, limit: int, cursor: str | None) -> NodePage:
        if node is None:
            nodes: Sequence[Node] = [
                Node(f"s=m{n}", f"Machine {n}", "object", has_children=True) for n in range(25)
            ]
        elif node.startswith("s=m"):
            nodes = [Node(f"{node}.speed", "Speed", "variable", "Double", "r", float("nan"))]
        elif node == "s=gone":
            raise DeviceProblem("device counter: the server has not answered for 10 s")
        else:
            raise KeyError(node)
        start = int(cursor or 0)
        end = start + limit
        return NodePage(nodes[start:end], str(end) if end < len(nodes) else None)


class States:
    """One tag that is read, one that is wrong (controls.TagStates)."""

    def tag_states(self) -> dict[str, TagState]:
        return {
            "count": TagState("polled", "register 1", alive=True, about=TagAbout("word", range=(0, 9))),
            "ghost": TagState("bad", "register 9", "the device has no such register"),
        }


async def polled(device: Device, step_s: float, link: Link) -> None:
    """Count polls: tag `count` holds the number of each, taken `step_s` after the request."""
    series, number = link.tag("count", unit="1"), 0
    with link.offer(Tree(), States()):
        link.report("running")
        while True:
            run_id = await link.polls.next()
            async with link.run("poll", run_id) as run:
                await link.clock.sleep(step_s)
                number += 1
                batch = Batch()
                ts, flags = link.stamp()
                batch.add(series, ts, number, 0, flags)
                await link.emit(batch)
                run.add(1)


@dataclass
class Plant:
    """What the API sees as the gateway."""

    store: Store
    tokens: Tokens
    state: Path
    clock: SystemClock
    supervisor: Supervisor
    files: Catalogue = field(init=False)
    measurements: Measurements = field(init=False)
    node: sensor.Node = field(default_factory=sensor.Node)
    """Of the device `tools`, which measures, unless there is a real one of this name."""
    listeners: list[BatchListener] = field(default_factory=list)
    devices: dict[str, DeviceSession] = field(default_factory=dict)
    runs: dict[str, object] = field(default_factory=dict)
    """What each device runs."""
    uploads: dict[str, Forwarder] = field(default_factory=dict)
    id: str = "plant"
    version: str = "0.0.1"
    started_ns: int = 0
    broken: tuple[str, ...] = ()
    texts: dict[Role, str] = field(default_factory=dict)
    logs: Logs | None = None
    applied: int = 0
    """How often a document was changed."""
    documents: Documents = field(init=False)
    own_time: OwnTime = field(init=False)

    def __post_init__(self) -> None:
        self.documents = Documents(self.state, self.clock, self._applied)
        self.own_time = OwnTime(self.clock, self.store.newest_own_us, self.store.gap)

    async def _applied(self) -> Applied:
        self.applied += 1
        return Applied(["upload dataspace"], [])

    @property
    def certificates(self) -> Pki:
        return Pki(self.state / "pki")

    def config(self) -> ConfigInfo:
        return ConfigInfo("gateway.yaml", 0, ("a warning",), self.broken)

    def compat(self) -> dict[str, Health]:
        return {}

    def log_files(self) -> LogFilesInfo:
        return LogFilesInfo("/var/log/edge-gateway", 4096, 0)

    @contextlib.contextmanager
    def subscribe(self, listener: BatchListener) -> Iterator[None]:
        self.listeners.append(listener)
        try:
            yield
        finally:
            self.listeners.remove(listener)

    async def reconnect(self, device: str) -> None:
        if (before := self.devices.get(device)) is None:
            return
        await before.keeper.stop()
        await self.add(device, before.kind, self.runs[device]).keeper.settled(30)

    def add(self, name: str, kind: str, run: object) -> DeviceSession:
        self.runs[name] = run
        session = DeviceSession(
            name,
            kind,
            store=self.store,
            clock=self.clock,
            own_time=self.own_time,
            state=self.state,
            gateway_id=self.id,
            listeners=self.listeners,
        )

        async def attempt(keeper: Keeper) -> None:
            session.attempt_began(keeper)
            await run(session)  # type: ignore[operator]

        session.keeper = self.supervisor.keep(f"device {name}", attempt, ended=session.attempt_ended)
        self.devices[name] = session
        return session

    def find(self, device: str, contract: type[C]) -> C | None:
        """Return what a device's live session offers."""
        if (session := self.devices.get(device)) is not None:
            return session.control(contract)
        there = device == sensor.DEVICE and isinstance(self.node, contract)
        return self.node if there else None  # type: ignore[return-value]

    def bearer(self, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.texts[role]}"}


@contextlib.asynccontextmanager
async def plant(folder: Path, commit_interval_s: float = 0.05) -> AsyncIterator[Plant]:
    """A gateway with the devices `box` (pushes) and `counter` (is polled), both running."""
    clock = SystemClock()
    settings = StoreSettings(commit_interval_s=commit_interval_s)
    tokens = Tokens(folder, clock)
    await asyncio.to_thread(tokens.open)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store.open(folder, settings, clock))
        made = Plant(store, tokens, folder, clock, Supervisor(clock), started_ns=clock.mono_ns())
        for role in (Role.READ, Role.OPERATE, Role.ADMIN):
            made.texts[role], _ = await asyncio.to_thread(tokens.make, f"a {role.word}", role)
        await asyncio.to_thread(made.documents.open)
        made.add("box", "push", lambda link: push.run(Device("box"), push.Settings(), link))
        made.add("counter", "counter", lambda link: polled(Device("counter"), 0.05, link))
        measuring = Measurements.open(
            store, clock, made.supervisor, folder / "measurements", made.id, made.find, stamp=made.own_time
        )
        try:
            made.measurements = await stack.enter_async_context(measuring)
            made.files = Catalogue(made.measurements, store)
            while any(device.health.state != "running" for device in made.devices.values()):
                await asyncio.sleep(0.01)
            yield made
        finally:
            await made.supervisor.close()
