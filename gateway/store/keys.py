"""The key (device, tag, ts) without an index over samples.

What is newer than the newest of its series is new. The rest is looked up in the blocks of its range, grouped:
the same value and status is the same sample; another one is first looked for among the `moved` samples of the
microseconds that follow, and else kept at the next free one.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, count, repeat
from operator import itemgetter, le
from typing import Any

from gateway.model import Flag, Value
from gateway.store.blocks import overlapping
from gateway.store.codec import CorruptBlock, Packed
from gateway.store.newest import Newest, Row
from gateway.store.past import Past
from gateway.store.schema import WIDE_US
from gateway.store.values import Checked, joined, packed, same_value, typed

DAY_US = 86_400_000_000
TEN_YEARS_US = 3653 * DAY_US
ADDED, SAME, MOVED = 0, 1, 2
_SLICE = 4096
_REACH = 8
_Key = tuple[int, int]
_Row = tuple[Value, int, int]
"""Value, status, flags."""
_TS: Callable[[Row], int] = itemgetter(1)
_NEVER: Row = (0, -(2**63), None, 0, 0)


@dataclass(slots=True)
class Resolved:
    """What is to be stored of a commit's samples."""

    kept: Checked
    verdicts: bytearray
    """ADDED, SAME or MOVED for each sample that came in."""
    implausible: int
    change: Newest
    bad: list[int] = field(default_factory=list)
    """Seqs of blocks that could not be read."""


def resolve(
    conn: sqlite3.Connection,
    batches: Sequence[Checked],
    newest: Newest,
    now_us: int,
    turn: Callable[[], None],
    past: Past,
) -> Resolved:
    """Decide for each sample whether it is new; `turn` is called between slices of a long look-up."""
    batch, implausible = _flag_implausible(joined(batches), now_us)
    plausible = not (newest.far or implausible)
    late = [] if plausible and newest.follows(batches) else _late(batch, newest, now_us + DAY_US)
    # What waits may have to be tried again: its own columns stay as they are.
    resolved = Resolved(replace(batch) if late else batch, bytearray(len(batch)), implausible, Newest())
    if late:
        _LateSamples(conn, past, batch, late, resolved).settle(turn)
    if late or not plausible:
        _change(resolved, newest, now_us)
    else:
        resolved.change.newer = tuple(batches)
    return resolved


def _flag_implausible(batch: Checked, now_us: int) -> tuple[Checked, int]:
    low, high = now_us - TEN_YEARS_US, now_us + DAY_US
    if low <= batch.t0 and batch.t1 <= high:
        return batch, 0
    flags = [
        flag if low <= ts <= high else flag | Flag.IMPLAUSIBLE
        for flag, ts in zip(batch.flags, batch.ts, strict=True)
    ]
    return replace(batch, flags=flags), sum(not low <= ts <= high for ts in batch.ts)


def _late(batch: Checked, newest: Newest, future_us: int) -> list[int]:
    """Return the places of samples that may be in the store already."""
    late: list[int] = []
    fresh: dict[int, int] = {}
    last, far = newest.last, {series: (low, high[1]) for series, (low, high) in newest.far.items()}
    careful = bool(far) or batch.t1 > future_us
    if not careful and len(set(batch.series)) == len(batch):
        known_ts = map(_TS, map(last.get, batch.series, repeat(_NEVER)))
        return list(compress(count(), map(le, batch.ts, known_ts)))
    for place, (series, ts) in enumerate(zip(batch.series, batch.ts, strict=True)):
        known = fresh.get(series)
        if known is None and (row := last.get(series)) is not None:
            known = row[1]
        if known is not None and ts <= known:
            late.append(place)
            continue
        if careful and (ts > future_us or series in far):
            low, high = far.get(series, (ts, ts - 1))
            if low <= ts <= high:
                late.append(place)
                continue
            if ts > future_us:
                far[series] = min(low, ts), max(high, ts)
                continue
        fresh[series] = ts
    return late


def _change(resolved: Resolved, newest: Newest, now_us: int) -> None:
    """Note what the kept samples change of `newest`, once they are committed."""
    kept, change = resolved.kept, resolved.change
    for series in set(kept.series):
        if (row := newest.last.get(series)) is not None:
            change.last[series] = row
        if (far := newest.far.get(series)) is not None:
            change.far[series] = far
    change.add(kept, now_us)


