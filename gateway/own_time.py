"""The gateway's own stamps, also while nothing has set the clock."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.model import Flag, Gap

_STEP_US = 1_000_000
# Plain integers: an enum's member in each sample makes a commit twice as dear.
_SET = int(Flag.OWN_TIME)
_UNSET = int(Flag.OWN_TIME | Flag.UNSYNCED)


@dataclass(slots=True)
class _Guess:
    """What a stamp is ahead of monotonic time, and the stamps made with it, while nothing sets the clock."""

    less_mono_us: int
    first_us: int
    last_us: int


class OwnTime:
    """The gateway's own stamps: wall time, but never before the newest stamp while nothing sets the clock.

    What was stamped meanwhile stays as it is, for it is a key and may have been delivered. Once the clock is
    set, a gap record says by how much these stamps are wrong.
    """

    def __init__(self, clock: Clock, newest_us: int, record: Callable[[Gap], None]) -> None:
        self._clock = clock
        self._newest_us = newest_us
        self._record = record
        self._wall_less_mono_us = 0
        self._guesses: deque[_Guess] = deque(maxlen=1000)

    def __call__(self) -> tuple[int, int]:
        wall, mono = self._clock.wall_us(), self._clock.mono_ns() // 1000
        if self._clock.synchronised():
            self._correct(wall - mono)
            self._newest_us = max(self._newest_us, wall)
            return wall, _SET
        if not self._guesses or abs(wall - mono - self._wall_less_mono_us) > _STEP_US:
            # Somebody set the clock: what was added to a boot in 1970 must not be added to the right date.
            self._wall_less_mono_us = wall - mono
            start = max(wall, self._newest_us + 1)
            self._guesses.append(_Guess(start - mono, start, start))
        guess = self._guesses[-1]
        self._newest_us = guess.last_us = stamp = max(mono + guess.less_mono_us, self._newest_us)
        return stamp, _UNSET

    def _correct(self, less_mono_us: int) -> None:
        while self._guesses:
            guess = self._guesses.popleft()
            wrong_us = guess.less_mono_us - less_mono_us
            if abs(wrong_us) > _STEP_US:
                way = "late" if wrong_us > 0 else "early"
                reason = (
                    f"no hole: the clock was set, and the gateway's own stamps of this time "
                    f"are {abs(wrong_us) / 1e6:.3f} s too {way}"
                )
                self._record(Gap(guess.first_us, guess.last_us, reason))
