"""Bytes written to the device: an ext4 with its journal in an image file, mounted through a loop device."""

import asyncio
import ctypes
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.model import Batch
from gateway.store import Store, StoreSettings
from tests.bench.plant import SimulatedClock, seconds

SECTOR_BYTES = 512
JOURNAL_SECONDS = 5
"""ext4 commits its journal so often, also where nobody asks for it."""
_libc = ctypes.CDLL(None, use_errno=True)


class Disk(NamedTuple):
    folder: Path
    written: Callable[[], int]
    """Bytes that the device was written since it was mounted, all there is on the way included."""
    tick: Callable[[], None]


def available() -> bool:
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


@contextmanager
def disk(megabytes: int = 800) -> Iterator[Disk]:
    """Mount a new ext4 in a file."""
    with tempfile.TemporaryDirectory() as folder:
        image, mount = Path(folder) / "image", Path(folder) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        loop = _run("losetup", "-f", "--show", str(image)).strip()
        try:
            _run("mount", loop, str(mount))
            try:
                yield _disk(loop, mount)
            finally:
                _run("umount", str(mount))
        finally:
            _run("losetup", "-d", loop)


def _disk(loop: str, mount: Path) -> Disk:
    stat = Path("/sys/block") / Path(loop).name / "stat"

    def tick() -> None:
        fd = os.open(mount, os.O_RDONLY)
        try:
            if _libc.syncfs(fd):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(fd)

    def written() -> int:
        tick()
        return int(stat.read_text().split()[6]) * SECTOR_BYTES

    return Disk(mount, written, tick)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Life(NamedTuple):
    """What the whole life of samples wrote: block, chunk, deletion of the block."""

    samples: int
    commits: int
    written: int


async def store_life(where: Disk, series: int, folds: int, **settings: object) -> Life:
    """Commit each simulated second, from the end of one fold (its blocks deleted) to that of a later one."""
    clock = SimulatedClock()
    marks: list[Life] = []
    samples = commits = 0
    async with Store.open(where.folder / "store", StoreSettings(**settings), clock) as store:
        for tag in range(series):
            store.series("plant", f"tag{tag}", "")
        compactor, deleting = store._writer.compactor, False
        for batch in seconds(series, 100_000, clock.wall_us()):
            clock.advance(1)
            ticket = await store.put(batch)
            await store.flush()
            await ticket
            while compactor.busy:
                await asyncio.sleep(0.002)
            samples, commits = samples + len(batch), commits + 1
            if commits % JOURNAL_SECONDS == 0:
                where.tick()
            if deleting and not compactor.pending:
                marks.append(Life(samples, commits, where.written()))
                if len(marks) > folds:
                    break
            deleting = bool(compactor.pending)
    first, last = marks[0], marks[-1]
    return Life(*(b - a for a, b in zip(first, last, strict=True)))


def seed_life(where: Disk, batches: Iterable[Batch]) -> Life:
    """Commit each simulated second to the seed's table."""
    samples = commits = 0
    with closing(sqlite3.connect(where.folder / "seed.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=WAL").fetchall()
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute(
            "CREATE TABLE sample(device TEXT, ts INTEGER, tag TEXT, value, PRIMARY KEY (device, ts, tag))"
        )
        before = where.written()
        for batch in batches:
            rows = [("plant", x.ts, f"tag{x.series}", x.value) for x in batch]
            conn.execute("BEGIN")
            conn.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?, ?, ?)", rows)
            conn.execute("COMMIT")
            samples, commits = samples + len(batch), commits + 1
            if commits % JOURNAL_SECONDS == 0:
                where.tick()
        return Life(samples, commits, where.written() - before)


if __name__ == "__main__":
    import sys
    import time

    for series, folds in ((1000, 1), (100, 1)):
        if len(sys.argv) > 1 and str(series) not in sys.argv[1:]:
            continue
        began = time.time()
        with disk() as where:
            life = asyncio.run(store_life(where, series, folds))
        if "seed" in sys.argv:
            with disk() as where:
                life = seed_life(where, seconds(series, 900))
