"""Streams as who records sees them: what is in them, what is missing, and how they end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.controls.sensor_nodes import (
    AdcConfiguration,
    NoAnswer,
    NodeBusy,
    NodeLost,
    NodeProblem,
    NotConnected,
    SensorNodes,
)
from gateway.model import GatewayError
from gateway.protocols.icotronic import TagSettings
from gateway.protocols.icotronic import stream as stream_module
from tests.icotronic.plant import (
    CHUCK,
    MASKS,
    SPINDLE,
    Link,
    Plant,
    Stopwatch,
    collecting,
    expected,
    nodes,
    plant,
    recording,
    take,
)

SLOW = AdcConfiguration(oversampling_rate=256)
"""2381 values a second, so that a busy machine has time."""


@pytest.fixture
async def stage() -> AsyncIterator[Plant]:
    async with plant() as entered:
        yield entered


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link("tools", tmp_path)


@pytest.fixture
async def control(stage: Plant, link: Link) -> AsyncIterator[SensorNodes]:
    """A session with a connected node."""
    async with collecting(link, stage.settings()):
        control = await nodes(link)
        await control.connect(SPINDLE)
        yield control


async def test_every_mask_gives_the_counts_of_the_formulas_and_every_counter(
    stage: Plant, control: SensorNodes
) -> None:
    """Defect 2 of ICOapi: masks without the first channel give nulls and raw counts."""
    await control.set_sensor_map((3, 1, 7))
    for channels in MASKS:
        async with recording(control).stream(channels) as stream:
            began_us = time.time_ns() // 1000
            frames = await take(stream, 300)
            n = len(frames)
            assert stream.node.name == SPINDLE and stream.adc == AdcConfiguration()
            assert stream.channels == channels and (stream.received, stream.lost) == (n, 0)
            active = sum(channels)
            assert (stream.values_per_frame, stream.samples_per_frame) == ((3, 3), (2, 1), (3, 1))[active - 1]
            assert stream.channel_rate_hz == pytest.approx(9523.8095 / active)
        assert frames.counters == bytes(k % 256 for k in range(n)) and frames.lost == 0
        assert list(frames.counts) == expected(channels, (3, 1, 7), range(n))
        assert len(frames.ts) == n and frames.ts == sorted(frames.ts)
        spacing_us = (frames.ts[-1] - frames.ts[0]) / (n - 1)
        assert spacing_us == pytest.approx(1e6 * stream.values_per_frame / 9523.8095, rel=1e-3)
        assert abs(frames.ts[0] - began_us) < 5_000_000
        assert stage.streaming == []
    forms = [data[0] for data in stage.asked(0x04, 0x00) if data[0] != 0x80]
    assert forms == [0x8A, 0x92, 0x99, 0xA2, 0xA9, 0xB1, 0xB9]


async def test_no_channel_is_refused_before_anything_is_asked(stage: Plant, control: SensorNodes) -> None:
    """Defect 3 of ICOapi: with all channels off it says 200, and is stuck."""
    before = len(stage.stu.heard)
    with pytest.raises(ValueError, match="none of the three channels is active"):
        async with recording(control).stream((False, False, False)):
            raise AssertionError("it streams")
    assert [data for _, _, data in stage.stu.heard[before:] if data == b"\x80"] == []
    async with recording(control).stream((False, True, False)) as stream:
        await take(stream, 10)


async def test_without_a_node_there_is_no_stream(control: SensorNodes) -> None:
    await control.disconnect()
    with pytest.raises(NotConnected):
        async with recording(control).stream((True, False, False)):
            raise AssertionError("it streams")


@pytest.mark.parametrize("percent", [1, 10, 50])
async def test_the_loss_that_is_told_is_the_loss_that_was(
    stage: Plant, control: SensorNodes, percent: int
) -> None:
    stage.stu.faults.frame_loss = percent / 100
    node = stage.node(SPINDLE)
    async with recording(control).stream((True, True, False)) as stream:
        frames = await take(stream, 4000)
        told = 100 * stream.lost / (stream.lost + stream.received)
        assert (frames.lost, len(frames)) == (stream.lost, stream.received)
    true = 100 * node.counted.lost / (node.counted.lost + node.counted.sent)
    assert told == pytest.approx(true, abs=1) and told == pytest.approx(percent, abs=3)
    numbers, n = [], -1
    for counter in frames.counters:
        n += (counter - n - 1) % 256 + 1
        numbers.append(n)
    assert list(frames.counts) == expected((True, True, False), (1, 2, 3), numbers)


async def test_a_silence_of_more_than_256_frames_is_counted_too(stage: Plant, control: SensorNodes) -> None:
    """A counter has eight bits; ICOapi and the icotronic library see only the rest of 256."""
    async with recording(control).stream((True, True, True)) as stream:
        await take(stream, 200)
        stage.stu.faults.lose_frames = 256 * 15
        await take(stream, 4000)
        assert stage.stu.faults.lose_frames == 0
        assert stream.lost == 256 * 15


async def test_an_acquisition_that_is_read_while_it_streams_loses_nothing(
    stage: Plant, control: SensorNodes
) -> None:
    await control.set_adc(SLOW)
    async with recording(control).stream((True, False, False)) as stream:
        taking = asyncio.create_task(take(stream, 700))
        for _ in range(5):
            assert await control.rssi_dbm() == -51
            assert await control.adc() == SLOW
            assert await control.supply_voltage_v() > 2
        frames = await taking
        assert frames.lost == 0
        assert list(frames.counts) == expected((True, False, False), (1, 2, 3), range(len(frames)))


async def test_one_recording_at_a_time_and_nothing_changes_under_it(
    stage: Plant, control: SensorNodes
) -> None:
    async with recording(control).stream((True, False, False)) as stream:
        with pytest.raises(NodeBusy, match="Spindle streams for a recording: end that first"):
            async with recording(control).stream((False, True, False)):
                raise AssertionError("it streams")
        with pytest.raises(NodeBusy):
            await control.set_adc(SLOW)
        with pytest.raises(NodeBusy):
            await control.set_sensor_map((3, 3, 3))
        frames = await take(stream, 300)
        assert frames.lost == 0
    assert stage.node(SPINDLE).sensors == [1, 2, 3]


async def test_a_disconnection_ends_the_stream_with_a_sentence(stage: Plant, control: SensorNodes) -> None:
    with pytest.raises(NodeLost, match="Spindle was disconnected"):
        async with recording(control).stream((True, False, False)) as stream:
            await take(stream, 10)
            await control.disconnect()
            await take(stream, 1_000_000)
    assert stage.streaming == [] and stage.stu.connected is None


async def test_who_is_too_slow_loses_frames_and_is_told(
    stage: Plant, control: SensorNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defect 13 of ICOapi: memory grows with what is not taken."""
    monkeypatch.setattr(stream_module, "_MOST_WAITING_S", 0.0)  # then it is 1000 frames
    await control.set_adc(SLOW)
    async with recording(control).stream((True, True, False)) as stream:
        while stream.lost == 0:
            await asyncio.sleep(0.1)
        node = stage.node(SPINDLE)
        held = await take(stream, stream.received)
        assert len(held) <= 1000 and 0 < held.lost <= stream.lost
        assert held.counters == bytes((held.lost + k) % 256 for k in range(len(held)))
        assert stream.received + stream.lost <= node.counted.sent


