"""The key (device, tag, ts) without an index over samples.

What is newer than the newest of its series is new. The rest is looked up in the blocks of its range, grouped:
the same value and status is the same sample; another one is first looked for among the `moved` samples of the
microseconds that follow (tails.py: of how many), and else kept at the next free one.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress, count, repeat
from operator import itemgetter, le

from gateway.model import Flag
from gateway.store.late import LateSamples, Resolved
from gateway.store.newest import Newest, Row
from gateway.store.past import Past
from gateway.store.values import Checked, joined

DAY_US = 86_400_000_000
TEN_YEARS_US = 3653 * DAY_US
_TS: Callable[[Row], int] = itemgetter(1)
_NEVER: Row = (0, -(2**63), None, 0, 0)


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
        LateSamples(conn, past, newest, batch, late, resolved, turn).settle()
    if newest.tails:
        newest.tails.note(resolved.kept.series, resolved.kept.ts)
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
