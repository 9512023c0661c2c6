"""Print CPU and bytes per sample of the store and its history, against rows of the seed's table."""

import asyncio
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from gateway.clock import SystemClock
from gateway.model import Batch, Value
from gateway.store import Store, StoreSettings

SERIES, SECONDS = 1000, 120
HISTORY_SECONDS = 1100


def seconds(rng: random.Random, count: int = SECONDS) -> Iterator[Batch]:
    """Yield what a plant of 1000 tags sends each second: prices of doubles, counters, states, noise."""
    start_us = time.time_ns() // 1000 - count * 1_000_000
    levels = [rng.uniform(0, 100) for _ in range(SERIES)]
    for second in range(count):
        batch = Batch()
        for tag in range(SERIES):
            levels[tag] += rng.uniform(-0.5, 0.5)
            batch.add(
                1 + tag,
                start_us + second * 1_000_000 + rng.randrange(1000) * 1000,
                _value(tag, second, levels, rng),
            )
        yield batch


def _value(tag: int, second: int, levels: list[float], rng: random.Random) -> Value:
    kind = tag % 10
    if kind < 6:
        return round(levels[tag], 2)
    if kind < 8:
        return second * 3 + tag
    return rng.random() < 0.5 if kind == 8 else rng.gauss(0, 1)


async def store_costs(batches: list[Batch]) -> tuple[float, float]:
    """Return CPU microseconds and file bytes per sample, from emit to commit, a commit a second of data."""
    with tempfile.TemporaryDirectory() as folder:
        async with Store.open(Path(folder), StoreSettings(commit_interval_s=0), SystemClock()) as store:
            for tag in range(SERIES):
                store.series("plant", f"tag{tag}", "")
            await store.flush()
            began = time.process_time()
            for batch in batches:
                await (await store.put(batch))
            cpu = time.process_time() - began
        size = (Path(folder) / "hot.db").stat().st_size
    count = sum(map(len, batches))
    return cpu / count * 1e6, size / count


async def history_costs(batches: Iterable[Batch]) -> tuple[float, float, float]:
    """Return CPU microseconds of folding and bytes kept, per sample, and the memory it takes in MB."""
    with tempfile.TemporaryDirectory() as folder:
        async with Store.open(Path(folder), StoreSettings(commit_interval_s=0.05), SystemClock()) as store:
            for tag in range(SERIES):
                store.series("plant", f"tag{tag}", "")
            for batch in batches:
                await (await store.put(batch))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        at_once = StoreSettings(commit_interval_s=0.05, chunk_minutes=0)
        async with Store.open(Path(folder), at_once, SystemClock()) as store:
            began, blocks = time.process_time(), store.state().blocks
            while store.state().blocks > blocks // 10:
                await asyncio.sleep(0.1)
            cpu = time.process_time() - began
            kept = store.state().history_bytes
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        with closing(sqlite3.connect(Path(folder) / "history" / "000001.db")) as conn:
            count = conn.execute("SELECT sum(n) FROM fold").fetchone()[0]
    return cpu / count * 1e6, kept / count, grown / 1024


def seed_costs(batches: list[Batch]) -> tuple[float, float]:
    """The same for `sqlite3` executemany into the seed's table, keyed by (device, ts, tag)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.db"
        conn = sqlite3.connect(path)
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute(
            "CREATE TABLE sample(device TEXT, ts INTEGER, tag TEXT, value, PRIMARY KEY (device, ts, tag))"
        )
        began = time.process_time()
        for batch in batches:
            rows = [("plant", x.ts, f"tag{x.series}", x.value) for x in batch]
            conn.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?, ?, ?)", rows)
            conn.commit()
        cpu = time.process_time() - began
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        conn.close()
        size = path.stat().st_size
    count = sum(map(len, batches))
    return cpu / count * 1e6, size / count


def main() -> None:
    batches = list(seconds(random.Random(7)))
    cpu, size = asyncio.run(store_costs(batches))
    seed_cpu, seed_size = seed_costs(batches)
    sys.stdout.write(
        f"store: {cpu:.2f} us CPU and {size:.1f} bytes of file per sample, {SERIES} samples a commit\n"
        f"seed's table: {seed_cpu:.2f} us and {seed_size:.1f} bytes: "
        f"the store takes {cpu / seed_cpu:.2f} of the CPU and {size / seed_size:.2f} of the bytes\n"
    )
    fold_cpu, kept, grown_mb = asyncio.run(history_costs(seconds(random.Random(7), HISTORY_SECONDS)))
    sys.stdout.write(
        f"history: {kept:.2f} bytes kept per sample, {fold_cpu:.2f} us CPU to fold a sample and delete its "
        f"block ({cpu + fold_cpu:.2f} with its commit), {grown_mb:.0f} MB of memory for a fold\n"
    )


if __name__ == "__main__":
    main()
