"""Which values of a tag are kept: on change, and what keeps changing no more often than asked.

The rule is that of the process image of a RevPi: a change is kept at once, with its own time. A further one
within the tag's interval waits until that has passed, and the newest replaces it: a single pulse keeps both
its edges and their times, what keeps moving is thinned, and the last state is never lost.
"""

from collections.abc import Sequence
from typing import Any, Final

from gateway.model import GOOD, Batch, Value
from gateway.protocols.can.generated import Bad

_NOTHING: Final = object()
_NEVER: Final = -(2**63)


class Keeper:
    """One tag. Its interval counts by the time of the frames; a clock that goes back ends it."""

    __slots__ = (
        "_at_us", "_deadband", "_due_us", "_flags", "_interval_us", "_kept", "_waiting", "_waits",
        "_waits_since_us", "heard", "series",
    )  # fmt: skip

    def __init__(self, series: int, interval_us: int, deadband: float, waiting: "set[Keeper]") -> None:
        """`waiting`: where it enters itself while a change waits."""
        self.series = series
        self.heard = False
        """A value came."""
        self._interval_us = interval_us
        self._deadband = deadband
        self._waiting = waiting
        self._kept: Any = _NOTHING
        self._at_us = self._due_us = _NEVER
        self._waits: Any = _NOTHING
        self._waits_since_us = 0
        self._flags = 0

    @property
    def every(self) -> bool:
        """Say whether it keeps each value, changed or not."""
        return not self._interval_us and not self._deadband

    def forget(self) -> None:
        """What was kept last did not get into the store: the next value is kept, changed or not."""
        self._kept, self._at_us, self._due_us = _NOTHING, _NEVER, _NEVER

    def end(self, status: int, ts: int, flags: int, batch: Batch) -> None:
        """Put into the batch what waits, and that there is no value any more; the next one is kept."""
        if self._waits is not _NOTHING:
            self.release(self._due_us, batch)
        self.forget()
        batch.add(self.series, ts, None, status, flags)

    def take(self, values: "Sequence[Value | Bad]", ts: Sequence[int], flags: int, batch: Batch) -> None:
        """Put into the batch what is to be kept of some values and their times, in order."""
        self.heard = True
        if self.every:
            self._add_all(values, ts, flags, batch)
        elif self._waits is _NOTHING and values.count(self._kept) == len(ts):
            pass  # the usual course of a signal that does not move
        elif self._at_us <= ts[0] and ts[-1] < self._due_us:
            self._last_of(values, ts, flags)
        else:
            for value, at_us in zip(values, ts, strict=True):
                self._one(value, at_us, flags, batch)

    def release(self, now_us: int, batch: Batch) -> None:
        """Keep what waits where its time has come."""
        if self._waits is _NOTHING or self._at_us <= now_us < self._due_us:
            return
        value, self._waits = self._waits, _NOTHING
        self._waiting.discard(self)
        self._keep(value, min(now_us, self._due_us))
        self._add(value, self._waits_since_us, self._flags, batch)

    def _one(self, value: "Value | Bad", at_us: int, flags: int, batch: Batch) -> None:
        self.release(at_us, batch)
        if self._same(value):
            self._forget()
        elif self._at_us <= at_us < self._due_us:
            self._wait(value, at_us, flags)
        else:
            self._keep(value, at_us)
            self._add(value, at_us, flags, batch)

    def _last_of(self, values: "Sequence[Value | Bad]", ts: Sequence[int], flags: int) -> None:
        """Within the interval only the last value counts, and since when it is."""
        value, place = values[-1], len(values) - 1
        if self._same(value):
            self._forget()
            return
        while place and values[place - 1] == value:
            place -= 1
        if place:  # something else was between
            self._waits = _NOTHING
        self._wait(value, ts[place], flags)

    def _same(self, value: Any) -> bool:
        kept = self._kept
        if value == kept or (value != value and kept != kept):  # NaN
            return True
        if not self._deadband or not isinstance(value, int | float) or not isinstance(kept, int | float):
            return False
        return abs(value - kept) <= self._deadband

    def _wait(self, value: "Value | Bad", at_us: int, flags: int) -> None:
        if self._waits == value:
            return
        if self._waits is _NOTHING:
            self._waiting.add(self)
        self._waits, self._waits_since_us, self._flags = value, at_us, flags

    def _forget(self) -> None:
        if self._waits is not _NOTHING:
            self._waits = _NOTHING
            self._waiting.discard(self)

    def _keep(self, value: "Value | Bad", at_us: int) -> None:
        self._kept, self._at_us, self._due_us = value, at_us, at_us + self._interval_us

    def _add(self, value: "Value | Bad", ts: int, flags: int, batch: Batch) -> None:
        if isinstance(value, Bad):
            batch.add(self.series, ts, None, value.status, flags)
        else:
            batch.add(self.series, ts, value, GOOD, flags)

    def _add_all(self, values: "Sequence[Value | Bad]", ts: Sequence[int], flags: int, batch: Batch) -> None:
        count = len(ts)
        batch.series.extend([self.series] * count)
        batch.ts.extend(ts)
        batch.flags.extend([flags] * count)
        if Bad in set(map(type, values)):
            batch.statuses.extend(value.status if isinstance(value, Bad) else GOOD for value in values)
            batch.values.extend(None if isinstance(value, Bad) else value for value in values)
        else:
            batch.statuses.extend([GOOD] * count)
            batch.values.extend(values)  # type: ignore[arg-type]
