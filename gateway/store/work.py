"""What waits for the next group commit, and telling those who wait how it went."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.model import Batch, Gap, NotStored, Receipt, RunRecord, Ticket
from gateway.store.budget import MemoryBudget
from gateway.store.outbox import Transaction
from gateway.store.past import Damage
from gateway.store.tombstones import Tombstone
from gateway.store.values import Checked

_log = logging.getLogger(__name__)

_RECORDS = ("intakes", "rides", "gaps", "runs", "series", "bad", "damage", "tombstones")
"""What `Work` has lists of."""
_MOST_SHOWN = 500
"""Characters of a record that was given up."""

Job = Callable[[Transaction], Any]


@dataclass(slots=True)
class Intake:
    """A batch waiting for its commit; its size is what it takes of the memory budget."""

    batch: Checked
    ticket: Ticket


@dataclass(slots=True)
class Ride:
    """A job waiting for its commit, and who waits for it; `last` waits for all samples before it too."""

    job: Job
    future: asyncio.Future[Any] | None = None
    last: bool = False
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Work:
    """What one commit takes along."""

    intakes: list[Intake] = field(default_factory=list)
    rides: list[Ride] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    series: list[tuple[int, str, str, str, bool]] = field(default_factory=list)
    refused: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """Samples that cannot be stored: (device, reason) to first and last wall time and their number."""
    bad: list[int] = field(default_factory=list)
    """Seqs of blocks found unreadable."""
    damage: list[Damage] = field(default_factory=list)
    """Chunks and segments of the history found unreadable."""
    tombstones: list[Tombstone] = field(default_factory=list)
    """Those to be written again, for a file that begins anew."""
    samples: int = 0
    salvaged: Batch = field(default_factory=Batch)
    """Samples of a damaged file: nobody waits for them."""

    def __bool__(self) -> bool:
        parts = self.intakes, self.rides, self.gaps, self.runs, self.bad, self.damage, self.refused
        return any(parts) or len(self.salvaged) > 0 or bool(self.tombstones)

    @property
    def others(self) -> int:
        """Number of records that are no samples."""
        return len(self.rides) + len(self.gaps) + len(self.runs)

    def take(self, intake: Intake) -> None:
        self.intakes.append(intake)
        self.samples += len(intake.batch)

    def note(self, bad: list[int], damage: list[Damage]) -> None:
        """Take note of what could not be read."""
        self.bad += bad
        self.damage += damage

    def refuse(self, device: str, reason: str, at_us: int) -> None:
        """Count a sample that cannot be stored: one gap row a commit for each reason."""
        start, _, count = self.refused.get((device, reason), (at_us, at_us, 0))
        self.refused[device, reason] = start, at_us, count + 1

    def absorb(self, other: "Work", most_samples: int) -> None:
        """Take over from `other`: all but the samples beyond the limit."""
        taken = 0
        for intake in other.intakes:
            if self.samples and self.samples + len(intake.batch) > most_samples:
                break
            self.samples += len(intake.batch)
            other.samples -= len(intake.batch)
            taken += 1
        self.intakes += other.intakes[:taken]
        del other.intakes[:taken]
        self.rides += [ride for ride in other.rides if not (ride.last and other.intakes)]
        other.rides = [ride for ride in other.rides if ride.last and other.intakes]
        self.gaps, other.gaps = self.gaps + other.gaps, []
        self.runs, other.runs = self.runs + other.runs, []
        self.series, other.series = self.series + other.series, []
        self.bad, other.bad = self.bad + other.bad, []
        self.damage, other.damage = self.damage + other.damage, []
        for key, (start, end, count) in other.refused.items():
            known = self.refused.get(key, (start, end, 0))
            self.refused[key] = known[0], end, known[2] + count
        other.refused = {}

    def take_out(self, why_not: Callable[["Work"], Exception | None]) -> list[tuple["Work", Exception]]:
        """Remove each record that cannot be written even alone; return it, as work of its own, and why."""
        fit: dict[str, list[Any]] = {name: [] for name in _RECORDS}
        out = []
        for name in _RECORDS:
            for each in getattr(self, name):
                alone = Work()
                getattr(alone, name).append(each)
                if (error := why_not(alone)) is None:
                    fit[name].append(each)
                else:
                    out.append((alone, error))
        salvaged = Work(salvaged=self.salvaged)
        if salvaged and (error := why_not(salvaged)) is not None:
            out.append((salvaged, error))
            self.salvaged = Batch()
        for name, records in fit.items():
            setattr(self, name, records)
        self.samples = sum(len(intake.batch) for intake in self.intakes)
        return out

    def given_up(self, reason: str, now_us: int) -> Gap:
        """Return what tells that a record, which is all that is here, was given up."""
        stamps = [ts for intake in self.intakes for ts in intake.batch.ts] or self.salvaged.ts
        if stamps:
            return Gap(min(stamps), max(stamps), f"given up: {reason}", count=len(stamps))
        record = next(getattr(self, name)[0] for name in _RECORDS if getattr(self, name))
        return Gap(now_us, now_us, f"given up: {record!r:.{_MOST_SHOWN}}: {reason}")


def settle(work: Work, receipts: list[Receipt], budget: MemoryBudget) -> None:
    """Tell everybody that the commit is done; event loop only."""
    for intake, receipt in zip(work.intakes, receipts, strict=True):
        intake.ticket.resolve(receipt)
    budget.give(sum(intake.batch.size for intake in work.intakes))
    for ride in work.rides:
        if ride.future is None:
            if ride.error is not None:
                _log.error("a job of the store failed: %s", ride.error, exc_info=ride.error)
        elif not ride.future.done():
            if ride.error is None:
                ride.future.set_result(ride.result)
            else:
                ride.future.set_exception(ride.error)


def fail(work: Work, error: NotStored, budget: MemoryBudget) -> None:
    """Tell everybody that this work is given up; event loop only."""
    for intake in work.intakes:
        intake.ticket.fail(error)
    budget.give(sum(intake.batch.size for intake in work.intakes))
    for ride in work.rides:
        if ride.future is not None and not ride.future.done():
            ride.future.set_exception(error)