# -- a node that is lost -------------------------------------------------------------------------------


@pytest.mark.seed_row(20)
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"unreachable": [SPINDLE]}, "the radio link broke"),
        ({"hang": True}, "(it has sent nothing for|the sensor node was asked to)"),
    ],
)
async def test_a_node_lost_while_it_streams_is_noticed_within_6_s(
    stage: Plant, link: Link, control: SensorNodes, fault: dict[str, Any], why: str
) -> None:
    """Defect 10 of ICOapi: 16.5 s of silence, then no error, and a wrong state for ever."""
    await control.set_adc(SLOW)
    why = rf"device tools: the sensor node Spindle \(08-.*\) was lost: {why}"
    async with Stopwatch() as watch:
        with pytest.raises(NodeLost, match=why):
            async with recording(control).stream((True, False, False)) as stream:
                await take(stream, 100)
                stage.stu.faults.tell(fault)
                watch.seconds = 0
                await take(stream, 1_000_000)
        assert watch.seconds < 6
    assert control.connected is None
    await link.until(lambda: link.report_now[0] == "degraded" and "was lost" in link.report_now[1])
    stage.stu.faults.tell({"reset": True, "find_s": 0.03})
    await control.connect(SPINDLE)
    async with recording(control).stream((True, False, False)) as stream:
        await take(stream, 10)
    await link.until(lambda: link.report_now == ("running", "Spindle is connected"))


@pytest.mark.parametrize(
    ("fault", "why"),
    [({"unreachable": [SPINDLE]}, "the radio link broke"), ({"hang": True}, "has not answered")],
)
async def test_a_node_lost_while_it_is_idle_is_noticed_within_6_s(
    stage: Plant, link: Link, control: SensorNodes, fault: dict[str, Any], why: str
) -> None:
    stage.stu.faults.tell(fault)
    async with Stopwatch() as watch:
        await link.until(lambda: control.connected is None)
        assert watch.seconds < 6
    await link.until(lambda: link.report_now[0] == "degraded" and why in link.report_now[1])
    # The STU may still hold the link to a node that hangs: it is ended, or nobody could connect again.
    await link.until(lambda: stage.stu.connected is None)


