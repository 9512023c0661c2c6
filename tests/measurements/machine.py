"""A node that streams the signal of a machine as fast as it is taken, and how much memory that takes."""

import asyncio
import math
import random
import resource
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

from gateway.controls.sensor_nodes import StreamFrames
from tests.measurements.node import Streaming, frame_us

BATCH = 160
"""Frames that come together: 50 ms at full rate."""


def signal(frames: int) -> "array[int]":
    rng = random.Random(1)
    return array(
        "H",
        (
            round(32_768 + 9000 * math.sin(n / 40) + 3000 * math.sin(n / 7.3) + rng.gauss(0, 150))
            for n in range(3 * frames)
        ),
    )


class Machine(Streaming):
    """Streams a signal made before."""

    counts: "ClassVar[array[int]]"

    async def __aiter__(self) -> AsyncIterator[StreamFrames]:
        rate = self.frame_rate_hz
        for first in range(0, self.frames, BATCH):
            numbers = range(first, min(first + BATCH, self.frames))
            ts = [frame_us(n, rate) for n in numbers]
            counters = bytes([n & 255 for n in numbers])
            at = first % (len(self.counts) // 3)
            yield StreamFrames(ts, counters, self.counts[3 * at : 3 * (at + len(numbers))])
            await asyncio.sleep(0)
        self.drained.set()
        await asyncio.Event().wait()


def rss_mb() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() / 1e6
