"""When something may be sent again: back-off with jitter, and what the target itself asked for."""

import random
from collections.abc import Callable

from gateway.clock import Clock
from gateway.model import UploadProblem
from gateway.supervise import Backoff

TURN_S = 2.0
"""No wait is longer than this without a turn of the state machine."""
_LONGEST_S = 3600.0


class Gate:
    """A lane has its own: what fails waits longer each time, whatever else succeeds. One is the target's."""

    def __init__(self, clock: Clock, backoff: Backoff) -> None:
        self._clock, self._backoff = clock, backoff
        self._opens_ns = clock.mono_ns()
        self.failures = 0
        """In a row."""

    def passed(self) -> None:
        self.failures = 0

    def failed(self, problem: UploadProblem) -> float:
        """Close for the back-off, or for as long as the target asked; return the seconds."""
        self.failures += 1
        wait_s = self._backoff.wait_s(self.failures)
        if problem.retry_after_s is not None:
            asked_s = min(problem.retry_after_s, _LONGEST_S)
            wait_s = max(asked_s, self._backoff.first_s) * random.uniform(1.0, 1.1)
        self._opens_ns = max(self._opens_ns, self._clock.mono_ns() + int(wait_s * 1e9))
        return wait_s

    def open(self) -> None:
        """Let the next one through at once: somebody asked for it."""
        self._opens_ns = self._clock.mono_ns()

    @property
    def is_open(self) -> bool:
        return self._opens_ns <= self._clock.mono_ns()

    async def wait(self, turn: Callable[[], None]) -> None:
        """Wait until it is open, in slices, each of which is a turn."""
        while (left_ns := self._opens_ns - self._clock.mono_ns()) > 0:
            turn()
            await self._clock.sleep(min(left_ns / 1e9, TURN_S))
        turn()
