"""The newest samples as a file keeps them: their snapshot, and how they are found again without one."""

import sqlite3
from collections.abc import Iterable, Sequence
from operator import itemgetter

from gateway.model import Batch
from gateway.store.codec import BlockHeader, CorruptBlock, Kind, decode, encode
from gateway.store.newest import Newest, Row
from gateway.store.past import Past
from gateway.store.segment import Fold, Segment
from gateway.store.values import stored

_CANDIDATES = 8, 256
"""Chunks of a series that are looked at for its newest plausible sample; then more."""
_Candidate = tuple[int, int, Segment, Fold, int]
"""Last and first time of a chunk, and where it is."""


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
    """Take in the newest plausible sample that each series has in chunks, and what is in its future."""
    series: list[int] | None = None
    lows: dict[int, int] = {}
    for most in _CANDIDATES:
        there, lows = _highest(past, series, most)
        series = [number for number, found in there.items() if not _add_highest(newest, past, number, found)]
        series = [number for number in series if number in lows]
        if not series:
            return
    for number in series or ():  # what it holds further down is looked up, whatever it is
        if number in newest.far:
            low, high = newest.far[number]
            newest.far[number] = min(low, lows[number]), high


def _highest(
    past: Past, series: Sequence[int] | None, most: int
) -> tuple[dict[int, list[_Candidate]], dict[int, int]]:
    """Return the chunks with the highest times of these series (None: all), and when the others begin."""
    there: dict[int, list[_Candidate]] = {}
    lows: dict[int, int] = {}
    for where, fold in past.folds(-(2**63), 2**63 - 1):
        for number, header in past.headers(where, fold, series):
            found = there.setdefault(header.series, [])
            found.append((header.t1, header.t0, where, fold, number))
            if len(found) > most and header.series not in past.deleted:
                lowest = min(found, key=itemgetter(0))
                found.remove(lowest)
                lows[header.series] = min(lows.get(header.series, lowest[1]), lowest[1])
    return there, lows


def _add_highest(newest: Newest, past: Past, series: int, found: list[_Candidate]) -> bool:
    """Take chunks in, from the highest times down; say whether lower ones can hold nothing newer."""
    t1 = 0
    for t1, _, where, fold, number in sorted(found, key=itemgetter(0), reverse=True):
        if series in newest.last and newest.last[series][1] >= t1:
            return True
        packed = past.one(where, fold, number)
        if packed is not None:
            newest.add(packed.batch(), -(2**63))
            newest.hold({series: newest.last[series]} if series in newest.last else {})
    return series in newest.last and newest.last[series][1] >= t1


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
