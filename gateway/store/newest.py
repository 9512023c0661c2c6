"""The newest sample of each series, held in RAM, changed only after COMMIT."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Any, NamedTuple

from gateway.model import Batch, Flag, Sample, Value
from gateway.store.tails import Tails
from gateway.store.tombstones import Tombstone
from gateway.store.values import Checked, value_bytes

Row = tuple[int, int, Value, int, int]
"""A Sample's fields: series, ts, value, status, flags."""

_OWN_TIME, _IMPLAUSIBLE = int(Flag.OWN_TIME), int(Flag.IMPLAUSIBLE)
_NOT_HELD = 0x80
"""In the flags of a row here: its value is too long to be held in RAM."""
_LONG_BYTES = 4096
_FEW_SERIES = 4
"""A batch with this many samples of each series, as a CAN bus gives them, is looked at by its series."""
_SEEN, _SEEN_SERIES = 64, 8192
_LONG_TOTAL_BYTES = 16 * 1024 * 1024


class Struck(NamedTuple):
    """A deletion, and the newest samples before it: plausible ones, and those of the implausible future."""

    tombstone: Tombstone
    last: Row | None
    far: Row | None


@dataclass(slots=True)
class Newest:
    """What the key rule needs to know without looking at blocks."""

    rows: dict[int, Row] = field(default_factory=dict)
    """Newest plausible sample per series, but of those in `recent`. Use `last`."""
    far: dict[int, tuple[int, Row]] = field(default_factory=dict)
    """Lowest ts and highest sample in the implausible future, per series that has any."""
    own_us: int = 0
    """Newest stamp that the gateway made itself."""
    newer: tuple[Checked, ...] | None = None
    """Of a change: all of it, where each sample is newer than what is known of its series."""
    recent: dict[bytes, Checked] = field(default_factory=dict)
    """By their series (packed) batches of numbers that hold the newest of each: one batch a series."""
    tails: Tails = field(default_factory=Tails)
    _where: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    """By series its key in `recent`, and its place there."""
    _seen: dict[bytes, None] = field(default_factory=dict)
    """What may become keys of `recent` where they come again."""
    _long: dict[int, int] = field(default_factory=dict)
    """Bytes of the long values held, by series, the longest held first."""

    def __contains__(self, series: int) -> bool:
        return series in self._where or series in self.rows or series in self.far

    @property
    def last(self) -> dict[int, Row]:
        """Newest plausible sample per series: a sample after it is new. The writer thread's."""
        if self.recent:
            for batch in self.recent.values():
                self.rows.update(zip(batch.series, zip(*batch.columns(), strict=True), strict=True))
            self.recent, self._where = {}, {}
        return self.rows

    def row(self, series: int) -> Row | None:
        """Return the newest plausible sample of a series, its value maybe not held.

        Any thread: what leaves `recent` is among the rows before.
        """
        key, place = self._where.get(series, (b"", 0))
        if (batch := self.recent.get(key)) is not None:
            return _row(batch.columns(), place)
        return self.rows.get(series)

    def get(self, series: int) -> Sample | None:
        """Return the newest plausible sample of a series, else its newest; None too where it is not held."""
        row = self.row(series)
        if row is None and (far := self.far.get(series)) is not None:
            row = far[1]
        return None if row is None or row[4] & _NOT_HELD else Sample(*row)

    def follows(self, batches: Sequence[Checked]) -> bool:
        """Say whether all samples are known to be newer, because each batch comes after one of its series."""
        ends: dict[bytes, int] = {}
        for batch in batches:
            known = self.recent.get(batch.packed_series)
            end = ends.get(batch.packed_series, known.t1 if known else None)
            if end is None or batch.t0 <= end:
                return False
            ends[batch.packed_series] = batch.t1
        return True

    def add(self, batch: Batch, future_us: int) -> None:
        """Take in stored samples; implausible ones after `future_us` do not raise what is newest."""
        last, far = self.last, self.far
        for row in zip(*batch.columns(), strict=True):
            series, ts, _, _, flags = row
            if ts > future_us and flags & _IMPLAUSIBLE:
                low, high = far.get(series, (ts, row))
                far[series] = min(low, ts), row if ts > high[1] else high
                continue
            if (known := last.get(series)) is None or known[1] < ts:
                last[series] = row
                if series in far and far[series][1][1] < ts:
                    del far[series]
        self._note_own(batch)

    def add_newer(self, batch: Checked) -> None:
        """Take in samples that are each newer than what is known of their series, in their order."""
        self._note_own(batch)
        if batch.plain and not self._long and self._recurs(batch):
            self.recent[batch.packed_series] = batch
            return
        last, columns = self.last, batch.columns()
        ends = dict(zip(batch.series, count(), strict=False))
        if len(ends) * _FEW_SERIES < len(batch):
            last.update((series, _row(columns, place)) for series, place in ends.items())
        else:
            last.update(zip(batch.series, zip(*columns, strict=True), strict=True))
        if self._long or not batch.plain:
            self.hold({number: last[number] for number in batch.series})

    def _recurs(self, batch: Checked) -> bool:
        """Say whether these series, each once, came together before; make room in `recent` then."""
        key = batch.packed_series
        if key in self.recent:
            return True
        if key not in self._seen:
            if len(batch) <= _SEEN_SERIES:
                self._seen[key] = None
            if len(self._seen) > _SEEN:
                del self._seen[next(iter(self._seen))]
            return False
        if len(set(batch.series)) < len(batch):
            return False
        if not self._where.keys().isdisjoint(batch.series):
            self.rows = self.last
        self._where.update(zip(batch.series, zip(repeat(key), count(), strict=False), strict=False))
        return True

    def _note_own(self, batch: Batch) -> None:
        flags = batch.flags
        if not flags or flags.count(0) == len(flags):
            return
        if flags.count(flags[0]) == len(flags):
            newest_us = max(batch.ts) if flags[0] & _OWN_TIME else 0
        else:
            own = (ts for ts, each in zip(batch.ts, flags, strict=True) if each & _OWN_TIME)
            newest_us = max(own, default=0)
        self.own_us = max(self.own_us, newest_us)

    def after(self, change: "Newest") -> "Newest":
        """Return a copy with a change merged in."""
        copy = Newest(dict(self.last), dict(self.far), self.own_us)
        copy.merge(change)
        return copy

    def merge(self, change: "Newest") -> None:
        """Take in what one commit changed."""
        self.tails.committed()
        if change.newer is not None:
            for batch in change.newer:
                self.add_newer(batch)
            return
        self.last.update(change.last)
        self.far.update(change.far)
        if self.far:
            for series, row in change.last.items():
                if series in self.far and self.far[series][1][1] < row[1]:
                    del self.far[series]
        self.own_us = max(self.own_us, change.own_us)
        self.hold(change.last)

    def strike(self, struck: Struck) -> None:
        """Take out what a commit deleted."""
        gone, last, far = struck
        series = gone.series
        self.tails.forget(series)
        if (row := self.last.get(series)) is not None and gone.has(row[1]):
            self._long.pop(series, None)
            del self.last[series]
            if last is not None:
                self.last[series] = last
                self.hold({series: last})
        if series in self.far and gone.has(self.far[series][1][1]):
            low, _ = self.far.pop(series)
            if far is not None and far[1] >= low:
                self.far[series] = low, far

    def hold(self, rows: dict[int, Row]) -> None:
        """Let go of the values of long standing where long ones would fill the memory."""
        for series, row in list(rows.items()):
            self._long.pop(series, None)
            if type(row[2]) in (str, bytes, list) and (size := value_bytes(row[2])) > _LONG_BYTES:
                self._long[series] = size
        while sum(self._long.values()) > _LONG_TOTAL_BYTES:
            series = next(iter(self._long))
            del self._long[series]
            _, ts, _, status, flags = self.last[series]
            self.last[series] = series, ts, None, status, flags | _NOT_HELD


def _row(columns: Sequence[Sequence[Any]], place: int) -> Row:
    series, ts, values, statuses, flags = columns
    return series[place], ts[place], values[place], statuses[place], flags[place]


def not_held(series: int, ts: int) -> Row:
    """Stand for samples up to a time that are not known in RAM: no value, but the key rule holds."""
    return series, ts, None, 0, _NOT_HELD
