"""Wall and monotonic time behind one small interface, so that tests can move them."""

import asyncio
import ctypes
import time
from typing import Protocol

_STA_UNSYNC = 0x0040  # adjtimex(2): the clock is not disciplined by anything
_STATUS_OFFSET = 40  # struct timex, 64-bit Linux: modes, offset, freq, maxerror, esterror, then status
_CHECK_NS = 10_000_000_000


class Clock(Protocol):
    """What the gateway knows of time."""

    def wall_us(self) -> int:
        """Return microseconds since 1970 UTC; may step either way at any moment."""

    def mono_ns(self) -> int:
        """Return nanoseconds that only grow, from an arbitrary start; back-off and limits use these."""

    def synchronised(self) -> bool:
        """Say whether something (NTP, PTP) disciplines the wall clock."""

    async def sleep(self, seconds: float) -> None:
        """Wait that long in monotonic time."""


def wall_us_of(clock: Clock, mono_ns: int) -> int:
    """Return the wall time of a moment of monotonic time, by what the clock says now.

    Of two moments so told, a clock that was set in between makes the time neither longer nor shorter.
    """
    return clock.wall_us() - (clock.mono_ns() - mono_ns) // 1000


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._checked_ns = -_CHECK_NS
        self._synchronised = False
        self._libc = ctypes.CDLL(None, use_errno=True)

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def synchronised(self) -> bool:
        # Asked for every own stamp, changes a few times in a boot: one system call in ten seconds is enough.
        now = time.monotonic_ns()
        if now - self._checked_ns >= _CHECK_NS:
            self._checked_ns = now
            self._synchronised = self._kernel_says()
        return self._synchronised

    def _kernel_says(self) -> bool:
        timex = (ctypes.c_char * 256)()  # modes = 0: read only, needs no privilege
        if self._libc.adjtimex(timex) < 0:
            return False
        status = int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], "little")
        return not status & _STA_UNSYNC

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
