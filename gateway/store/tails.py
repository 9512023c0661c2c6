"""Samples moved behind one key by the thousand: a source clock that stands still moves all of them.

Where they end is looked up once and remembered: the next one costs no look into blocks and chunks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from gateway.model import Batch, Flag, Value
from gateway.store.columns import encode_values

COMPARED_US = 4096
"""A sample is compared with the moved ones of so many microseconds after its key."""
_SEEN = 1 << 17
"""Samples remembered to be compared with, about 100 bytes each."""
_IDLE_COMMITS = 256
_LOOKED_AT_US = 1 << 20
"""Microseconds of a series looked at in one go, and a sixteenth of those of all series."""
_DIGEST_BYTES = 16
_MOVED = int(Flag.MOVED)


@dataclass(slots=True)
class Tail:
    """What follows a key: no microsecond is free before `next_us`, each is from there to before `end_us`."""

    key_us: int
    next_us: int
    end_us: int
    seen: set[bytes] | None
    """The key's own sample and the moved ones to be compared with; None: they are too many to remember."""
    used: int = 0
    """The commit that last asked for it."""


class Tails:
    """The tail of one key of a series, the one asked for last. Writer thread only."""

    def __init__(self) -> None:
        self._of: dict[int, Tail] = {}
        self._commits = 0
        self._seen = 0
        self._settled = True

    def __bool__(self) -> bool:
        return bool(self._of)

    def begin(self) -> None:
        """Begin a commit: what one that failed added is not in the store."""
        if not self._settled:
            self._of, self._seen = {}, 0
        self._settled = False
        self._commits += 1

    def committed(self) -> None:
        self._settled = True

    def get(self, series: int, key_us: int) -> Tail | None:
        """Return the tail of this key, if it is remembered."""
        tail = self._of.get(series)
        if tail is None or tail.key_us != key_us:
            return None
        if tail.used != self._commits:
            self._of[series] = self._of.pop(series)
            tail.used = self._commits
        return tail

    def make(self, series: int, key_us: int) -> Tail:
        """Return a tail of which nothing is known yet."""
        self.forget(series)
        tail = self._of[series] = Tail(key_us, key_us, key_us, set(), self._commits)
        return tail

    def forget(self, series: int) -> None:
        tail = self._of.pop(series, None)
        self._seen -= len((tail and tail.seen) or ())

    def note(self, series: Sequence[int], ts: Sequence[int]) -> None:
        """Note samples that a commit stored: those behind a tail leave less room there."""
        if self._of.keys().isdisjoint(series):
            return
        for number, at in zip(series, ts, strict=True):
            tail = self._of.get(number)
            if tail is not None and tail.next_us <= at < tail.end_us:
                tail.end_us = at

    def add(self, tail: Tail, at_us: int, sample: bytes) -> None:
        """Remember a sample to compare others with, as far as there is room."""
        if tail.seen is None or at_us > tail.key_us + COMPARED_US or sample in tail.seen:
            return
        tail.seen.add(sample)
        self._seen += 1
        if self._seen > _SEEN:
            series, oldest = next(iter(self._of.items()))
            if oldest.used < self._commits - _IDLE_COMMITS:
                self.forget(series)
            else:  # to look for it in the store with each commit would cost more than a sample kept twice
                self._seen -= len(tail.seen)
                tail.seen = None

    def widened(
        self, tails: Mapping[int, Tail], batches: Iterable[Batch], spans: Mapping[int, range]
    ) -> None:
        """Take in what the store holds within `spans`, each of them from its tail's end on."""
        taken = {series: bytearray(len(span)) for series, span in spans.items()}
        for batch in batches:
            for series, ts, value, status, flags in zip(*batch.columns(), strict=True):
                tail = tails[series]
                taken[series][ts - tail.end_us] = 1
                if ts == tail.key_us or (flags & _MOVED and ts <= tail.key_us + COMPARED_US):
                    self.add(tail, ts, identity(value, status))
        for series, there in taken.items():
            tail = tails[series]
            free = there.find(0)
            tail.next_us = tail.end_us + (free if free >= 0 else len(there))
            after = there.find(1, free) if free >= 0 else -1
            tail.end_us += after if after >= 0 else len(there)


def spans(tails: Mapping[int, Tail]) -> Iterator[dict[int, range]]:
    """Yield where each tail is to be looked after next: ever more, of not too many series at once."""
    part: dict[int, range] = {}
    room_us = 16 * _LOOKED_AT_US
    for series, tail in tails.items():
        width_us = min(max(COMPARED_US + 1, 3 * (tail.end_us - tail.key_us)), _LOOKED_AT_US)
        if part and width_us > room_us:
            yield part
            part, room_us = {}, 16 * _LOOKED_AT_US
        part[series] = range(tail.end_us, tail.end_us + width_us)
        room_us -= width_us
    if part:
        yield part


def identity(value: Value, status: int) -> bytes:
    """Return what is the same for the same value and status only, in few bytes."""
    whole = encode_values([value]) + status.to_bytes(4, "little")
    return whole if len(whole) <= _DIGEST_BYTES else blake2b(whole, digest_size=_DIGEST_BYTES).digest()
