"""What systemd is told (sd_notify(3)), and the watchdog that pings only while every part makes progress."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import sdnotify

from gateway.clock import Clock

_log = logging.getLogger(__name__)
_TRIES = 30
_AGAIN_S = 0.1
_TICKS = 3  # a clock that jumps must not look like a part that stands


class Turning(Protocol):
    """A part whose state machine turns over: idle, refused, backing off and dead links are turns too."""

    @property
    def turned_ns(self) -> int:
        """Monotonic nanoseconds of its last turn."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A part and how long it may stand before the process is taken for blocked."""

    name: str
    part: Turning
    limit_s: float


class Notifier:
    """Sends state lines to systemd; does nothing where NOTIFY_SOCKET is not set.

    From the event loop itself, without waiting: a thread might be had too late, and systemd restarts us.
    """

    def __init__(self) -> None:
        self._notifier: Any = None
        if os.environ.get("NOTIFY_SOCKET"):
            notifier = sdnotify.SystemdNotifier()  # type: ignore[no-untyped-call]
            if notifier.socket is not None:
                notifier.socket.settimeout(0)
                notifier.debug = True  # else it would ignore a full queue
                self._notifier = notifier

    async def tell(self, *lines: str) -> None:
        """Send them; while systemd's queue is full, try again for a few seconds."""
        if self._notifier is None:
            return
        for _ in range(_TRIES):
            try:
                self._notifier.notify("\n".join(lines))
            except BlockingIOError:
                await asyncio.sleep(_AGAIN_S)
            except OSError:
                return
            else:
                return


def watchdog_interval_s() -> float | None:
    """Return how often to ping (a third of WATCHDOG_USEC), or None where nobody waits for it."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    return int(usec) / 1e6 / 3


class Watchdog:
    """Pings systemd while every watched part has turned within its limit."""

    def __init__(self, notifier: Notifier, clock: Clock, watched: Callable[[], Iterable[Watched]]) -> None:
        self._notifier = notifier
        self._clock = clock
        self._watched = watched
        self._seen: dict[str, tuple[int, int, int]] = {}

    async def run(self, interval_s: float) -> None:
        """Ping for ever; being run at all is the event loop's own turn."""
        reported = ""
        while True:
            standing = self.standing()
            if standing:
                if standing != reported:
                    _log.error("no watchdog ping: %s", standing)
            else:
                await self._notifier.tell("WATCHDOG=1")
            reported = standing
            await self._clock.sleep(interval_s)

    def standing(self) -> str:
        """Return the sentence of the first part that stands, or ""."""
        now = self._clock.mono_ns()
        for watched in self._watched():
            turned = watched.part.turned_ns
            last, since, ticks = self._seen.get(watched.name, (-1, now, 0))
            if turned != last:
                last, since, ticks = turned, now, 0
            self._seen[watched.name] = (last, since, ticks + 1)
            stood_s = (now - since) / 1e9
            if stood_s > watched.limit_s and ticks >= _TICKS:
                return f"{watched.name} has not turned over for {stood_s:.0f} s"
        return ""
