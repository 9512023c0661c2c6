"""Log lines as they come, for whoever follows them; formatted only while somebody does."""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

QUEUE_BYTES: Final = 256 * 1024
_LONGEST: Final = 16 * 1024
"""Characters of a record; a traceback that is longer is cut."""


class Heard(NamedTuple):
    """Records in their order, and how many before them found no room."""

    lines: list[str]
    skipped: int


class Follower:
    """What waits for one client of the log: the newest, the oldest go. Made in the event loop."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._bytes = self._skipped = 0

    def put(self, line: str) -> None:
        """Take a record, from any thread; never waits."""
        with self._lock:
            first = not self._lines
            self._lines.append(line)
            self._bytes += len(line)
            while self._bytes > QUEUE_BYTES:
                self._bytes -= len(self._lines.popleft())
                self._skipped += 1
        if first:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.wake.set)

    def take(self) -> Heard:
        """Return what waits, and wait for more."""
        with self._lock:
            self.wake.clear()
            heard = Heard(list(self._lines), self._skipped)
            self._lines.clear()
            self._bytes = self._skipped = 0
        return heard


class LogFeed(logging.Handler):
    """Gives every record to those who follow, less the secrets that `redact` knows."""

    def __init__(self) -> None:
        super().__init__()
        self.redact: Callable[[str], str] = str
        self._followers: tuple[Follower, ...] = ()

    def emit(self, record: logging.LogRecord) -> None:
        if not self._followers:
            return
        try:
            line = self.redact(self.format(record))[:_LONGEST]
        except (TypeError, ValueError):
            self.handleError(record)
            return
        for follower in self._followers:
            follower.put(line)

    @contextlib.contextmanager
    def followed(self) -> Iterator[Follower]:
        follower = Follower()
        self._followers = (*self._followers, follower)
        try:
            yield follower
        finally:
            self._followers = tuple(each for each in self._followers if each is not follower)
