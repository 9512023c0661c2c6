"""Samples that may be in the store already, looked up in blocks and chunks and compared, as keys.py says."""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, pairwise
from typing import Any

from gateway.model import Batch, Flag, Value
from gateway.store.blocks import overlapping
from gateway.store.codec import CorruptBlock, Packed
from gateway.store.newest import Newest
from gateway.store.past import Past
from gateway.store.schema import WIDE_US
from gateway.store.tails import Tail, identity, spans
from gateway.store.values import Checked, packed, same_value, typed

ADDED, SAME, MOVED = 0, 1, 2
_SLICE = 4096
_REACHES = (0, 8, 32)
"""How far is looked ahead with others; where even more is taken, for the tail of the key."""
_Key = tuple[int, int]
_Row = tuple[Value, int, int]
"""Value, status, flags."""
_Hits = Callable[[Sequence[int], Sequence[int]], list[bool]]
"""Say of each of some keys, series and times, whether it is looked for."""


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


class LateSamples:
    """Samples no newer than what is known, compared with the store and with each other."""

    def __init__(
        self, conn: sqlite3.Connection, past: Past, newest: Newest, batch: Checked, late: Sequence[int],
        resolved: Resolved, turn: Callable[[], None],
    ) -> None:  # fmt: skip
        self._conn = conn
        self._past = past
        self._tails = newest.tails
        self._batch = batch
        self._turn = turn
        self._late = sorted(late, key=batch.ts.__getitem__)
        self._resolved = resolved
        self._ts = list(batch.ts)
        fast = bytearray(b"\x01") * len(batch)
        for place in late:
            fast[place] = 0
        keys = zip(compress(batch.series, fast), compress(batch.ts, fast), strict=True)
        self._mine: dict[_Key, int] = dict(zip(keys, compress(range(len(batch)), fast), strict=True))
        self._stored: dict[_Key, _Row] = {}

    def settle(self) -> None:
        for part in self._slices():
            places = [place for place in part if not self._followed(place)]
            self._stored = {}
            self._load({self._key(place) for place in places})
            self._move([place for place in places if not self._placed(place, self._key(place))])
            self._turn()
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
        for before, reach in pairwise(_REACHES):
            steps = range(before + 1, reach + 1)
            self._load({(s, t + step) for s, t in map(self._key, places) for step in steps})
            places = [place for place in places if not self._moved(place, steps)]
        while places:
            self._find_tails(places)
            places = [place for place in places if not self._followed(place)]

    def _moved(self, place: int, steps: range) -> bool:
        series, ts = self._key(place)
        for step in steps:
            row = self._row((series, ts + step))
            if row is None:
                self._put(place, ts + step)
                return True
            if row[2] & Flag.MOVED and self._equals(place, row):
                self._resolved.verdicts[place] = SAME
                return True
        return False

    def _put(self, place: int, at_us: int) -> None:
        """Keep a sample at a free microsecond after its key."""
        self._mine[self._batch.series[place], at_us] = place
        self._ts[place] = at_us
        self._resolved.verdicts[place] = MOVED
        flags = self._resolved.kept.flags
        if flags is self._batch.flags:
            flags = self._resolved.kept.flags = list(flags)
        flags[place] |= Flag.MOVED

    def _followed(self, place: int) -> bool:
        """Settle a sample behind a key whose tail is known; say whether it is settled."""
        series, ts = self._key(place)
        tail = self._tails.get(series, ts)
        if tail is None:
            return False
        sample = identity(self._batch.values[place], self._batch.statuses[place])
        if tail.seen is not None and sample in tail.seen:
            self._resolved.verdicts[place] = SAME
            return True
        while tail.next_us < tail.end_us and (series, tail.next_us) in self._mine:
            tail.next_us += 1
        if tail.next_us == tail.end_us:
            return False
        self._tails.add(tail, tail.next_us, sample)
        self._put(place, tail.next_us)
        tail.next_us += 1
        return True

    def _find_tails(self, places: Sequence[int]) -> None:
        """Look where the tail of one key of each series ends, or goes on."""
        keys = dict(map(self._key, reversed(places)))
        tails: dict[int, Tail] = {}
        for series, ts in keys.items():
            tails[series] = self._tails.get(series, ts) or self._tails.make(series, ts)
        while tails:
            for part in spans(tails):
                self._tails.widened(tails, self._within(part), part)
                self._turn()
            tails = {series: tail for series, tail in tails.items() if tail.next_us == tail.end_us}

    def _within(self, wanted: dict[int, range]) -> Iterator[Batch]:
        """Yield what there is of these series in these times, in the store and in this commit."""

        def hits(series: Sequence[int], ts: Sequence[int]) -> list[bool]:
            if wanted.keys().isdisjoint(series):
                return []
            return [s in wanted and t in wanted[s] for s, t in zip(series, ts, strict=True)]

        times = wanted.values()
        yield from self._found(
            hits, wanted, min(span.start for span in times), max(span.stop for span in times) - 1
        )
        mine = Batch()
        for (series, ts), place in self._mine.items():
            if series in wanted and ts in wanted[series]:
                kept = self._resolved.kept
                mine.add(series, ts, kept.values[place], kept.statuses[place], kept.flags[place])
        yield mine

    def _load(self, keys: set[_Key]) -> None:
        """Read what blocks and chunks have under these keys."""
        if not keys:
            return

        def hits(series: Sequence[int], ts: Sequence[int]) -> list[bool]:
            return list(map(keys.__contains__, zip(series, ts, strict=True)))

        times = [ts for _, ts in keys]
        for found in self._found(hits, {series for series, _ in keys}, min(times), max(times)):
            rows = zip(found.values, found.statuses, found.flags, strict=True)
            self._stored.update(zip(zip(found.series, found.ts, strict=True), rows, strict=True))

    def _found(self, hits: _Hits, series: Collection[int], from_us: int, to_us: int) -> Iterator[Batch]:
        """Yield what is looked for of blocks and chunks, one of them at a time."""
        deleted = self._past.deleted
        for seq, data in overlapping(self._conn, from_us, to_us):
            self._turn()
            try:
                packed = Packed(data, seq)
                chosen = hits(packed.series, packed.ts)
                if deleted and True in chosen:
                    deleted.strike(chosen, packed.series, packed.ts, seq)
                if True in chosen:
                    yield packed.batch().chosen(chosen)
            except CorruptBlock:
                self._resolved.bad.append(seq)
        for where, fold in self._past.folds(from_us, to_us):
            for there in self._past.packed(where, fold, sorted(series), from_us, to_us):
                self._turn()
                chosen = hits([there.header.series] * len(there.ts), there.ts)
                if True in chosen:
                    yield there.batch().chosen(chosen)
