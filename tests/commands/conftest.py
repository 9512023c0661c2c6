"""A store with samples in blocks and in chunks, and the command line on it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.store import Store, StoreSettings
from tests.chaos.oracle import samples, tags_of
from tests.store.folding import AT_ONCE, eager, folded


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


async def command(*arguments: object) -> Said:
    """Run `edge-gateway` in a process of its own."""

    def run() -> "subprocess.CompletedProcess[bytes]":
        line = [sys.executable, "-m", "gateway", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, timeout=60)

    done = await asyncio.to_thread(run)
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


Opened = Callable[..., AbstractAsyncContextManager[Store]]
HALF, ALL = 3000, 5000
"""Numbers below the first are in chunks, those up to the second in blocks."""


@asynccontextmanager
async def filled(folder: Path) -> AsyncIterator[Store]:
    """Open a store whose samples lie in chunks and in blocks."""
    settings = StoreSettings(**AT_ONCE, commit_interval_s=0.02)
    async with Store.open(folder, settings, SystemClock()) as store:
        tags = tags_of(store)
        store.pin([])
        for first in range(0, HALF, 500):
            await (await store.put(samples(range(first, first + 500), tags)))
        await folded(store)
        store._writer.compactor._look_ns = 2**63  # what follows stays in blocks
        for first in range(HALF, ALL, 250):
            await (await store.put(samples(range(first, first + 250), tags)))
        yield store


@pytest.fixture(autouse=True)
def folds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)
