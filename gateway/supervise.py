"""Keeps coroutines running, backs off, remembers their health; the only place that starts a task
outliving its caller.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import Clock
from gateway.model import DeviceProblem, GatewayError

_log = logging.getLogger(__name__)
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits with full jitter: the n-th lies between half of min(first * 2**n, cap) and all of it."""

    first_s: float = 0.5
    cap_s: float = 10.0

    def wait_s(self, failures: int) -> float:
        ceiling: float = min(self.first_s * 2 ** min(failures - 1, 30), self.cap_s)
        return ceiling * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class Health:
    """How a kept coroutine is. `state`: starting, running, degraded, waiting for trust, failed, stopped."""

    state: str = "starting"
    detail: str = ""
    since_us: int = 0
    failures: int = 0
    """Failures in a row since it last ran."""
    starts: int = 0


@dataclass(slots=True)
class Keeper:
    """One coroutine kept running."""

    name: str
    clock: Clock
    health: Health = field(default_factory=Health)
    task: asyncio.Task[None] | None = None

    def report(self, state: str, detail: str = "") -> None:
        """Take what the coroutine says of itself; it is logged where it changes."""
        if (state, detail) == (self.health.state, self.health.detail):
            return
        worse = state in ("failed", "degraded", DeviceProblem.state) or state.startswith("waiting")
        _log.log(
            logging.WARNING if worse else logging.INFO, "%s: %s%s", self.name, state, detail and f": {detail}"
        )
        if state != self.health.state:
            self.health.since_us = self.clock.wall_us()
        self.health.state, self.health.detail = state, detail
        if not worse and state != "starting":
            self.health.failures = 0

    async def settled(self, limit_s: float) -> None:
        """Wait until it says how it is after its start; no longer than so many seconds."""
        until_ns = self.clock.mono_ns() + round(limit_s * 1e9)
        while self.health.state == "starting" and self.clock.mono_ns() < until_ns:
            await self.clock.sleep(_LOOK_S)

    async def stop(self) -> None:
        """Cancel it and wait for its end."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        self.report("stopped")


class Supervisor:
    """Starts and owns the long-lived tasks of the daemon."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(
        self,
        name: str,
        run: Callable[[Keeper], Coroutine[Any, Any, None]],
        *,
        backoff: Backoff | None = None,
        ended: Callable[[BaseException], None] | None = None,
    ) -> Keeper:
        """Run `run(keeper)` until stopped: again after each failure, with back-off.

        A return counts as a failure too: what is kept runs for ever. `ended` is called with the error of
        each attempt, a CancelledError included.
        """
        keeper = Keeper(name, self._clock)
        keeper.task = self.start(name, self._keep(keeper, run, backoff or Backoff(), ended or _ignore))
        return keeper

    def start(self, name: str, once: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine once, owned here; its failure is logged."""
        task = asyncio.create_task(once, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel everything and wait for its end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s ended: %s", task.get_name(), error, exc_info=error)

    async def _keep(
        self,
        keeper: Keeper,
        run: Callable[[Keeper], Coroutine[Any, Any, None]],
        backoff: Backoff,
        ended: Callable[[BaseException], None],
    ) -> None:
        while True:
            keeper.health.starts += 1
            try:
                await run(keeper)
                raise GatewayError("ended by itself")
            except asyncio.CancelledError as cancelled:
                ended(cancelled)
                raise
            except Exception as error:  # noqa: BLE001  # the one place where a part may fail in any way
                ended(error)
                failures = keeper.health.failures + 1
                if failures == 1 and not isinstance(error, GatewayError | OSError | TimeoutError):
                    _log.error("%s failed in a way we did not foresee", keeper.name, exc_info=error)
                keeper.report(error.state if isinstance(error, DeviceProblem) else "failed", describe(error))
                keeper.health.failures = failures
                _forget_cancellation()
            await self._clock.sleep(backoff.wait_s(failures))


def _forget_cancellation() -> None:
    """Clear what a TaskGroup of Python 3.11 leaves behind where a child fails while it waits in __aexit__.

    It cancels its own task and takes that back only where the body still ran (3.12 does both); the next
    asyncio.timeout that expires would then end the task instead of raising TimeoutError.
    """
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def stopped(keepers: Iterable[Keeper], limit_s: float) -> None:
    """Cancel them and wait for their ends, no longer than so many seconds."""
    tasks = {keeper.task: keeper.name for keeper in keepers if keeper.task is not None}
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    _done, late = await asyncio.wait(tasks, timeout=limit_s)
    for task in late:
        _log.warning("%s did not end within %.0f s; going on without it", tasks[task], limit_s)


def _ignore(_error: BaseException) -> None:
    pass


def describe(error: BaseException) -> str:
    """Return an error as one line, also where it has no text; a group as its first member."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    if isinstance(error, GatewayError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
