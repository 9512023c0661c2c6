"""The life of a store in little: all that it does to its files in months happens in some hundred commits.

Blocks are folded all the time, segments are sealed at 20 KB, the oldest ones unlinked for room, windows are
deleted on request, the WAL is brought into the file every 60 pages, the store is closed and opened again, and
a backup is made beside it. Beside the samples frames of measurements come, whose blocks are dropped after a
while. After a write or sync that failed, files are written anew.
"""

import asyncio
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gateway.clock import SystemClock
from gateway.commands.backup import BackupProblem, back_up
from gateway.store import Store, compact, history, recordings, writer
from gateway.store.chunk import PackedChunk
from gateway.store.history import History
from gateway.store.recordings import MeasurementRow
from gateway.store.schema import StoreProblem
from gateway.store.segment import Segment
from tests.chaos.oracle import (
    SETTINGS,
    START_US,
    TAGS,
    Verdict,
    frames,
    judge_again,
    judge_block,
    samples,
    tags_of,
)
from tests.chaos.report import Report, numbers
from tests.store.searching import searched

PER_COMMIT = 7
MAX_BYTES = 110_000
_SEGMENT_BYTES = 20 * 1024
_SHM_BYTES = 100
_BLOCKS, _DROPPED = 6, 4
LIVED = replace(SETTINGS, chunk_minutes=0, max_bytes=MAX_BYTES)


def hasten() -> None:
    """Have what happens each minutes in a store happen all the time in this process."""
    compact.LOOK_NS = 150_000_000
    compact._PAUSE_NS = 60_000_000
    writer._SNAPSHOT_NS = -1
    history._SEGMENT_BYTES = history._LEAST_BYTES = _SEGMENT_BYTES
    shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined]  # the data of other calls can be traced


class Life:
    """One process' part of it, told on a file descriptor."""

    def __init__(self, folder: Path, report: int, start: int, rng: random.Random) -> None:
        """`start`: the first number that nobody has put."""
        self._folder, self._report, self._start, self._rng = folder, report, start, rng
        self._store: Store
        self._tags: dict[int, int] = {}
        self._begun = self._blocks = 0

    def _tell(self, line: str) -> None:
        os.write(self._report, f"{line}\n".encode())

    async def live(self, commits: int, *, again: int = 0, parts: int = 1, backups: int = 0) -> None:
        """Make so many commits, each after the acknowledgement of the one before.

        The last `again` numbers before a batch are sent once more with it. The store is opened `parts` times.
        """
        tell_of_retention(self._tell)
        first, left = self._start, commits
        while left > 0:
            count = -(-commits // parts)
            async with Store.open(self._folder, LIVED, SystemClock()) as self._store:
                self._tags = tags_of(self._store)
                self._begun, self._blocks = first, 0
                at = {first + self._rng.randrange(count) * PER_COMMIT for _ in range(backups)}
                firsts = (first + n * PER_COMMIT for n in range(min(count, left)))
                copies = [await self._batch(n, again, backup=n in at) for n in firsts]
                await asyncio.gather(*filter(None, copies))
            first, left = first + count * PER_COMMIT, left - count

    async def _batch(self, first: int, again: int, *, backup: bool) -> "asyncio.Task[None] | None":
        end = first + PER_COMMIT
        self._tell(f"i {end}")
        ticket = await self._store.put(samples(range(max(0, first - again), end), self._tags))
        if recorded := first // PER_COMMIT % 3 == 0:
            await self._record()
        await ticket
        self._tell(f"a {first} {end}")
        if recorded and self._blocks >= _BLOCKS:
            await self._finish(first)
        with suppress(OSError), (self._folder / "hot.db-shm").open("rb") as shared:
            self._tell(f"m {shared.read(_SHM_BYTES).hex()}")
        if self._rng.random() < 0.1:
            await self._delete(first - again)
        if not backup:
            return None
        name = f"backup-{first}"
        self._tell(f"b {name}")
        return asyncio.create_task(asyncio.to_thread(self._back_up, name))

    async def _record(self) -> None:
        """Record a block; it is told once it is committed, with the samples or right after."""
        begun, part = self._begun, self._blocks
        self._blocks += 1
        row = MeasurementRow(f"m{begun}", 1, done=False, text="")
        head = b'{"name":"m%d"}' % begun
        stored = await self._store.record(row, head, part, frames(begun, part))
        stored.add_done_callback(lambda done: done.exception() or self._tell(f"f {begun} {part}"))
        self._recorded = stored

    async def _finish(self, first: int) -> None:
        """Take the measurement for written, and begin another one."""
        await asyncio.wait([self._recorded])  # told before it goes
        name, self._begun, self._blocks = f"m{self._begun}", first + 1, 0
        self._tell(f"g {name[1:]}")
        await self._store.ride(lambda tx: recordings.keep(tx, name, "", done=True))
        while await self._store.ride(lambda tx: recordings.drop(tx, name, _DROPPED)):
            pass

    def _back_up(self, name: str) -> None:
        with suppress(BackupProblem):  # of a file that is just being written anew, say
            back_up(self._folder / "none", self._folder, self._folder.parent / name, 0)

    async def _delete(self, before: int) -> None:
        """Delete a window of one tag that no later batch sends again."""
        end = self._rng.randint(0, max(before, 0))
        first, tag = max(0, end - self._rng.choice((1, 50, 400))), self._rng.randrange(TAGS)
        if first < end:
            self._tell(f"x {tag} {first} {end}")
            with suppress(StoreProblem):  # a read failed: what was to be deleted may be there, or not
                await self._store.delete(
                    self._tags[tag], "chaos", START_US + first * 1000, START_US + (end - 1) * 1000
                )
                self._tell(f"d {tag} {first} {end}")


async def judge_life(folder: Path, report: Report) -> Verdict:
    """Open the store of a folder, with room for all, and hold it against what was told of its life.

    SQLite takes a read that failed with EIO for a malformed file: what was set aside is searched first.
    """
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        if await asyncio.to_thread(lambda: list(folder.rglob("*.corrupt*"))):
            await searched(store)
        there: dict[str, int] = {}
        for row in await store.measurements():
            async for data in store.recording(row.name):
                name, part = judge_block(data)
                there[name] = there.get(name, 0) | 1 << part
        verdict = await judge_again(store, numbers(report.kept), numbers(report.deleted), report.issued)
        verdict.wrong += missing_blocks(report, there)
        return verdict


def missing_blocks(report: Report, there: Mapping[str, int]) -> list[str]:
    """Name acknowledged blocks of measurements that are not there."""
    missing = {name: numbers(blocks & ~there.get(name, 0)) for name, blocks in report.blocks.items()}
    return [f"of measurement {name} the blocks {gone} are missing" for name, gone in missing.items() if gone]


def tell_of_retention(tell: Callable[[str], None]) -> None:
    """Have what retention takes told in this process before it is taken."""
    unlink = History._unlink

    def told(history: History, gone: Segment) -> None:
        for first, end in _runs(history.past.query(gone, _numbers)):
            tell(f"r {first} {end}")
        unlink(history, gone)

    History._unlink = told  # type: ignore[method-assign]


def _numbers(conn: sqlite3.Connection) -> set[int]:
    chunks = (PackedChunk(data) for (data,) in conn.execute("SELECT data FROM chunk"))
    return {(ts - START_US) // 1000 for packed in chunks for ts in packed.ts}


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Return runs of numbers as (first, end)."""
    found: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if found and found[-1][1] == n:
            found[-1] = found[-1][0], n + 1
        else:
            found.append((n, n + 1))
    return found
