"""What ends a measurement too early, or keeps its file from being written: nothing is lost, all is said."""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gateway.measurements import Ended, LiveFrames, Measurement
from gateway.measurements.catalogue import Catalogue
from gateway.measurements.finishing import CHILD
from gateway.measurements.inspection import FileUnfit
from gateway.measurements.live import Tap
from gateway.store import recordings
from tests.measurements.conftest import Gateway
from tests.measurements.node import DEVICE, Node
from tests.measurements.reading import attributes, expected, table
from tests.measurements.test_measure import plan, recorded
from tests.store.test_salvage import overwrite, page_of

MASK = (True, True, False)


def edited(path: Path, *queries: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for query in queries:
            conn.execute(query)


async def interrupted(gateway: Gateway, node: Node, **settings: object) -> Measurement:
    """Stop the gateway in the middle of a measurement."""
    async with gateway.opened(**settings) as (measurements, _):
        m = await measurements.start(DEVICE, plan(MASK, metadata={"version": "7", "parameters": {}}))
        assert node.streaming is not None
        await node.streaming.drained.wait()
        return m


async def finished(gateway: Gateway, name: str) -> tuple[Measurement, list[str]]:
    async with gateway.opened() as (measurements, store):
        while measurements.find(name) is None:  # out of a damaged file it comes later
            await asyncio.sleep(0.01)
        m = await measurements.finished(name)
        return m, [gap.reason for _, gap in await store.gaps()]


@pytest.mark.parametrize("commit_interval_s", [0.05, 60.0])
async def test_a_gateway_that_is_stopped_finishes_it_at_its_next_start(
    gateway: Gateway, node: Node, commit_interval_s: float
) -> None:
    before = await interrupted(gateway, node, commit_interval_s=commit_interval_s)
    assert node.left == 1 and not gateway.files.joinpath(f"{before.name}.hdf5").exists()
    m, gaps = await finished(gateway, before.name)
    assert m.interrupted and m.ending == "the gateway was stopped"
    rows, want = table(gateway.files / m.file), expected(MASK, node.frames, node.configuration)
    for name in rows.dtype.names:
        assert np.array_equal(rows[name], np.array(want[name], dtype=rows.dtype[name])), name
    there = attributes(gateway.files / m.file)
    assert there["interrupted"] == "the gateway was stopped" and '"version": "7"' in there["pre_metadata"]
    assert any("was interrupted: the gateway was stopped" in gap for gap in gaps)


async def test_a_gateway_that_is_stopped_behind_the_end_of_it_does_not_interrupt_it(
    gateway: Gateway, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway.opened() as (measurements, store):
        m = await measurements.start(DEVICE, plan(MASK))
        assert node.streaming is not None
        await node.streaming.drained.wait()
        committing = asyncio.Event()

        async def refused(_job: object) -> None:  # as while the disk refuses
            committing.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(store, "ride", refused)
        stopping = asyncio.create_task(measurements.stop(DEVICE))
        await committing.wait()
    assert (await stopping).name == m.name
    again, gaps = await finished(gateway, m.name)
    assert (again.interrupted, again.ending, again.received, gaps) == (False, "", node.frames, [])


async def test_a_lost_row_costs_the_metadata_alone(gateway: Gateway, node: Node, tmp_path: Path) -> None:
    before = await interrupted(gateway, node)
    async with gateway.opened_store() as store:  # as salvage leaves it, where the row cannot be read
        await store.ride(lambda tx: recordings.keep(tx, before.name, ""))
    m, _ = await finished(gateway, before.name)
    assert m.received == node.frames and m.device == DEVICE and m.interrupted
    assert "the gateway ended" in m.ending and m.channels == before.channels
    assert "pre_metadata" not in attributes(gateway.files / m.file)


@pytest.mark.parametrize(
    "query",
    ["DELETE FROM recording WHERE id & 4294967295 = 1",
     "UPDATE recording SET data = CAST(substr(data, 1, 150) || x'00' AS BLOB) WHERE id & 4294967295 = 1"],
)  # fmt: skip
async def test_a_lost_block_is_told(gateway: Gateway, node: Node, tmp_path: Path, query: str) -> None:
    node.frames, node.batch = 12_288, 4096
    before = await interrupted(gateway, node)
    await asyncio.to_thread(edited, tmp_path / "store" / "hot.db", query)
    m, gaps = await finished(gateway, before.name)
    assert m.received == 8192
    assert any("1 of its blocks were lost in the store" in gap for gap in gaps), gaps
    assert len(table(gateway.files / m.file)) == 8192


_DAMAGED = "UPDATE recording SET data = CAST(substr(data, 1, 150) || x'00' AS BLOB) WHERE id & 4294967295"


@pytest.mark.parametrize(
    ("query", "received", "what"),
    [(f"{_DAMAGED} = 2", 8192, "1 of its blocks"),
     (f"{_DAMAGED} > 0", 4096, "2 of its blocks"),
     ("DELETE FROM recording WHERE id & 4294967295 = 2", 8192, "4096 of its frames"),
     (f"{_DAMAGED} >= 0", 0, "3 of its blocks"),
     ("DELETE FROM recording", 0, "12288 of its frames")],
)  # fmt: skip
async def test_blocks_lost_at_the_end_are_told(
    gateway: Gateway, node: Node, tmp_path: Path, query: str, received: int, what: str
) -> None:
    node.frames, node.batch = 12_288, 4096
    before = await interrupted(gateway, node)
    await asyncio.to_thread(edited, tmp_path / "store" / "hot.db", query)
    async with gateway.opened() as (measurements, store):
        m = await measurements.finished(before.name)
        gaps = [gap for _, gap in await store.gaps() if "in the store" in gap.reason]
    assert [gap.count for gap in gaps] == [node.frames - received] and what in gaps[0].reason, gaps
    assert (gaps[0].from_us, gaps[0].to_us) == (m.started_us, m.ended_us)
    assert m.state == ("written" if received else "empty")
    assert not received or len(table(gateway.files / m.file)) == m.received == received


async def test_a_file_that_cannot_be_written_is_tried_again(gateway: Gateway, node: Node) -> None:
    gateway.child = ["false"]
    async with gateway.opened() as (measurements, store):
        m = await measurements.start(DEVICE, plan(MASK))
        assert node.streaming is not None
        await node.streaming.drained.wait()
        await measurements.stop(DEVICE)
        while not m.problem:
            await asyncio.sleep(0.01)
        assert m.state == "recorded" and "which is tried again: its process ended with 1" in m.problem
        assert measurements.keeper is not None
        while measurements.keeper.health.state != "failed":
            await asyncio.sleep(0.01)
        assert m.name in measurements.keeper.health.detail
        assert await store.read(recordings.recorded_bytes) > 0
        measurements._finisher._child = CHILD
        await measurements.finished(m.name)
        assert m.problem == "" and len(table(gateway.files / m.file)) == node.frames


async def test_a_file_that_does_not_read_as_it_was_written_is_none(gateway: Gateway, node: Node) -> None:
    gateway.child = [sys.executable, "-P", "-m", "tests.measurements.lying_child"]
    async with gateway.opened() as (measurements, store):
        m = await measurements.start(DEVICE, plan(MASK))
        assert node.streaming is not None
        await node.streaming.drained.wait()
        await measurements.stop(DEVICE)
        while not m.problem:
            await asyncio.sleep(0.01)
        assert "does not read as it was written: the disk may be failing" in m.problem
        assert not [*gateway.files.glob("*.hdf5")]
        assert await store.read(recordings.recorded_bytes) > 0
        measurements._finisher._child = CHILD
        await measurements.finished(m.name)
    assert [file.name for file in gateway.files.iterdir()] == [m.file]


async def test_no_file_is_written_while_the_last_frames_are_not_committed(
    gateway: Gateway, node: Node
) -> None:
    """The daemon ends its measurements first, and its devices after them: the store still commits."""
    async with gateway.opened(commit_interval_s=60.0) as (measurements, _):
        m = await measurements.start(DEVICE, plan(MASK))
        assert node.streaming is not None
        await node.streaming.drained.wait()
        await measurements.close()
        assert measurements.keeper is not None and measurements.keeper.health.state == "stopped"
        assert m.state == "recorded" and m.interrupted
    whole, _ = await finished(gateway, m.name)
    assert whole.received == node.frames


async def test_a_folder_that_is_none_is_said(gateway: Gateway, node: Node) -> None:
    before = await interrupted(gateway, node)
    await asyncio.to_thread(gateway.files.rmdir)
    await asyncio.to_thread(gateway.files.write_bytes, b"")
    async with gateway.opened() as (measurements, _):
        m = measurements.find(before.name)
        assert m is not None
        while not m.problem:
            await asyncio.sleep(0.01)
        assert "File exists" in m.problem
        await asyncio.to_thread(gateway.files.unlink)
        await measurements.finished(m.name)
        assert len(table(gateway.files / m.file)) == node.frames


async def test_a_file_of_the_same_name_is_left_alone(gateway: Gateway, node: Node) -> None:
    before = await interrupted(gateway, node)
    other = gateway.files / f"{before.name}.hdf5"
    await asyncio.to_thread(other.write_bytes, b"uploaded meanwhile")
    m, _ = await finished(gateway, before.name)
    assert m.file == f"{before.name}_2.hdf5" and other.read_bytes() == b"uploaded meanwhile"


async def test_drafts_of_a_killed_process_go(gateway: Gateway, node: Node) -> None:
    before = await interrupted(gateway, node)
    await asyncio.to_thread((gateway.files / f".{before.name}.abc.part").write_bytes, b"half")
    m, _ = await finished(gateway, before.name)
    assert [file.name for file in gateway.files.iterdir()] == [m.file]


DIES = """
import json, os, pathlib, sys
job = json.loads(sys.stdin.readline())
path = pathlib.Path(job.get("path") or pathlib.Path(job["folder"], job["measurement"]["name"] + ".hdf5"))
(path.parent / f".{path.stem}.abcd_123.part").touch()
os.kill(os.getpid(), 9)
"""


async def test_one_file_that_cannot_be_written_leaves_the_drafts_of_others_alone(
    gateway: Gateway, node: Node
) -> None:
    gateway.child = [sys.executable, "-c", DIES]
    async with gateway.opened() as (measurements, store):
        m = await measurements.start(DEVICE, plan(MASK))
        assert node.streaming is not None
        await node.streaming.drained.wait()
        other = gateway.files / f".{m.name}_2.abcd_123.part"
        await asyncio.to_thread(other.touch)
        await measurements.stop(DEVICE)
        for _ in range(2):
            m.problem = ""
            while not m.problem:
                await asyncio.sleep(0.01)
        assert "ended with -9" in m.problem
        assert [*await asyncio.to_thread(lambda: [*gateway.files.glob(".*")])] == [other]
        (gateway.files / "theirs.hdf5").touch()
        with pytest.raises(FileUnfit, match="ended with -9"):
            await Catalogue(measurements, store, gateway.child).put_metadata("theirs.hdf5", {}, None)
        assert [*await asyncio.to_thread(lambda: [*gateway.files.glob(".*")])] == [other]
    async with gateway.opened():
        assert not [*await asyncio.to_thread(lambda: [*gateway.files.glob(".*")])]


async def test_a_client_that_stands_still_costs_nobody_else_anything(gateway: Gateway, node: Node) -> None:
    node.frames, node.batch = 60_000, 500
    async with gateway.opened() as (measurements, _):
        with measurements.watch(DEVICE) as slow, measurements.watch(DEVICE) as quick:
            reading = asyncio.create_task(_all(quick))
            m = await recorded(measurements, node, plan(MASK))
            assert await asyncio.wait_for(reading, 5) == (60_000, 0)
            seen, missed = await _all(slow)
            assert 0 < seen <= 20_000 and seen + missed == 60_000
        assert m.received == 60_000 and m.loss == 0


async def _all(tap: Tap) -> tuple[int, int]:
    seen = missed = 0
    async for item in tap:
        if isinstance(item, LiveFrames):
            seen, missed = seen + len(item.ts), missed + item.missed
        if isinstance(item, Ended):
            break
    return seen, missed


async def test_a_tap_that_is_closed_ends(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, _):
        with measurements.watch(DEVICE) as tap:
            reading = asyncio.create_task(_all(tap))
            await asyncio.sleep(0)
        assert await reading == (0, 0)


@pytest.mark.parametrize("stops", [False, True])
async def test_a_full_memory_budget_loses_no_frame(gateway: Gateway, node: Node, stops: bool) -> None:
    node.frames, node.batch = 60_000, 6000
    async with gateway.opened(memory_bytes=1_000_000, commit_interval_s=0.3) as (measurements, _):
        m = await measurements.start(DEVICE, plan(MASK))
        assert node.streaming is not None
        if not stops:
            await node.streaming.drained.wait()
        while m.received < 30_000:
            await asyncio.sleep(0)
        await measurements.stop(DEVICE)
        await measurements.finished(m.name)
        assert m.received >= 30_000 and m.loss == 0
        rows = table(gateway.files / m.file)
        assert len(rows) == m.received and not m.ending
        assert np.array_equal(rows["counter"], np.arange(m.received) % 256)


async def test_what_a_damaged_file_of_the_store_held_of_it_comes_back(
    gateway: Gateway, node: Node, tmp_path: Path
) -> None:
    node.frames, node.batch = 61_440, 4096  # so many blocks that the root page holds none itself
    first = await interrupted(gateway, node)
    path = tmp_path / "store" / "hot.db"
    await asyncio.to_thread(lambda: overwrite(path, page_of(path, "recording"), bytes(1024)))
    m, _ = await finished(gateway, first.name)
    assert m.received == node.frames and len(table(gateway.files / m.file)) == node.frames
    assert [file.name for file in gateway.files.iterdir()] == [m.file]


async def test_the_metadata_of_a_file_that_was_deleted_is_dropped(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, _):
        m = await recorded(measurements, node, plan(wait_for_post_metadata=True))
        await asyncio.to_thread((gateway.files / m.file).unlink)
        await measurements.post_metadata(m.name, {"version": "1"})
        await measurements.finished(m.name)
        assert not m.metadata_due and not m.waits_for_metadata
    assert list(gateway.files.iterdir()) == []
