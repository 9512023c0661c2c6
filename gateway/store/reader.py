"""Reader threads with read-only connections, and what they read: windows, buckets, runs, gaps."""

import asyncio
import sqlite3
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from gateway.model import Batch, Gap, RunRecord, SeriesInfo
from gateway.store.blocks import ends, overlapping
from gateway.store.codec import CorruptBlock, Kind, Packed, decode
from gateway.store.past import Damage, Past, Segments
from gateway.store.schema import StoreProblem, connect_reader, is_disk
from gateway.store.segment import Fold, Segment
from gateway.store.tombstones import Tombstones

T = TypeVar("T")
Cursor = tuple[int, int]
"""(ts, series) of the last sample handed out."""

_Row = tuple[Any, ...]
"""A Sample's fields."""

_order = itemgetter(1, 0)
"""(ts, series) of a row."""

_THREADS = 2
_STEP_BLOCKS = 32
_STEP_ROWS = 48_000
_KEPT_ROWS = 50_000
_TURN_S = 0.2
_LOW = -(2**63)


class Readers:
    """A few threads, each with a connection of its own that can only read."""

    def __init__(self, path: Path, generation: Callable[[], int], history: Segments) -> None:
        self._path = path
        self._history = history
        self._generation = generation
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._pasts: list[Past] = []
        self._pool = ThreadPoolExecutor(_THREADS, "store-reader")

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a short query on a reader thread. StoreProblem: the disk does not give it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, query)

    async def read_all(self, query: Callable[[sqlite3.Connection, Past], T]) -> tuple[T, list[Damage]]:
        """Run a query that also reads the history; return what of it was found damaged too."""

        def both(conn: sqlite3.Connection) -> tuple[T, list[Damage]]:
            past = self._past()
            return query(conn, past), past.taken_damage()

        return await self.read(both)

    def _past(self) -> Past:
        if not hasattr(self._local, "past"):
            self._local.past = self._history.reading()
            self._pasts.append(self._local.past)
        past: Past = self._local.past
        return past

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection())
        except sqlite3.Error as error:
            if not is_disk(error):
                raise
            self._local.generation = None
            raise StoreProblem(f"the store cannot be read now: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        generation = self._generation()
        if getattr(self._local, "generation", None) != generation:
            if (old := getattr(self._local, "conn", None)) is not None:
                old.close()
                self._open.remove(old)
                self._local.conn = None
            self._local.conn = connect_reader(self._path)
            self._local.generation = generation
            self._open.append(self._local.conn)
        conn: sqlite3.Connection = self._local.conn
        return conn

    def close(self) -> None:
        """End the threads; blocks until their queries have ended."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for conn in self._open:
            conn.close()
        for past in self._pasts:
            past.close()


def window(
    conn: sqlite3.Connection,
    past: Past,
    series: Collection[int],
    from_us: int,
    to_us: int,
    after: Cursor | None,
    rows: int,
    bad: list[int],
) -> tuple[Batch, bool]:
    """Return the next samples of a window in (ts, series) order, up to about `rows`, and whether it is done.

    Time is taken in steps of some blocks; of a step that holds too much only the first part is kept.
    """
    batch, wanted = Batch(), frozenset(series)
    deadline = time.monotonic() + _TURN_S
    at = from_us if after is None else max(from_us, after[0])
    cursor = after if after is not None and after[0] >= from_us else (from_us, -1)
    while at <= to_us:
        found = ends(conn, at, to_us, _STEP_BLOCKS)
        step_to = to_us if len(found) < _STEP_BLOCKS else min(found[-1][0], to_us)
        step_to = min(step_to, _past_step(past.folds(at, step_to), len(wanted), at, step_to))
        samples, complete = _step(conn, past, wanted, at, step_to, cursor, bad)
        if samples:
            batch.extend(Batch(*map(list, zip(*samples, strict=True))))
        if not complete:
            return batch, False
        at = step_to + 1
        cursor = (at, -1)
        if len(batch) >= rows or (len(batch) and time.monotonic() > deadline):
            return batch, at > to_us
    return batch, True


def _past_step(folds: list[tuple[Segment, Fold]], wanted: int, from_us: int, to_us: int) -> int:
    """Return the end of a step in which the history should have some ten thousands of wanted samples."""
    if not folds:
        return to_us
    first = min(max(fold.t0, from_us) for _, fold in folds)
    rate = sum(
        fold.n * min(1.0, wanted / max(fold.series_n, 1)) / (fold.t1 - fold.t0 + 1)
        for _, fold in folds
        if fold.t0 <= first
    )
    return first + max(1000, int(_STEP_ROWS / max(rate, 1e-12)))


def _step(
    conn: sqlite3.Connection,
    past: Past,
    wanted: frozenset[int],
    from_us: int,
    to_us: int,
    cursor: Cursor,
    bad: list[int],
) -> tuple[list[_Row], bool]:
    """Return the samples of a step in order; False where only the first were kept.

    Blocks are read before chunks: what is folded meanwhile is seen twice, never missed.
    """
    kept, deleted = _Kept(cursor, (to_us, 2**31)), past.deleted
    for seq, data in overlapping(conn, from_us, to_us):
        try:
            packed = Packed(data, seq)
            chosen = list(map(wanted.__contains__, packed.series))
            if deleted:
                deleted.strike(chosen, packed.series, packed.ts, seq)
            if True not in chosen:
                continue
            columns = packed.batch().columns()
        except CorruptBlock:
            bad.append(seq)
            continue
        kept.add(zip(*(compress(column, chosen) for column in columns), strict=True))
    series = sorted(wanted)
    for where, fold in sorted(past.folds(from_us, to_us), key=lambda pair: pair[1].t0):
        if fold.t0 > kept.limit[0]:
            break
        for chunk in past.packed(where, fold, series, from_us, kept.limit[0]):
            start, end = bisect_left(chunk.ts, cursor[0]), bisect_right(chunk.ts, kept.limit[0])
            if start < end:
                inside = cursor[0] < chunk.ts[start] and (kept.complete or chunk.ts[end - 1] < kept.limit[0])
                rows = zip(*(column[start:end] for column in chunk.batch().columns()), strict=True)
                kept.add(rows, inside=inside)
    return kept.finished(), kept.complete


class _Kept:
    """The first samples of a step, one of each key."""

    def __init__(self, cursor: Cursor, limit: Cursor) -> None:
        self._cursor = cursor
        self._samples: list[_Row] = []
        self.limit = limit
        self.complete = True

    def add(self, rows: Iterable[_Row], *, inside: bool = False) -> None:
        """Take what lies after the cursor and within the limit; `inside`: all of it does."""
        cursor, limit = self._cursor, self.limit
        self._samples += rows if inside else [row for row in rows if cursor < (row[1], row[0]) <= limit]
        if len(self._samples) > 2 * _KEPT_ROWS:
            self._samples = self.finished()
            if len(self._samples) > _KEPT_ROWS:
                del self._samples[_KEPT_ROWS:]
                self.limit = _order(self._samples[-1])
                self.complete = False

    def finished(self) -> list[_Row]:
        self._samples.sort(key=_order)
        return list(dict(zip(map(_order, self._samples), self._samples, strict=True)).values())


def unfolded(seqs: Sequence[int], folded: Sequence[tuple[int, int]]) -> list[int]:
    """Return the blocks that no chunk has."""
    ranges = sorted(folded)
    starts = [start for start, _ in ranges]
    found = []
    for seq in seqs:
        place = bisect_right(starts, seq) - 1
        if place < 0 or ranges[place][1] < seq:
            found.append(seq)
    return found


def unit_samples(
    conn: sqlite3.Connection, from_seq: int, to_seq: int, bad: list[int], deleted: Tombstones
) -> Batch:
    """Return the samples of a seq range in arrival order, but those deleted."""
    batch = Batch()
    for seq, data in conn.execute(
        "SELECT seq, data FROM block WHERE seq BETWEEN ? AND ? AND kind = ? ORDER BY seq",
        (from_seq, to_seq, Kind.SAMPLES),
    ):
        try:
            block = decode(data, seq)[1]
        except CorruptBlock:
            bad.append(seq)
            continue
        batch.extend(deleted.filtered(block, seq) if deleted else block)
    return batch


def unit_gaps(conn: sqlite3.Connection, from_seq: int, to_seq: int) -> list[Gap]:
    rows = conn.execute(f"{_GAP} WHERE seq BETWEEN ? AND ? ORDER BY id", (from_seq, to_seq))
    return [_gap(row) for row in rows]


def unit_infos(conn: sqlite3.Connection, series: Sequence[int], at_seq: int) -> dict[int, SeriesInfo]:
    """Return the names of series, and their units of measure as valid at a block."""
    infos = {}
    for number in sorted(set(series)):
        row = conn.execute(
            "SELECT device, tag, (SELECT unit FROM tag_unit WHERE series = id AND since_seq <= ? "
            "ORDER BY since_seq DESC LIMIT 1) FROM series WHERE id = ?",
            (at_seq, number),
        ).fetchone()
        if row is not None:
            infos[number] = SeriesInfo(row[0], row[1], row[2] or "")
    return infos


_GAP = "SELECT id, from_us, to_us, reason, device, upload, count FROM gap"


def _gap(row: Sequence[object]) -> Gap:
    return Gap(*row[1:])  # type: ignore[arg-type]


def gaps(conn: sqlite3.Connection, where: dict[str, object], limit: int) -> list[tuple[int, Gap]]:
    """Return gaps, newest first; `where` maps conditions with one ? each to their values."""
    condition = " AND ".join(["1", *where])
    rows = conn.execute(f"{_GAP} WHERE {condition} ORDER BY id DESC LIMIT ?", (*where.values(), limit))
    return [(row[0], _gap(row)) for row in rows]


def runs(conn: sqlite3.Connection, where: dict[str, object], limit: int) -> list[RunRecord]:
    """Return runs, newest first."""
    condition = " AND ".join(["1", *where])
    rows = conn.execute(
        "SELECT id, device, kind, start_us, duration_us, samples, status, error FROM run "
        f"WHERE {condition} ORDER BY id DESC LIMIT ?",
        (*where.values(), limit),
    )
    return [RunRecord(*row) for row in rows]


def last_collected(conn: sqlite3.Connection, device: str) -> RunRecord | None:
    """Return the newest run in which a device was heard."""
    row = conn.execute(
        "SELECT id, device, kind, start_us, duration_us, samples, status, error FROM run WHERE device = ? "
        "AND (kind = 'subscription' OR (kind = 'cycle' AND status != 'error')) ORDER BY id DESC LIMIT 1",
        (device,),
    ).fetchone()
    return RunRecord(*row) if row else None
