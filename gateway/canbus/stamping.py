"""Times of frames: those of this machine's clock, and those of somebody else's."""

from collections.abc import Callable
from typing import TypeAlias

from gateway.canbus.frames import Frames
from gateway.clock import Clock
from gateway.model import Flag

Stamp: TypeAlias = Callable[[], tuple[int, int]]
"""The gateway's own (ts, flags) now, as model.Link.stamp."""

_FAR_US = 10_000_000
"""A clock that is further from ours is not set; it is taken for the time between frames alone."""


class Stamping:
    """Settles `ts` and `flags` of what was read."""

    def __init__(self, clock: Clock, stamp: Stamp | None) -> None:
        self._clock = clock
        self._stamp = stamp or (lambda: (clock.wall_us(), int(Flag.OWN_TIME)))
        self._ahead_us = 0
        """What is added to a foreign clock."""

    def own(self, frames: Frames) -> None:
        """Settle stamps of this machine: they follow the gateway's own time while nothing sets the clock."""
        now_us, frames.flags = self._stamp()
        if frames.flags & Flag.UNSYNCED:
            _shift(frames, now_us - self._clock.wall_us())

    def foreign(self, frames: Frames, flag: int) -> None:
        """Settle stamps of another clock, the newest of which is of about now; `flag` is theirs."""
        now_us, flags = self._stamp()
        if abs(frames.ts[-1] + self._ahead_us - now_us) > _FAR_US:
            self._ahead_us = now_us - frames.ts[-1]
        if self._ahead_us:
            _shift(frames, self._ahead_us)
            flag = flags
        frames.flags = int(flag)  # a member of the enum, in each sample, makes a commit twice as dear


def _shift(frames: Frames, by_us: int) -> None:
    frames.ts = [ts + by_us for ts in frames.ts]
