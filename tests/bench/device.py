"""Bytes written to the device: an ext4 with its journal in an image file, mounted through a loop device."""

import asyncio
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.model import Batch
from gateway.store import Store, StoreSettings
from tests.bench.cost import insert, seed_rows, seed_table
from tests.bench.plant import SimulatedClock, seconds

SECTOR_BYTES = 512
JOURNAL_S = 5
"""ext4 commits its journal so often, also where nobody asks for it."""
_LONGEST_S = 100_000
_libc = ctypes.CDLL(None, use_errno=True)


class Disk(NamedTuple):
    folder: Path
    written: Callable[[], int]
    """Bytes that the device was written since it was mounted, all there is on the way included."""
    sync: Callable[[], None]


def available() -> bool:
    tools = all(map(shutil.which, ("mkfs.ext4", "losetup", "mount", "umount")))
    return tools and os.geteuid() == 0 and Path("/dev/loop-control").exists()


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

    def sync() -> None:
        fd = os.open(mount, os.O_RDONLY)
        try:
            if _libc.syncfs(fd):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(fd)

    def written() -> int:
        sync()
        return int(stat.read_text().split()[6]) * SECTOR_BYTES

    return Disk(mount, written, sync)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Life(NamedTuple):
    """What the whole life of samples wrote: block, chunk, deletion of the block."""

    samples: int
    commits: int
    written: int

    @property
    def a_sample(self) -> float:
        return self.written / self.samples

    @property
    def a_commit(self) -> float:
        return self.written / self.commits


async def store_life(where: Disk, series: int, folds: int) -> Life:
    """Commit each simulated second, from the end of the first fold (its blocks deleted) over some more.

    As many samples are written, folded and deleted between. A fold begins and ends within a simulated
    second; in real time it takes a few, and writes the same.
    """
    clock, marks = SimulatedClock(), list[Life]()
    samples = commits = 0
    async with Store.open(where.folder / "store", StoreSettings(), clock) as store:
        for tag in range(series):
            store.series("plant", f"tag{tag}", "")
        compactor, deleting = store._writer.compactor, False
        for batch in seconds(series, _LONGEST_S, clock.wall_us()):
            clock.advance(1)
            ticket = await store.put(batch)
            await store.flush()
            await ticket
            while compactor.busy:
                await asyncio.sleep(0.002)
            samples, commits = samples + len(batch), commits + 1
            if commits % JOURNAL_S == 0:
                where.sync()
            if deleting and not compactor.pending:
                marks.append(Life(samples, commits, where.written()))
                if len(marks) > folds:
                    break
            deleting = bool(compactor.pending)
    return Life(*(b - a for a, b in zip(marks[0], marks[-1], strict=True)))


def seed_life(where: Disk, batches: Iterable[Batch]) -> Life:
    """Commit each simulated second to the seed's table."""
    samples = commits = 0
    with closing(seed_table(where.folder / "seed.db")) as conn:
        before = where.written()
        for batch in batches:
            insert(conn, seed_rows(batch))
            samples, commits = samples + len(batch), commits + 1
            if commits % JOURNAL_S == 0:
                where.sync()
        return Life(samples, commits, where.written() - before)
