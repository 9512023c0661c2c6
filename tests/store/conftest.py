"""A movable clock and a store in a folder of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from gateway.store import Store, StoreSettings

NOW_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000


class MovableClock:
    """Real monotonic time; a wall clock that the test sets."""

    def __init__(self) -> None:
        self.wall = NOW_US
        self.synced = True

    def wall_us(self) -> int:
        return self.wall

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def synchronised(self) -> bool:
        return self.synced

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


Opener = Callable[..., AbstractAsyncContextManager[Store]]


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def opened(tmp_path: Path, clock: MovableClock) -> Opener:
    """Open the store of this test, with settings; again after it was closed."""

    def open_it(**settings: object) -> AbstractAsyncContextManager[Store]:
        return Store.open(tmp_path / "store", StoreSettings(**{"commit_interval_s": 0.05, **settings}), clock)

    return open_it


@pytest.fixture
async def store(opened: Opener) -> AsyncIterator[Store]:
    async with opened() as store:
        yield store
