"""What of a node reaches the store."""

import asyncio
import math
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.controls.devices import TagState, TagStates
from gateway.controls.sensor_nodes import AdcConfiguration, ConnectedNode, StreamFrames
from gateway.demo.bus.signals import count
from gateway.model import Batch, Device, Flag
from gateway.protocols.icotronic import Settings, TagSettings
from gateway.protocols.icotronic.stream import NodeStream
from gateway.protocols.icotronic.tags import Decimator
from tests.icotronic.plant import (
    CHUCK,
    MAC_OF,
    SPINDLE,
    Link,
    Plant,
    collecting,
    nodes,
    plant,
    recording,
    take,
)
from tests.stepped_clock import DAY_US, SteppedClock

VOLTS = 3.3 / 65_535
NODE = ConnectedNode(SPINDLE, MAC_OF[SPINDLE])


@pytest.fixture
async def stage() -> AsyncIterator[Plant]:
    async with plant() as entered:
        yield entered


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link("tools", tmp_path)


# -- decimation, without a bus -----------------------------------------------------------------------------


def decimator(link: Link, tags: dict[str, TagSettings], channels: tuple[bool, bool, bool]) -> Decimator:
    stream = NodeStream(NODE, channels, AdcConfiguration(), link.clock, queued=False)
    return Decimator.of(Device("tools", tags), Settings(), link, stream)


def rows(link: Link, *batches: Batch) -> dict[str, list[tuple[int, Any]]]:
    names = {series: name for name, series in link.names.items()}
    found: dict[str, list[tuple[int, Any]]] = {}
    for batch in batches:
        for sample in batch:
            found.setdefault(names[sample.series], []).append((sample.ts, sample.value))
    return found


