"""Which values are kept: on change, and those that keep changing no more often than asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.model import Batch, Value
from gateway.protocols.revpi.bridge import Verdict
from gateway.protocols.revpi.decoding import Decoder
from gateway.protocols.revpi.layout import Point
from gateway.scaling import Scaling

_BAD = 0x80000000


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag and where its raw value lies."""

    series: int
    point: Point
    scaling: Scaling
    deadband: float
    keep_interval_ns: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """When an image was read."""

    ts: int
    flags: int
    mono_ns: int

    def later(self, mono_ns: int) -> "Stamp":
        """Return the stamp of a moment soon after."""
        return Stamp(self.ts + (mono_ns - self.mono_ns) // 1000, self.flags, mono_ns)


@dataclass(slots=True)
class _Kept:
    """What of a tag was kept last, and what waits for its interval to pass: (value, status, stamp)."""

    value: Value
    status: int
    at_ns: int
    waiting: tuple[Value, int, Stamp] | None = None


class Watch:
    """The tags of one layout; what changed between two images is kept.

    A change is kept at once, with the time at which it was seen. A further one within the tag's interval
    waits until that has passed, and the newest replaces it: a single pulse keeps both its edges and their
    times, what keeps moving is thinned, and the last state is never lost.
    """

    def __init__(self, tags: Sequence[Tag]) -> None:
        self._tags = tags
        self._decode = Decoder([tag.point for tag in tags])
        self._kept: list[_Kept | None] = [None] * len(tags)
        self._waiting: set[int] = set()
        self._image: bytes | None = None
        self._verdict = Verdict()
        self._values: list[Value] = [None] * len(tags)

    def look(self, image: bytes, verdict: Verdict, stamp: Stamp) -> Batch:
        """Return the samples to keep after an image."""
        batch = Batch()
        if image != self._image or verdict != self._verdict:
            self._changes(image, verdict, stamp, batch)
        for i in [i for i in self._waiting if self._due(i, stamp.mono_ns)]:
            kept = self._kept[i]
            assert kept is not None and kept.waiting is not None
            self._keep(i, *kept.waiting, stamp.mono_ns, batch)
        return batch

    @property
    def waiting(self) -> bool:
        """Say whether a change waits for its tag's interval to pass."""
        return bool(self._waiting)

    def all(self, image: bytes, verdict: Verdict, stamp: Stamp) -> Batch:
        """Return a sample of every tag, changed or not."""
        batch = Batch()
        self._image, self._verdict, self._values = image, verdict, self._decode(image)
        for i, raw in enumerate(self._values):
            self._keep(i, *self._meant(i, raw), stamp, stamp.mono_ns, batch)
        return batch

    def _changes(self, image: bytes, verdict: Verdict, stamp: Stamp, batch: Batch) -> None:
        values = self._decode(image)
        everything = self._image is None or verdict != self._verdict
        old, self._values, self._image, self._verdict = self._values, values, image, verdict
        changed = [i for i, (new, last) in enumerate(zip(values, old, strict=True)) if new != last]
        for i in range(len(values)) if everything else changed:
            value, status = self._meant(i, values[i])
            kept = self._kept[i]
            if kept is None:
                self._keep(i, value, status, stamp, stamp.mono_ns, batch)
            elif status == kept.status and self._same(i, value, kept.value):
                kept.waiting = None
                self._waiting.discard(i)
            elif kept.waiting is None or (value, status) != kept.waiting[:2]:
                kept.waiting = value, status, stamp
                self._waiting.add(i)

    def _meant(self, i: int, raw: Value) -> tuple[Value, int]:
        status = self._verdict.status(self._tags[i].point.position)
        return (None if status & _BAD else self._tags[i].scaling(raw)), status

    def _same(self, i: int, value: Value, kept: Value) -> bool:
        deadband = self._tags[i].deadband
        if deadband and _number(value) and _number(kept):
            return bool(abs(value - kept) <= deadband)  # type: ignore[operator]
        return value == kept

    def _due(self, i: int, now_ns: int) -> bool:
        kept = self._kept[i]
        return kept is not None and now_ns - kept.at_ns >= self._tags[i].keep_interval_ns

    def _keep(self, i: int, value: Value, status: int, seen: Stamp, now_ns: int, batch: Batch) -> None:
        self._kept[i] = _Kept(value, status, now_ns)
        self._waiting.discard(i)
        batch.add(self._tags[i].series, seen.ts, value, status, seen.flags)


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
