"""What a plant sends, and a clock that goes as fast as it is told to."""

import asyncio
import random
from collections.abc import Iterator

from gateway.model import Batch, Value

START_US = 1_790_000_000_000_000


class SimulatedClock:
    """Stands still until it is moved; waiting is real."""

    def __init__(self) -> None:
        self._now_us = START_US

    def advance(self, seconds: float) -> None:
        self._now_us += int(seconds * 1_000_000)

    def wall_us(self) -> int:
        return self._now_us

    def mono_ns(self) -> int:
        return self._now_us * 1000

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def seconds(series: int, count: int, start_us: int = START_US) -> Iterator[Batch]:
    """Yield what so many tags send each second: prices of doubles, counters, states, noise."""
    rng = random.Random(7)
    levels = [rng.uniform(0, 100) for _ in range(series)]
    for second in range(count):
        batch = Batch()
        for tag in range(series):
            levels[tag] += rng.uniform(-0.5, 0.5)
            ts = start_us + second * 1_000_000 + rng.randrange(1000) * 1000
            batch.add(1 + tag, ts, _value(tag, second, levels, rng))
        yield batch


def _value(tag: int, second: int, levels: list[float], rng: random.Random) -> Value:
    kind = tag % 10
    if kind < 6:
        return round(levels[tag], 2)
    if kind < 8:
        return second * 3 + tag
    return rng.random() < 0.5 if kind == 8 else rng.gauss(0, 1)
