"""Simulated time: a clock that only the simulation moves, an event loop on it, a writer without thread."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from gateway.store.inbox import Inbox
from gateway.store.work import Work
from gateway.store.writer import Writer


class SimulatedClock:
    """Wall and monotonic time; `wall_us` may be set at any moment."""

    def __init__(self, wall_us: int) -> None:
        self.lived_ns = 1_000_000_000
        self._ahead_us = wall_us - self.lived_ns // 1000
        self._boot_ns = 0
        self.synced = True

    def wall_us(self) -> int:
        return self.lived_ns // 1000 + self._ahead_us

    def set(self, wall_us: int, *, synced: bool) -> None:
        """Step the wall clock."""
        self._ahead_us, self.synced = wall_us - self.lived_ns // 1000, synced

    def mono_ns(self) -> int:
        return self.lived_ns - self._boot_ns

    def synchronised(self) -> bool:
        return self.synced

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def pass_s(self, seconds: float) -> None:
        self.lived_ns += int(seconds * 1e9)

    def reboot(self, off_s: float) -> None:
        """The power was gone so long; monotonic time begins anew."""
        self.pass_s(off_s)
        self._boot_ns = self.lived_ns


class _Selector(selectors.SelectSelector):
    """Nothing to wait for but time, which passes at once."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for something that will never come"
        if timeout > 0:
            self._clock.pass_s(max(timeout, 1e-6))
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """One thread for everything: what would go to another is done at once."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(_Selector(clock))
        self._simulated = clock
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._simulated.lived_ns / 1e9

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # as an executor does
            future.set_exception(error)
        return future


class InlineThread:
    """A thread that has done everything when it is started."""

    def __init__(self, target: Callable[[], None], **_: object) -> None:
        self.start = target

    def is_alive(self) -> bool:
        return False


async def inline(func: Callable[..., Any], *args: Any) -> Any:
    """Stand in for `asyncio.to_thread`."""
    await asyncio.sleep(0)
    return func(*args)


class SteppedWriter(Writer):
    """The writer as a task of the loop: `pause_s` and `turn` are what its thread runs."""

    def start(self) -> None:
        self._wake = asyncio.Event()
        self._stepping = self._loop.create_task(self._steps())

    async def _steps(self) -> None:
        while not self._ended:
            pause_s = self.pause_s()
            if pause_s > 0:
                try:
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)
            self._wake.clear()
            if self._stop_by_ns is None:  # else `join` ends it
                self.turn()
            elif not self._ended:
                return

    def submit(self, add: Callable[[Work], None]) -> None:
        Inbox.submit(self, add)
        self._wake.set()

    def hurry(self) -> None:
        Inbox.hurry(self)
        self._wake.set()

    def join(self, timeout: float | None = None) -> None:
        self._stepping.cancel()
        while not self._ended:
            self._clock.pass_s(self.pause_s())  # type: ignore[attr-defined]
            self.turn()
        self._close()
