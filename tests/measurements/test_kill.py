"""kill -9 of the child process at every step, of the gateway at any moment: no frame and no file is lost."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gateway.measurements import Measurement
from gateway.measurements.finishing import CHILD, FileProblem, Finisher
from gateway.measurements.record import from_text
from gateway.store import Store, recordings
from tests.measurements.conftest import Gateway
from tests.measurements.node import DEVICE, Node
from tests.measurements.reading import expected, table
from tests.measurements.test_measure import plan

MASK = (True, True, True)
_KILLS = int(os.environ.get("CHAOS_FILE_KILLS", "12"))
_GATEWAY_KILLS = int(os.environ.get("CHAOS_MEASUREMENT_KILLS", "8"))
_SEED = int(os.environ.get("CHAOS_SEED", "1"))


async def recorded_only(gateway: Gateway, node: Node) -> tuple[str, str]:
    """Record a measurement and leave its blocks in the store; return its name and what its row says."""
    gateway.child = ["false"]
    async with gateway.opened() as (measurements, store):
        m = await measurements.start(DEVICE, plan(MASK))
        assert node.streaming is not None
        await node.streaming.drained.wait()
        await measurements.stop(DEVICE)
        return m.name, (await store.measurements())[0].text


def is_whole(path: Path, node: Node) -> bool:
    want = expected(MASK, node.frames, node.configuration)
    rows = table(path)
    return all(np.array_equal(rows[n], np.array(want[n], dtype=rows.dtype[n])) for n in rows.dtype.names)


async def stored_frames(store: Store, name: str) -> int:
    return len([1 async for _ in store.recording(name)])


@pytest.mark.timeout(60)
async def test_a_killed_child_loses_nothing_and_leaves_no_half_file(
    gateway: Gateway, node: Node, tmp_path: Path
) -> None:
    name, text = await recorded_only(gateway, node)
    kill_at, final = tmp_path / "kill-at", gateway.files / f"{name}.hdf5"
    child = [sys.executable, "-P", "-m", "tests.measurements.killed_child", str(kill_at)]
    async with gateway.opened_store() as store:
        finisher, parts = Finisher(store, gateway.files, child), await stored_frames(store, name)

        async def finished(m: Measurement) -> bool:
            try:
                await finisher.write(m)
            except FileProblem as error:
                assert "ended with -9" in str(error)
                return False
            return True

        async def again() -> None:
            """Have the store as it was before the file was written."""
            rows = [(id_, data) for id_, data in kept]
            await store.ride(lambda tx: recordings.keep(tx, name, text))
            await store.ride(
                lambda tx: tx.conn.executemany("INSERT OR IGNORE INTO recording VALUES (?, ?)", rows)
            )

        kept = await store.read(lambda conn: recordings.parts(conn, name, 0, 10_000))
        assert await finished(from_text(text)) and is_whole(final, node)
        steps, killed_before, killed_after = int(kill_at.read_text()), 0, 0
        assert steps > 25
        for at in sorted({1 + n * (steps - 1) // (_KILLS - 1) for n in range(_KILLS)}):
            await again()
            final.unlink(missing_ok=True)
            kill_at.write_text(str(at))
            if await finished(from_text(text)):
                assert at > steps - 6, f"it was not killed at {at} of {steps}"  # h5py closes now or later
                continue
            assert await stored_frames(store, name) == parts and not (await store.measurements())[0].done
            if final.exists():
                killed_after += 1
                assert is_whole(final, node), f"half a file, killed at {at} of {steps}"
            else:
                killed_before += 1
            assert await finished(from_text(text))
            assert is_whole(final, node) and await stored_frames(store, name) == 0
            assert len([*gateway.files.glob("*.hdf5")]) == 1
        assert killed_before and killed_after


@pytest.mark.timeout(90)
def test_a_killed_gateway_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    found = killed(tmp_path, _GATEWAY_KILLS, _SEED)
    assert not found["broken"], found
    assert found["files"] and found["interrupted"] and found["frames"] > 10_000, found


@pytest.mark.timeout(60)
def test_a_store_that_acknowledges_early_is_caught(tmp_path: Path) -> None:
    found = killed(tmp_path, 3, _SEED, "early")
    assert any("acknowledged" in each for each in found["broken"]), found


def killed(folder: Path, kills: int, seed: int, mutant: str = "") -> dict[str, object]:
    command = [sys.executable, "-m", "tests.measurements.kill_server", folder, kills, seed, mutant]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, object] = json.loads(ended.stdout)
    print({name: found[name] for name in found if name != "broken"})  # noqa: T201  # for -s
    return found


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace")
async def test_a_file_has_its_name_once_it_is_on_the_disk_and_the_blocks_go_after_that(
    gateway: Gateway, node: Node, tmp_path: Path
) -> None:
    """What a power cut would leave at any moment: the blocks, or the whole file, or both."""
    name, text = await recorded_only(gateway, node)
    log = tmp_path / "trace"
    calls = "trace=pwrite64,write,fsync,fdatasync,rename,renameat,renameat2"
    strace = ["strace", "-f", "-y", "-e", calls, "-o", str(log)]
    async with gateway.opened_store() as store:
        await Finisher(store, gateway.files, [*strace, *CHILD]).write(from_text(text))
    lines = [line.split(" ", 1)[1].strip() for line in log.read_text().splitlines()]
    draft = rf"{re.escape(str(gateway.files))}/\.{name}\.[^>\"]*\.part"
    steps = [
        rf"pwrite64\(\d+<{draft}>", rf"fsync\(\d+<{draft}>\) += 0",
        rf"rename\(\"{draft}\", \"[^\"]*/{name}\.hdf5\"\) += 0",
        rf"fsync\(\d+<{re.escape(str(gateway.files))}>\) += 0", r"write\(1<[^>]*>, \"{",
    ]  # fmt: skip
    at = [[place for place, line in enumerate(lines) if re.match(step, line)] for step in steps]
    assert all(at), at
    assert all(before[-1] < after[0] for before, after in pairwise(at)), at
