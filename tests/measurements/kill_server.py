"""Forks gateways that measure, kills each at a random moment, and judges what the next one makes of it.

Frames are numbered; their blocks are told once they are committed. A gateway that is not killed finishes all
that there is.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py  # noqa: F401  # imported before the forks
import numpy as np
import sqlite_utils  # noqa: F401

from gateway.store import recorder as recorder_module
from gateway.store import recordings
from gateway.store.recordings import MeasurementRow
from tests.measurements.conftest import Gateway
from tests.measurements.node import DEVICE, Node
from tests.measurements.reading import attributes, expected, table
from tests.measurements.test_measure import plan

_MASK = (True, False, False)
_FRAMES = 12_000


def tell_of_commits(report: int, mutant: str) -> None:
    """Have each block told once it is committed; the mutant tells it before."""
    record = recorder_module.Recorder._record

    def told(self: Any, row: MeasurementRow, head: bytes, part: int, frames: Any, size: int) -> Any:
        line = f"{row.name} {len(frames)}\n".encode()
        if mutant == "early":
            os.write(report, line)
            time.sleep(0.5)  # a commit that is due at once is no slower than who kills it
        stored = record(self, row, head, part, frames, size)
        if mutant != "early":
            stored.add_done_callback(lambda done: done.exception() or os.write(report, line))
        return stored

    recorder_module.Recorder._record = told  # type: ignore[method-assign]


async def measure(gateway: Gateway, rng: random.Random) -> None:
    """Measure again and again, and have the files written."""
    async with gateway.opened(commit_interval_s=0.4) as (measurements, _):
        while True:
            m = await measurements.start(DEVICE, plan(_MASK))
            await asyncio.sleep(rng.uniform(0.7, 2.0))
            await measurements.stop(DEVICE)
            await asyncio.sleep(rng.uniform(0, 0.5))
            if rng.random() < 0.3:
                await measurements.finished(m.name)


def one_life(gateway: Gateway, seed: int, mutant: str) -> str:
    """Fork a gateway, kill it at a random moment; return what it told."""
    rng = random.Random(seed)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        try:
            tell_of_commits(writing, mutant)
            asyncio.run(measure(gateway, random.Random(seed + 500)))
        finally:
            os._exit(1)
    os.close(writing)
    text = b""
    select.select([reading], [], [], 10)
    if not mutant:  # it is caught right after it has told
        time.sleep(rng.uniform(0, rng.choice((0.3, 2.5))))
    if rng.random() < 0.5:
        os.kill(child, signal.SIGKILL)  # the process that writes the file lives on
    else:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the gateway ended by itself"
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reading, 65536):
            text += part
    os.close(reading)
    return text.decode()


async def finish(gateway: Gateway) -> None:
    async with gateway.opened() as (measurements, store):
        for m in measurements.listed():
            await measurements.finished(m.name)
        while await store.read(recordings.recorded_bytes):
            await asyncio.sleep(0.01)


def judged(gateway: Gateway, committed: Counter[str]) -> tuple[list[str], Counter[str]]:
    """Hold the files against what was told."""
    broken, found = [], Counter[str]()
    want = expected(_MASK, _FRAMES, gateway.node.configuration)
    names = {file.name.removesuffix(".hdf5") for file in gateway.files.iterdir()}
    broken += [f"{name} is no measurement that was begun" for name in names if "__gw-1__" not in name]
    for name in sorted(names | committed.keys()):
        path = gateway.files / f"{name}.hdf5"
        if not path.exists():
            broken.append(f"{name}: {committed[name]} frames were acknowledged, and there is no file")
            continue
        rows = table(path)
        found["files"] += 1
        found["frames"] += len(rows) // 3
        found["interrupted"] += "interrupted" in attributes(path)
        if len(rows) // 3 < committed[name]:
            broken.append(f"{name}: {committed[name]} frames were acknowledged, {len(rows) // 3} are there")
        for column in rows.dtype.names:
            if not np.array_equal(rows[column], np.array(want[column][: len(rows)], rows.dtype[column])):
                broken.append(f"{name}: {column} is wrong")
    return broken, found


def main(folder: Path, kills: int, seed: int, mutant: str) -> None:
    """Kill `kills` gateways in turn; print what was found, as JSON."""
    logging.disable(logging.CRITICAL)
    gateway, committed = Gateway(folder, Node(frames=_FRAMES, batch=50, pause_s=0.01)), Counter[str]()
    for n in range(kills):
        for line in one_life(gateway, seed * 1000 + n, mutant).splitlines():
            name, frames = line.split(" ")
            committed[name] += int(frames)
    asyncio.run(finish(gateway))
    broken, found = judged(gateway, committed)
    sys.stdout.write(json.dumps({**found, "broken": broken, "acknowledged": sum(committed.values())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
