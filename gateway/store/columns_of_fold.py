"""The samples of a fold in memory, taken apart by series, and cut into chunks."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeAlias

from gateway.model import Batch, Value
from gateway.store import chunk
from gateway.store.codec import Columns, decode, decode_columns
from gateway.store.values import BOOL, NONE, value_bytes

CHUNK_BYTES = 1024 * 1024
_HOLE_US = 86_400_000_000
"""A chunk ends where its series is silent for so long: a stray time would make each query read it."""
_MOST_HOLES = 1024
_SORTED_SAMPLES, _STRIDED_SAMPLES = 4096, 32_768
_RUN = 4
"""So many blocks of the same series are worth the strides."""
_PLAIN = frozenset({float, int, bool, type(None)})


Values: TypeAlias = "array[Any] | list[Value]"
"""Doubles and integers as an array of them where a series has but one of these."""


@dataclass(slots=True)
class Column:
    """The samples of one series, as they arrived."""

    ts: "array[int]" = field(default_factory=lambda: array("q"))
    values: Values = field(default_factory=list)
    statuses: "array[int]" = field(default_factory=lambda: array("I"))
    flags: "array[int]" = field(default_factory=lambda: array("B"))

    def add(self, values: Values) -> None:
        """Add values; before the other columns."""
        if not self.ts:
            self.values = values
        elif isinstance(self.values, list) or getattr(values, "typecode", "") == self.values.typecode:
            self.values.extend(values)
        else:
            self.values = [*self.values, *values]


class Sorter:
    """Takes the samples of blocks apart by series, some blocks at a time."""

    def __init__(self) -> None:
        self.columns: dict[int, Column] = {}
        self.size = 0
        """Bytes of values that are no plain numbers."""
        self.longest = 0
        """Samples of the longest series."""
        self._run: list[Columns] = []
        self._in_run = 0
        self._others = Batch()

    @property
    def due(self) -> bool:
        """Say whether enough waits to be taken apart."""
        return len(self._others) >= _SORTED_SAMPLES or self._in_run >= _STRIDED_SAMPLES

    def add(self, data: bytes) -> None:
        """Take a block; raise CorruptBlock."""
        block = decode_columns(data)
        if block is None:
            self.add_batch(decode(data)[1])
            return
        if self._run and (block.layout, block.codes) != (self._run[0].layout, self._run[0].codes):
            self._sort_run()
        self._run.append(block)
        self._in_run += block.n

    def add_batch(self, batch: Batch) -> None:
        self._sort_run()
        self._others.extend(batch)
        self.size += sum(map(value_bytes, batch.values)) if not is_plain(batch) else 0

    def sort(self) -> None:
        self._sort_run()
        self.longest = max(self.longest, sort_in(self._others, self.columns))
        self._others = Batch()

    def _sort_run(self) -> None:
        run, self._run, self._in_run = self._run, [], 0
        if len(run) < _RUN or len(set(run[0].series())) < run[0].n:
            for block in run:
                self._others.extend(block.batch())
            return
        self.longest = max(self.longest, sort_in(self._others, self.columns))
        self._others = Batch()
        self.longest = max(self.longest, _sort_in_run(run, self.columns))


def _sort_in_run(run: Sequence[Columns], columns: dict[int, Column]) -> int:
    """Add blocks of the same series in the same order: each series is a stride."""
    n, longest = run[0].n, 0
    ts, statuses, flags = (
        _joined([getattr(block, name) for block in run]) for name in ("ts", "statuses", "flags")
    )
    status, flag = _same(statuses, len(run)), _same(flags, len(run))
    numbers = {code: _joined([block.numbers[code] for block in run]) for code in run[0].numbers}
    widths, ranks = {code: len(run[0].numbers[code]) for code in numbers}, dict.fromkeys(numbers, 0)
    for place, (number, code) in enumerate(zip(run[0].series(), run[0].codes, strict=True)):
        column = columns.get(number)
        if column is None:
            column = columns[number] = Column()
        values: Values = [None] * len(run)
        if code != NONE:
            values = numbers[code][ranks[code] :: widths[code]]
            ranks[code] += 1
        column.add(list(map(bool, values)) if code == BOOL else values)
        column.ts += ts[place::n]
        column.statuses += status or statuses[place::n]
        column.flags += flag or flags[place::n]
        longest = max(longest, len(column.ts))
    return longest


def _joined(parts: "Sequence[array[Any]]") -> "array[Any]":
    return array(parts[0].typecode, b"".join(parts))


def _same(column: "array[int]", count: int) -> "array[int] | None":
    """Return so many of what a column holds throughout, or None."""
    whole = column[:1] * len(column)
    return whole[:count] if whole == column else None


def is_plain(batch: Batch) -> bool:
    return set(map(type, batch.values)) <= _PLAIN


def sort_in(batch: Batch, columns: dict[int, Column]) -> int:
    """Add a batch to the columns of its series; return the number of samples in the longest it added to."""
    n, longest = len(batch), 0
    if not n:
        return 0
    order = sorted(range(n), key=batch.series.__getitem__)
    pick: Any = itemgetter(*order) if n > 1 else lambda column: (column[0],)
    series, ts, values, statuses, flags = map(pick, batch.columns())
    start = 0
    while start < n:
        number = series[start]
        end = bisect_right(series, number, start)
        column = columns.get(number)
        if column is None:
            column = columns[number] = Column()
        column.add(list(values[start:end]))
        column.ts.extend(ts[start:end])
        column.statuses.extend(statuses[start:end])
        column.flags.extend(flags[start:end])
        longest = max(longest, len(column.ts))
        start = end
    return longest


def ordered(column: Column) -> "tuple[array[int], Values, array[int], array[int]]":
    """Return ts, values, statuses, flags in the order of time, one of each time."""
    ts = column.ts
    if chunk.in_order(ts.tolist()):
        return ts, column.values, column.statuses, column.flags
    order = sorted(range(len(ts)), key=ts.__getitem__)
    order = [place for i, place in enumerate(order) if not i or ts[place] != ts[order[i - 1]]]
    values, statuses, flags = (
        [one[place] for place in order] for one in (column.values, column.statuses, column.flags)
    )
    return array("q", [ts[place] for place in order]), values, array("I", statuses), array("B", flags)  # type: ignore[arg-type]


def parts(columns: "tuple[array[int], Values, array[int], array[int]]") -> Iterator[tuple[Any, ...]]:
    """Cut a series into chunks: at silences, by number, and by bytes."""
    ts, values, _, _ = columns
    plain = isinstance(values, array) or set(map(type, values)) <= _PLAIN
    if plain and len(ts) <= chunk.MOST_POINTS and ts[-1] - ts[0] <= _HOLE_US:
        yield columns
        return
    start, size, holes = 0, 0, 0
    for place in range(len(ts)):
        size += 0 if plain else value_bytes(values[place])
        hole = place > start and ts[place] - ts[place - 1] > _HOLE_US and holes < _MOST_HOLES
        holes += hole
        if place > start and (hole or place - start >= chunk.MOST_POINTS or size > CHUNK_BYTES):
            yield tuple(column[start:place] for column in columns)
            start, size = place, 0 if plain else value_bytes(values[place])
    yield tuple(column[start:] for column in columns)
