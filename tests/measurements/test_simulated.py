"""A measurement of the simulated STU, through the protocol, the store, and the child process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from gateway.controls.sensor_nodes import AdcConfiguration, NotConnected, SensorNodes, Unsupported
from gateway.demo.bus.signals import count
from gateway.measurements import Channel, Ended, LiveFrames, Loss, Measurement, MeasurementRefused, Plan
from tests.icotronic.plant import OLD_TOOL, SPINDLE, Link, Plant, collecting, nodes, plant
from tests.measurements.conftest import Gateway
from tests.measurements.node import DEVICE, Node
from tests.measurements.reading import MASKS, SENSORS, attributes, physical, table

C = TypeVar("C")
Mask = tuple[bool, bool, bool]
MAP = (3, 1, 7)


class Simulated(Gateway):
    """A gateway whose device is the protocol at a simulated bus."""

    link: Link
    stage: Plant

    def find(self, device: str, contract: type[C]) -> C | None:
        return next((each for each in self.link.controls if isinstance(each, contract)), None)


@pytest.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[Simulated]:
    gateway = Simulated(tmp_path, Node())
    gateway.link = Link(DEVICE, tmp_path)
    async with plant() as gateway.stage, collecting(gateway.link, gateway.stage.settings()):
        await (await nodes(gateway.link)).connect(SPINDLE)
        yield gateway


def asked(mask: Mask, **more: object) -> Plan:
    channels = [
        Channel(number, sensor) if on else None for on, number, sensor in zip(mask, MAP, SENSORS, strict=True)
    ]
    return Plan((channels[0], channels[1], channels[2]), **more)  # type: ignore[arg-type]


async def measured(
    gateway: Simulated, plan: Plan, frames: int
) -> tuple[Measurement, list[LiveFrames], list[Loss]]:
    """Measure until so many frames came; return what a client saw of it."""
    seen: list[LiveFrames] = []
    losses: list[Loss] = []
    async with gateway.opened() as (measurements, _):
        with measurements.watch(DEVICE) as tap:
            m = await measurements.start(DEVICE, plan)
            stopping: asyncio.Task[Measurement] | None = None
            async for item in tap:
                if isinstance(item, LiveFrames):
                    seen.append(item)
                if isinstance(item, Loss):
                    losses.append(item)
                if isinstance(item, Ended):
                    break
                if stopping is None and m.received >= frames:
                    stopping = asyncio.create_task(measurements.stop(DEVICE))
            assert stopping is not None
            await stopping
        await measurements.finished(m.name)
    return m, seen, losses


def unwrapped(counters: bytes) -> list[int]:
    """Return the numbers of frames, where never 256 in a row are missing."""
    numbers, n = [], -1
    for counter in counters:
        n += (counter - n - 1) % 256 + 1
        numbers.append(n)
    return numbers


@pytest.mark.seed_row(16)
@pytest.mark.parametrize("mask", MASKS)
async def test_live_and_file_agree_with_the_formulas(simulated: Simulated, mask: Mask) -> None:
    m, seen, losses = await measured(simulated, asked(mask, adc=AdcConfiguration(2, 8, 64, 2.5)), 400)
    counters = b"".join(item.counters for item in seen)
    assert counters == bytes(n % 256 for n in range(m.received)), "complete"
    assert m.loss == 0 and losses[-1].overall == 0 and not m.interrupted
    each = 3 if sum(mask) == 1 else 1
    rows = table(simulated.files / m.file)
    assert len(rows) == m.received * each
    assert rows["counter"].tolist() == [n % 256 for n in range(m.received) for _ in range(each)]
    ts = [us for item in seen for us in item.ts]
    assert rows["timestamp"].tolist() == [us - ts[0] for us in ts for _ in range(each)]
    for place, (on, number, sensor) in enumerate(zip(mask, MAP, SENSORS, strict=True)):
        live = [value for item in seen for value in item.values[place] or ()]
        want = [physical(count(number, n), sensor, 2.5) for n in range(len(rows))] if on else []
        assert live == want
        if on:
            assert np.array_equal(rows["xyz"[place]], np.array(want, dtype="<f4"))
    taken = [us for item in seen for us in item.sample_ts]
    assert taken[each - 1 :: each] == ts, "the last sample of a frame is as old as the frame"
    period_us = 1e6 * sum(mask) / m.adc.sample_rate_hz
    if each == 3:
        assert {round(b - a - period_us) for a, b in zip(taken[::3], taken[1::3], strict=True)} <= {-1, 0, 1}
    assert simulated.stage.node(SPINDLE).sensors == [
        number if on else before for on, number, before in zip(mask, MAP, (1, 2, 3), strict=True)
    ]


async def test_the_sensors_of_an_earlier_measurement_do_not_stay(simulated: Simulated) -> None:
    for number in (5, 1):
        m, _, _ = await measured(simulated, Plan((Channel(number, SENSORS[0]), None, None)), 30)
        rows = table(simulated.files / m.file)
        want = [physical(count(number, n), SENSORS[0], 3.3) for n in range(len(rows))]
        assert np.array_equal(rows["x"], np.array(want, dtype="<f4")), f"sensor {number}"


@pytest.mark.seed_row(18)
@pytest.mark.parametrize("percent", [1, 10, 50])
async def test_the_loss_that_is_told_is_the_loss_that_was(simulated: Simulated, percent: int) -> None:
    simulated.stage.stu.faults.frame_loss = percent / 100
    m, seen, losses = await measured(simulated, asked((True, True, True)), 4000)
    counted = simulated.stage.node(SPINDLE).counted
    true = 100 * counted.lost / (counted.lost + counted.sent)
    assert 100 * m.loss == pytest.approx(true, abs=1) and true == pytest.approx(percent, abs=3)
    assert losses[-1].overall == m.loss
    there = attributes(simulated.files / m.file)
    assert (int(there["frames_received"]), int(there["frames_lost"])) == (m.received, m.lost)
    numbers = unwrapped(b"".join(item.counters for item in seen))
    rows = table(simulated.files / m.file)
    want = [physical(count(3, n), SENSORS[0], 3.3) for n in numbers]
    assert np.array_equal(rows["x"], np.array(want, dtype="<f4"))


async def test_frames_that_were_not_taken_in_time_are_counted_and_leave_a_gap(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.icotronic.stream._MOST_WAITING_S", 0.0)  # then it is 1000 frames
    async with simulated.opened() as (measurements, store):
        record, node = store.record, simulated.stage.node(SPINDLE)

        async def late(*part: Any) -> Any:
            before = node.counted.sent
            while part[2] == 0 and node.counted.sent < before + 2000:  # as while the store's memory is full
                await asyncio.sleep(0.05)
            return await record(*part)

        monkeypatch.setattr(store, "record", late)
        m = await measurements.start(DEVICE, asked((True, True, True)))
        while not m.lost or m.received < 2500:
            await asyncio.sleep(0.05)
        await measurements.stop(DEVICE)
        await measurements.finished(m.name)
        (gap,) = [gap for _, gap in await store.gaps()]
        assert gap.count == m.lost > 0 and m.name in gap.reason
    there = attributes(simulated.files / m.file)
    assert (int(there["frames_received"]), int(there["frames_lost"])) == (m.received, m.lost)
    rows = table(simulated.files / m.file)
    numbers = [n for n in range(m.received + m.lost) if n < (first := gap_after(rows)) or n >= first + m.lost]
    want = [physical(count(3, n), SENSORS[0], 3.3) for n in numbers]
    assert np.array_equal(rows["x"], np.array(want, dtype="<f4"))


def gap_after(rows: "np.ndarray[Any, Any]") -> int:
    """Return after how many rows the times make their longest step."""
    return int(np.argmax(np.diff(rows["timestamp"].astype("i8")))) + 1


async def test_a_node_that_hangs_ends_it_with_a_sentence(simulated: Simulated) -> None:
    async with simulated.opened() as (measurements, store):
        m = await measurements.start(DEVICE, asked((True, False, False)))
        while m.received < 300:
            await asyncio.sleep(0.01)
        simulated.stage.stu.faults.hang = True
        await measurements.finished(m.name)
        assert m.interrupted and SPINDLE in m.ending
        assert len(table(simulated.files / m.file)) == 3 * m.received
        assert any(m.name in gap.reason and "interrupted" in gap.reason for _, gap in await store.gaps())


async def test_old_firmware_measures_its_own_sensors_only(simulated: Simulated) -> None:
    control = simulated.find(DEVICE, SensorNodes)  # type: ignore[type-abstract]
    assert control is not None
    await control.disconnect()
    await control.connect(OLD_TOOL)
    async with simulated.opened() as (measurements, _):
        with pytest.raises(Unsupported):
            await measurements.start(DEVICE, asked((True, True, False)))
        own = Plan((Channel(1), None, Channel(3)), duration_s=0.2, disconnect_afterwards=True)
        m = await measurements.start(DEVICE, own)
        await measurements.finished(m.name)
        assert m.node == OLD_TOOL and m.received > 0
        while control.connected is not None:
            await asyncio.sleep(0.01)
        with pytest.raises(NotConnected):
            await measurements.start(DEVICE, own)
        with pytest.raises(MeasurementRefused):
            await measurements.stop(DEVICE)


async def test_a_device_that_is_taken_away_ends_it(tmp_path: Path) -> None:
    """An edit of the YAML restarts the device; its session takes the stream along."""
    gateway = Simulated(tmp_path, Node())
    gateway.link = Link(DEVICE, tmp_path)
    async with plant() as gateway.stage, gateway.opened() as (measurements, _):
        async with collecting(gateway.link, gateway.stage.settings()):
            await (await nodes(gateway.link)).connect(SPINDLE)
            m = await measurements.start(DEVICE, asked((True, True, True)))
            while m.received < 300:
                await asyncio.sleep(0.01)
        await measurements.finished(m.name)
        assert m.interrupted and m.ending
        assert len(table(gateway.files / m.file)) == m.received >= 300
        assert measurements.running(DEVICE) is None
