"""What a bus loses, counted and recorded as gaps: one for losses that follow each other closely."""

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
        self._from_us = self._to_us = self._began_ns = 0

    @property
    def sentence(self) -> str:
        """Say how many there were in all."""
        return self._reason.format(self.total)

    def add(self, count: int, since_us: int) -> None:
        """Count what was lost since then (wall time)."""
        self.last_ns, self._to_us = self._link.clock.mono_ns(), self._link.clock.wall_us()
        if not self._count:
            self._from_us, self._began_ns = since_us, self.last_ns
        self._count += count
        self.total += count

    def settle(self, *, at_once: bool = False) -> None:
        """Record what was lost once it is over, or goes on for a minute."""
        if not self._count or self.last_ns is None:
            return
        now_ns = self._link.clock.mono_ns()
        if at_once or now_ns - self.last_ns >= _CALM_NS or now_ns - self._began_ns >= _LONGEST_NS:
            self._link.gap(self._from_us, self._to_us, self._reason.format(self._count), self._count)
            self._count = 0
