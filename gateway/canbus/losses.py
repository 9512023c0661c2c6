"""What a bus loses, counted and recorded as gaps: one for losses that follow each other closely."""

from gateway.clock import wall_us_of
from gateway.model import Batch, Link

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
        self._from_ns = self._to_ns = self._began_ns = 0

    @property
    def sentence(self) -> str:
        """Say how many there were in all."""
        return self._reason.format(self.total)

    def add(self, count: int, since_us: int, until_us: int | None = None) -> None:
        """Count what was lost from then to then, or to now (wall time)."""
        now_ns, now_us = self._link.clock.mono_ns(), self._link.clock.wall_us()
        from_ns = now_ns - (now_us - since_us) * 1000
        to_ns = now_ns if until_us is None else now_ns - (now_us - until_us) * 1000
        if not self._count:
            self._began_ns, self._from_ns, self._to_ns = now_ns, from_ns, to_ns
        self._from_ns, self._to_ns = min(self._from_ns, from_ns), max(self._to_ns, to_ns)
        self.last_ns = now_ns
        self._count += count
        self.total += count

    def add_samples(self, batch: Batch) -> None:
        """Count samples that were lost: the gap holds the times of all of them."""
        self.add(len(batch), min(batch.ts), max(batch.ts))

    def settle(self, *, at_once: bool = False) -> None:
        """Record what was lost once it is over, or goes on for a minute."""
        if not self._count or self.last_ns is None:
            return
        clock = self._link.clock
        now_ns = clock.mono_ns()
        if at_once or now_ns - self.last_ns >= _CALM_NS or now_ns - self._began_ns >= _LONGEST_NS:
            from_us, to_us = wall_us_of(clock, self._from_ns), wall_us_of(clock, self._to_ns)
            self._link.gap(from_us, to_us, self._reason.format(self._count), self._count)
            self._count = 0