class _LateSamples:
    """Samples no newer than what is known, compared with the store and with each other."""

    def __init__(
        self, conn: sqlite3.Connection, past: Past, batch: Checked, late: Sequence[int], resolved: Resolved
    ) -> None:
        self._conn = conn
        self._past = past
        self._batch = batch
        self._late = sorted(late, key=batch.ts.__getitem__)
        self._resolved = resolved
        self._ts = list(batch.ts)
        fast = bytearray(b"\x01") * len(batch)
        for place in late:
            fast[place] = 0
        keys = zip(compress(batch.series, fast), compress(batch.ts, fast), strict=True)
        self._mine: dict[_Key, int] = dict(zip(keys, compress(range(len(batch)), fast), strict=True))
        self._stored: dict[_Key, _Row] = {}

    def settle(self, turn: Callable[[], None]) -> None:
        for places in self._slices():
            self._stored = {}
            self._load({self._key(place) for place in places})
            self._move([place for place in places if not self._placed(place, self._key(place))])
            turn()
        keep = [verdict != SAME for verdict in self._resolved.verdicts]
        columns: Any = self._resolved.kept.columns()
        series, _, values, statuses, flags = (list(compress(column, keep)) for column in columns)
        ts = list(compress(self._ts, keep))
        codes, numbers = typed(values)
        self._resolved.kept = Checked(
            series, ts, values, statuses, flags, packed("i", series), packed("q", ts), codes, numbers,
            min(ts, default=0), max(ts, default=0),
        )  # fmt: skip

    def _slices(self) -> Iterator[list[int]]:
        ts = self._batch.ts
        part: list[int] = []
        for place in self._late:
            if part and (len(part) == _SLICE or ts[place] - ts[part[-1]] > WIDE_US):
                yield part
                part = []
            part.append(place)
        if part:
            yield part

    def _key(self, place: int) -> _Key:
        return self._batch.series[place], self._batch.ts[place]

    def _row(self, key: _Key) -> _Row | None:
        mine = self._mine.get(key)
        if mine is None:
            return self._stored.get(key)
        kept = self._resolved.kept
        return kept.values[mine], kept.statuses[mine], kept.flags[mine]

    def _placed(self, place: int, key: _Key) -> bool:
        """Settle a sample whose key is free or holds the same; say whether it is settled."""
        row = self._row(key)
        if row is None:
            self._mine[key] = place
        elif self._equals(place, row):
            self._resolved.verdicts[place] = SAME
        else:
            return False
        return True

    def _equals(self, place: int, row: _Row) -> bool:
        batch = self._batch
        return row[1] == batch.statuses[place] and same_value(row[0], batch.values[place])

    def _move(self, places: list[int]) -> None:
        """Settle samples whose key holds another value, looking ever further ahead."""
        start, reach = 1, _REACH
        while places:
            self._load({(s, t + step) for s, t in map(self._key, places) for step in range(start, reach + 1)})
            places = [place for place in places if not self._moved(place, start, reach)]
            start, reach = reach + 1, reach * 4

    def _moved(self, place: int, start: int, reach: int) -> bool:
        series, ts = self._key(place)
        for step in range(start, reach + 1):
            row = self._row((series, ts + step))
            if row is None:
                self._mine[series, ts + step] = place
                self._ts[place] = ts + step
                self._resolved.verdicts[place] = MOVED
                flags = self._resolved.kept.flags
                if flags is self._batch.flags:
                    flags = self._resolved.kept.flags = list(flags)
                flags[place] |= Flag.MOVED
                return True
            if row[2] & Flag.MOVED and self._equals(place, row):
                self._resolved.verdicts[place] = SAME
                return True
        return False

    def _load(self, keys: set[_Key]) -> None:
        """Read what blocks and chunks have under these keys, one of them at a time."""
        if not keys:
            return
        times = [ts for _, ts in keys]
        deleted = self._past.deleted
        for seq, data in overlapping(self._conn, min(times), max(times)):
            try:
                packed = Packed(data, seq)
                hits = list(map(keys.__contains__, zip(packed.series, packed.ts, strict=True)))
                if deleted and True in hits:
                    deleted.strike(hits, packed.series, packed.ts, seq)
                if True in hits:
                    block = packed.batch()
                    found = zip(block.series, block.ts, strict=True)
                    rows = zip(block.values, block.statuses, block.flags, strict=True)
                    self._stored.update(compress(zip(found, rows, strict=True), hits))
            except CorruptBlock:
                self._resolved.bad.append(seq)
        self._load_chunks(keys, min(times), max(times))

    def _load_chunks(self, keys: set[_Key], from_us: int, to_us: int) -> None:
        wanted: dict[int, set[int]] = {}
        for series, ts in keys:
            wanted.setdefault(series, set()).add(ts)
        for where, fold in self._past.folds(from_us, to_us):
            for there in self._past.packed(where, fold, sorted(wanted), from_us, to_us):
                series = there.header.series
                hits = list(map(wanted[series].__contains__, there.ts))
                if True in hits:
                    chunk = there.batch()
                    rows = zip(chunk.values, chunk.statuses, chunk.flags, strict=True)
                    found = ((series, ts) for ts in chunk.ts)
                    self._stored.update(compress(zip(found, rows, strict=True), hits))