def two_channels(ts: list[int], lost: int = 0) -> StreamFrames:
    """Counts of the first channel are the milliseconds, of the second 1000 more."""
    counts = [value for at_us in ts for value in (at_us // 1000 % 1000, at_us // 1000 % 1000 + 1000)]
    return StreamFrames(ts, bytes(n & 0xFF for n in range(len(ts))), array("H", counts), lost)


async def test_an_interval_gives_one_sample_of_the_kind_that_is_wanted(link: Link) -> None:
    kinds = ("newest", "mean", "min", "max", "rms")
    tags = {kind: TagSettings(signal="channel_1", aggregate=kind, keep_interval_ms=100) for kind in kinds}
    tags["down"] = TagSettings(
        signal="channel_3", aggregate="max", scale=-2.0, offset=5.0, keep_interval_ms=100
    )
    thin = decimator(link, tags, (True, False, True))
    ts = [1_000_000 + n * 10_000 for n in range(25)]
    got = rows(link, thin.take(two_channels(ts[:13]), 2), thin.take(two_channels(ts[13:]), 2), thin.rest())
    first = range(0, 100, 10)
    assert got["newest"] == [
        (1_090_000, pytest.approx(90 * VOLTS)),
        (1_190_000, pytest.approx(190 * VOLTS)),
        (1_240_000, pytest.approx(240 * VOLTS)),
    ]
    assert got["mean"][0] == (1_090_000, pytest.approx(45 * VOLTS))
    assert got["min"][1] == (1_190_000, pytest.approx(100 * VOLTS))
    assert got["max"][1] == (1_190_000, pytest.approx(190 * VOLTS))
    assert got["rms"][0][1] == pytest.approx(math.sqrt(sum((n * VOLTS) ** 2 for n in first) / 10))
    # The largest physical value comes of the smallest count where the scale is negative.
    assert got["down"][0] == (1_090_000, pytest.approx(-2 * 1000 * VOLTS + 5))
    assert {len(samples) for samples in got.values()} == {3}


async def test_the_rms_is_that_of_the_physical_values(link: Link) -> None:
    tag = TagSettings(signal="channel_1", aggregate="rms", scale=75.76, offset=-125.0, keep_interval_ms=1000)
    thin = decimator(link, {"x": tag}, (True, False, True))
    ts = [5_000_000 + n * 1000 for n in range(1000)]
    got = rows(link, thin.take(two_channels(ts), 2), thin.rest())
    physical = [n * VOLTS * 75.76 - 125 for n in range(1000)]
    assert got["x"][0][1] == pytest.approx(math.sqrt(sum(p * p for p in physical) / 1000), rel=1e-9)


async def test_every_sample_with_its_own_time_where_the_interval_is_0(link: Link) -> None:
    thin = decimator(link, {"x": TagSettings(signal="channel_2", keep_interval_ms=0)}, (False, True, False))
    frames = StreamFrames([1_000_000, 1_000_315], b"\0\1", array("H", [1, 2, 3, 4, 5, 6]))
    got = rows(link, thin.take(frames, 2))["x"]
    assert [ts for ts, _ in got] == [999_790, 999_895, 1_000_000, 1_000_105, 1_000_210, 1_000_315]
    assert [value for _, value in got] == pytest.approx([n * VOLTS for n in range(1, 7)])


async def test_a_clock_that_steps_back_stops_nothing(link: Link) -> None:
    thin = decimator(link, {"x": TagSettings(signal="channel_1", keep_interval_ms=100)}, (True, True, False))
    ts = [2_000_000 + n * 10_000 for n in range(20)] + [1_000_000 + n * 10_000 for n in range(20)]
    got = rows(link, thin.take(two_channels(ts), 2), thin.rest())["x"]
    assert [at for at, _ in got] == [2_090_000, 2_190_000, 1_090_000, 1_190_000]


async def test_lost_frames_are_a_hole_only_where_samples_are_missing(link: Link) -> None:
    thin = decimator(link, {"x": TagSettings(signal="channel_1", keep_interval_ms=100)}, (True, True, False))
    thin.take(two_channels([1_000_000, 1_010_000]), 2)
    thin.take(two_channels([1_060_000, 1_070_000], lost=4), 2)
    assert thin.take_missed().to_us == 0
    thin.take(two_channels([2_000_000, 2_010_000], lost=92), 2)
    missed = thin.take_missed()
    assert (missed.from_us, missed.to_us, missed.count) == (1_070_000, 2_010_000, 0)
    every = decimator(link, {"x": TagSettings(signal="channel_1", keep_interval_ms=0)}, (True, True, False))
    every.take(two_channels([1_000_000]), 2)
    every.take(two_channels([1_060_000], lost=5), 2)
    assert every.take_missed().count == 5 and every.take_missed().count == 0


def test_a_reading_has_neither_aggregate_nor_keep_interval() -> None:
    for wrong in ({"aggregate": "mean"}, {"keep_interval_ms": 0}):
        with pytest.raises(ValueError, match="rssi is taken every `poll_interval`"):
            TagSettings(signal="rssi", **wrong)  # type: ignore[arg-type]


def test_how_many_samples_come_at_most() -> None:
    assert Settings().most_samples_per_s({}) == pytest.approx(3 + 3 / 60)
    tags = {"x": TagSettings(signal="channel_1", keep_interval_ms=100), "y": TagSettings(signal="rssi")}
    assert Settings(poll_interval_s=2).most_samples_per_s(tags) == pytest.approx(10.5)
    assert Settings(keep_interval_ms=0).most_samples_per_s({"z": TagSettings(signal="channel_1")}) is None


# -- with a node ---------------------------------------------------------------------------------------


async def test_without_tags_everything_of_the_connected_node_is_taken(stage: Plant, link: Link) -> None:
    async with collecting(link, stage.settings(node=SPINDLE, poll_interval_s=1)):
        await link.until(lambda: {"Spindle.rssi", "Spindle.supply_voltage"} <= link.newest().keys())
        assert not [name for name in link.newest() if "channel" in name or "loss" in name]
        assert link.newest()["Spindle.rssi"].value == -51
        control = await nodes(link)
        async with recording(control).stream((True, False, True)) as stream:
            await take(stream, 100)
            await link.until(lambda: "Spindle.data_loss" in link.newest())
        await link.until(lambda: {"Spindle.channel_1", "Spindle.channel_3"} <= link.newest().keys())
        assert "Spindle.channel_2" not in link.newest()
        assert link.newest()["Spindle.data_loss"].value == 0
        assert link.units["Spindle.rssi"] == "dBm" and link.units["Spindle.channel_1"] == "V"
        assert link.units["Spindle.data_loss"] == "%" and link.units["Spindle.supply_voltage"] == "V"
        flags = link.newest()["Spindle.channel_1"].flags
        assert flags and not flags & ~(Flag.OWN_TIME | Flag.SERVER_TIME | Flag.UNSYNCED)


async def test_tags_of_another_node_stay_without_values(stage: Plant, link: Link) -> None:
    tags = {
        "mine": TagSettings(signal="rssi", node=SPINDLE),
        "by-mac": TagSettings(signal="rssi", node="08:6b:d7:01:de:81", scale=2.0),
        "any": TagSettings(signal="rssi"),
        "other": TagSettings(signal="rssi", node=CHUCK),
    }
    async with collecting(link, stage.settings(node=MAC_OF[SPINDLE]), tags):
        await link.until(lambda: len(link.newest()) == 3)
        values = {name: sample.value for name, sample in link.newest().items()}
        assert values == {"mine": -51, "by-mac": -102, "any": -51}


async def test_a_node_streams_all_the_time_for_its_tags_and_makes_way_for_a_recording(
    stage: Plant, link: Link
) -> None:
    tags = {"x": TagSettings(signal="channel_2", keep_interval_ms=0, scale=1 / VOLTS)}
    async with collecting(link, stage.settings(node=SPINDLE, stream=True), tags):
        await link.until(lambda: len(link.emitted) > 300)
        assert stage.node(SPINDLE).streams == 0x92
        assert [round(sample.value) for sample in link.emitted[:300]] == [  # type: ignore[arg-type]
            count(2, n) for n in range(300)
        ]
        assert ("running", "Spindle streams channel 2") in link.reports
        control = await nodes(link)
        await control.set_adc(AdcConfiguration(oversampling_rate=256))
        await link.until(lambda: stage.node(SPINDLE).streams == 0x92)
        async with recording(control).stream((True, True, True)) as stream:
            before = len(link.emitted)
            frames = await take(stream, 200)
            assert frames.lost == 0 and stage.node(SPINDLE).streams == 0xB9
            await link.until(lambda: len(link.emitted) > before)
        await link.until(lambda: stage.node(SPINDLE).streams == 0x92)


async def test_a_node_that_returns_streams_again_behind_a_gap(stage: Plant, link: Link) -> None:
    tags = {"x": TagSettings(signal="channel_1", keep_interval_ms=100)}
    async with collecting(link, stage.settings(node=SPINDLE, stream=True), tags):
        await link.until(lambda: len(link.emitted) > 3)
        stage.stu.faults.unreachable = [SPINDLE]
        await link.until(lambda: link.report_now[0] == "degraded")
        last_us = link.newest()["x"].ts
        stage.stu.faults.unreachable = []
        await link.until(lambda: link.newest()["x"].ts > last_us)
        ((from_us, to_us, reason, _),) = link.gaps
        assert "was lost" in reason and last_us <= from_us < to_us
        again_us = min(sample.ts for sample in link.emitted if sample.ts > last_us)
        # The hole begins with the last sample, though the loss was noticed later.
        assert from_us - last_us < 300_000 and abs(to_us - again_us) < 5_000_000


async def test_a_clock_that_is_set_while_a_node_is_away_makes_no_gap_longer(stage: Plant, link: Link) -> None:
    clock = link.clock = SteppedClock()
    tags = {"x": TagSettings(signal="channel_1", keep_interval_ms=100)}
    async with collecting(link, stage.settings(node=SPINDLE, stream=True), tags):
        await link.until(lambda: len(link.emitted) > 3)
        stage.stu.faults.unreachable = [SPINDLE]
        await link.until(lambda: link.report_now[0] == "degraded")
        clock.set_by_us = 3 * DAY_US
        stage.stu.faults.unreachable = []
        await link.until(lambda: link.gaps)
        ((from_us, to_us, reason, _),) = link.gaps
        assert "was lost" in reason and 0 < to_us - from_us < DAY_US


async def test_the_api_tells_why_a_tag_has_no_values(stage: Plant, link: Link) -> None:
    tags = {
        "x": TagSettings(signal="channel_1"),
        "y": TagSettings(signal="channel_2", node=SPINDLE),
        "battery": TagSettings(signal="supply_voltage"),
        "other": TagSettings(signal="rssi", node=CHUCK),
    }
    async with collecting(link, stage.settings(), tags):
        control = await nodes(link)
        assert isinstance(control, TagStates)

        def details() -> dict[str, str]:
            return {name: state.detail for name, state in control.tag_states().items()}

        assert details()["x"] == "no sensor node is connected"
        assert details()["y"] == "Spindle is not connected"
        await control.connect(SPINDLE)
        await link.until(lambda: control.tag_states()["battery"].alive)
        states = control.tag_states()
        assert states["battery"] == TagState("polled", "Spindle supply_voltage", alive=True)
        assert states["other"].detail == "Chuck is not connected, Spindle is" and not states["other"].alive
        assert "Spindle does not stream" in states["x"].detail and states["x"].way == "subscribed"
        async with recording(control).stream((True, False, False)) as stream:
            await take(stream, 10)
            assert details()["x"] == "" and details()["y"] == "Spindle streams other channels now"
        await link.until(lambda: control.tag_states()["x"].alive)
        assert not control.tag_states()["y"].alive


async def test_a_full_budget_drops_samples_with_a_gap(stage: Plant, link: Link) -> None:
    tags = {"x": TagSettings(signal="channel_1", keep_interval_ms=0)}
    async with collecting(link, stage.settings(node=SPINDLE, stream=True), tags):
        await link.until(lambda: link.emitted)
        link.full.clear()
        before = len(link.emitted)
        node = stage.node(SPINDLE)
        sent = node.counted.sent
        await link.until(lambda: node.counted.sent > sent + 1000)
        assert len(link.emitted) == before
        link.full.set()
        await link.until(lambda: link.gaps)
        ((from_us, to_us, reason, count),) = link.gaps
        assert (
            from_us < to_us
            and "the memory for those that wait was full" in reason
            and count is not None
            and count > 1000
        )
        await link.until(lambda: len(link.emitted) > before)


async def test_a_budget_that_stays_full_leaves_a_gap_too(stage: Plant, link: Link) -> None:
    tags = {"x": TagSettings(signal="channel_1", keep_interval_ms=0)}
    async with collecting(link, stage.settings(node=SPINDLE, stream=True), tags):
        await link.until(lambda: link.emitted)
        link.full.clear()
        node = stage.node(SPINDLE)
        sent = node.counted.sent
        await link.until(lambda: node.counted.sent > sent + 200)
    ((from_us, to_us, reason, count),) = link.gaps
    assert from_us < to_us and f"{count} samples were lost" in reason and count is not None and count >= 300


async def test_a_poll_on_request_takes_the_condition(stage: Plant, link: Link) -> None:
    async with collecting(link, stage.settings(), {"rssi": TagSettings(signal="rssi")}):
        control = await nodes(link)
        link.polls.asked.put_nowait(77)
        await link.until(lambda: any(run.ended for run in link.runs if run.id == 77))
        assert next(run for run in link.runs if run.id == 77).problems == ["no sensor node is connected"]
        await control.connect(SPINDLE)
        await link.until(lambda: link.emitted)
        stage.node(SPINDLE).rssi_dbm = -40
        link.polls.asked.put_nowait(78)
        await link.until(lambda: link.newest()["rssi"].value == -40)
        (run,) = (run for run in link.runs if run.id == 78)
        assert run.kind == "poll" and run.samples == 1


async def test_lost_frames_of_a_tag_that_keeps_each_are_gaps(stage: Plant, link: Link) -> None:
    tags = {"x": TagSettings(signal="channel_1", keep_interval_ms=0)}
    stage.stu.faults.frame_loss = 0.1
    async with collecting(link, stage.settings(node=SPINDLE, stream=True, poll_interval_s=1), tags):
        await link.until(lambda: len(link.gaps) >= 2)
        await asyncio.sleep(0)
    counted = SimpleNamespace(lost=stage.node(SPINDLE).counted.lost)
    missing = sum(count or 0 for _, _, _, count in link.gaps)
    # Every frame that was lost before the end is in one of the gaps, three samples each.
    assert counted.lost * 3 - 300 < missing <= counted.lost * 3
    assert all("lost on the radio" in reason for _, _, reason, _ in link.gaps)
