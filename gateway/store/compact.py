"""Folds the oldest blocks by series into chunks, in slices of some ms on the writer thread between commits.

A fold is one transaction of the newest segment: its chunks, and the seqs of the blocks that it took. Only
once it is durable are these blocks deleted, a few with each commit. Whatever happens between, a sample is in
a block, or in a block and a chunk, or in a chunk.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Generator, Sequence

from gateway.clock import Clock
from gateway.store import chunk, outbox, retention, segment
from gateway.store.codec import CorruptBlock, Kind, decode, decode_header
from gateway.store.columns_of_fold import CHUNK_BYTES, Sorter, ordered, parts
from gateway.store.history import History
from gateway.store.release import Releaser
from gateway.store.renew import left_unwritten
from gateway.store.schema import is_busy, put_meta
from gateway.store.series import SeriesTable
from gateway.store.shares import excess_bytes
from gateway.store.work import Work

_log = logging.getLogger(__name__)

MOST_SAMPLES = 1 << 20
"""In one fold: it is held in memory."""
_MOST_BYTES = 64 * 1024 * 1024
_MOST_BLOCKS = 16_384
_ENCODED_SAMPLES = 4096
_MOST_OF_SERIES = 65_536
"""A fold ends with so many samples of one series: sorting them is one step."""
_DELETE_BLOCKS = 64
LOOK_NS = 15_000_000_000
_PAUSE_NS = 60_000_000_000


class Compactor:
    """Writer thread only."""

    def __init__(
        self, history: History, series: SeriesTable, clock: Clock, chunk_minutes: float, boot: bytes
    ) -> None:
        self._history, self._series, self._clock, self._boot = history, series, clock, boot
        self._began_ns = clock.mono_ns()
        self._period_ns = int(chunk_minutes * 60e9)
        self._steps: Generator[None] | None = None
        self._look_ns = 0
        self._folded_ns = 0
        self.pending: list[tuple[int, int]] = []
        """Seq ranges of blocks that are in chunks and still to be deleted."""
        self.bad: list[int] = []
        """Seqs of blocks found unreadable."""
        self._offered: list[tuple[int, int]] = []
        self.wants_commit = self._in_doubt = self._unwritten = False
        """There is something to delete, and nothing that keeps it."""
        self.folds = 0
        self.releaser = Releaser(history)

    def load(self, conn: sqlite3.Connection) -> None:
        """Find what was folded and not deleted: by an earlier run, or by a COMMIT that said it had failed."""
        self._history.recover()
        there = "SELECT 1 FROM block WHERE seq BETWEEN ? AND ? LIMIT 1"
        past = self._history.past
        self.pending = [pair for pair in past.folded() if conn.execute(there, pair).fetchone()]
        self._in_doubt = bool(self.pending) and not past.whole(self.pending)
        if self._in_doubt:
            self.pending = []  # what is damaged is set aside with the next commit; what cannot be read waits
        self.wants_commit = bool(self.pending)

    def care(self, conn: sqlite3.Connection, work: Work, hot_bytes: int, max_bytes: int) -> None:
        """Before a commit: set damaged segments aside, keep the budget, note what was found."""
        history, now_us = self._history, self._clock.wall_us()
        work.bad += self.bad
        self.bad = []
        work.damage = history.set_damaged_aside(work.damage + history.past.taken_damage(), now_us)
        if history.gaps:
            self._look_again()
        if hot_bytes + history.bytes_used > max_bytes:
            hot_bytes -= excess_bytes(conn, max_bytes)  # that goes first, with this commit and the next ones
        history.make_room(hot_bytes, max_bytes, busy=self.unsettled)
        work.gaps += history.gaps
        history.gaps = []

    def _look_again(self) -> None:
        """Delete only what is in chunks still: a segment was set aside."""
        there = self._history.past.folded()
        self._steps = None
        self._history.rollback()
        self.pending = [
            (start, end) for start, end in self.pending if any(a <= start and end <= b for a, b in there)
        ]
        self.wants_commit = bool(self.pending)

    @property
    def busy(self) -> bool:
        """Say whether a fold is under way."""
        return self._steps is not None

    @property
    def unsettled(self) -> bool:
        """Say whether the newest segment is being written, or has blocks that are still to be deleted."""
        return self.busy or bool(self.pending)

    def deletable(self) -> list[tuple[int, int]]:
        """Return what a commit may delete now: nothing while somebody reads who began before the fold."""
        self._offered = [] if self._history.held_since_before(self._folded_ns) else self.pending
        return self._offered

    def deleted(self, left: list[tuple[int, int]]) -> None:
        """Take note of a commit, and of what is still to be deleted after it."""
        if self._offered:
            self.wants_commit = bool(left) and left != self._offered
            self.pending = left

    def work(self, conn: sqlite3.Connection, running_s: float) -> None:
        """Do one slice of what there is to do."""
        now = self._clock.mono_ns()
        try:
            if self._steps is None and now >= self._look_ns:
                self._look_ns = now + LOOK_NS
                if self._unwritten:
                    self._history.distrust()
                    self._unwritten = False
                if self._in_doubt:
                    self.load(conn)
                self._history.drop_expired(running_s, busy=self.unsettled)
                seqs = [] if self.pending or self._in_doubt else self._due(conn)
                if seqs:
                    self._history.seal_if_due(running_s)
                    self._steps = self._fold(conn, seqs, running_s)
                elif self._history.deleted:
                    self._steps = self.releaser.look(conn)
            if self._steps is not None and next(self._steps, True):
                self._steps = None
        except (sqlite3.Error, OSError) as error:
            _log.warning("history cannot be written now, blocks are kept meanwhile: %s", self._why(error))
            self._unwritten = self._unwritten or left_unwritten(error)
            self.abandon()

    def _why(self, error: Exception) -> str:
        if not (is_busy(error) and self._history.segments):
            return f"{error}"
        path = self._history.segments[-1].path
        return f"{error}: another program has been reading {path} all the time (fuser -v {path} names it)"

    def abandon(self) -> None:
        """Drop the fold under way; its blocks are all still there."""
        self._steps = None
        self._look_ns = self._clock.mono_ns() + _PAUSE_NS
        self._in_doubt = True
        self._history.rollback()
        with contextlib.suppress(sqlite3.Error, OSError):  # else it is tried again before the next fold
            self._history.recover()

    def _due(self, conn: sqlite3.Connection) -> list[int]:
        """Return the blocks to fold: old enough or many, delivered, and covered by the snapshot."""
        snapshot = conn.execute("SELECT seq FROM snapshot WHERE id = 1").fetchone()
        ranges = retention.delivered(conn, outbox.uploads(conn), snapshot[0] - 1 if snapshot else 0)
        seqs: list[int] = []
        samples, size = 0, 0
        for start, end in ranges:
            for seq, n, size_bytes in conn.execute(
                "SELECT seq, n, size_bytes FROM block WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
                (start, end, _MOST_BLOCKS - len(seqs)),
            ):
                samples, size = samples + n, size + size_bytes
                if seqs and (samples > MOST_SAMPLES or size > _MOST_BYTES // 4):
                    return seqs
                seqs.append(seq)
        full = len(seqs) >= _MOST_BLOCKS
        return seqs if full or (seqs and self._age_ns(conn, seqs[0]) >= self._period_ns) else []

    def _age_ns(self, conn: sqlite3.Connection, seq: int) -> int:
        """Return how old a block is at least, monotonic; one of an earlier boot counts from our start."""
        since_ns = self._began_ns
        with contextlib.suppress(CorruptBlock):
            (data,) = conn.execute("SELECT data FROM block WHERE seq = ?", (seq,)).fetchone()
            header = decode_header(data)
            since_ns = header.mono_ns if header.boot == self._boot else since_ns
        return self._clock.mono_ns() - since_ns

    def _fold(self, conn: sqlite3.Connection, seqs: list[int], running_s: float) -> Generator[None]:
        sorter = Sorter()
        taken = yield from self._gather(conn, seqs, sorter)
        columns = sorter.columns
        if not taken:
            return
        yield
        writing = self._history.writing()
        writing.execute("BEGIN IMMEDIATE")
        fold = writing.execute("SELECT coalesce(max(id), 0) + 1 FROM fold").fetchone()[0]
        t0, t1, written, chunks = 2**63 - 1, -(2**63), 0, 0
        for series in sorted(columns):
            for part, rows in enumerate(parts(ordered(columns[series]))):
                number = segment.chunk_id(fold, series, part)
                writing.execute(
                    "INSERT INTO chunk VALUES (?, ?)", (number, chunk.encode(series, *rows, seq=taken[-1]))
                )
                t0, t1, written = min(t0, rows[0][0]), max(t1, rows[0][-1]), written + len(rows[0])
                chunks += 1
                if written >= _ENCODED_SAMPLES:
                    written = 0
                    yield
        infos = [(series, *self._series.info(series)[:2]) for series in columns if series in self._series]
        segment.add_names(writing, self._history.epoch, infos)
        n = sum(len(column.ts) for column in columns.values())
        row = fold, self._history.epoch, t0, t1, n, len(columns), chunks, running_s
        segment.add_fold(writing, row, _ranges(taken))
        yield from segment.committing(writing)
        self._history.wrote()
        self._folded_ns = self._clock.mono_ns()
        self.pending, self.wants_commit = _ranges(taken), True
        self.folds += 1
        self._look_ns = 0

    def _gather(
        self, conn: sqlite3.Connection, seqs: list[int], sorter: Sorter
    ) -> Generator[None, None, list[int]]:
        """Take blocks apart by series, until there are enough; return the seqs that were taken."""
        taken: list[int] = []
        for seq in seqs:
            row = conn.execute("SELECT data, kind FROM block WHERE seq = ?", (seq,)).fetchone()
            if row is not None and row[1] == Kind.SAMPLES:
                try:
                    if deleted := self._history.deleted:
                        sorter.add_batch(deleted.filtered(decode(row[0])[1], seq))
                    else:
                        sorter.add(row[0])
                except CorruptBlock:
                    self.bad.append(seq)
                    continue
            taken.append(seq)
            if sorter.due or sorter.size >= CHUNK_BYTES:
                yield
                sorter.sort()
                if sorter.size >= _MOST_BYTES or sorter.longest >= _MOST_OF_SERIES:
                    break
                yield
        sorter.sort()
        return taken


def delete_folded(
    conn: sqlite3.Connection, ranges: Sequence[tuple[int, int]], newest_seq: int
) -> tuple[int, list[tuple[int, int]]]:
    """Delete some blocks that are in chunks, inside a commit; return how many, and the ranges that are left.

    What an upload came to want meanwhile stays: a unit's body must not change.
    """
    left, removed = list(ranges), 0
    if not left:
        return 0, left
    allowed = retention.delivered(conn, outbox.uploads(conn), newest_seq - 1)
    while left and removed < _DELETE_BLOCKS:
        start, end = left[0]
        inside = [(max(a, start), min(b, end)) for a, b in allowed if a <= start <= b]
        if not inside:
            break
        rows = conn.execute(
            "SELECT seq FROM block WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
            (*inside[0], _DELETE_BLOCKS - removed),
        ).fetchall()
        conn.executemany("DELETE FROM block WHERE seq = ?", rows)
        removed += len(rows)
        done = inside[0][1] if removed < _DELETE_BLOCKS else rows[-1][0]
        left[:1] = [(done + 1, end)] if done < end else []
    put_meta(conn, "seq_floor", newest_seq)
    return removed, left


def _ranges(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive seqs."""
    found: list[tuple[int, int]] = []
    for seq in seqs:
        if found and found[-1][1] == seq - 1:
            found[-1] = found[-1][0], seq
        else:
            found.append((seq, seq))
    return found
