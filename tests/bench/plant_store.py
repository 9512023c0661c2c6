"""A store as it is after hours of a plant, and beside it the table that one would make for reads."""

import asyncio
import sqlite3
import time
from array import array
from collections.abc import MutableSequence
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any

from gateway.model import Batch
from gateway.store import Store, StoreSettings
from tests.bench.plant import seconds

ALL_US = -(2**62), 2**62
SERIES = 1000
DEVICE = "plant"
TABLE = "table.db"
ROW = "ts, value, status, flags"


class DataClock:
    """The time of the samples, also for what the store does each 15 s or 5 minutes."""

    def __init__(self) -> None:
        self.us = 0

    def wall_us(self) -> int:
        return self.us

    def mono_ns(self) -> int:
        return self.us * 1000 + time.monotonic_ns() % 1_000_000_000

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def build(folder: Path, count: int) -> None:
    """Fill a store with so many seconds of samples, a commit a second, folded as they grow old."""
    clock = DataClock()
    sent = Sent()
    async with Store.open(folder, StoreSettings(max_bytes=40_000_000_000), clock) as store:
        for tag in range(SERIES):
            assert store.series(DEVICE, f"tag{tag}", "") == 1 + tag
        for batch in seconds(SERIES, count, time.time_ns() // 1000 - count * 1_000_000):
            clock.us = max(max(batch.ts), clock.us + 1)
            ticket = await store.put(batch)
            sent.add(batch)
            await store.flush()
            await ticket
    await asyncio.to_thread(sent.write, folder / TABLE)


class Sent:
    """All that was sent, by series, for the table."""

    def __init__(self) -> None:
        self._ts = [array("q") for _ in range(SERIES)]
        self._values: list[MutableSequence[Any]] = []

    def add(self, batch: Batch) -> None:
        if not self._values:
            self._values = [array("d") if type(v) is float else array("q") for v in batch.values]
        for column, ts in zip(self._ts, batch.ts, strict=True):
            column.append(ts)
        for values, value in zip(self._values, batch.values, strict=True):
            values.append(value)

    def write(self, path: Path) -> None:
        """Make the table, in its order: no page of it is ever split."""
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("PRAGMA journal_mode=OFF")
            conn.execute("PRAGMA synchronous=OFF")
            conn.execute(
                "CREATE TABLE sample(series INTEGER, ts INTEGER, value, status INTEGER, flags INTEGER, "
                "PRIMARY KEY(series, ts)) WITHOUT ROWID"
            )
            conn.execute("BEGIN")
            for series, (ts, values) in enumerate(zip(self._ts, self._values, strict=True), 1):
                rows = zip(repeat(series), ts, values, repeat(0), repeat(0))
                conn.executemany("INSERT INTO sample VALUES (?, ?, ?, ?, ?)", rows)
            conn.execute("COMMIT")
