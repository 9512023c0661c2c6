"""Takes the samples of damaged hot files in again, in slices on the writer thread between commits.

They go through the key rule like any others: what is in the store already is the same sample, so that a
restart in the middle simply begins again. A file that is done with is renamed.
"""

import logging
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path

from gateway.model import Batch, Gap, Receipt, SeriesInfo
from gateway.store import outbox
from gateway.store.codec import BlockHeader, decode, encode
from gateway.store.columns import CorruptBlock
from gateway.store.outbox import Transaction
from gateway.store.past import Past
from gateway.store.salvage import Letter, Remains, Rows, rows
from gateway.store.work import Ride, Work

_log = logging.getLogger(__name__)

Names = dict[int, SeriesInfo]
Mapping = dict[int, int]
"""Number of a series in the damaged file to its number now."""

_SLICE_SAMPLES = 4096
_FREE_BYTES = 64 * 1024 * 1024
_PAUSE_NS = 60_000_000_000
_MOST_GAPS = 100


@dataclass(slots=True)
class _Tally:
    """What was found in a file."""

    seqs: "array[int]" = field(default_factory=lambda: array("Q"))
    walls: "array[int]" = field(default_factory=lambda: array("q"))
    samples: int = 0
    added: int = 0
    unnamed: int = 0
    unnamed_from_us: int = 2**63 - 1
    unnamed_to_us: int = -(2**63)


