"""Listens to a bus for some time and says what is on it (controls.Scan)."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from gateway import canbus
from gateway.canbus import Frames
from gateway.clock import Clock
from gateway.controls.devices import HeardId
from gateway.model import DeviceProblem
from gateway.protocols.can.census import Census
from gateway.protocols.can.matching import Matching

_SHARED: Final = ("socketcan", "socketcand", "virtual", "udp_multicast")
"""Interfaces that may be opened twice: there everything is heard, whatever the session filters."""


async def listen(
    settings: canbus.Settings, matching: Matching, seconds: float, *, device: str, clock: Clock
) -> Census:
    """Open the bus, count what comes in that time. BusProblem: it cannot be opened, or is lost."""
    census = Census(matching)
    async with canbus.opened(settings, device=device, clock=clock) as bus:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    census.take(await bus.receive())
    return census


class Scanner:
    """Scans beside a session."""

    def __init__(self, settings: canbus.Settings, matching: Matching, device: str, clock: Clock) -> None:
        self._settings = settings
        self._matching = matching
        self._device = device
        self._clock = clock
        self._open: set[Census] = set()
        self._busy = False

    def take(self, frames: Frames) -> None:
        """Take the session's frames too, for an interface that cannot be opened twice."""
        for census in self._open:
            census.take(frames)

    async def scan(self, seconds: float) -> Sequence[HeardId]:
        """Listen for so long; return what was heard, by id. DeviceProblem: it cannot be listened."""
        if self._busy:
            raise DeviceProblem("another scan is under way")
        self._busy = True
        try:
            return await self._scan(seconds)
        finally:
            self._busy = False

    async def _scan(self, seconds: float) -> Sequence[HeardId]:
        if self._settings.interface in _SHARED:
            found = await listen(
                self._settings, self._matching, seconds, device=self._device, clock=self._clock
            )
            return found.heard()
        census = Census(self._matching)
        self._open.add(census)
        try:
            await self._clock.sleep(seconds)
        finally:
            self._open.discard(census)
        return census.heard()
