"""What a measurement costs, beside the icotronic library's own file: `python -m tests.measurements.bench`.

An argument is the number of frames. The signal is that of a machine: two sines and some noise. CPU is of the
whole process, that of the child its own.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

from gateway.store import recordings
from tests.measurements.conftest import SETTINGS, Gateway
from tests.measurements.machine import BATCH, Machine, rss_mb, signal
from tests.measurements.node import DEVICE, Node
from tests.measurements.test_measure import plan


async def ours(folder: Path, frames: int, counts: "array[int]") -> dict[str, Any]:
    Machine.counts = counts
    gateway = Gateway(folder, Node(frames=frames, makes=Machine), SETTINGS)
    rss: list[float] = []
    async with gateway.opened(commit_interval_s=1.0) as (measurements, store):
        m = await measurements.start(DEVICE, plan())
        stream = gateway.node.streaming
        assert stream is not None
        cpu = time.process_time()
        while not stream.drained.is_set():
            await asyncio.sleep(0.2)
            rss.append(rss_mb())
        measurements._finisher._child = ["false"]
        await measurements.stop(DEVICE)
        cpu = time.process_time() - cpu
        size = await store.read(recordings.recorded_bytes)
    began, feeding = time.monotonic(), time.process_time()
    async with gateway.opened(commit_interval_s=1.0) as (measurements, store):
        await measurements.finished(m.name)
        took = time.monotonic() - began
        feeding = time.process_time() - feeding
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        file = (gateway.files / f"{m.name}.hdf5").stat().st_size
    later = rss[len(rss) // 4 :] or rss
    return {
        "frames": m.received,
        "us of CPU a frame, recording": round(1e6 * cpu / frames, 2),
        "bytes a frame in the store": round(size / frames, 2),
        "us of CPU a frame, feeding the child": round(1e6 * feeding / frames, 2),
        "us of CPU a frame, the child": round(1e6 * (child.ru_utime + child.ru_stime) / frames, 2),
        "MB of the child at most": child.ru_maxrss / 1e3,
        "s until the file was there": round(took, 1),
        "bytes a frame in the file": round(file / frames, 2),
        "MB of this process, from a quarter on": [round(min(later), 1), round(max(later), 1)],
    }


def theirs(folder: Path, frames: int, counts: "array[int]") -> dict[str, Any]:
    from icotronic.can.streaming import StreamingConfiguration, StreamingData
    from icotronic.measurement import Storage

    path, cpu = folder / "theirs.hdf5", time.process_time()
    with Storage(path, StreamingConfiguration(first=True)) as data:
        for n in range(frames):
            at = 3 * (n % (len(counts) // 3))
            values = [count * 1.2 + 0.1 for count in counts[at : at + 3]]
            data.add_streaming_data(StreamingData(values=values, counter=n & 255, timestamp=n / 3174.6))
    cpu = time.process_time() - cpu
    return {
        "us of CPU a frame": round(1e6 * cpu / frames, 2),
        "bytes a frame in the file": round(path.stat().st_size / frames, 2),
    }


def main(frames: int) -> None:
    counts = signal(min(frames, 300_000) // BATCH * BATCH)
    with tempfile.TemporaryDirectory() as folder:
        found = {"ours": asyncio.run(ours(Path(folder), frames, counts))}
        found["theirs"] = theirs(Path(folder), min(frames, 200_000), counts)
    print(json.dumps(found, indent=2))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000)
