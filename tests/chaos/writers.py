"""Writers of numbered samples for a process of their own, and the mutants that the harnesses must catch."""

import asyncio
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.clock import SystemClock
from gateway.model import Receipt
from gateway.store import Store, hotfile, segment, wal
from gateway.store import store as store_module
from gateway.store import writer as writer_module
from gateway.store.schema import connect
from tests.chaos.life import PER_COMMIT, Life, hasten
from tests.chaos.oracle import SETTINGS, samples, tags_of

CHECKPOINT_PAGES = 60


class AcknowledgesBeforeCommit(writer_module.Writer):
    """The mutant: tickets are resolved before the transaction begins."""

    def _commit(self, closing: bool) -> None:
        tickets = [intake.ticket for intake in self._work.intakes]
        self._tell(lambda: [ticket.resolve(Receipt(0, 0, 0)) for ticket in tickets] and None)
        time.sleep(0.005)
        super()._commit(closing)


def _connector(
    connect: Callable[[Path], sqlite3.Connection], *pragmas: str
) -> Callable[[Path], sqlite3.Connection]:
    def connect_with(path: Path) -> sqlite3.Connection:
        conn = connect(path)
        for pragma in pragmas:
            conn.execute(f"PRAGMA {pragma}").fetchall()
        return conn

    return connect_with


def use(mutant: str) -> None:
    """Choose in this process: "" for the real writer (which checkpoints often), or a mutant.

    "normal": the hot file without a sync of each commit; "fold": folds without a sync of the folder;
    "early": acknowledges before COMMIT.
    """
    wal.CHECKPOINT_PAGES = CHECKPOINT_PAGES
    if mutant == "normal":
        hotfile.connect = _connector(connect, "synchronous=NORMAL")
    if mutant == "fold":
        segment.connect_writer = _connector(segment.connect_writer, "synchronous=FULL")
    if mutant == "early":
        store_module.Writer = AcknowledgesBeforeCommit  # type: ignore[misc]


async def write(folder: Path, report: int, start: int, commits: int, again: int = 0) -> None:
    """Write `commits` batches from number `start` on, each after the acknowledgement of the one before.

    The last `again` numbers of the batch before are sent once more with each. Nothing is folded.
    """
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        tags = tags_of(store)
        for first in range(start, start + commits * PER_COMMIT, PER_COMMIT):
            end = first + PER_COMMIT
            os.write(report, b"i %d\n" % end)
            await (await store.put(samples(range(max(0, first - again), end), tags)))
            os.write(report, b"a %d %d\n" % (first, end))


def main(kind: str, folder: Path, start: int, commits: int, mutant: str, seed: int) -> None:
    """Write in this process: "plain", or a whole "life"."""
    use(mutant)
    if kind == "plain":
        asyncio.run(write(folder, 1, start, commits, again=3))
        return
    hasten()
    writer_module._RETRY_NS = 50_000_000
    life = Life(folder, 1, start, random.Random(seed))
    asyncio.run(life.live(commits, again=3, parts=3, backups=1))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
