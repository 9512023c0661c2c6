"""The samples of a fold in memory, taken apart by series, and cut into chunks."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from gateway.model import Batch, Value
from gateway.store import chunk
from gateway.store.values import value_bytes

CHUNK_BYTES = 1024 * 1024
_HOLE_US = 86_400_000_000
"""A chunk ends where its series is silent for so long: a stray time would make each query read it."""
_MOST_HOLES = 1024
_PLAIN = frozenset({float, int, bool, type(None)})


@dataclass(slots=True)
class Column:
    """The samples of one series, as they arrived."""

    ts: "array[int]" = field(default_factory=lambda: array("q"))
    values: list[Value] = field(default_factory=list)
    statuses: "array[int]" = field(default_factory=lambda: array("I"))
    flags: "array[int]" = field(default_factory=lambda: array("B"))


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
        column.ts.extend(ts[start:end])
        column.values += values[start:end]
        column.statuses.extend(statuses[start:end])
        column.flags.extend(flags[start:end])
        longest = max(longest, len(column.ts))
        start = end
    return longest


def ordered(column: Column) -> tuple[list[int], list[Value], list[int], list[int]]:
    """Return ts, values, statuses, flags in the order of time, one of each time."""
    ts = column.ts.tolist()
    columns = ts, column.values, column.statuses.tolist(), column.flags.tolist()
    if chunk.in_order(ts):
        return columns
    order = sorted(range(len(ts)), key=ts.__getitem__)
    order = [place for i, place in enumerate(order) if not i or ts[place] != ts[order[i - 1]]]
    return tuple([one[place] for place in order] for one in columns)  # type: ignore[return-value]


def parts(columns: tuple[list[int], list[Value], list[int], list[int]]) -> Iterator[tuple[Any, ...]]:
    """Cut a series into chunks: at silences, by number, and by bytes."""
    ts, values, _, _ = columns
    plain = set(map(type, values)) <= _PLAIN
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
