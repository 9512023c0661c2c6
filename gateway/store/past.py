"""Reading the history: one thread's read-only connections to its segments, and what they found damaged."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar

from gateway.model import Gap
from gateway.store import segment
from gateway.store.chunk import HEADER_BYTES, ChunkHeader, PackedChunk, check, decode_header
from gateway.store.columns import CorruptBlock
from gateway.store.schema import Damaged, is_busy, is_corrupt, is_disk
from gateway.store.segment import Fold, Segment
from gateway.store.tombstones import Tombstones

T = TypeVar("T")

_PATIENCE = 5
"""So many look-ups for a commit fail where a segment cannot be read, before it is passed over."""


class Segments(Protocol):
    """The history's files as those who read know them."""

    epoch: str

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Oldest first."""

    @property
    def deleted(self) -> Tombstones:
        """What was deleted on request."""

    def held(self) -> AbstractContextManager[None]:
        """While entered, blocks folded from now on are not deleted."""

    def reading(self) -> "Past":
        """Return a reader's own way to read."""


class Damage(NamedTuple):
    """A chunk that cannot be read, or (chunk 0) a whole segment; `lasting`: not only for now."""

    segment: int
    chunk: int
    gap: Gap
    lasting: bool = True
    made: int = 0
    """Which file of the segment's number."""


