"""Times of frames: those of this machine's clock, and those of somebody else's."""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

from gateway.canbus.frames import Frames
from gateway.clock import Clock
from gateway.model import Flag

Stamp: TypeAlias = Callable[[], tuple[int, int]]
"""The gateway's own (ts, flags) now, as model.Link.stamp."""

_FAR_US = 10_000_000
"""A clock that is further from ours is not set; it is taken for the time between frames alone."""
_LATE_US, _SLEW_US = 1_000_000, 1_000
"""A card's clock that is late by so much is followed, by this a batch: crystals differ by seconds a day."""


class Stamping:
    """Settles `ts` and `flags` of what was read."""

    def __init__(self, clock: Clock, stamp: Stamp | None) -> None:
        self._clock = clock
        self._stamp = stamp or (lambda: (clock.wall_us(), int(Flag.OWN_TIME)))
        self._ahead_us = 0
        """What is added to a foreign clock."""
        self._less_mono_us = clock.wall_us() - clock.mono_ns() // 1000
        """What wall time was ahead of monotonic time when the batch before was settled."""

    def own(self, frames: Frames) -> None:
        """Settle stamps of this machine: they follow the gateway's own time while nothing sets the clock.

        Where it was set since the batch before, those that the kernel made before are set by as much.
        """
        now_us, frames.flags = self._stamp()
        wall_us, less_mono_us = self._clock.wall_us(), self._less_mono_us
        self._less_mono_us = wall_us - self._clock.mono_ns() // 1000
        set_by_us = self._less_mono_us - less_mono_us
        ahead_us = now_us - wall_us if frames.flags & Flag.UNSYNCED else 0
        ts: list[int] = []
        for part in _parts(frames.ts):
            age_us = wall_us - part[-1]
            before = abs(set_by_us) > _FAR_US and abs(age_us - set_by_us) < abs(age_us)
            ts += _shifted(part, ahead_us + set_by_us if before else ahead_us)
        frames.ts = ts

    def foreign(self, frames: Frames, flag: int) -> None:
        """Settle stamps of another clock, the newest of which is of about now; `flag` is theirs.

        SERVER_TIME: of a machine that sets its clock; OWN_TIME: of a card, which nothing sets.
        """
        now_us, our_flags = self._stamp()
        flags = flag
        ts: list[int] = []
        for part in _parts(frames.ts):
            late_us = now_us - part[-1] - self._ahead_us
            if abs(late_us) > _FAR_US:
                self._ahead_us = 0 if abs(now_us - part[-1]) <= _FAR_US else now_us - part[-1]
            elif flag & Flag.OWN_TIME and not 0 <= late_us <= _LATE_US:
                self._ahead_us += min(late_us, _SLEW_US)  # at once where they are of the future
            ts += _shifted(part, self._ahead_us)
            flags = our_flags if self._ahead_us else flags
        frames.ts = ts
        frames.flags = int(flags)  # a member of the enum, in each sample, makes a commit twice as dear


def _parts(ts: list[int]) -> list[list[int]]:
    """Return a batch in the parts before and behind each step of the clock."""
    if abs(ts[-1] - ts[0]) <= _FAR_US:
        return [ts]
    parts = [ts[:1]]
    for before, after in pairwise(ts):
        if abs(after - before) > _FAR_US:
            parts.append([])
        parts[-1].append(after)
    return parts


def _shifted(ts: list[int], by_us: int) -> list[int]:
    return [each + by_us for each in ts] if by_us else ts
