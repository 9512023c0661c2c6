"""How late the event loop is while 50 000 samples a second come in, and while a large window is read."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

from gateway.clock import SystemClock
from gateway.daemon import SWITCH_S
from gateway.model import Batch
from gateway.store import Store, StoreSettings

SERIES, RATE, TICK_S = 1000, 50_000, 0.005
RUN_S, RUNS = 3.0, 3
BEFORE = 1_500_000
"""Samples that wait to be folded when a run begins: the compaction is busy all the time."""
ALL_US = -(2**62), 2**62


async def ticks(lags: list[float]) -> None:
    """Wake each 5 ms and note how late, in ms."""
    while True:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        lags.append((time.perf_counter() - due) * 1e3)


def batches(start_us: int) -> Iterator[Batch]:
    """Yield a thousand samples for each 20 ms."""
    series, statuses, flags = list(range(1, SERIES + 1)), [0] * SERIES, [0] * SERIES
    floats = [round(n * 0.37, 2) for n in range(SERIES)]
    at, turn = start_us, 0
    while True:
        turn, at = turn + 1, at + SERIES * 1_000_000 // RATE
        values = floats[turn % SERIES :] + floats[: turn % SERIES]
        yield Batch(series, [at] * SERIES, values, statuses, flags)  # type: ignore[arg-type]


async def intake(put: Callable[[Batch], Awaitable[object]], start_us: int) -> None:
    began, sent = time.perf_counter(), 0
    for batch in batches(start_us):
        await put(batch)
        sent += len(batch)
        await asyncio.sleep(max(0.0, began + sent / RATE - time.perf_counter()))


async def drop(_: Batch) -> None:
    """Take a batch like a store that costs nothing."""


async def read_on(store: Store) -> None:
    """Read a large window, again and again."""
    while True:
        async for _ in store.samples(range(1, SERIES + 1), *ALL_US, limit=1_000_000):
            pass


async def late(*works: Awaitable[object]) -> tuple[float, float, float]:
    """Return p50, p99 and most of the loop's lag in ms while some works are done for a while."""
    lags: list[float] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(RUN_S):
            await asyncio.gather(ticks(lags), *works)
    cuts = statistics.quantiles(lags, n=100)
    return cuts[49], cuts[98], max(lags)


async def into_a_store(*, put: bool, read: bool) -> tuple[float, float, float]:
    start_us = time.time_ns() // 1000 - 100_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Store.open(folder, StoreSettings(), SystemClock()) as store:
            for tag in range(SERIES):
                store.series("plant", f"tag{tag}", "")
            for batch, _ in zip(batches(start_us), range(BEFORE // SERIES), strict=False):
                await store.put(batch)
            await store.flush()
        async with Store.open(folder, StoreSettings(chunk_minutes=0), SystemClock()) as store:
            works = [intake(store.put, start_us + BEFORE * 20)] if put else []
            return await late(*works, *([read_on(store)] if read else []))


async def lag(say: Callable[[str], None]) -> None:
    """Print it for each case, beside a loop that does nothing and one that only makes the samples."""
    sys.setswitchinterval(SWITCH_S)
    say(f"lag of the loop, ms (p50, p99, most), medians of {RUNS} runs of {RUN_S:.0f} s:")
    cases: dict[str, Callable[[], Awaitable[tuple[float, float, float]]]] = {
        "nothing": late,
        f"{RATE} samples/s made and dropped": lambda: late(intake(drop, 0)),
        "a store that is read": lambda: into_a_store(put=False, read=True),
        f"{RATE} samples/s into a store that folds": lambda: into_a_store(put=True, read=False),
        f"{RATE} samples/s into a store that folds and is read": lambda: into_a_store(put=True, read=True),
    }
    for name, work in cases.items():
        found = [await work() for _ in range(RUNS)]
        middle = ", ".join(f"{statistics.median(x):.1f}" for x in zip(*found, strict=True))
        say(f"  {name}: {middle} (load {os.getloadavg()[0]:.1f})")
