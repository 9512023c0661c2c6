"""A measurement from start to file, through the real store and the real child process."""

import asyncio
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.canbus import BusProblem
from gateway.controls.sensor_nodes import AdcConfiguration, NodeBusy
from gateway.measurements import (
    Channel,
    Ended,
    IftRequest,
    LiveFrames,
    Loss,
    Measurement,
    MeasurementRefused,
    Measurements,
    Plan,
)
from gateway.measurements import room as measuring_room
from gateway.measurements.room import Disk, Room
from gateway.model import Batch, Sample
from gateway.store import Store, recordings
from gateway.store.recording import decode_part
from tests.measurements.conftest import Gateway
from tests.measurements.machine import Machine, rss_mb, signal
from tests.measurements.node import DEVICE, LOST, Node
from tests.measurements.reading import MASKS, SENSORS, attributes, expected, table

Mask = tuple[bool, bool, bool]


def plan(mask: Mask = (True, False, False), **more: Any) -> Plan:
    channels = [Channel(n, sensor) if on else None for n, (on, sensor) in enumerate(zip(mask, SENSORS), 1)]  # noqa: B905
    return Plan((channels[0], channels[1], channels[2]), **more)


async def recorded(measurements: Measurements, node: Node, asked: Plan) -> Measurement:
    """Measure until the node has no more frames, and wait for the file."""
    m = await measurements.start(DEVICE, asked)
    assert node.streaming is not None
    await node.streaming.drained.wait()
    stopped = await measurements.stop(DEVICE)
    assert stopped is m
    return await measurements.finished(m.name)


async def test_a_stop_does_not_wait_for_the_ticks_of_a_long_commit_interval(
    gateway: Gateway, node: Node
) -> None:
    node.frames = 100
    async with gateway.opened(commit_interval_s=60) as (measurements, _):
        await measurements.start(DEVICE, plan())
        assert node.streaming is not None
        await node.streaming.drained.wait()
        async with asyncio.timeout(6):
            assert (await measurements.stop(DEVICE)).received == 100


async def blocks(store: Store, name: str) -> list[Any]:
    return [decode_part(data).frames async for data in store.recording(name)]


@pytest.mark.parametrize("mask", MASKS)
async def test_live_store_and_file_agree_with_the_formulas(gateway: Gateway, node: Node, mask: Mask) -> None:
    node.frames, seen = 700, list[Any]()
    node.configuration = AdcConfiguration(2, 8, 64, 2.5)
    want = expected(mask, 700, node.configuration)
    async with gateway.opened() as (measurements, store):
        with measurements.watch(DEVICE) as tap:
            m = await measurements.start(DEVICE, plan(mask))
            assert node.streaming is not None
            await node.streaming.drained.wait()
            await asyncio.sleep(0)
            there = await store.measurements()
            await measurements.stop(DEVICE)
            kept = await blocks(store, m.name)
            await measurements.finished(m.name)
            async for item in tap:
                seen.append(item)
                if isinstance(item, Ended):
                    break
    live = [item for item in seen if isinstance(item, LiveFrames)]
    for place, axis in enumerate("xyz"):
        values = [value for item in live for value in (item.values[place] or [])]
        assert values == want[axis]
    assert [ts for item in live for ts in item.sample_ts] == want["taken"]
    assert b"".join(item.counters for item in live) == bytes(n % 256 for n in range(700))
    stream = node.streaming
    assert stream is None and [row.done for row in there] == [False]
    counts = [count for frames in kept for count in frames.counts]
    assert counts == [n * 40_503 % 65_536 for n in range(len(counts))]
    assert sum(map(len, kept)) in (0, 700), "they are there, or their file is"
    rows = table(gateway.files / m.file)
    assert rows.dtype.names == ("counter", "timestamp", *(a for a, on in zip("xyz", mask, strict=True) if on))
    for name in rows.dtype.names:
        assert np.array_equal(rows[name], np.array(want[name], dtype=rows.dtype[name])), name
    assert isinstance(seen[-2], Loss) and seen[-2].overall == 0 == seen[-1].overall_loss == m.loss
    assert (m.received, m.lost, m.interrupted) == (700, 0, False)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
