"""How a session begins and ends: no bus, no STU, a link left over from a crash."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from gateway.controls.sensor_nodes import ConnectedNode, NodeProblem, Recording, SensorNodes
from gateway.demo.bus.frames import Timed
from gateway.demo.bus.socketcand import serve
from gateway.model import Device, DeviceProblem, GatewayError
from gateway.protocols import icotronic
from gateway.protocols.icotronic import Settings, TagSettings
from tests.icotronic.plant import (
    CHUCK,
    MAC_OF,
    OLD_TOOL,
    SPINDLE,
    Link,
    Plant,
    collecting,
    nodes,
    plant,
    recording,
    supervised,
    take,
)


@pytest.fixture
async def stage() -> AsyncIterator[Plant]:
    async with plant() as entered:
        yield entered


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link("tools", tmp_path)


@pytest.mark.seed_row(1)
async def test_it_works_over_socketcand_and_returns_by_itself_when_the_bus_does(
    stage: Plant, link: Link, free_port: Callable[[], int]
) -> None:
    """Defect 6 of ICOapi: ready without a bus, and never tried again."""
    port = free_port()
    settings = Settings(interface="socketcand", host="127.0.0.1", port=port)
    async with supervised(link, settings) as keeper:
        await link.until(lambda: keeper.health.state == "failed")
        assert f"127.0.0.1:{port}" in keeper.health.detail and link.controls == []
        async with serve(stage.bus, port):
            control = await nodes(link)
            await link.until(lambda: keeper.health.state == "running")
            await control.connect(CHUCK)
            async with recording(control).stream((True, False, False)) as stream:
                frames = await take(stream, 500)
                assert frames.lost == 0 and frames.counters == bytes(n % 256 for n in range(len(frames)))
        await link.until(lambda: keeper.health.state == "failed")
        assert link.controls == []
        # What was connected when the bus went is connected no more once it is back.
        assert stage.stu.connected is stage.node(CHUCK)
        async with serve(stage.bus, port):
            await link.until(lambda: keeper.health.state == "running")
            assert stage.stu.connected is None


async def test_a_bus_that_goes_while_it_streams_is_told_to_who_records(
    stage: Plant, link: Link, free_port: Callable[[], int]
) -> None:
    port = free_port()
    settings = Settings(interface="socketcand", host="127.0.0.1", port=port)
    async with AsyncExitStack() as server, supervised(link, settings):
        await server.enter_async_context(serve(stage.bus, port))
        control = await nodes(link)
        await control.connect(CHUCK)
        with pytest.raises(GatewayError, match=f"the session with the STU has ended: .*127.0.0.1:{port}"):
            async with recording(control).stream((True, False, False)) as stream:
                await take(stream, 10)
                await server.aclose()
                await take(stream, 1_000_000)
        assert stage.streaming == [CHUCK], "nobody could tell it"
        await server.enter_async_context(serve(stage.bus, port))
        await link.until(lambda: stage.streaming == [] and stage.stu.connected is None)
        control = await nodes(link)
        await control.connect(CHUCK)
        async with recording(control).stream((True, False, False)) as stream:
            assert (await take(stream, 100)).counters[:3] == b"\0\1\2"


async def test_nonsense_in_answer_to_requests_ends_nothing(stage: Plant, link: Link) -> None:
    """Something on the bus answers before the STU does, with any payload, errors too."""
    chance = random.Random(4)

    def shout(frames: Sequence[Timed], _wall_us: int) -> None:
        for _, can_id, data in frames:
            if can_id & 0x2000 and chance.random() < 0.4:
                ack = can_id & 0x9FFFD000 | (can_id & 0x1F) << 6 | (can_id >> 6 & 0x1F)
                ack |= chance.choice((0, 0, 0, 0x1000))
                echoed = data[: chance.choice((0, 1, 2, 2))]
                nonsense = echoed + chance.randbytes(chance.randrange(9 - len(echoed)))
                stage.bus.send(ack, nonsense)

    async with collecting(link, stage.settings()) as session:
        control = await nodes(link)
        await control.connect(SPINDLE)
        quiet = stage.bus.attach(shout)
        asks: list[Callable[[], Awaitable[object]]] = [
            control.rssi_dbm,
            control.supply_voltage_v,
            control.adc,
            control.sensor_map,
            control.node_information,
            control.stu_information,
        ]
        for n in range(36):
            with suppress(NodeProblem):
                await asks[n % len(asks)]()
        quiet()
        assert not session.done()
        await asyncio.sleep(0.3)
        with suppress(NodeProblem):
            await control.disconnect()
        await control.connect(SPINDLE)
        async with recording(control).stream((True, True, False)) as stream:
            frames = await take(stream, 100)
        assert frames.lost == 0 and frames.counters[:2] == b"\0\1"


async def test_an_stu_without_power_is_named_and_tried_again(stage: Plant, link: Link) -> None:
    stage.stu.faults.mute = True
    with pytest.raises(
        DeviceProblem, match="the STU was asked to tell its state and has not answered"
    ) as caught:
        await icotronic.run(Device("tools"), stage.settings(), link)
    assert "is it powered" in str(caught.value) and "1 Mbit/s" in str(caught.value)
    stage.stu.faults.mute = False
    async with collecting(link, stage.settings()):
        await nodes(link)


async def test_an_stu_that_loses_its_power_ends_the_session(stage: Plant, link: Link) -> None:
    with pytest.raises(DeviceProblem, match="is it powered"):
        async with collecting(link, stage.settings(node=SPINDLE)) as session:
            await link.until(lambda: link.report_now == ("running", "Spindle is connected"))
            stage.stu.faults.mute = True
            await asyncio.wait([session])
    assert link.controls == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_link_left_over_from_a_crash_is_adopted_if_it_is_to_the_wanted_node(
    stage: Plant, link: Link, stream: bool
) -> None:
    """Defect 11 of ICOapi: after a restart nothing can be connected until the STU is reset."""
    node = left_over(stage, SPINDLE, streams=stream)
    async with collecting(link, stage.settings(node=MAC_OF[SPINDLE]), {"rssi": TagSettings(signal="rssi")}):
        control = await nodes(link)
        assert control.connected == ConnectedNode(SPINDLE, MAC_OF[SPINDLE])
        assert node.streams is None and stage.asked(0x00, 0x0B)[1:2] != [b"\x09" + bytes(7)]
        await link.until(lambda: "rssi" in link.newest())
        async with recording(control).stream((True, False, True)) as stream_:
            frames = await take(stream_, 100)
            assert frames.counters == bytes(n % 256 for n in range(len(frames)))


@pytest.mark.seed_row(8)
@pytest.mark.parametrize("wanted", [None, SPINDLE])
async def test_a_link_left_over_that_nobody_wants_is_ended(
    stage: Plant, link: Link, wanted: str | None
) -> None:
    node = left_over(stage, CHUCK, streams=True)
    async with collecting(link, stage.settings(node=wanted)):
        control = await nodes(link)
        assert stage.stu.connected is not node and node.streams is None
        if wanted is None:
            assert (await control.connect(CHUCK)).name == CHUCK
        else:
            await link.until(lambda: control.connected == ConnectedNode(SPINDLE, MAC_OF[SPINDLE]))


async def test_a_link_left_over_to_a_node_that_hangs_is_ended(stage: Plant, link: Link) -> None:
    left_over(stage, SPINDLE, streams=False)
    stage.stu.faults.hang = True
    async with collecting(link, stage.settings(node=SPINDLE)):
        await nodes(link)
        assert stage.stu.connected is None
        stage.stu.faults.hang = False
        await link.until(lambda: link.report_now == ("running", "Spindle is connected"))


async def test_the_wanted_node_is_connected_as_soon_as_it_is_there(
    stage: Plant, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.icotronic.session._CONNECT_S", 1.0)
    monkeypatch.setattr("gateway.protocols.icotronic.session._AGAIN_S", 0.2)
    stage.stu.faults.unreachable = [CHUCK]
    async with collecting(link, stage.settings(node=CHUCK)):
        control = await nodes(link)
        await link.until(lambda: link.report_now[0] == "degraded")
        assert "no sensor node Chuck was found" in link.report_now[1]
        stage.stu.faults.unreachable = []
        await link.until(lambda: control.connected is not None)
        await link.until(lambda: link.report_now == ("running", "Chuck is connected"))
        # What the API disconnects stays so.
        await control.disconnect()
        await asyncio.sleep(1.5)
        assert control.connected is None and link.report_now == ("running", "no sensor node is connected")
        await control.connect(CHUCK)


async def test_looking_for_the_wanted_node_gives_way_to_who_asks_for_another(
    stage: Plant, link: Link
) -> None:
    stage.stu.faults.unreachable = [SPINDLE]
    async with collecting(link, stage.settings(node=SPINDLE)):
        control = await nodes(link)
        await link.until(lambda: stage.asked(0x00, 0x0B))
        async with asyncio.timeout(6):
            assert [node.name for node in await control.search()] == [CHUCK, OLD_TOOL]
            await control.connect(CHUCK)
        stage.stu.faults.unreachable = []
        await asyncio.sleep(0.5)
        assert control.connected is not None and control.connected.name == CHUCK
        # Once the other one is let go, the wanted one is connected.
        await control.disconnect()
        await link.until(lambda: link.report_now == ("running", "Spindle is connected"))


async def test_a_run_tells_that_it_is_heard_also_when_nothing_is_stored(stage: Plant, link: Link) -> None:
    async with collecting(link, stage.settings(), {"x": TagSettings(signal="channel_1")}):
        control = await nodes(link)
        await control.connect(SPINDLE)
        (run,) = link.runs
        before = run.heard
        await link.until(lambda: run.heard > before)
        assert run.kind == "subscription" and run.samples == 0


async def test_two_sessions_are_independent(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        entered: list[tuple[Plant, SensorNodes]] = []
        for n in range(2):
            stage, link = await stack.enter_async_context(plant()), Link(f"tools-{n}", tmp_path)
            await stack.enter_async_context(collecting(link, stage.settings()))
            entered.append((stage, await nodes(link)))
        for (_, control), who in zip(entered, (SPINDLE, CHUCK), strict=True):
            await control.connect(who)
            assert isinstance(control, Recording)
        streams = [
            await stack.enter_async_context(recording(control).stream((True, True, True)))
            for _, control in entered
        ]
        for stream in streams:
            assert (await take(stream, 200)).lost == 0


def left_over(stage: Plant, name: str, *, streams: bool) -> object:
    """Leave the STU as a gateway does that loses its power."""
    node = stage.stu.connected = stage.node(name)
    if streams:
        stage.stu.receive(time.monotonic(), 0x810023C1, b"\xb9")
        assert node.streams == 0xB9
    return node
