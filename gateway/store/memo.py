"""What readers keep in memory of what they unpacked; the least used goes first. For any thread."""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """Maps keys of what never changes to what it is.

    What was used within `idle_s` is not given up for something else: a read that goes round in more than
    there is room for would find nothing again.
    """

    def __init__(self, most_bytes: int, idle_s: float) -> None:
        self._most_bytes, self._idle_s = most_bytes, idle_s
        self._lock = threading.Lock()
        self._there: OrderedDict[Hashable, tuple[T, int, float]] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            found = self._there.get(key)
            if found is None:
                return None
            self._there[key] = found[0], found[1], time.monotonic()
            self._there.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: T, size_bytes: int) -> None:
        """Keep a value where there is room; what is larger than a quarter of all is not kept."""
        with self._lock:
            self._size -= self._there.pop(key, (None, 0, 0.0))[1]
            if size_bytes <= self._most_bytes // 4 and self._makes_room(size_bytes):
                self._size += size_bytes
                self._there[key] = value, size_bytes, time.monotonic()

    def has_room(self, size_bytes: int) -> bool:
        """Say whether something of this size would be kept."""
        with self._lock:
            return size_bytes <= self._most_bytes // 4 and self._makes_room(size_bytes)

    def _makes_room(self, size_bytes: int) -> bool:
        idle = time.monotonic() - self._idle_s
        while self._size + size_bytes > self._most_bytes:
            key, (_, size, used) = next(iter(self._there.items()))
            if used > idle:
                return False
            del self._there[key]
            self._size -= size
        return True