async def test_the_loss_that_is_told_is_the_loss_that_was(gateway: Gateway, node: Node, share: float) -> None:
    node.frames, node.loss, node.batch = 20_000, share, 500
    async with gateway.opened() as (measurements, store):
        m = await recorded(measurements, node, plan((True, True, True)))
        assert abs(m.loss - share) < 0.01
        assert m.received + m.lost in range(19_990, 20_001), "but those at the very ends"
        (gap,) = [gap for _, gap in await store.gaps()]
        assert gap.device == DEVICE and gap.count == m.lost and m.name in gap.reason
    assert int(attributes(gateway.files / m.file)["frames_lost"]) == m.lost


async def test_the_blocks_go_once_the_file_is_there(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, store):
        m = await recorded(measurements, node, plan())
        while await store.read(recordings.recorded_bytes):
            await asyncio.sleep(0.01)
        assert await blocks(store, m.name) == []
        (row,) = await store.measurements()
        assert row.done and json.loads(row.text)["file"] == m.file
    assert [file.name for file in gateway.files.iterdir()] == [m.file]
    async with gateway.opened() as (measurements, _):
        (again,) = measurements.listed()
        assert again == m and (await measurements.finished(m.name)).file == m.file


async def test_it_ends_by_itself(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, _):
        m = await measurements.start(DEVICE, plan(duration_s=0.2))
        assert measurements.running(DEVICE) is m
        await measurements.finished(m.name)
        assert measurements.running(DEVICE) is None and node.left == 1
        assert m.ending == "" and not m.interrupted and m.received == node.frames
        with pytest.raises(MeasurementRefused, match="is not measuring"):
            await measurements.stop(DEVICE)


async def test_a_node_that_is_lost_ends_it_and_nothing_else(gateway: Gateway, node: Node) -> None:
    node.fails = LOST
    async with gateway.opened() as (measurements, store):
        with measurements.watch(DEVICE) as tap:
            m = await measurements.start(DEVICE, plan())
            async for item in tap:
                if isinstance(item, Ended):
                    assert "not heard for 6 s" in item.reason
                    break
            await measurements.finished(m.name)
        assert m.interrupted and m.received == node.frames
        assert "not heard" in attributes(gateway.files / m.file)["interrupted"]
        assert any("was interrupted" in gap.reason for _, gap in await store.gaps())
        node.fails = None
        assert (await recorded(measurements, node, plan())).received == node.frames


async def test_one_at_a_time_and_what_cannot_be_is_refused(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, _):
        first = asyncio.create_task(measurements.start(DEVICE, plan()))
        await asyncio.sleep(0)
        with pytest.raises(MeasurementRefused, match="measuring already"):
            await measurements.start(DEVICE, plan())
        await first
        with pytest.raises(MeasurementRefused, match="measuring already"):
            await measurements.start(DEVICE, plan())
        await measurements.stop(DEVICE)
        node.refuses = NodeBusy("another one streams")
        while measurements._sessions:
            await asyncio.sleep(0.01)
        with pytest.raises(NodeBusy, match="another one streams"):
            await measurements.start(DEVICE, plan())
        node.refuses = None
        with pytest.raises(MeasurementRefused, match="press cannot measure"):
            await measurements.start("press", plan())
        gateway.up = False
        with pytest.raises(MeasurementRefused, match="cannot measure now"):
            await measurements.start(DEVICE, plan())
        gateway.up = True
        await recorded(measurements, node, plan())
        assert len(measurements.listed()) == 2


