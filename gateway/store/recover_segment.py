"""Taking the chunks of a damaged history segment into a fresh one of its number.

A chunk is copied as it is where no block and no other chunk can hold one of its samples; the others go
through the key rule, sample by sample, so that none is there twice. What a deletion covers of a copied chunk
stays deleted: reads strike it by the block that the chunk names. The fresh segment does not say which
blocks it holds: no block is deleted because of a chunk that may be missing.
"""

import logging
import sqlite3
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.model import Batch, Gap, SeriesInfo
from gateway.store import segment
from gateway.store.blocks import seqs_overlapping
from gateway.store.chunk import ChunkHeader, PackedChunk
from gateway.store.columns import CorruptBlock
from gateway.store.history import History
from gateway.store.outbox import Transaction
from gateway.store.recovery import Ask, Mapping, changed_us
from gateway.store.salvage import SegmentRemains
from gateway.store.series import SeriesTable
from gateway.store.work import Ride, Work

_log = logging.getLogger(__name__)

_SLICE_CHUNKS = 8
_GROUP_CHUNKS = 512
_GROUP_BYTES = 2 * 1024 * 1024
_SLICE_SAMPLES = 4096
_LOW, _HIGH = -(2**63), 2**63 - 1

_Chunk = tuple[ChunkHeader, bytes]


@dataclass(slots=True)
class SegmentRecovery:
    """One damaged segment. Writer thread only."""

    path: Path
    ask: Ask
    history: History
    series: SeriesTable
    conn: sqlite3.Connection
    born_us: int
    running_s: float
    """The gateway's running time: of the folds, where their own is lost."""
    added: int = 0
    _mapping: Mapping = field(default_factory=dict)
    _group: list[_Chunk] = field(default_factory=list)
    _joined: Batch = field(default_factory=Batch)
    _seen: set[ChunkHeader] = field(default_factory=set)
    _found: int = 0
    _unnamed: int = 0
    _low: int = _HIGH
    _high: int = _LOW

    @property
    def _number(self) -> int:
        return int(self.path.name.split(".")[0])

    def steps(self) -> Generator[Work | None]:
        """Take it in, in slices of some ms; yield what is to be committed. OSError, sqlite3.Error: later."""
        remains = SegmentRemains(self.path)
        try:
            for _ in remains.look():
                yield None
            self.running_s = max((float(fold[7]) for fold in remains.folds.values()), default=self.running_s)
            named = remains.names.items()
            self._mapping = yield from self.ask({number: SeriesInfo(*name, "") for number, name in named})
            for place, chunk in enumerate(remains.chunks()):
                yield from self._take(*chunk)
                if place % _SLICE_CHUNKS == _SLICE_CHUNKS - 1:
                    yield None
        finally:
            remains.close()
        yield from self._write_group()
        work = Work(salvaged=self._joined, gaps=self._lost(remains.folds))
        work.rides.append(Ride(self._forget_bad))
        yield work

    def _take(self, header: ChunkHeader, data: bytes) -> Generator[Work | None]:
        if header in self._seen:  # SQLite leaves copies where it moves rows
            return
        self._seen.add(header)
        self._found += header.n
        self._low, self._high = min(self._low, header.t0), max(self._high, header.t1)
        number = self._mapping.get(header.series)
        if number is None:
            self._unnamed += header.n
        elif number == header.series and self._alone(header):
            self._group.append((header, data))
            if len(self._group) >= _GROUP_CHUNKS or sum(len(each[1]) for each in self._group) > _GROUP_BYTES:
                yield from self._write_group()
        else:
            try:
                batch = PackedChunk(data).batch()
            except CorruptBlock:  # both checksums hold: it was written so
                self._found -= header.n
                return
            batch.series[:] = [number] * len(batch)
            self._joined.extend(self.history.deleted.filtered(batch, header.seq))
            if len(self._joined) >= _SLICE_SAMPLES:
                yield from self._write_group()
                joined, self._joined = self._joined, Batch()
                yield Work(salvaged=joined)

    def _alone(self, header: ChunkHeader) -> bool:
        """Say whether no block, no chunk and none of the group can hold a sample of a chunk."""
        t0, t1 = header.t0, header.t1
        if any(each.series == header.series and each.t0 <= t1 and each.t1 >= t0 for each, _ in self._group):
            return False
        if seqs_overlapping(self.conn, t0, t1):
            return False
        past = self.history.past
        return not any(
            there.t0 <= t1 and there.t1 >= t0
            for where, fold in past.folds(t0, t1)
            for _, there in past.headers(where, fold, [header.series])
        )

    def _write_group(self) -> Generator[Work | None]:
        """Write the chunks that wait as folds of the fresh segment."""
        if not self._group:
            return
        group, self._group = sorted(self._group, key=lambda each: (each[0].series, each[0].t0)), []
        with self.history.refilled(self._number) as writing:
            writing.execute("BEGIN IMMEDIATE")
            fold = writing.execute("SELECT coalesce(max(id), 0) + 1 FROM fold").fetchone()[0]
            series = sorted({header.series for header, _ in group})
            infos = [(number, *self.series.info(number)[:2]) for number in series]
            segment.add_names(writing, self.history.epoch, infos)
            segment.add_fold(
                writing,
                (
                    fold,
                    "",
                    *_span(group),
                    len(series),
                    len(group),
                    self.running_s,
                ),
                [],
            )
            parts: dict[int, int] = {}
            for header, data in group:
                part = parts[header.series] = parts.get(header.series, -1) + 1
                number = segment.chunk_id(fold, header.series, part)
                writing.execute("INSERT INTO chunk VALUES (?, ?)", (number, data))
            yield from segment.committing(writing)

    def _forget_bad(self, tx: Transaction) -> None:
        tx.conn.execute("DELETE FROM bad_chunk WHERE segment = ?", (self._number,))

    def _lost(self, folds: dict[int, list[object]]) -> list[Gap]:
        """Return the time of the file, in which some may be missing, and a sentence about it."""
        expected = sum(int(fold[4]) for fold in folds.values())  # type: ignore[call-overload]
        low = min([self._low, *(int(fold[2]) for fold in folds.values())])  # type: ignore[call-overload]
        high = max([self._high, *(int(fold[3]) for fold in folds.values())])  # type: ignore[call-overload]
        before = self.history.newest_us_before(self._number)
        low = min(low, self.born_us if before is None else before)
        high = max(high, changed_us(self.path))
        lost = max(expected - self._found, 0)
        _log.warning(
            "the damaged history segment %s was searched: %d samples found of at least %d, %d of series "
            "whose names are lost",
            self.path.name, self._found, expected, self._unnamed,
        )  # fmt: skip
        why = f"samples of the damaged history segment {self.path.name} may have been lost"
        gaps = [Gap(min(low, high), max(low, high), why, count=lost or None)]
        if self._unnamed:
            why = (
                f"samples in the damaged history segment {self.path.name} are of series whose names are lost"
            )
            gaps.append(Gap(self._low, self._high, why, count=self._unnamed))
        return gaps


def _span(group: Sequence[_Chunk]) -> tuple[int, int, int]:
    """Return t0, t1 and n of some chunks."""
    headers = [header for header, _ in group]
    return (
        min(header.t0 for header in headers),
        max(header.t1 for header in headers),
        sum(header.n for header in headers),
    )
