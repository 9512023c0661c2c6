"""CPU and bytes of file per sample, and what folding does to the rest of the process."""

import asyncio
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gateway.clock import SystemClock
from gateway.intake import DeviceSession
from gateway.model import Batch
from gateway.own_time import OwnTime
from gateway.store import Store, StoreSettings

_TICK_S = 0.001


class Cost(NamedTuple):
    """Of a sample."""

    cpu_us: float
    file_bytes: float


class FoldCost(NamedTuple):
    """Of a sample; the memory that a fold takes, and how late the event loop was meanwhile."""

    cpu_us: float
    file_bytes: float
    grown_mb: float
    late_p99_ms: float
    late_ms: float


def _session(store: Store, folder: Path) -> DeviceSession:
    clock = SystemClock()
    return DeviceSession(
        "plant", "push", store=store, clock=clock, own_time=OwnTime(clock, 0, store.gap), state=folder,
        gateway_id="bench", listeners=[],
    )  # fmt: skip


async def emit(batches: list[Batch]) -> Cost:
    """From a protocol's `emit` to its ticket, acknowledged after COMMIT: a commit for each batch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Store.open(folder, StoreSettings(commit_interval_s=0), SystemClock()) as store:
            session = _session(store, folder)
            for tag in range(len(batches[0])):
                session.tag(f"tag{tag}")
            await store.flush()
            began = time.process_time()
            for batch in batches:
                await (await session.emit(batch))
            cpu = time.process_time() - began
        size = (folder / "hot.db").stat().st_size
    count = sum(map(len, batches))
    return Cost(cpu / count * 1e6, size / count)


async def fold(batches: Iterable[Batch]) -> FoldCost:
    """What folding blocks into chunks takes, and deleting them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Store.open(folder, StoreSettings(commit_interval_s=0), SystemClock()) as store:
            session = _session(store, folder)
            for batch in batches:
                for tag in range(0 if store.series_of("plant") else len(batch)):
                    session.tag(f"tag{tag}")
                await (await session.emit(batch))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        at_once = StoreSettings(commit_interval_s=0.05, chunk_minutes=0)
        late: list[float] = []
        async with Store.open(folder, at_once, SystemClock()) as store:
            began, ticked, blocks = time.process_time(), time.thread_time(), store.state().blocks
            while store.state().blocks > blocks // 10:
                asleep = time.monotonic()
                await asyncio.sleep(_TICK_S)
                late.append(time.monotonic() - asleep - _TICK_S)
            # The ticks of this thread are the measurement's own; the fold has another one.
            cpu = time.process_time() - began - (time.thread_time() - ticked)
            kept = store.state().history_bytes
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        with closing(sqlite3.connect(folder / "history" / "000001.db")) as conn:
            count = conn.execute("SELECT sum(n) FROM fold").fetchone()[0]
    late.sort()
    p99 = late[len(late) * 99 // 100]
    return FoldCost(cpu / count * 1e6, kept / count, grown / 1024, p99 * 1e3, late[-1] * 1e3)


def seed(batches: list[Batch]) -> Cost:
    """`executemany` of rows made before into the seed's table, keyed by (device, ts, tag)."""
    cpu = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.db"
        with closing(seed_table(path)) as conn:
            for batch in batches:
                rows = seed_rows(batch)
                began = time.process_time()
                insert(conn, rows)
                cpu += time.process_time() - began
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        size = path.stat().st_size
    count = sum(map(len, batches))
    return Cost(cpu / count * 1e6, size / count)


def seed_table(path: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL").fetchall()
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute(
        "CREATE TABLE sample(device TEXT, ts INTEGER, tag TEXT, value, PRIMARY KEY (device, ts, tag))"
    )
    return conn


def seed_rows(batch: Batch) -> list[tuple[str, int, str, object]]:
    return [("plant", x.ts, f"tag{x.series}", x.value) for x in batch]


def insert(conn: sqlite3.Connection, rows: list[tuple[str, int, str, object]]) -> None:
    conn.execute("BEGIN")
    conn.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?, ?, ?)", rows)
    conn.execute("COMMIT")