async def test_the_node_is_prepared_as_asked(gateway: Gateway, node: Node) -> None:
    adc = AdcConfiguration(2, 8, 128, 3.3)
    async with gateway.opened() as (measurements, _):
        asked = Plan((Channel(4), None, Channel(3)), adc=adc, disconnect_afterwards=True, name="Fräser 7/8")
        m = await recorded(measurements, node, asked)
        assert node.asked == ["adc", "map", "disconnect"]
        assert node.map == (4, 2, 3) and m.adc == adc
        assert m.name.startswith("Fraeser_7_8__gw-1__20") and m.name.endswith("Z")
        node.asked, node.connected = [], None
        again = await recorded(measurements, node, plan((False, True, True), name="Fräser 7/8"))
        assert node.asked == [], "the channels measure these sensors already"
        third = await recorded(measurements, node, plan(name="Fräser 7/8"))
        assert node.asked == ["map"] and node.map == (1, 2, 3)
        assert len({m.file, again.file, third.file}) == 3
        assert {file.name for file in gateway.files.iterdir()} == {m.file, again.file, third.file}


async def test_what_the_budget_cannot_hold_is_refused(
    gateway: Gateway, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway.opened(max_bytes=4_000_000) as (measurements, _):
        with pytest.raises(
            MeasurementRefused, match=r"about 114\.\d MB of the store, where 2\.0 MB are left"
        ):
            await measurements.start(DEVICE, plan(duration_s=3600))
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=64 << 20))
            with pytest.raises(MeasurementRefused, match=r"MB of the disk of .* until its file is written"):
                await measurements.start(DEVICE, plan(duration_s=30))
        await measurements.start(DEVICE, plan(duration_s=30))
        await measurements.stop(DEVICE)


async def test_two_that_begin_at_once_do_not_take_the_same_room(gateway: Gateway) -> None:
    gateway.files.mkdir()
    async with gateway.opened_store(max_bytes=4_000_000) as store:
        room, frames = Room(store, gateway.files), 120_000
        found = await asyncio.gather(
            room.reserve("a", frames, 3), room.reserve("b", frames, 3), return_exceptions=True
        )
        taken, refused = ("a", "b") if found[0] is None else ("b", "a")
        assert None in found and "where 0.8 MB are left" in str(found["ab".index(refused)])
        room.release(taken)
        await room.reserve(refused, frames, 3)


async def test_the_room_is_looked_for_on_each_disk(gateway: Gateway, tmp_path: Path) -> None:
    async with gateway.opened_store() as store:
        room = Room(store, Path("/proc"))  # a disk of its own, which has no room
        with pytest.raises(MeasurementRefused, match=r"about 0\.0 MB of the disk of /proc"):
            await room.reserve("a", 100, 3)
        mb = 1_000_000
        disks = [
            Disk(tmp_path / "store", 164 * mb, of_store=True, of_files=False),
            Disk(tmp_path / "files", 264 * mb, of_store=False, of_files=True),
        ]
        room.check_disks(disks, blocks=90 * mb, file=190 * mb)
        with pytest.raises(MeasurementRefused, match=r"about 110\.0 MB of the disk of .*/store"):
            room.check_disks(disks, blocks=110 * mb, file=10 * mb)
        with pytest.raises(MeasurementRefused, match=r"about 210\.0 MB of the disk of .*/files"):
            room.check_disks(disks, blocks=10 * mb, file=210 * mb)


async def test_it_may_be_stopped_by_many_and_at_any_moment(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, _):
        m = await measurements.start(DEVICE, plan())
        stops = []
        for _turn in range(8):
            stops.append(asyncio.create_task(measurements.stop(DEVICE)))
            await asyncio.sleep(0)
        assert all(each is m for each in await asyncio.gather(*stops))
        await measurements.finished(m.name)
        for turns in range(12):
            while measurements.busy(DEVICE):
                await asyncio.sleep(0.01)
            starting = asyncio.create_task(measurements.start(DEVICE, plan()))
            for _turn in range(turns + 1):
                await asyncio.sleep(0)
            assert measurements.busy(DEVICE)
            assert await measurements.stop(DEVICE) is await starting
            assert measurements.running(DEVICE) is None


