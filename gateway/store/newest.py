"""The newest sample of each series, held in RAM, changed only after COMMIT, and its snapshot in the file."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from operator import itemgetter
from typing import Any, NamedTuple

from gateway.model import Batch, Flag, Sample, Value
from gateway.store.codec import BlockHeader, CorruptBlock, Kind, decode, encode
from gateway.store.past import Past
from gateway.store.segment import Fold, Segment
from gateway.store.tails import Tails
from gateway.store.tombstones import Tombstone
from gateway.store.values import Checked, stored, value_bytes

Row = tuple[int, int, Value, int, int]
"""A Sample's fields: series, ts, value, status, flags."""

_OWN_TIME, _IMPLAUSIBLE = int(Flag.OWN_TIME), int(Flag.IMPLAUSIBLE)
_NOT_HELD = 0x80
"""In the flags of a row here: its value is too long to be held in RAM."""
_CANDIDATES = 8
"""Chunks of a series that are looked at for its newest plausible sample."""
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


def save_snapshot(conn: sqlite3.Connection, newest: Newest, header: BlockHeader) -> None:
    """Write the snapshot as of block `header.seq`."""
    far = Batch()
    for series, (low, high) in newest.far.items():
        far.add(series, low, None)
        far.add(*high)
    conn.execute(
        "INSERT OR REPLACE INTO snapshot(id, seq, own_us, newest, far) VALUES (1, ?, ?, ?, ?)",
        (header.seq, newest.own_us, encode(header, _batch(newest.last.values())), encode(header, far)),
    )


def load_newest(conn: sqlite3.Connection, bad: list[int], past: Past) -> Newest:
    """Rebuild from the snapshot and the blocks after it; seqs of blocks that cannot be read go to `bad`.

    Without a snapshot what was folded is looked for in the history: blocks are folded only once the
    snapshot covers them.
    """
    newest, after = _load_snapshot(conn)
    if not after:
        _add_past(newest, past)
    deleted = past.deleted
    rows = conn.execute(
        "SELECT seq, data FROM block WHERE seq > ? AND kind = ? ORDER BY seq", (after, Kind.SAMPLES)
    )
    for seq, data in rows:
        try:
            header, batch = decode(data, seq)
        except CorruptBlock:
            bad.append(seq)
            continue
        if deleted:
            batch = deleted.filtered(batch, seq)
        newest.add(batch, header.wall_us)
        newest.hold({series: newest.last[series] for series in set(batch.series) & newest.last.keys()})
    return newest


def _add_past(newest: Newest, past: Past) -> None:
    """Take in the chunk with the highest times of each series, and all in the future of the fold's blocks."""
    there: dict[int, list[tuple[int, Segment, Fold, int]]] = {}
    for where, fold in past.folds(-(2**63), 2**63 - 1):
        for number, header in past.headers(where, fold, None):
            found = there.setdefault(header.series, [])
            found.append((header.t1, where, fold, number))
            if len(found) > _CANDIDATES and header.series not in past.deleted:
                found.remove(min(found, key=itemgetter(0)))
    for series, found in there.items():
        for _, where, fold, number in sorted(found, key=itemgetter(0), reverse=True):
            packed = past.one(where, fold, number)
            if packed is not None:
                newest.add(packed.batch(), -(2**63))
                newest.hold({series: newest.last[series]} if series in newest.last else {})
            if series in newest.last:
                break


def _load_snapshot(conn: sqlite3.Connection) -> tuple[Newest, int]:
    row = conn.execute("SELECT seq, own_us, newest, far FROM snapshot WHERE id = 1").fetchone()
    if row is None:
        return Newest(), 0
    seq, own_us, last, far = row
    newest = Newest(own_us=own_us)
    try:
        newest.add_newer(stored(decode(last)[1]))
        pairs = list(decode(far)[1])
    except CorruptBlock:
        return Newest(own_us=own_us), 0
    for low, high in zip(pairs[::2], pairs[1::2], strict=True):
        newest.far[low.series] = low.ts, high
    return newest, seq


def _batch(rows: Iterable[Row]) -> Batch:
    batch = Batch()
    for row in rows:
        batch.add(*row)
    return batch
