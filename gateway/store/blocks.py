"""Rows of the block table: cutting a commit into blocks, and finding the blocks of a time range."""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

from gateway.model import Batch, Flag, Gap
from gateway.store.codec import BlockHeader, Kind, encode
from gateway.store.schema import WIDE_US
from gateway.store.values import Checked, cut_out, stored, value_bytes

BLOCK_ROWS = 8192
_BLOCK_PAYLOAD_BYTES = 1024 * 1024
_GROUPS = 8
_TURNS = 4
CORRUPT = 9
"""`kind` of a block row that cannot be read: recorded as a gap once, never served."""

_NARROW = (
    "FROM block WHERE n > 0 AND t1 BETWEEN :from AND :to + 600000000 AND t0 <= :to AND t1 - t0 <= 600000000"
)
_WIDE = "FROM block WHERE n > 0 AND t1 - t0 > 600000000 AND t1 >= :from AND t0 <= :to"


def insert_block(conn: sqlite3.Connection, header: BlockHeader, batch: Checked) -> int:
    """Write one block; return its size in bytes."""
    data = encode(header, batch)
    t0, t1 = (batch.t0, batch.t1) if len(batch) else (header.wall_us, header.wall_us)
    conn.execute(
        "INSERT INTO block(seq, t0, t1, n, kind, size_bytes, wall_us, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (header.seq, t0, t1, len(batch), header.kind, len(data), header.wall_us, data),
    )
    return len(data)


def overlapping(conn: sqlite3.Connection, from_us: int, to_us: int) -> Iterator[tuple[int, bytes]]:
    """Yield (seq, data) of the sample blocks that may hold samples of the range."""
    window = {"from": from_us, "to": to_us, "kind": Kind.SAMPLES}
    seen: set[int] = set()  # a damaged index may name a block twice
    for part in (_NARROW, _WIDE):
        for seq, data in conn.execute(f"SELECT seq, data {part} AND kind = :kind", window):
            if seq not in seen:
                seen.add(seq)
                yield seq, data


def seqs_overlapping(conn: sqlite3.Connection, from_us: int, to_us: int) -> list[int]:
    """Return the seqs of the sample blocks that may hold samples of the range."""
    window = {"from": from_us, "to": to_us, "kind": Kind.SAMPLES}
    narrow, wide = (
        conn.execute(f"SELECT seq {part} AND kind = :kind", window).fetchall() for part in (_NARROW, _WIDE)
    )
    return sorted(chain.from_iterable(narrow + wide))


def nth_end(conn: sqlite3.Connection, from_us: int, to_us: int, n: int) -> int | None:
    """Return the last time of the n-th narrow block of the range, by that time; None: there are fewer."""
    window = {"from": from_us, "to": to_us, "before": n - 1}
    row = conn.execute(f"SELECT t1 {_NARROW} ORDER BY t1 LIMIT 1 OFFSET :before", window).fetchone()
    return row and int(row[0])


def end_of(conn: sqlite3.Connection, from_us: int, to_us: int, blocks: int, rows: int) -> int | None:
    """Return until when the narrow blocks of the range, by that time, are so many or have so many samples."""
    window, n = {"from": from_us, "to": to_us, "blocks": blocks}, 0
    found = conn.execute(f"SELECT t1, n {_NARROW} ORDER BY t1 LIMIT :blocks", window).fetchall()
    for count, (t1, block_n) in enumerate(found, 1):
        n += block_n
        if n >= rows or count == blocks:
            return int(t1)
    return None


def mark_bad(conn: sqlite3.Connection, seqs: Sequence[int]) -> list[Gap]:
    """Take unreadable blocks out of service; return the gaps they leave, once each."""
    gaps = []
    for seq in sorted(set(seqs)):
        row = conn.execute(
            "UPDATE block SET kind = ? WHERE seq = ? AND kind = ? RETURNING t0, t1, n",
            (CORRUPT, seq, Kind.SAMPLES),
        ).fetchone()
        if row is not None:
            why = f"block {seq} of the store is damaged: its checksum fails"
            gaps.append(Gap(row[0], row[1], why, count=row[2]))
    return gaps


def cut(batch: Checked) -> list[Checked]:
    """Cut a commit into blocks that are narrow in time where they can be, and bounded in size.

    One stray time (a device that thinks it is 1970) in a block would make every query read it.
    """
    groups = [batch] if len(batch) else []
    if len(batch) and batch.t1 - batch.t0 > WIDE_US:
        groups = _by_time(batch)
    return [part for group in groups for part in _by_size(group)]


def _by_time(batch: Checked) -> list[Checked]:
    ts = batch.ts
    order = sorted(range(len(batch)), key=ts.__getitem__)
    sorted_ts = [ts[place] for place in order]
    holes = sorted(
        ((after - before, place) for place, (before, after) in enumerate(pairwise(sorted_ts), 1)),
        reverse=True,
    )
    edges = sorted(place for hole, place in holes[: _GROUPS - 1] if hole > WIDE_US)
    group_of = [0] * len(batch)
    for group, (start, end) in enumerate(zip([0, *edges], [*edges, len(order)], strict=True)):
        for place in order[start:end]:
            group_of[place] = group
    turns = _in_turns(batch, group_of)
    # A long backfill that came shuffled goes into narrow blocks.
    return [_pick(batch, sorted(t, key=ts.__getitem__) if len(t) > BLOCK_ROWS else t) for t in turns]


def _in_turns(batch: Batch, group_of: Sequence[int]) -> list[list[int]]:
    """Return the places by turn and group: each series' samples stay in the order of their arrival.

    A series goes to a new turn where it changes its group: each time that the clock was set for own stamps,
    some times in a commit for others, which may come shuffled.
    """
    turns: dict[tuple[int, int], list[int]] = {}
    at: dict[int, tuple[int, int]] = {}
    for place, (number, flags, group) in enumerate(zip(batch.series, batch.flags, group_of, strict=True)):
        turn, before = at.get(number, (0, group))
        if group != before:
            turn = turn + 1 if flags & Flag.OWN_TIME else min(turn + 1, _TURNS - 1)
        at[number] = turn, group
        turns.setdefault((turn, group), []).append(place)
    return [turns[key] for key in sorted(turns)]


def _by_size(batch: Checked) -> list[Checked]:
    if len(batch) <= BLOCK_ROWS and batch.plain:
        return [batch]
    if batch.plain:
        starts = range(0, len(batch), BLOCK_ROWS)
        return [cut_out(batch, start, start + BLOCK_ROWS) for start in starts]
    parts, start, size = [], 0, 0
    for place, value in enumerate(batch.values):
        size += value_bytes(value)
        if place + 1 - start >= BLOCK_ROWS or size > _BLOCK_PAYLOAD_BYTES:
            parts.append((start, place + 1))
            start, size = place + 1, 0
    if start < len(batch):
        parts.append((start, len(batch)))
    if len(parts) == 1:
        return [batch]
    return [cut_out(batch, start, end) for start, end in parts]


def _pick(batch: Batch, places: Sequence[int]) -> Checked:
    return stored(Batch(*([column[place] for place in places] for column in batch.columns())))  # type: ignore[arg-type]
