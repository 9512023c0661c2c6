"""What the event loop hands to the writer thread, and tells it."""

import threading
from collections.abc import Callable

from gateway.clock import Clock
from gateway.model import NotStored
from gateway.store.work import Work


class Inbox:
    """The methods are for the event loop. The lock is only ever held for moments."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._pending = Work()
        self._work = Work()
        """What the commit under way takes along: the writer thread's own."""
        self._hurry = self._ended = False
        self._stop_by_ns: int | None = None

    def submit(self, add: Callable[[Work], None]) -> None:
        """Add to what the next commit takes along. NotStored: the store is closed."""
        with self._changed:
            if self._ended:
                raise NotStored("the store is closed")
            first = not self._pending
            add(self._pending)
            if first:
                self._changed.notify()

    def hurry(self) -> None:
        """Commit now, not at the next tick."""
        with self._changed:
            self._hurry = True
            self._changed.notify()

    def waiting(self) -> int:
        """Return the number of samples not committed yet."""
        return self._pending.samples + self._work.samples

    def stop(self, patience_s: float) -> None:
        """Commit what waits and end; what the disk still refuses after `patience_s` is given up."""
        with self._changed:
            self._stop_by_ns = self._clock.mono_ns() + int(patience_s * 1e9)
            self._changed.notify()