class Past:
    """One thread only. What cannot be read is left out and noted in `damage`."""

    def __init__(
        self,
        segments: Callable[[], tuple[Segment, ...]],
        epoch: Callable[[], str],
        deleted: Callable[[], Tombstones],
        own: Callable[[Segment], sqlite3.Connection | None] | None = None,
    ) -> None:
        self._segments = segments
        self._epoch = epoch
        self._deleted = deleted
        self._own = own
        """The writer's: the connection that writes a segment. It also has an unreadable one tried again."""
        self._patience = _PATIENCE
        self.generation = 0
        """Of the hot file that is read beside it."""
        self._open: dict[Segment, sqlite3.Connection] = {}
        self._verified: set[Segment] = set()
        """Whose lists were found to be what was written."""
        self.damage: list[Damage] = []
        self.left_out = 0
        """So often something was left out since the start."""

    @property
    def deleted(self) -> Tombstones:
        """What was deleted, of blocks too: to be taken before what it is to filter is read."""
        return self._deleted()

    def taken_damage(self) -> list[Damage]:
        taken, self.damage = self.damage, []
        return taken

    def close(self) -> None:
        for conn in self._open.values():
            conn.close()
        self._open = {}

    def forget(self, gone: Segment) -> None:
        """Close a segment that is not to be read any more."""
        self._verified.discard(gone)
        if (conn := self._open.pop(gone, None)) is not None:
            conn.close()

    def query(self, where: Segment, query: Callable[[sqlite3.Connection], T]) -> T:
        return query(self._conn(where))

    def _each(self, query: Callable[[sqlite3.Connection], T]) -> Iterator[tuple[Segment, T]]:
        """Run a query on each segment, oldest first."""
        there = self._segments()
        for gone in self._open.keys() - set(there):
            self.forget(gone)
        for each in there:
            with self._noting(each, Gap(0, 0, "")):
                yield each, query(self._conn(each))

    @contextlib.contextmanager
    def _noting(self, where: Segment, gap: Gap) -> Iterator[None]:
        """Leave a segment out that cannot be read, and note it; but raise where another program locks it."""
        try:
            yield
        except sqlite3.Error as error:
            if not is_disk(error) or (self._own is None and is_busy(error)):
                raise  # a lock is no damage: who reads may ask again
            if self._own is not None and not is_corrupt(error) and self._patience > 0:
                self._patience -= 1
                raise
            self.forget(where)
            if where not in self._segments():
                return  # it was unlinked meanwhile: there is nothing to miss
            why = f"history segment {where.path.name} cannot be read: {error}"
            self.left_out += 1
            self.damage.append(
                Damage(where.number, 0, Gap(gap.from_us, gap.to_us, why), is_corrupt(error), where.made)
            )

    def folds(self, from_us: int, to_us: int) -> list[tuple[Segment, Fold]]:
        """Return what may hold samples of the range, in the order it was written."""
        found = self._each(lambda conn: segment.folds(conn, from_us, to_us))
        return [(each, fold) for each, folds in found for fold in folds]

    def folded(self, of_epoch: str = "") -> list[tuple[int, int]]:
        """Return the seq ranges of an epoch's blocks (this one's) that are in chunks."""
        epoch = of_epoch or self._epoch()
        return [pair for _, pairs in self._each(lambda conn: segment.folded(conn, epoch)) for pair in pairs]

    def newest_seq(self) -> int:
        """Return the newest block that is in chunks, of any epoch."""
        return max((seq for _, seq in self._each(segment.newest_seq)), default=0)

    def folds_and_folded(
        self, from_us: int, to_us: int
    ) -> tuple[list[tuple[Segment, Fold]], list[tuple[int, int]]]:
        """Return `folds` and `folded` as of the same moment of each segment."""
        epoch = self._epoch()

        def both(conn: sqlite3.Connection) -> tuple[list[Fold], list[tuple[int, int]]]:
            conn.execute("BEGIN")
            try:
                return segment.folds(conn, from_us, to_us), segment.folded(conn, epoch)
            finally:
                conn.execute("ROLLBACK")

        found = list(self._each(both))
        folds = [(each, fold) for each, (folds, _) in found for fold in folds]
        return folds, [pair for _, (_, pairs) in found for pair in pairs]

    def headers(
        self, where: Segment, fold: Fold, series: Sequence[int] | None
    ) -> Iterator[tuple[int, ChunkHeader]]:
        """Yield (id, header) of the chunks of these series; where some is deleted, its sums say nothing."""
        column, deleted = f"substr(data, 1, {HEADER_BYTES})", self.deleted
        for number, data in self._chunks(where, fold, series, column):
            try:
                header = decode_header(data)
                _check_place(number, header)
            except CorruptBlock as error:
                self._note(where, fold, number, data, error)
                continue
            if deleted and deleted.ranges(header.series, header.seq, header.t0, header.t1):
                header = header.without_sums()
            yield number, header

    def packed(
        self, where: Segment, fold: Fold, series: Sequence[int], from_us: int, to_us: int
    ) -> Iterator[PackedChunk]:
        """Yield the chunks of these series that touch the range, their times unpacked."""
        deleted = self.deleted
        for number, data in self._chunks(where, fold, series, "data"):
            try:
                header = decode_header(data)
                _check_place(number, header)
                if header.t1 < from_us or header.t0 > to_us:
                    continue
                packed = PackedChunk(data)
            except CorruptBlock as error:
                self._note(where, fold, number, data, error)
                continue
            if self._left(packed, deleted):
                yield packed

    def one(self, where: Segment, fold: Fold, number: int) -> PackedChunk | None:
        """Return one chunk by its id; None too where all of it is deleted."""
        found, deleted = None, self.deleted
        with self._noting(where, Gap(fold.t0, fold.t1, "")):
            found = self._conn(where).execute("SELECT data FROM chunk WHERE id = ?", (number,)).fetchone()
        if not found:
            return None
        try:
            packed = PackedChunk(found[0])
        except CorruptBlock as error:
            self._note(where, fold, number, found[0], error)
            return None
        return packed if self._left(packed, deleted) else None

    @staticmethod
    def _left(packed: PackedChunk, deleted: Tombstones) -> bool:
        """Leave out what is deleted; say whether anything is left."""
        header = packed.header
        if deleted and (ranges := deleted.ranges(header.series, header.seq, header.t0, header.t1)):
            packed.leave_out(ranges)
        return bool(packed.ts)

    def _conn(self, where: Segment) -> sqlite3.Connection:
        if self._own is not None and (own := self._own(where)) is not None:
            return own
        if where not in self._open:
            opened = segment.connect_reader if where in self._verified else segment.connect_verified
            self._open[where] = opened(where.path)
            self._verified.add(where)
        return self._open[where]

    def _chunks(
        self, where: Segment, fold: Fold, series: Sequence[int] | None, column: str
    ) -> Iterator[tuple[int, bytes]]:
        with self._noting(where, Gap(fold.t0, fold.t1, "")):
            yield from segment.chunks(self._conn(where), fold, series, column)

    def _note(self, where: Segment, fold: Fold, number: int, data: bytes, error: CorruptBlock) -> None:
        gap = _gap_of_chunk(where, data, error, (fold.t0, fold.t1))
        self.left_out += 1
        self.damage.append(Damage(where.number, number, gap))

    def whole(self, ranges: list[tuple[int, int]]) -> bool:
        """Say whether all that was folded of these blocks is there still; what is not is noted."""
        for where in self._segments():
            gap = Gap(0, 0, "")
            with self._noting(where, gap):
                conn = self._conn(where)
                taken = segment.folded(conn, self._epoch())
                if not any(a <= end and start <= b for start, end in ranges for a, b in taken):
                    continue
                for fold, number, data in segment.look_over(conn):
                    if damaged_chunk(where, fold, number, data) is not None:
                        raise Damaged("a chunk whose blocks are still there is damaged")
        return not self.damage


def _check_place(number: int, header: ChunkHeader) -> None:
    if segment.series_of(number) != header.series:
        raise CorruptBlock(f"it is a chunk of series {header.series}")


def damaged_chunk(where: Segment, fold: Fold, number: int, data: bytes) -> Gap | None:
    """Return the gap that a chunk leaves whose checksum fails, or which stands in another's place."""
    try:
        _check_place(number, check(data))
    except CorruptBlock as error:
        return _gap_of_chunk(where, data, error, (fold.t0, fold.t1))
    return None


def _gap_of_chunk(where: Segment, data: bytes, error: CorruptBlock, span: tuple[int, int]) -> Gap:
    count = None
    with contextlib.suppress(CorruptBlock):
        header = decode_header(data)
        span, count = (header.t0, header.t1), header.n
    why = f"a chunk of history segment {where.path.name} is damaged: {error}"
    return Gap(*span, why, count=count)
