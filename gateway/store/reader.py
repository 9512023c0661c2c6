"""Reader threads with read-only connections, and what they read: units, runs, gaps."""

import asyncio
import sqlite3
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.model import Batch, Gap, RunRecord, SeriesInfo
from gateway.store.budget import MemoryBudget
from gateway.store.codec import CorruptBlock, Kind, decode
from gateway.store.past import Damage, Past, Segments
from gateway.store.schema import MIGRATIONS, StoreProblem, connect_reader, is_corrupt, is_disk
from gateway.store.taking import Memory
from gateway.store.tombstones import Tombstones

T = TypeVar("T")
_THREADS = 2
_BUCKETS_BYTES = 32 * 1024 * 1024


class Readers:
    """A few threads, each with a connection of its own that can only read."""

    def __init__(
        self,
        path: Path,
        generation: Callable[[], int],
        history: Segments,
        suspect: Callable[[str], None] = lambda why: None,
    ) -> None:
        """`suspect` is told where SQLite finds the file malformed."""
        self._path = path
        self._suspect = suspect
        self._history = history
        self._generation = generation
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._pasts: list[Past] = []
        self.memo = Memory()
        self.room = MemoryBudget(_BUCKETS_BYTES)
        """For the buckets that are being made."""
        self._pool = ThreadPoolExecutor(_THREADS, "store-reader")

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a short query on a reader thread. StoreProblem: the disk does not give it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, query)

    async def read_all(self, query: Callable[[sqlite3.Connection, Past], T]) -> tuple[T, list[Damage]]:
        """Run a query that also reads the history; return what of it was found damaged too."""

        def both(conn: sqlite3.Connection) -> tuple[T, list[Damage]]:
            past = self._past()
            past.generation = self._local.generation
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
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not (is_disk(error) or is_corrupt(error)):
                raise
            self._local.generation = None
            if is_corrupt(error):
                self._suspect(f"{error}")
            raise StoreProblem(f"the store cannot be read now: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        generation = self._generation()
        if getattr(self._local, "generation", None) != generation:
            if (old := getattr(self._local, "conn", None)) is not None:
                old.close()
                self._open.remove(old)
                self._local.conn = None
            self._local.conn = _connected(self._path)
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


def unfolded(seqs: Sequence[int], folded: Sequence[tuple[int, int]]) -> list[int]:
    """Return the blocks that no chunk has, of some in order."""
    found: list[int] = []
    at = 0
    for start, end in sorted(folded):
        found += seqs[at : bisect_left(seqs, start, at)]
        at = bisect_right(seqs, end, at)
    return [*found, *seqs[at:]]


def _connected(path: Path) -> sqlite3.Connection:
    """Open the file, once it is one: another may just be made in the place of one that was set aside."""
    conn = connect_reader(path)
    if conn.execute("PRAGMA user_version").fetchone()[0] != len(MIGRATIONS):
        conn.close()
        raise StoreProblem("the store cannot be read now: its file is being made anew")
    return conn


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
    """Return the newest run in which a device was heard; before those beside it, one that never ended."""
    row = conn.execute(
        "SELECT id, device, kind, start_us, duration_us, samples, status, error FROM run WHERE device = ? "
        "AND (kind = 'subscription' OR (kind = 'cycle' AND status != 'error')) "
        "ORDER BY status = 'running' DESC, id DESC LIMIT 1",
        (device,),
    ).fetchone()
    return RunRecord(*row) if row else None
