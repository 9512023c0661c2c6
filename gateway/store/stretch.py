"""Samples of one series in a row, numbers packed, and how many of these become one batch in order."""

from array import array
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice, pairwise
from operator import and_, eq, itemgetter, lt, not_
from typing import Any, NamedTuple

from gateway.model import Batch, Value


class Stretch(NamedTuple):
    """At least one sample of one series, in the order of time."""

    series: int
    ts: "array[int]"
    values: "array[Any] | list[Value]"
    statuses: "array[int]"
    flags: "array[int]"

    @classmethod
    def of(cls, series: int, columns: Sequence[Sequence[Any]]) -> "Stretch":
        """Pack ts, values, statuses, flags into as little memory as they need."""
        ts, values, statuses, flags = columns
        kinds = set(map(type, values))
        if kinds == {float}:
            values = array("d", values)
        elif kinds == {int}:
            with suppress(OverflowError):
                values = array("q", values)
        return cls(series, narrow("q", ts), values, narrow("I", statuses), narrow("B", flags))  # type: ignore[arg-type]

    @property
    def size_bytes(self) -> int:
        """Memory of plain samples, roughly."""
        return 500 + len(self.ts) * (21 if isinstance(self.values, array) else 61)

    def cut(self, start: int, end: int) -> "Stretch":
        """Return the samples between two places."""
        series, ts, values, statuses, flags = self
        if start == 0 and end >= len(ts):
            return self
        return Stretch(series, ts[start:end], values[start:end], statuses[start:end], flags[start:end])


def narrow(code: str, column: Sequence[int]) -> "array[int]":
    """Return a column of integers as an array of this type."""
    if isinstance(column, array) and column.typecode == code:
        return column
    same = only(column)
    return array(code, column) if same is None else array(code, (same,)) * len(column)


def only(column: Sequence[int]) -> int | None:
    """Return what a column of integers holds throughout, or None."""
    if isinstance(column, array):
        raw = column.tobytes()
        return column[0] if raw == raw[: column.itemsize] * len(column) else None
    return column[0] if column[0] == column[-1] and column.count(column[0]) == len(column) else None


def merged(parts: Sequence[Stretch], others: Batch) -> Batch:
    """Return samples in the order of (ts, series), one of each key."""
    parts = sorted(parts, key=lambda part: (part.series, part.ts[0]))
    batch = _joined(parts)
    if len(others):
        others.extend(batch)
        return in_order(others)
    if any(one.series == other.series and one.ts[-1] >= other.ts[0] for one, other in pairwise(parts)):
        return in_order(batch)
    return batch if not parts or parts[0].series == parts[-1].series else _by_time(batch)


def _joined(parts: Sequence[Stretch]) -> Batch:
    series: list[int] = []
    values: list[Value] = []
    ts, statuses, flags = array("q"), array("I"), array("B")
    for part in parts:
        series += [part.series] * len(part.ts)
        values += part.values.tolist() if isinstance(part.values, array) else part.values
        ts += part.ts
        statuses += part.statuses
        flags += part.flags
    return Batch(series, ts.tolist(), values, _listed(statuses), _listed(flags))


def _listed(column: "array[int]") -> list[int]:
    same = only(column) if column else None
    return column.tolist() if same is None else [same] * len(column)


def in_order(batch: Batch) -> Batch:
    """Return samples in the order of (ts, series); of those with one key the last that was there.

    No step visits the samples in Python, and none holds the interpreter for more than some milliseconds.
    """
    if all(map(lt, batch.ts, islice(batch.ts, 1, None))):
        return batch
    batch = _by_time(batch, by_series=False)
    series, ts = batch.series, batch.ts
    twice = list(map(and_, map(eq, ts, islice(ts, 1, None)), map(eq, series, islice(series, 1, None))))
    if True in twice:
        batch = batch.chosen([*map(not_, twice), True])
    return batch


def _by_time(batch: Batch, *, by_series: bool = True) -> Batch:
    """Sort two samples at least; `by_series`: that is the order in which they are."""
    order = list(range(len(batch)))
    if not by_series:
        order.sort(key=batch.series.__getitem__)
    order.sort(key=batch.ts.__getitem__)
    pick = itemgetter(*order)
    return Batch(*(_picked(column, pick) for column in batch.columns()))


def _picked(column: list[Any], pick: "itemgetter[Any]") -> list[Any]:
    if type(column[0]) is int and only(column) is not None:
        return column  # most statuses and flags
    return list(pick(column))
