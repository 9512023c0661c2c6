"""What the STU and its nodes are asked, against the simulated ones and their faults."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.controls.devices import Browse
from gateway.controls.sensor_nodes import (
    AdcConfiguration,
    ConnectedNode,
    NoAnswer,
    NodeBusy,
    NodeNotFound,
    NotConnected,
    Refused,
    SensorNodes,
    Unsupported,
)
from gateway.protocols.icotronic import finding, messages
from gateway.protocols.icotronic.requests import Requester
from gateway.protocols.icotronic.units import Node
from tests.icotronic.plant import (
    CHUCK,
    MAC_OF,
    OLD_TOOL,
    SPINDLE,
    Foreign,
    Link,
    Plant,
    Stopwatch,
    collecting,
    nodes,
    plant,
)

EXT = 0x80000000


@pytest.fixture
async def stage() -> AsyncIterator[Plant]:
    async with plant() as entered:
        yield entered


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link("tools", tmp_path)


@pytest.fixture
async def control(stage: Plant, link: Link) -> AsyncIterator[SensorNodes]:
    async with collecting(link, stage.settings()):
        yield await nodes(link)


async def test_the_nodes_that_advertise_themselves_are_found_in_their_order(control: SensorNodes) -> None:
    found = await control.search()
    assert [(node.number, node.name, node.mac) for node in found] == [
        (n, name, MAC_OF[name]) for n, name in enumerate((SPINDLE, CHUCK, OLD_TOOL))
    ]
    assert [node.rssi_dbm for node in found] == [-51, -64, -72]


async def test_the_nodes_in_range_can_be_browsed(link: Link, control: SensorNodes) -> None:
    await control.connect(CHUCK)
    browser = next(each for each in link.controls if isinstance(each, Browse))
    page = await browser.browse(None, 2, None)
    assert [(node.id, node.name, node.type, node.value) for node in page.nodes] == [
        (MAC_OF[CHUCK], CHUCK, "connected", None),
        (MAC_OF[SPINDLE], SPINDLE, "sensor node", -51),
    ]
    rest = await browser.browse(None, 2, page.next)
    assert [node.name for node in rest.nodes] == [OLD_TOOL] and rest.next is None
    signals = await browser.browse(MAC_OF[SPINDLE], 100, None)
    assert [(node.id, node.unit) for node in signals.nodes][2:4] == [("channel_3", "V"), ("rssi", "dBm")]
    assert not (await browser.browse("rssi", 100, None)).nodes
    with pytest.raises(KeyError):
        await browser.browse("Spindle", 100, None)


async def test_a_node_is_connected_by_name_mac_and_number(stage: Plant, control: SensorNodes) -> None:
    ways = [(SPINDLE, SPINDLE), (MAC_OF[CHUCK].replace("-", ":").lower(), CHUCK), (2, OLD_TOOL)]
    for who, name in ways:
        assert await control.connect(who) == ConnectedNode(name, MAC_OF[name])
        assert control.connected is not None and stage.stu.connected is stage.node(name)
        assert await control.rssi_dbm() == stage.node(name).rssi_dbm
        await control.disconnect()
        assert control.connected is None and stage.stu.connected is None


async def test_what_a_node_and_the_stu_say_of_themselves(control: SensorNodes) -> None:
    await control.connect(CHUCK)
    about = await control.node_information()
    assert (about.name, about.mac, about.serial_number) == (CHUCK, MAC_OF[CHUCK], "STH-0002")
    assert (about.firmware_version, about.hardware_version, about.release_name) == (
        "3.2.1",
        "1.4.0",
        "Valerie",
    )
    assert await control.supply_voltage_v() == pytest.approx(10_000 * 5.7 * 3.3 / 65_535, rel=1e-12)
    stu = await control.stu_information()
    assert (stu.name, stu.mac, stu.serial_number) == ("STU", "08-6B-D7-01-DE-10", "STU-0001")


async def test_only_one_node_is_connected_at_a_time(control: SensorNodes) -> None:
    with pytest.raises(NotConnected, match="device tools: no sensor node is connected"):
        await control.rssi_dbm()
    with pytest.raises(NotConnected):
        await control.disconnect()
    first = await control.connect(SPINDLE)
    assert await control.connect(MAC_OF[SPINDLE]) == first
    with pytest.raises(NodeBusy, match=r"Spindle \(08-6B-D7-01-DE-81\) is connected: disconnect it first"):
        await control.connect(CHUCK)


async def test_a_node_that_is_not_there_is_named_with_those_that_are(
    control: SensorNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.icotronic.asking.CONNECT_S", 1.5)
    with pytest.raises(NodeNotFound, match="no sensor node Nobody was found within 2 s") as caught:
        await control.connect("Nobody")
    assert "found: Spindle, Chuck, OldTool" in str(caught.value) and "is it awake" in str(caught.value)
    assert await control.connect(SPINDLE)


async def test_a_node_that_cannot_be_connected_is_told_from_one_that_is_not_there(
    stage: Plant, control: SensorNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.icotronic.asking.CONNECT_S", 1.5)
    stage.stu.faults.refuse_connects = -1
    with pytest.raises(NodeNotFound, match="Chuck is found but could not be connected"):
        await control.connect(CHUCK)


async def test_the_name_is_at_most_eight_bytes(stage: Plant, control: SensorNodes) -> None:
    await control.connect(SPINDLE)
    assert await control.rename("Fräse-1") == ConnectedNode(SPINDLE, MAC_OF[SPINDLE])
    assert stage.stu.connected is not None and stage.stu.connected.name.decode() == "Fräse-1"
    assert control.connected == ConnectedNode("Fräse-1", MAC_OF[SPINDLE])
    for name in ("Fräsen-1", "", "  ", "a\tb", "123456789"):
        with pytest.raises(ValueError, match="1 to 8 printable bytes"):
            await control.rename(name)
    with pytest.raises(NodeBusy):
        await control.rename("x", CHUCK)


async def test_a_node_that_is_not_connected_is_connected_to_rename_it(
    stage: Plant, control: SensorNodes
) -> None:
    old = stage.node(OLD_TOOL)
    assert await control.rename("NewTool", MAC_OF[OLD_TOOL]) == ConnectedNode(OLD_TOOL, MAC_OF[OLD_TOOL])
    assert old.name == b"NewTool" and stage.stu.connected is None and control.connected is None


async def test_what_others_ask_waits_until_a_node_is_renamed(stage: Plant, control: SensorNodes) -> None:
    """It is connected, renamed and let go in one turn: nobody's link is cut, and no other node renamed."""
    old = stage.node(OLD_TOOL)
    renaming = asyncio.create_task(control.rename("NewTool", MAC_OF[OLD_TOOL]))
    connecting = asyncio.create_task(control.connect(MAC_OF[OLD_TOOL]))
    await asyncio.gather(renaming, connecting)
    assert connecting.result().name == "NewTool" == old.name.decode()
    assert control.connected == connecting.result() and stage.stu.connected is old
    assert await control.rssi_dbm() == -72
    await control.disconnect()

    async def swap() -> None:
        while stage.stu.connected is None:
            await asyncio.sleep(0)
        with suppress(NotConnected):
            await control.disconnect()
        await control.connect(CHUCK)

    await asyncio.gather(control.rename("OldTool", MAC_OF[OLD_TOOL]), swap())
    assert (old.name, stage.stu.connected) == (b"OldTool", stage.node(CHUCK))


