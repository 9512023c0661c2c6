"""The bytes of samples that may wait in memory for their commit; first come, first served."""

import asyncio
from collections import deque


class MemoryBudget:
    """Event loop only. A batch larger than the whole budget is let in alone."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def full(self) -> bool:
        """Say whether somebody waits for room."""
        return bool(self._waiting)

    def _fits(self, size: int) -> bool:
        return self.used_bytes == 0 or self.used_bytes + size <= self.limit_bytes

    def try_take(self, size: int) -> bool:
        """Take room now, unless there is none or others wait for it."""
        if self._waiting or not self._fits(size):
            return False
        self.used_bytes += size
        return True

    async def take(self, size: int) -> None:
        """Take room, waiting for it in line."""
        if self.try_take(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            elif (size, turn) in self._waiting:  # else it was passed over already
                self._waiting.remove((size, turn))
                self._admit()
            raise

    def give(self, size: int) -> None:
        """Return room; those in line that now fit go on."""
        self.used_bytes -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used_bytes += size
                turn.set_result(None)
