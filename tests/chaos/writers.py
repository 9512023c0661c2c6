"""Writers of numbered samples for a process of their own, and the mutants that the harnesses must catch.

They report on a file descriptor: "i N" before number N-1 and those below it are put, "a A B" once the
numbers A to B-1 are acknowledged.
"""

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.clock import SystemClock
from gateway.model import Receipt
from gateway.store import Store, hotfile
from gateway.store import store as store_module
from gateway.store import writer as writer_module
from gateway.store.schema import connect
from tests.chaos.oracle import SETTINGS, samples, tags_of

PER_COMMIT = 7
CHECKPOINT_PAGES = 60


class AcknowledgesBeforeCommit(writer_module.Writer):
    """The mutant: tickets are resolved before the transaction begins."""

    def _commit(self, closing: bool) -> None:
        tickets = [intake.ticket for intake in self._work.intakes]
        self._tell(lambda: [ticket.resolve(Receipt(0, 0, 0)) for ticket in tickets] and None)
        time.sleep(0.005)
        super()._commit(closing)


def _connector(*pragmas: str) -> Callable[[Path], sqlite3.Connection]:
    def connect_with(path: Path) -> sqlite3.Connection:
        conn = connect(path)
        for pragma in (f"wal_autocheckpoint={CHECKPOINT_PAGES}", *pragmas):
            conn.execute(f"PRAGMA {pragma}").fetchall()
        return conn

    return connect_with


def use(mutant: str) -> None:
    """Choose in this process: "" for the real writer (which checkpoints often), "early" or "normal"."""
    hotfile.connect = _connector(*(["synchronous=NORMAL"] if mutant == "normal" else []))
    if mutant == "early":
        store_module.Writer = AcknowledgesBeforeCommit  # type: ignore[misc]


async def write(folder: Path, report: int, start: int, commits: int, again: int = 0) -> None:
    """Write `commits` batches from number `start` on, each after the acknowledgement of the one before.

    The last `again` numbers of the batch before are sent once more with each.
    """
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        tags = tags_of(store)
        for first in range(start, start + commits * PER_COMMIT, PER_COMMIT):
            end = first + PER_COMMIT
            os.write(report, b"i %d\n" % end)
            await (await store.put(samples(range(max(0, first - again), end), tags)))
            os.write(report, b"a %d %d\n" % (first, end))


def read_report(text: str) -> tuple[set[int], int]:
    """Return the numbers acknowledged, and how many were issued."""
    acked: set[int] = set()
    issued = 0
    for line in text.splitlines():
        match line.split():
            case ["i", end]:
                issued = max(issued, int(end))
            case ["a", first, end]:
                acked.update(range(int(first), int(end)))
    return acked, issued


if __name__ == "__main__":
    use(sys.argv[3])
    asyncio.run(write(Path(sys.argv[1]), 1, 0, int(sys.argv[2]), again=3))