async def test_a_bus_that_goes_before_the_node_is_disconnected_is_told(
    gateway: Gateway, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def gone() -> None:
        raise BusProblem("device tools: the bus is down", "down")

    monkeypatch.setattr(node, "disconnect", gone)
    async with gateway.opened() as (measurements, _):
        await recorded(measurements, node, plan(disconnect_afterwards=True))
    (told,) = (record.getMessage() for record in caplog.records if "the bus is down" in record.getMessage())
    assert told == "tools: the node could not be disconnected: device tools: the bus is down"


async def test_an_endless_one_ends_where_the_budget_does(gateway: Gateway, node: Node) -> None:
    node.frames, node.batch = 10**6, 1000
    async with gateway.opened(max_bytes=1_000_000) as (measurements, store):
        m = await measurements.start(DEVICE, plan())
        await measurements.finished(m.name)
        assert "no room for more frames" in m.ending and not m.interrupted
        assert 40_000 < m.received < 60_000
        assert len(table(gateway.files / m.file)) == 3 * m.received
        assert store.state().counters["lost"] == 0


@pytest.mark.timeout(30)
async def test_an_endless_one_ends_where_samples_need_the_room(
    gateway: Gateway, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for an upload that does not answer: what is recorded would not make room for them."""
    monkeypatch.setattr(measuring_room, "_LOOK_S", 0.02)
    node.frames, node.batch, node.pause_s = 10**6, 50, 0.02
    noise = random.Random(1)
    async with gateway.opened(max_bytes=1_000_000) as (measurements, store):
        m, series = await measurements.start(DEVICE, plan()), store.series("plc", "a")
        for n in range(20):
            samples = [Sample(series, 10**15 + n * 12_000 + i, noise.random(), 0) for i in range(12_000)]
            await (await store.put(Batch.of(samples)))
            if m.ending:
                break
        await measurements.finished(m.name)
        assert "no room for more frames" in m.ending and not m.interrupted
        used = store.state().bytes_used
        assert used - store.state().history_bytes < 1_000_000 and 10 * m.received < 250_000


async def test_without_frames_there_is_no_file(gateway: Gateway, node: Node) -> None:
    node.frames, node.fails = 0, LOST
    async with gateway.opened() as (measurements, _):
        m = await measurements.start(DEVICE, plan())
        await measurements.finished(m.name)
        assert m.state == "empty" and m.file == ""
        with pytest.raises(MeasurementRefused, match="no file"):
            await measurements.post_metadata(m.name, {"version": "1"})
    assert list(gateway.files.iterdir()) == []


async def test_memory_does_not_grow_with_the_length(gateway: Gateway, node: Node) -> None:
    """Defect 13 of ICOapi: a gigabyte an hour. Kept frames would take 60 bytes each here."""
    Machine.counts, node.makes, node.frames = signal(1600), Machine, 1_500_000
    async with gateway.opened(memory_bytes=1_000_000) as (measurements, _):
        m = await measurements.start(DEVICE, plan(ift=IftRequest(0, 0.1)))
        while m.received < 300_000:
            await asyncio.sleep(0.01)
        before = await asyncio.to_thread(rss_mb)
        assert node.streaming is not None
        await node.streaming.drained.wait()
        after = await asyncio.to_thread(rss_mb)
        await measurements.stop(DEVICE)
        assert m.received == 1_500_000 and after - before < 25, f"{before} to {after} MB"


def test_what_the_daemon_imports_needs_neither_numpy_nor_h5py(tmp_path: Path) -> None:
    """Nor what makes its store: sqlite_utils takes numpy along where it finds it."""
    code = (
        "import pathlib, sys, gateway.daemon, gateway.measurements; from gateway.store import schema\n"
        f"path = pathlib.Path({str(tmp_path / 'hot.db')!r}); schema.migrate(schema.connect(path), path)\n"
        "assert 'sqlite_utils' in sys.modules; print({'numpy', 'h5py'} & set(sys.modules))\n"
        "import numpy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