class Recovery:
    """Writer thread only, but `named`."""

    def __init__(self, folder: Path, past: Past, adopt: Callable[[Names, Callable[[Mapping], None]], None]):
        """`adopt` has the event loop give series their numbers, and tells them."""
        self._folder, self._past, self._adopt = folder, past, adopt
        self._steps: Generator[Batch | None] | None = None
        self._file = ""
        self._mapping: Mapping | None = None
        self._tally = _Tally()
        self._paused_ns = 0
        self._work = Work()
        self.expected: dict[str, tuple[int, int]] = {}
        """Oldest and newest seq that files set aside while running held."""

    @property
    def busy(self) -> str:
        """Name the file that is being taken in."""
        return self._file

    def waiting(self) -> list[Path]:
        """Return the damaged files that are not done with, oldest first."""
        found = [
            (int(number), path)
            for path in self._folder.glob("hot.db.corrupt-*")
            if (number := path.name.removeprefix("hot.db.corrupt-")).isdecimal()
        ]
        return [path for _, path in sorted(found)]

    def slice(self, now_ns: int, free_bytes: int) -> Work | None:
        """Do one slice of what there is to do; return what is to be committed, if anything."""
        if now_ns < self._paused_ns:
            return None
        if self._steps is None:
            there = self.waiting()
            if not there:
                self._paused_ns = now_ns + _PAUSE_NS
                self._file = ""
                return None
            self._file, self._mapping, self._tally = there[0].name, None, _Tally()
            self._steps = self._take_in(there[0])
        if free_bytes < _FREE_BYTES:
            self._paused_ns = now_ns + _PAUSE_NS
            _log.warning("there is too little room on the disk to take in the samples of %s", self._file)
            return None
        try:
            batch = next(self._steps)
        except StopIteration:
            self._steps = None
            return None
        except OSError as error:
            self._steps = None
            self._paused_ns = now_ns + _PAUSE_NS
            _log.warning("the damaged file %s cannot be read now: %s", self._file, error)
            return None
        if batch is not None:
            self._work.salvaged = batch
        work, self._work = self._work, Work()
        return work if work else None

    def look(self) -> None:
        """Look for files soon: one was set aside."""
        self._paused_ns = 0

    def committed(self, receipt: Receipt | None) -> None:
        if receipt is not None:
            self._tally.added += receipt.added + receipt.moved

    def _take_in(self, path: Path) -> Generator[Batch | None]:
        remains = Remains(path)
        try:
            for _ in remains.look():
                yield None
            others = rows(path)
            yield None
            self._ask_names(remains, others)
            while self._mapping is None:
                yield None
            yield from self._blocks(remains, self._folded(remains.epoch))
        finally:
            remains.close()
        self._take_rows(others)
        self._work.gaps += self._lost(path, others, remains.epoch)
        yield Batch()
        self._done_with(path)

    def _ask_names(self, remains: Remains, others: Rows) -> None:
        names = {
            number: SeriesInfo(*name, others.units.get(number, "")) for number, name in remains.names.items()
        }

        def known(mapping: Mapping) -> None:
            self._mapping = mapping

        self._adopt(names, known)

    def _folded(self, epoch: str) -> list[tuple[int, int]]:
        return sorted(self._past.folded(epoch)) if epoch else []

    def _blocks(self, remains: Remains, folded: Sequence[tuple[int, int]]) -> Generator[Batch | None]:
        joined, place = Batch(), 0
        for header, batch in remains.blocks():
            while place < len(folded) and folded[place][1] < header.seq:
                place += 1
            self._tally.seqs.append(header.seq)
            self._tally.walls.append(header.wall_us)
            if place < len(folded) and folded[place][0] <= header.seq:
                continue  # it is in the history, and was deleted or about to be
            joined.extend(self._named(header, batch))
            if len(joined) >= _SLICE_SAMPLES:
                yield wanted(joined)
                joined = Batch()
            elif not len(self._tally.seqs) % 16:
                yield None
        if len(joined):
            yield wanted(joined)

    def _named(self, header: BlockHeader, batch: Batch) -> Batch:
        """Return the samples under the numbers of their series now; those without a name are counted."""
        assert self._mapping is not None
        tally, numbers = self._tally, [self._mapping.get(series, 0) for series in batch.series]
        tally.samples += len(batch)
        if 0 in numbers:
            tally.unnamed += numbers.count(0)
            tally.unnamed_from_us = min(tally.unnamed_from_us, header.wall_us, header.t0)
            tally.unnamed_to_us = max(tally.unnamed_to_us, header.wall_us, header.t1)
        columns = (list(compress(column, numbers)) for column in (numbers, *batch.columns()[1:]))
        return Batch(*columns)  # type: ignore[arg-type]

    def _take_rows(self, others: Rows) -> None:
        mapping = self._mapping or {}
        self._work.gaps += others.gaps
        for letter in others.letters:
            try:
                header, batch = decode(letter.block)
            except CorruptBlock:
                continue
            if all(series in mapping for series in batch.series):
                batch.series[:] = [mapping[series] for series in batch.series]
                mine = letter._replace(block=encode(header, batch))
                self._work.rides.append(Ride(partial(_keep, mine)))

    def _lost(self, path: Path, others: Rows, epoch: str) -> list[Gap]:
        """Return what the file should have held and did not, and a sentence about it."""
        tally = self._tally
        oldest, newest = self.expected.get(path.name, (0, 0))
        known = newest > 0
        oldest = oldest or _number(others.meta.get("oldest_seq")) or 1
        newest = max([newest, _number(others.meta.get("seq_floor")), *tally.seqs[-1:]])
        there = sorted([(0, oldest - 1), *((seq, seq) for seq in tally.seqs), *self._folded(epoch)])
        holes = list(outbox.unacked(there, oldest, newest))
        gaps = _merged([self._hole(path, *hole) for hole in holes])
        if not known:
            gaps.append(self._tail(path))
        if tally.unnamed:
            why = f"samples in the damaged file {path.name} are of series whose names are lost"
            gaps.append(Gap(tally.unnamed_from_us, tally.unnamed_to_us, why, count=tally.unnamed))
        commits = sum(end - start + 1 for start, end in holes)
        _log.warning(
            "the damaged file %s was searched: %d samples found in %d blocks, %d of them taken in, the rest "
            "were there; %d commits not found, %d samples of unknown series",
            path.name, tally.samples, len(tally.seqs), tally.added, commits, tally.unnamed,
        )  # fmt: skip
        return gaps

    def _hole(self, path: Path, start: int, end: int) -> Gap:
        """Return the gap between the blocks around a hole in the seqs."""
        seqs, walls = self._tally.seqs, self._tally.walls
        before, after = bisect_left(seqs, start), bisect_right(seqs, end)
        from_us = walls[before - 1] if before else _born_us(self._folder)
        to_us = walls[after] if after < len(walls) else max(from_us, _changed_us(path))
        why = (
            f"{end - start + 1} commits were not found in the damaged file {path.name}: lost, unless "
            f"retention had taken them"
        )
        return Gap(min(from_us, to_us), max(from_us, to_us), why)

    def _tail(self, path: Path) -> Gap:
        """Return the time after the last block found: what came then may have been lost."""
        from_us = self._tally.walls[-1] if self._tally.walls else _born_us(self._folder)
        to_us = max(from_us, _changed_us(path))
        why = f"after the last block found in the damaged file {path.name} there may have been more"
        return Gap(from_us, to_us, why)

    def _done_with(self, path: Path) -> None:
        """Rename the file; the newest ones are kept for whoever wants to look at them."""
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(part.with_name(part.name.replace("corrupt", "salvaged")))
        self.expected.pop(path.name, None)


def wanted(batch: Batch) -> Batch:
    """Return the samples of salvaged blocks that may be taken in: the one place to leave some out."""
    return batch


def _keep(letter: Letter, tx: Transaction) -> None:
    there = tx.conn.execute(
        "SELECT 1 FROM quarantine WHERE upload = ? AND block = ?", (letter.upload, letter.block)
    ).fetchone()
    if there is None:
        outbox.insert_letter(tx.conn, *letter)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _merged(gaps: list[Gap]) -> list[Gap]:
    """Return a bounded number of gaps: beyond it the last one stands for the rest."""
    if len(gaps) <= _MOST_GAPS:
        return gaps
    rest = gaps[_MOST_GAPS - 1 :]
    last = Gap(rest[0].from_us, max(gap.to_us for gap in rest), f"{len(rest)} times: {rest[0].reason}")
    return [*gaps[: _MOST_GAPS - 1], last]


def _born_us(folder: Path) -> int:
    """Return when the store was made: nobody writes the lock file again."""
    try:
        return int((folder / "store.lock").stat().st_mtime * 1_000_000)
    except OSError:
        return 0


def _changed_us(path: Path) -> int:
    stamps = [0.0]
    for suffix in ("", "-wal"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            stamps.append(part.stat().st_mtime)
    return int(max(stamps) * 1_000_000)
