"""Defect 13 of ICOapi through its contract: memory grew by a gigabyte an hour of measurement.

The node sends four times as fast as its default. MEASURED_FRAMES=5714286 for the frames of half an hour.
"""

import asyncio
import os
import sys
import time
from typing import Any

import aiohttp
import pytest

from tests.icoapi.bench import Contract, until
from tests.icoapi.test_contract_nodes import ADC, connect, measuring
from tests.measurements.machine import rss_mb

FRAMES = int(os.environ.get("MEASURED_FRAMES", "60000"))
FAST = ADC | {"oversampling_rate": 16}
MOST_GROWTH_MB = 10
MOST_OBJECTS = 100_000

pytestmark = [
    pytest.mark.timeout(60 + FRAMES // 1000),
    pytest.mark.parametrize("ico", ["bare"], indirect=True),
]


async def grown(ico: Contract, frames: int, kept: list[Any] | None = None) -> tuple[float, int]:
    """Measure with a client at the stream; return MB and objects that came over the last three quarters.

    Where tests before left a large heap, what is kept shows in the objects alone.
    """
    await connect(ico)
    began, points = time.monotonic(), 0
    rss: list[float] = []
    objects: list[int] = []
    async with ico.socket("/measurement/stream") as socket:
        async with measuring(ico, adc=FAST) as name:
            found = ico.plant.measurements.find(name)
            assert found is not None
            while found.received < frames:
                message = await socket.receive(timeout=30)
                points += message.data.count('"counter"')
                if kept is not None:
                    kept.append(message.json())
                if found.received >= frames // 4:
                    rss.append(await asyncio.to_thread(rss_mb))
                    objects.append(sys.getallocatedblocks())
        while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
    done = await ico.plant.measurements.finished(name)
    more = max(objects) - objects[0]
    sys.stdout.write(
        f"{done.received} frames in {time.monotonic() - began:.0f} s, {done.loss:.2%} lost, {points} points "
        f"streamed: {rss[0]:.1f} MB after a quarter, at most {max(rss):.1f} MB and {more} objects more\n"
    )
    assert done.received >= frames and done.loss == 0 and points > frames
    await until(lambda: done.state == "written", 60 + frames / 10_000)
    return max(rss) - rss[0], more


async def test_13_memory_is_flat_over_half_an_hour(ico: Contract) -> None:
    mb, objects = await grown(ico, FRAMES)
    assert mb < MOST_GROWTH_MB and objects < MOST_OBJECTS


async def test_13_what_is_kept_is_seen(ico: Contract) -> None:
    mb, objects = await grown(ico, min(FRAMES, 60_000), [])
    assert mb > MOST_GROWTH_MB or objects > MOST_OBJECTS
