"""Which blocks the next unit of a lane takes. Pure SQL reading, inside a riding job or a read."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gateway.store import outbox

_MOST_ROWS = 4000
_MOST_SAMPLES = 50_000
"""In a unit, unless one block alone has more."""


class Span(NamedTuple):
    """Inclusive seqs, and what their blocks hold."""

    from_seq: int
    to_seq: int
    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a unit takes."""

    bytes: int
    samples: int = _MOST_SAMPLES


def free(conn: sqlite3.Connection, upload: str, newest_seq: int) -> list[tuple[int, int]]:
    """Return the seq ranges that are neither acknowledged nor in a unit, oldest first."""
    taken = [*outbox.acked(conn, upload), *((u.from_seq, u.to_seq) for u in outbox.units(conn, upload))]
    return list(outbox.unacked(sorted(taken), 0, newest_seq))


def live(conn: sqlite3.Connection, upload: str, newest_seq: int, limits: Limits) -> Span | None:
    """Return the newest unit's worth of what is waiting at the head; what is older is the backlog's."""
    ranges = free(conn, upload, newest_seq)
    if not ranges or ranges[-1][1] != newest_seq:
        return None
    start = ranges[-1][0]
    rows = conn.execute(
        "SELECT seq, size_bytes, n FROM block WHERE seq BETWEEN ? AND ? ORDER BY seq DESC LIMIT ?",
        (start, newest_seq, _MOST_ROWS),
    )
    taken, fits = _fill(rows, limits)
    if not taken.blocks:
        return None
    return taken._replace(from_seq=start if fits and taken.blocks < _MOST_ROWS else taken.from_seq)


def backlog(conn: sqlite3.Connection, upload: str, newest_seq: int, limits: Limits) -> Span | None:
    """Return the oldest unit's worth below the head; its `blocks` are 0 where they are gone already."""
    ranges = free(conn, upload, newest_seq)
    if not ranges or ranges[0][1] == newest_seq:
        return None
    start, end = ranges[0]
    rows = conn.execute(
        "SELECT seq, size_bytes, n FROM block WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
        (start, end, _MOST_ROWS),
    )
    taken, fits = _fill(rows, limits)
    if not taken.blocks:
        return Span(start, end, 0, 0)
    whole = fits and taken.blocks < _MOST_ROWS
    return taken._replace(from_seq=start, to_seq=end if whole else taken.to_seq)


def _fill(rows: Iterable[tuple[int, int, int]], limits: Limits) -> tuple[Span, bool]:
    """Take rows, at least one, up to the limits; say whether all of them fit. Not read further than that."""
    size = samples = 0
    seqs: list[int] = []
    fits = True
    for seq, size_bytes, n in rows:
        if seqs and (size + size_bytes > limits.bytes or samples + n > limits.samples):
            fits = False
            break
        size, samples = size + size_bytes, samples + n
        seqs.append(seq)
    return Span(min(seqs, default=0), max(seqs, default=0), len(seqs), size), fits
