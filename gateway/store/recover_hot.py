"""Taking the samples of a damaged hot file in again: blocks by the key rule, frames of measurements,
and what else it held.
"""

import logging
import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from gateway.model import Batch, Gap, SeriesInfo
from gateway.store import deletions, outbox
from gateway.store.codec import BlockHeader, decode, encode
from gateway.store.columns import CorruptBlock
from gateway.store.history import History
from gateway.store.outbox import Transaction
from gateway.store.recording import Part, again, name_of
from gateway.store.recordings import MeasurementRow, adopt, part_of
from gateway.store.recovery import Ask, Mapping, changed_us, merged, restored
from gateway.store.salvage import Letter, Remains, Rows, rows
from gateway.store.tombstones import Tombstones
from gateway.store.work import Ride, Work

_log = logging.getLogger(__name__)

_SLICE_SAMPLES = 4096
_SLICE_PARTS = 16


@dataclass(slots=True)
class HotRecovery:
    """One damaged hot file. Writer thread only."""

    path: Path
    ask: Ask
    history: History
    conn: sqlite3.Connection
    born_us: int
    """When the store was made."""
    oldest: int = 0
    newest: int = 0
    """Seqs that it should hold, where they are known."""
    added: int = 0
    _mapping: Mapping = field(default_factory=dict)
    _seqs: "array[int]" = field(default_factory=lambda: array("Q"))
    _walls: "array[int]" = field(default_factory=lambda: array("q"))
    _samples: int = 0
    _unnamed: int = 0
    _unnamed_from_us: int = 2**63 - 1
    _unnamed_to_us: int = -(2**63)

    def steps(self) -> Generator[Work | None]:
        """Take it in, in slices of some ms; yield what is to be committed. OSError: it cannot be read."""
        remains = Remains(self.path)
        try:
            for _ in remains.look():
                yield None
            others = rows(self.path)
            yield None
            named = remains.names.items()
            infos = {number: SeriesInfo(*name, others.units.get(number, "")) for number, name in named}
            self._mapping = yield from self.ask(infos)
            mine = [each for each in remains.deleted if self._mapping.get(each.series) == each.series]
            next_id = deletions.newest_id(self.conn) + 1
            yield Work(tombstones=restored(mine, self.history, next_id))
            for batch in self._blocks(remains, self._folded(remains.epoch)):
                yield Work(salvaged=batch) if len(batch) else None
            yield from self._measured(remains)
        finally:
            remains.close()
        work = self._other_work(others)
        work.gaps += self._lost(others, self._folded(remains.epoch))
        yield work

    def _folded(self, epoch: str) -> list[tuple[int, int]]:
        return sorted(self.history.past.folded(epoch)) if epoch else []

    def _blocks(self, remains: Remains, folded: Sequence[tuple[int, int]]) -> Generator[Batch]:
        joined, place, deleted = Batch(), 0, Tombstones(remains.deleted)
        for header, batch in remains.blocks():
            while place < len(folded) and folded[place][1] < header.seq:
                place += 1
            self._seqs.append(header.seq)
            self._walls.append(header.wall_us)
            if place < len(folded) and folded[place][0] <= header.seq:
                continue  # it is in the history, and was deleted or about to be
            mine = self._named(header, deleted.filtered(batch, header.seq))
            joined.extend(self.history.deleted.filtered(mine, header.seq))
            if len(joined) >= _SLICE_SAMPLES:
                yield joined
                joined = Batch()
            elif not len(self._seqs) % 16:
                yield Batch()
        if len(joined):
            yield joined

    def _measured(self, remains: Remains) -> Generator[Work]:
        """Take in measurements whose file is not written yet, a few blocks at a time."""
        known = remains.measurements
        for row in known.values():
            yield Work(rides=[Ride(partial(_adopt, row, []))])
        waiting: list[Part] = []
        for part in remains.frames():
            waiting.append(part)
            if len(waiting) >= _SLICE_PARTS:
                yield _adopting(known, waiting)
                waiting = []
        if waiting:
            yield _adopting(known, waiting)

    def _named(self, header: BlockHeader, batch: Batch) -> Batch:
        """Return the samples under the numbers of their series now; those without a name are counted."""
        numbers = [self._mapping.get(series, 0) for series in batch.series]
        self._samples += len(batch)
        if 0 in numbers:
            self._unnamed += numbers.count(0)
            self._unnamed_from_us = min(self._unnamed_from_us, header.wall_us, header.t0)
            self._unnamed_to_us = max(self._unnamed_to_us, header.wall_us, header.t1)
        return replace(batch, series=numbers).chosen(numbers)

    def _other_work(self, others: Rows) -> Work:
        mapping, work = self._mapping, Work(gaps=others.gaps)
        for letter in others.letters:
            try:
                header, batch = decode(letter.block)
            except CorruptBlock:
                continue
            if all(series in mapping for series in batch.series):
                batch.series[:] = [mapping[series] for series in batch.series]
                mine = letter._replace(block=encode(header, batch))
                work.rides.append(Ride(partial(_keep, mine)))
        return work

    def _lost(self, others: Rows, folded: Sequence[tuple[int, int]]) -> list[Gap]:
        """Return what the file should have held and did not, and a sentence about it."""
        oldest = self.oldest or _number(others.meta.get("oldest_seq")) or 1
        newest = max([self.newest, _number(others.meta.get("seq_floor")), *self._seqs[-1:]])
        there = sorted([(0, oldest - 1), *((seq, seq) for seq in self._seqs), *folded])
        holes = list(outbox.unacked(there, oldest, newest))
        gaps = merged([self._hole(*hole) for hole in holes])
        if not self.newest:
            gaps.append(self._tail())
        if self._unnamed:
            why = f"samples in the damaged file {self.path.name} are of series whose names are lost"
            gaps.append(Gap(self._unnamed_from_us, self._unnamed_to_us, why, count=self._unnamed))
        commits = sum(end - start + 1 for start, end in holes)
        _log.warning(
            "the damaged file %s was searched: %d samples found in %d blocks, %d of them taken in, the rest "
            "were there; %d commits not found, %d samples of unknown series",
            self.path.name, self._samples, len(self._seqs), self.added, commits, self._unnamed,
        )  # fmt: skip
        return gaps

    def _hole(self, start: int, end: int) -> Gap:
        """Return the gap between the blocks around a hole in the seqs."""
        seqs, walls = self._seqs, self._walls
        before, after = bisect_left(seqs, start), bisect_right(seqs, end)
        from_us = walls[before - 1] if before else self.born_us
        to_us = walls[after] if after < len(walls) else max(from_us, changed_us(self.path))
        why = (
            f"{end - start + 1} commits were not found in the damaged file {self.path.name}: lost, unless "
            f"retention had taken them"
        )
        return Gap(min(from_us, to_us), max(from_us, to_us), why)

    def _tail(self) -> Gap:
        """Return the time after the last block found: what came then may have been lost."""
        from_us = self._walls[-1] if self._walls else self.born_us
        to_us = max(from_us, changed_us(self.path))
        why = f"after the last block found in the damaged file {self.path.name} there may have been more"
        return Gap(from_us, to_us, why)


def _adopting(known: dict[str, MeasurementRow], parts: list[Part]) -> Work:
    """Return the work of taking blocks in; a measurement without a row is known by what its blocks say."""
    of: dict[str, list[Part]] = {}
    for part in parts:
        if name := name_of(part.head):
            of.setdefault(name, []).append(part)
    work = Work()
    for name, mine in of.items():
        row = known.get(name) or MeasurementRow(name, 0, done=False, text="")
        work.rides.append(Ride(partial(_adopt, row, mine)))
    return work


def _adopt(row: MeasurementRow, parts: list[Part], tx: Transaction) -> None:
    found = [(part_of(each.header.seq), partial(again, each)) for each in parts]
    adopt(tx, row, found)


def _keep(letter: Letter, tx: Transaction) -> None:
    there = tx.conn.execute(
        "SELECT 1 FROM quarantine WHERE upload = ? AND block = ?", (letter.upload, letter.block)
    ).fetchone()
    if there is None:
        outbox.insert_letter(tx.conn, *letter)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
