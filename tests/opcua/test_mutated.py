"""Mutated frames: no memory, no stall of the loop, no surprise, and the device beside it goes on as if alone.

OPCUA_FRAMES=1000000 for the full count (`make chaos`), OPCUA_SEED for other ones.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua

from gateway.memory import return_what_is_freed
from gateway.model import Batch, Device, DeviceProblem
from gateway.protocols import opcua
from gateway.protocols.opcua import browsing, datavalues, notifications, reads, selftest, variants
from gateway.protocols.opcua.encoded import publish_request
from gateway.protocols.opcua.items import Item, listed
from gateway.protocols.opcua.security import Choice
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.taking import take_changes
from tests.opcua.capture import captured
from tests.opcua.recording import RecordingLink, collecting, tags
from tests.peers.hostile import HOSTILE as VALUES
from tests.peers.opcua_peer import HOSTILE, NODE_OPCUA, Peer, running

Port = Callable[[], int]
FRAMES = int(os.environ.get("OPCUA_FRAMES", "20000"))
SEED = os.environ.get("OPCUA_SEED", "1")
WARM = 2000
MOST_MEMORY = 32 * 1024 * 1024
MOST_STALL_S = 0.1
Row = tuple[str, int, Any]
_TICK_S = 0.005
_ANSWER_S = 0.4
EXPECTED = (ua.UaError, OSError, TimeoutError, DeviceProblem)
"""What ends a session with a sentence (collect.py); anything else would be a surprise."""


class Watch:
    """How long the loop's thread worked on without a turn for others, and how large the process became."""

    def __init__(self) -> None:
        self.stall_s = self.late_s = 0.0
        self.least = self.most = _memory()

    async def run(self) -> None:
        while True:
            cpu, wall = time.thread_time(), time.perf_counter()
            await asyncio.sleep(_TICK_S)
            # CPU, not wall: on a busy machine the process waits for its turn.
            self.stall_s = max(self.stall_s, time.thread_time() - cpu)
            self.late_s = max(self.late_s, time.perf_counter() - wall - _TICK_S)
            self.most = max(self.most, _memory())


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Victim:
    """Asks a mad server, over one connection after the other, for all that the gateway asks a server for."""

    def __init__(self, url: str, items: list[Item], link: RecordingLink) -> None:
        self._url = url
        self._items = items
        self._link = link
        self._nodes = [ua.NodeId(f"Line1.Tag{n}", 1) for n in range(5)]
        self.frames = self.connections = self.values = 0
        self.outcomes: Counter[str] = Counter()

    async def ask(self, frames: int) -> None:
        until = self.frames + frames
        while self.frames < until:
            try:
                async with self.connected() as session:
                    while self.frames < until and await self._some(session):
                        pass
            except EXPECTED as error:
                self.outcomes[f"connecting: {type(error).__name__}"] += 1

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Session]:
        client = Client(self._url, timeout=_ANSWER_S)
        selftest.guard(client)
        self.connections += 1
        try:
            await client.connect_socket()
            await client.send_hello()
            await client.open_secure_channel()
            session = Session(client, "mad", opcua.Settings(url=self._url), Choice("none", "none", b""), "")
            session.limits.update(read=1000, browse=1000)
            yield session
        finally:
            protocol = client.uaclient.protocol
            if protocol is not None and protocol.transport is not None:
                protocol.transport.abort()
            client.disconnect_socket()

    async def _some(self, session: Session) -> bool:
        """Send a request of each kind at once, as a session does; False: the connection is of no use now."""
        questions = self._questions(session)
        answers = await asyncio.gather(*(question() for question in questions), return_exceptions=True)
        self.frames += len(questions)
        for answer in answers:
            self.outcomes[type(answer).__name__] += 1
            if isinstance(answer, BaseException) and not isinstance(answer, EXPECTED):
                raise answer
        protocol = session.client.uaclient.protocol
        return (
            protocol is not None
            and protocol.transport is not None
            and not any(isinstance(answer, TimeoutError) for answer in answers)
        )

    def _questions(self, session: Session) -> list[Callable[[], Awaitable[object]]]:
        values = [ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value) for node in self._nodes]
        items = ua.CreateMonitoredItemsParameters()
        return [
            lambda: self.published(session),
            lambda: reads.access_levels(session, self._nodes),
            lambda: browsing.children(session, self._nodes),
            lambda: session.read(values),
            lambda: session.ask(ua.CreateMonitoredItemsRequest, items, ua.CreateMonitoredItemsResponse),
        ]

    async def published(self, session: Session, timeout_s: float = _ANSWER_S) -> None:
        answer = await session.services._send_request(publish_request([]), timeout_s)
        published = await notifications.decode(answer)
        batch = Batch()
        for columns in published.changes:
            take_changes(columns, self._items, self._link, batch, lambda _item, _reading: True)
        self.values += len(batch)