async def test_a_search_ends_also_where_nodes_come_and_go(
    stage: Plant, control: SensorNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.icotronic.finding._LONGEST_S", 1.0)
    activate, rounds = finding.Stu.activate, 0

    async def look(stu: finding.Stu) -> None:
        nonlocal rounds
        rounds += 1
        node = stage.node(CHUCK)
        node.product = replace(node.product, mac=bytes((8, 0x6B, 0xD7, 1, 0xDE, rounds)))
        await activate(stu)

    monkeypatch.setattr(finding.Stu, "activate", look)
    assert [node.name for node in await control.search()] == [SPINDLE, CHUCK, OLD_TOOL]
    assert rounds > 1


@pytest.mark.seed_row(10, 16)
async def test_every_adc_configuration_is_taken_as_it_was_given(stage: Plant, control: SensorNodes) -> None:
    await control.connect(SPINDLE)
    assert await control.adc() == AdcConfiguration()
    for wanted in (
        AdcConfiguration(127, 256, 4096, 6.6),
        AdcConfiguration(1, 1, 1, 1.25),
        AdcConfiguration(2, 4, 64, 1.65),
        AdcConfiguration(16, 3, 128, 2.7),
    ):
        await control.set_adc(wanted)
        assert await control.adc() == wanted
        assert stage.node(SPINDLE).values_hz == pytest.approx(wanted.sample_rate_hz)


@pytest.mark.parametrize(
    "wrong", [(0, 8, 64, 3.3), (128, 8, 64, 3.3), (2, 5, 64, 3.3), (2, 8, 65, 3.3), (2, 8, 64, 3)]
)
def test_what_no_adc_can_do_is_refused_with_what_it_can(wrong: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="out of range: it is"):
        AdcConfiguration(*wrong)


async def test_the_sensors_of_the_channels(stage: Plant, control: SensorNodes) -> None:
    await control.connect(SPINDLE)
    await control.set_sensor_map((4, 0, 200))
    assert await control.sensor_map() == (4, 2, 200)
    with pytest.raises(ValueError, match="1 to 255"):
        await control.set_sensor_map((1, 2, 256))
    await control.disconnect()
    await control.connect(OLD_TOOL)
    with pytest.raises(Unsupported, match="its firmware knows no sensors"):
        await control.sensor_map()
    with pytest.raises(Unsupported):
        await control.set_sensor_map((1, 2, 3))
    assert await control.rssi_dbm() == -72


async def test_a_restart_ends_the_connection(stage: Plant, control: SensorNodes) -> None:
    await control.connect(SPINDLE)
    await control.reset_node()
    assert control.connected is None and stage.stu.connected is None
    await control.connect(SPINDLE)
    await control.reset_stu()
    assert control.connected is None and stage.stu.resets == 1
    await control.connect(CHUCK)


# -- what goes wrong -----------------------------------------------------------------------------------


async def test_lost_requests_are_asked_again(stage: Plant, control: SensorNodes) -> None:
    await control.connect(SPINDLE)
    stage.stu.faults.lose_requests = 3
    assert await control.rssi_dbm() == -51
    stage.stu.faults.lose_acks = 2
    assert await control.adc() == AdcConfiguration()


async def test_an_error_acknowledgement_is_a_sentence(stage: Plant, control: SensorNodes) -> None:
    await control.connect(SPINDLE)
    stage.stu.faults.error_acks, stage.stu.faults.error_number = 1, 3
    with pytest.raises(
        Refused, match="device tools: the sensor node was asked to tell its RSSI and refuses: writing"
    ):
        await control.rssi_dbm()
    assert await control.rssi_dbm() == -51


async def test_requests_at_the_same_time_wait_for_each_other(stage: Plant, control: SensorNodes) -> None:
    """Defect 7 of ICOapi: parallel requests fail, for acknowledgements do not say whom they answer."""
    await control.connect(SPINDLE)
    asked = (
        control.rssi_dbm,
        control.adc,
        control.sensor_map,
        control.supply_voltage_v,
        control.node_information,
    )
    answers = await asyncio.gather(*(ask() for ask in asked * 4))
    assert all(answers[n] == answers[n % 5] for n in range(20))
    assert answers[0] == -51 and answers[2] == (1, 2, 3)


async def test_doubled_acknowledgements_answer_no_other_request(stage: Plant, control: SensorNodes) -> None:
    # The second copy comes while the next request waits for its own answer.
    stage.stu.faults.doubled_acks, stage.stu.faults.delay_s = True, 0.04
    found = await control.search()
    assert {node.mac: node.name for node in found} == {MAC_OF[name]: name for name in MAC_OF}
    # By its MAC a node is found by asking one number after the other for nothing else.
    await control.connect(MAC_OF[OLD_TOOL])
    assert len(stage.asked(0x00, 0x0B)) < 60
    assert await control.rssi_dbm() == -72


async def test_a_late_acknowledgement_answers_no_other_request() -> None:
    """Each answer comes later than the first attempt waits, so that a second one follows it.

    That of a MAC does not say which number it is of (firmware).
    """
    late: list[asyncio.TimerHandle] = []

    async def send(can_id: int, data: bytes) -> None:
        answer = bytes((data[0], 0xFF, data[1], 0, 0, 0, 0, 0))
        late.append(asyncio.get_running_loop().call_later(0.35, requester.take, ack_id, answer))

    requester = Requester("tools", send)
    first, second = (messages.bluetooth("tell a MAC", messages.STU, messages.MAC, n) for n in (1, 2))
    ack_id = first.ack_id
    assert (await requester.ask(first))[2] == 1
    assert (await requester.ask(second))[2] == 2
    assert len(late) == 4


async def test_a_slow_stream_has_time_for_the_frame_that_answers() -> None:
    sent: list[bytes] = []

    async def send(_can_id: int, data: bytes) -> None:
        sent.append(data)
        asyncio.get_running_loop().call_later(0.6, requester.take, messages.DATA_ID, b"\xa2\0" + bytes(6))

    requester = Requester("tools", send)
    await Node("tools", requester.ask).start_stream(0xA2, frame_rate_hz=2.0)
    assert sent == [b"\xa2"]


@pytest.mark.parametrize("wrong", [True, False])
async def test_acknowledgements_with_wrong_bytes_are_taken_as_the_firmware_sends_them(
    stage: Plant, control: SensorNodes, wrong: bool
) -> None:
    stage.stu.faults.wrong_bytes = wrong
    await control.connect(MAC_OF[CHUCK])
    await control.rename("Collet")
    assert stage.stu.connected is not None and stage.stu.connected.name == b"Collet"


async def test_foreign_traffic_is_ignored(stage: Plant, control: SensorNodes) -> None:
    """11-bit frames with all ids, acknowledgements to others, and errors to others."""
    heard = Foreign()
    stage.bus.attach(heard)
    await control.connect(SPINDLE)

    async def disturb() -> None:
        for n in range(1_000_000):
            stage.bus.send(n % 0x800, bytes([n & 0xFF] * 8))
            stage.bus.send(EXT | 0x0B << 14 | 17 << 6 | 14, bytes((12, 0xFF, 1, 0, 0, 0, 0, 0)))
            stage.bus.send(EXT | 0x0B << 14 | 1 << 12 | 1 << 6 | 14, b"\2")
            stage.bus.send(EXT | 0x18FEF100 | n & 0xFF, bytes(8))
            await asyncio.sleep(0.001)

    disturbing = asyncio.create_task(disturb())
    for _ in range(10):
        assert await control.rssi_dbm() == -51
        assert await control.sensor_map() == (1, 2, 3)
    disturbing.cancel()
    with suppress(asyncio.CancelledError):
        await disturbing
    assert len({frame.can_id for frame in heard}) > 100


async def test_who_gives_up_waiting_disturbs_nobody(stage: Plant, control: SensorNodes) -> None:
    await control.connect(SPINDLE)
    for wait_s in (0.0, 0.001, 0.005, 0.02):
        asked = asyncio.create_task(control.supply_voltage_v())
        await asyncio.sleep(wait_s)
        asked.cancel()
        assert await control.rssi_dbm() == -51
        assert await control.adc() == AdcConfiguration()


async def test_a_connection_that_was_given_up_is_ended(
    stage: Plant, link: Link, control: SensorNodes
) -> None:
    for wait_s in (0.1, 0.3, 0.5, 0.7, 0.9):
        connecting = asyncio.create_task(control.connect(SPINDLE))
        await asyncio.sleep(wait_s)
        connecting.cancel()
        with suppress(asyncio.CancelledError):
            await connecting
            await control.disconnect()
        await link.until(lambda: stage.stu.connected is None and not stage.stu.state()["bluetooth"])
        assert control.connected is None


async def test_a_mute_stu_gives_no_answer_in_seconds(stage: Plant, control: SensorNodes) -> None:
    stage.stu.faults.mute = True
    async with Stopwatch() as watch:
        with pytest.raises(NoAnswer, match="the STU was asked to tell a name and has not answered"):
            await control.stu_information()
        assert watch.seconds < 5
