"""Print how soon a daemon is READY with a large store: `python -m tests.bench.start [GB [FOLDER]]` (4).

Once with all of it in the history, and once with all of it in blocks that an upload still owes; each with
its files in the page cache and without. The store's own code makes them, in minutes; a FOLDER keeps them.
"""

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from gateway.model import Batch
from gateway.store import Store, StoreSettings
from tests.bench.idle import free_port
from tests.bench.plant_store import DataClock
from tests.bench.process import taken
from tests.e2e.gateway_process import gateway

SERIES = 1000
VALUE_BYTES = 500
MAX_BYTES = 40_000_000_000
UPLOAD = "cloud"
MEMORY = Path("/dev/shm")
"""Tens of thousands of commits are made here: no disk is waited for."""
AFTER_S = 30
CONFIG = f"""\
http: {{{{listen: "127.0.0.1:{{at}}"}}}}
store: {{{{path: "{{store}}", max: {MAX_BYTES // 10**9}GB}}}}
devices: {{{{box: {{{{push: {{{{}}}}}}}}}}}}
uploads: {{{{{UPLOAD}: {{{{http: "http://127.0.0.1:{{dead}}/ingest"}}}}}}}}
"""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def build(folder: Path, size: int, *, owed: bool) -> None:
    """Fill a store with a commit a second of the past; `owed`: nothing is delivered, so nothing folded."""
    clock, rng = DataClock(), random.Random(1)
    clock.us = time.time_ns() // 1000 - 20 * 86_400_000_000
    noise = rng.randbytes(1 << 24)
    async with Store.open(folder, StoreSettings(max_bytes=MAX_BYTES), clock) as store:
        series = [store.series("box", f"tag{n}") for n in range(SERIES)]
        store.pin([UPLOAD] if owed else [])
        while store.state().bytes_used < size:
            places = [rng.randrange(len(noise) - VALUE_BYTES) for _ in series]
            values = [noise[place : place + VALUE_BYTES] for place in places]
            batch = Batch(list(series), [clock.us] * SERIES, values, [0] * SERIES, [0] * SERIES)  # type: ignore[arg-type]
            clock.us += 1_000_000
            ticket = await store.put(batch)
            await store.flush()
            await ticket


def forget(folder: Path) -> None:
    """Have the kernel drop the files from its page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


async def start(store: Path, work: Path) -> str:
    """Start a daemon; say what it took until READY and in the time after it."""
    async with gateway(work / "gw", free_port()) as process:
        process.folder.mkdir(exist_ok=True)
        process.file.write_text(CONFIG.format(at=free_port(), dead=free_port(), store=store))
        began = time.monotonic()
        await process.start()
        ready_s = time.monotonic() - began
        assert process.process is not None
        before = taken(process.process.pid)
        await asyncio.sleep(AFTER_S)
        after = taken(process.process.pid)
        assert "ERROR" not in process.log.read_text(), process.log.read_text()
        await process.stop()
    return (
        f"READY after {ready_s:.2f} s ({before.cpu_s:.2f} s of CPU, {before.read_mb:.0f} MB read, RSS "
        f"{before.rss_mib:.0f} MiB); in the {AFTER_S} s after it "
        f"{100 * (after.cpu_s - before.cpu_s) / AFTER_S:.1f} % of a core, "
        f"{after.read_mb - before.read_mb:.0f} MB read, RSS {after.rss_mib:.0f} MiB"
    )


async def measure(size: int, folder: Path) -> None:
    await asyncio.to_thread((folder / "none").mkdir, exist_ok=True)
    say(f"a new store: {await start(folder / 'none', folder)}")
    for name, owed in (("in the history", False), ("in blocks that are owed", True)):
        store = folder / name.replace(" ", "-")
        if not store.exists():
            with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else folder) as made:
                await build(Path(made) / "store", size, owed=owed)
                await asyncio.to_thread(shutil.move, Path(made) / "store", store)
        say(f"{size / 1e9:.1f} GB {name}, in the page cache: {await start(store, folder)}")
        await asyncio.to_thread(forget, store)
        say(f"{size / 1e9:.1f} GB {name}, on the disk: {await start(store, folder)}")


def main() -> None:
    size = int(float(sys.argv[1]) * 1e9) if len(sys.argv) > 1 else 4_000_000_000
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(size, Path(sys.argv[2] if len(sys.argv) > 2 else folder)))


if __name__ == "__main__":
    main()