@pytest.fixture
async def capture(tmp_path_factory: pytest.TempPathFactory, free_port: Port) -> Path:
    """Record once what node-opcua answers to all that the gateway asks."""
    folder = tmp_path_factory.getbasetemp() / "node-opcua"
    file, port = folder / "capture", free_port()
    if file.exists():
        return file
    folder.mkdir(exist_ok=True)
    async with (
        running(NODE_OPCUA, free_port(), "--types", "yes") as server,
        captured(port, server.port) as record,
    ):
        for mode in ("subscribe", "poll"):
            link = RecordingLink("mill", folder)
            url = f"opc.tcp://127.0.0.1:{port}/node"
            settings = opcua.Settings(url=url, mode=mode, publishing_interval_ms=50, poll_interval_ms=50)
            async with collecting(link, settings):
                await link.until(lambda link=link: len(link.emitted) >= 25, timeout=20)
        record.save(file)
    return file


@pytest.fixture(autouse=True)
def as_in_the_daemon() -> Iterator[None]:
    return_what_is_freed()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Beside:
    """What a sound server wrote and what came of it, compared as it goes: kept, it would count as growth."""

    def __init__(self, server: Peer, link: RecordingLink) -> None:
        self._server, self._link = server, link
        self.missing: set[Row] = set()
        self.surplus: set[Row] = set()
        """Came without having been written, or again."""

    def compare(self) -> bool:
        """Take what there is by now; True: all of it has come once."""
        self.missing |= set(self._server.ledger)
        self.surplus |= self._link.rows()
        for taken in (self._server.ledger, self._link.emitted, self._link.committed):
            taken.clear()
        self._link.commit_walls.clear()
        self._link.batches.clear()
        both = self.missing & self.surplus
        self.missing -= both
        self.surplus -= both
        return not (self.missing or self.surplus)

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.compare()


@asynccontextmanager
async def beside_a_sound_device(tmp_path: Path, free_port: Port) -> AsyncIterator[None]:
    """Enter while a sound server writes; at the end all that it wrote is there."""
    async with running(NODE_OPCUA, free_port(), "--tags", "20") as server:
        link = RecordingLink("sound", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=100, sampling_interval_ms=0)
        listed_tags = tags({f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(20)})
        async with collecting(link, settings, listed_tags), asyncio.TaskGroup() as group:
            await link.until(lambda: len(link.emitted) >= 20, timeout=20)
            beside = Beside(server, link)
            comparing = group.create_task(beside.go_on())
            server.say("write", 10**6, 500)
            yield
            await server.ask("stop", answer="done")
            await link.until(beside.compare)
            comparing.cancel()
        assert not link.gaps
        assert {run.error for run in link.runs} == {""}


@asynccontextmanager
async def watched() -> AsyncIterator[Watch]:
    watch = Watch()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def a_victim(url: str, tmp_path: Path) -> Victim:
    link = RecordingLink("mad", tmp_path)
    nodes = {f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(40)}
    items = listed(Device("mad", tags(nodes)), opcua.Settings(url=url), link, {})
    return Victim(url, items, link)


@pytest.mark.timeout(max(60, FRAMES // 200))
async def test_mutated_frames(tmp_path: Path, free_port: Port, capture: Path) -> None:
    async with (
        running(HOSTILE, free_port(), "--capture", str(capture), "--seed", SEED) as mad,
        beside_a_sound_device(tmp_path, free_port),
    ):
        victim = a_victim(mad.url, tmp_path)
        await victim.ask(WARM)
        async with watched() as watch:
            began, cpu = time.monotonic(), time.process_time()
            await victim.ask(FRAMES)
            took, cpu = time.monotonic() - began, time.process_time() - cpu
    sys.stdout.write(
        f"\n{victim.frames} frames over {victim.connections} connections in {took:.0f} s ({cpu:.0f} s CPU): "
        f"{(watch.most - watch.least) / 2**20:.1f} MiB more at most, the loop held for "
        f"{watch.stall_s * 1e3:.0f} ms (late {watch.late_s * 1e3:.0f} ms), {victim.values} values, "
        f"{dict(victim.outcomes)}\n"
    )
    assert watch.most - watch.least <= MOST_MEMORY
    assert watch.stall_s < MOST_STALL_S
    # The harness reaches the decoders: not everything is refused at the door.
    assert victim.values > FRAMES // 100 and victim.connections < FRAMES // 10


async def asked_for(value: str, count: int, tmp_path: Path, free_port: Port, capture: Path) -> Watch:
    """Have a value sent so many times, one after the other."""
    async with running(HOSTILE, free_port(), "--capture", str(capture), "--only", value) as mad:
        victim = a_victim(mad.url, tmp_path)
        async with victim.connected() as session, watched() as watch:
            for _ in range(count):
                with contextlib.suppress(*EXPECTED):
                    await victim.published(session, 10.0)
    return watch


@pytest.mark.timeout(60)
async def test_values_made_to_hang_a_decoder(tmp_path: Path, free_port: Port, capture: Path) -> None:
    watch = await asked_for("each", 3 * len(VALUES), tmp_path, free_port, capture)
    assert watch.most - watch.least <= MOST_MEMORY
    assert watch.stall_s < MOST_STALL_S


@pytest.mark.timeout(60)
async def test_the_mutant_holds_the_loop(
    tmp_path: Path, free_port: Port, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the bound on what is decoded in the loop a value holds it, and the watch sees that."""
    for module in (datavalues, variants):
        monkeypatch.setattr(module, "AT_ONCE", 10**9)
    watch = await asked_for("diagnostics", 5, tmp_path, free_port, capture)
    assert watch.stall_s >= MOST_STALL_S