@pytest.mark.parametrize("streams", [True, False])
async def test_a_lost_node_is_noticed_within_6_s_however_many_ask(
    stage: Plant, link: Link, control: SensorNodes, streams: bool
) -> None:
    await control.set_adc(SLOW)
    told: list[NodeProblem] = []

    async def ask() -> None:
        try:
            while True:
                await control.supply_voltage_v()
                await asyncio.sleep(0.05)
        except NodeProblem as problem:
            told.append(problem)

    async with Stopwatch() as watch, asyncio.TaskGroup() as clients:
        for _ in range(4):
            clients.create_task(ask())
        if streams:
            with pytest.raises(NodeLost, match="Spindle"):
                async with recording(control).stream((True, False, False)) as stream:
                    await take(stream, 100)
                    stage.stu.faults.hang, watch.seconds = True, 0
                    await take(stream, 1_000_000)
        else:
            stage.stu.faults.hang, watch.seconds = True, 0
            while control.connected is not None:
                await asyncio.sleep(0.02)
        assert watch.seconds < 6
        while len(told) < 4:
            await asyncio.sleep(0.02)
        assert watch.seconds < 6, "they need not find out one after the other"
    assert {type(problem) for problem in told} <= {NodeLost, NoAnswer, NotConnected}
    # Nobody wants it back: there is nothing to look after any more.
    await link.until(lambda: link.report_now[0] == "degraded")
    with pytest.raises(NotConnected, match="was lost"):
        await control.disconnect()
    await link.until(lambda: link.report_now == ("running", "no sensor node is connected"))


async def test_a_node_that_the_stu_knows_to_be_gone_is_lost_without_asking_it(
    stage: Plant, link: Link
) -> None:
    async with collecting(link, stage.settings(), {"x": TagSettings(signal="channel_1")}):
        control = await nodes(link)
        await control.connect(SPINDLE)
        stage.stu.connected = None
        before = len(stage.stu.heard)
        await link.until(lambda: control.connected is None)
        await link.until(lambda: "the radio link broke" in link.report_now[1])
        assert not [can_id for _, can_id, _ in stage.stu.heard[before:] if can_id & 0x1F == 1]


async def test_a_lost_node_leaves_a_gap_in_its_tags(stage: Plant, link: Link) -> None:
    async with collecting(link, stage.settings(node=SPINDLE), {"rssi": TagSettings(signal="rssi")}):
        await link.until(lambda: "rssi" in link.newest())
        stage.stu.faults.unreachable = [SPINDLE]
        await link.until(lambda: link.report_now[0] == "degraded")
        before = time.time_ns() // 1000
        assert link.gaps == []
        stage.stu.faults.unreachable = []
        await link.until(lambda: link.gaps)
        ((from_us, to_us, reason, count),) = link.gaps
        assert from_us < before < to_us and "Spindle" in reason and "was lost" in reason and count is None
        await link.until(lambda: link.report_now == ("running", "Spindle is connected"))


# -- cancellation --------------------------------------------------------------------------------------


async def test_a_stream_that_is_cancelled_at_any_moment_runs_no_longer(
    stage: Plant, link: Link, control: SensorNodes
) -> None:
    async def record() -> None:
        async with recording(control).stream((True, False, False)) as stream:
            await take(stream, 1_000_000)

    for n in range(24):
        recorder = asyncio.create_task(record())
        await asyncio.sleep(0.004 * n)
        recorder.cancel()
        await asyncio.sleep(0.002 * (n % 5))
        recorder.cancel()  # an impatient caller
        with suppress(asyncio.CancelledError):
            await recorder
        assert recorder.cancelled()
        await link.until(lambda: stage.streaming == [] and not control_busy(control))
    assert control.connected is not None
    async with recording(control).stream((True, False, False)) as stream:
        assert (await take(stream, 100)).lost == 0


def control_busy(control: SensorNodes) -> bool:
    return bool(control._radio.turn.locked())  # type: ignore[attr-defined]


@pytest.mark.parametrize("wait_s", [0.0, 0.2, 0.5, 0.7, 0.9, 1.1, 1.4])
async def test_a_session_that_is_cancelled_at_any_moment_leaves_no_stream_and_no_link(
    stage: Plant, link: Link, wait_s: float
) -> None:
    tags = {"x": TagSettings(signal="channel_1")}
    async with collecting(link, stage.settings(node=SPINDLE, stream=True), tags):
        await asyncio.sleep(wait_s)
    await asyncio.sleep(stage.stu.faults.connect_s + 0.1)
    assert stage.streaming == [] and stage.stu.connected is None


async def test_the_end_of_the_session_is_told_to_who_records(stage: Plant, link: Link) -> None:
    async with collecting(link, stage.settings()) as session:
        control = await nodes(link)
        await control.connect(CHUCK)
        with pytest.raises(GatewayError, match="the session with the STU has ended"):
            async with recording(control).stream((True, False, False)) as stream:
                await take(stream, 10)
                session.cancel()
                await take(stream, 1_000_000)
    assert stage.streaming == [] and stage.stu.connected is None


async def test_a_stream_is_left_without_an_error_while_the_session_ends(
    stage: Plant, control: SensorNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.TaskGroup() as over:
        pass
    async with recording(control).stream((True, False, False)) as stream:
        await take(stream, 10)
        monkeypatch.setattr(control._radio, "_group", over)  # type: ignore[attr-defined]


async def test_the_end_of_a_stream_that_nobody_confirms_ends_the_link(
    stage: Plant, link: Link, control: SensorNodes
) -> None:
    async with recording(control).stream((True, False, False)) as stream:
        await take(stream, 10)
        stage.stu.faults.lose_requests = 5
    await link.until(lambda: stage.stu.connected is None and stage.streaming == [])
    assert control.connected is None
