"""What a bus loses, counted and recorded as gaps: one for losses that follow each other closely."""

from gateway.clock import wall_us_of
from gateway.model import Link

SAMPLES_LOST = "{} samples were lost, for the memory for those that wait was full: the store takes none"

_CALM_NS = 1_000_000_000
_LONGEST_NS = 60_000_000_000


class Loss:
    """Losses of one kind."""

    def __init__(self, link: Link, reason: str) -> None:
        """`reason`: a sentence in which {} stands for the count."""
        self.total = 0
        self.last_ns: int | None = None
        """When the last one was noticed, in monotonic time."""
        self._link = link
        self._reason = reason
        self._count = 0
        self._from_ns = self._began_ns = 0

    @property
    def sentence(self) -> str:
        """Say how many there were in all."""
        return self._reason.format(self.total)

    def add(self, count: int, since_us: int) -> None:
        """Count what was lost since then (wall time)."""
        clock = self._link.clock
        self.last_ns = clock.mono_ns()
        if not self._count:
            self._began_ns, self._from_ns = self.last_ns, self.last_ns - (clock.wall_us() - since_us) * 1000
        self._count += count
        self.total += count

    def settle(self, *, at_once: bool = False) -> None:
        """Record what was lost once it is over, or goes on for a minute."""
        if not self._count or self.last_ns is None:
            return
        clock = self._link.clock
        now_ns = clock.mono_ns()
        if at_once or now_ns - self.last_ns >= _CALM_NS or now_ns - self._began_ns >= _LONGEST_NS:
            from_us, to_us = wall_us_of(clock, self._from_ns), wall_us_of(clock, self.last_ns)
            self._link.gap(from_us, to_us, self._reason.format(self._count), self._count)
            self._count = 0
