"""Columns of readings to a batch: whole columns where nothing is special, else one by one."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress, pairwise
from operator import attrgetter, ne

from gateway.model import Batch, Link
from gateway.protocols.opcua.columns import Columns
from gateway.protocols.opcua.items import A_LOOK, AS_IT_IS, Item, take
from gateway.protocols.opcua.values import Reading

_SERIES, _CARE, _FIRST = attrgetter("series"), attrgetter("care"), attrgetter("first")

Special = Callable[[Item, Reading], bool]
"""Looks at a reading that is not plain; False: it is no sample."""


def take_changes(columns: Columns, items: Sequence[Item], link: Link, batch: Batch, special: Special) -> None:
    """Add what a subscription brought; a key is a place in `items`, and an unknown one is passed over."""
    try:
        whole = list(map(items.__getitem__, columns.keys))
    except IndexError:
        columns = _known(columns, len(items))
        whole = list(map(items.__getitem__, columns.keys))
    for part, of_part, plain in _parts(columns, whole):
        if plain:
            _add(part, of_part, batch)
            continue
        for item, (_, reading) in zip(of_part, part, strict=True):
            if special(item, reading):
                take(item, reading, link, batch)


def take_read(columns: Columns, items: Sequence[Item], link: Link, batch: Batch, special: Special) -> None:
    """Add what a read brought that is new; the values are those of `items`, in their order."""
    for part, of_part, plain in _parts(columns, items):
        if plain:
            _add(*_new(part, of_part), batch)
            continue
        for item, (_, reading) in zip(of_part, part, strict=True):
            if special(item, reading) and not item.unchanged(reading):
                take(item, reading, link, batch)


def _known(columns: Columns, count: int) -> Columns:
    known = Columns()
    for key, reading in columns:
        if key < count:
            known.add(key, reading)
    return known


def _parts(columns: Columns, items: Sequence[Item]) -> Iterator[tuple[Columns, Sequence[Item], bool]]:
    """Cut at the readings that need a look: a bad status, no time, a tag with a problem or a deadband."""
    if columns.timed and not any(columns.statuses) and max(map(_CARE, items), default=AS_IT_IS) < A_LOOK:
        yield columns, items, True
        return
    looks = zip(columns.statuses, columns.ts, items, strict=True)
    marks = [
        place for place, (status, ts, item) in enumerate(looks) if status or ts is None or item.care == A_LOOK
    ]
    for before, mark in pairwise(chain((-1,), marks, (len(columns),))):
        if mark > before + 1:
            yield columns.part(before + 1, mark), items[before + 1 : mark], True
        if mark < len(columns):
            yield columns.part(mark, mark + 1), items[mark : mark + 1], False


def _new(columns: Columns, items: Sequence[Item]) -> tuple[Columns, Sequence[Item]]:
    """Return the readings that a cyclic read did not find before (`Item.unchanged`, for plain ones)."""
    if not items:
        return columns, items
    newest = items[0].newest
    found = list(zip(columns.values, columns.ts, columns.statuses, columns.flags, strict=True))
    before = list(map(newest.get, map(_SERIES, items)))
    new = list(map(ne, found, before))
    for place, fresh in enumerate(new):
        # Without a source time a value counts each time; 1, True and 1.0 are equal for Python.
        if not fresh:
            old = before[place]
            new[place] = bool(columns.flags[place]) or type(old[0]) is not type(columns.values[place])  # type: ignore[index]
    if all(new):
        return columns, items
    return columns.chosen(new), list(compress(items, new))


def _add(columns: Columns, items: Sequence[Item], batch: Batch) -> None:
    """Add plain readings: the columns as they are."""
    if not items:
        return
    if None in map(_FIRST, items):
        for item, ts in zip(items, columns.ts, strict=True):
            item.begin(ts)
    series = list(map(_SERIES, items))
    readings = zip(columns.values, columns.ts, columns.statuses, columns.flags, strict=True)
    items[0].newest.update(zip(series, readings, strict=True))
    batch.series += series
    batch.ts += columns.ts
    batch.statuses += columns.statuses
    batch.flags += columns.flags
    if any(map(_CARE, items)):
        batch.values += [item.scaling(value) for item, value in zip(items, columns.values, strict=True)]
    else:
        batch.values += columns.values
