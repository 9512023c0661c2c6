"""Judges the files of a store, thousands of times: opens them as a start does, reads all that is served.

What is judged of files alone is judged once for the same bytes: what a start makes of them, and what is
served of what it made. What a writer told by the moment of a cut is held against it each time.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, NamedTuple
from unittest.mock import patch

from gateway.clock import SystemClock
from gateway.commands.backup import verify
from gateway.model import GatewayError, Sample, SeriesInfo
from gateway.store import Store, examine, hotfile, past, recordings, records, segment, series
from gateway.store.chunk import ChunkHeader, PackedChunk
from gateway.store.columns import CorruptBlock
from gateway.store.history import History
from gateway.store.past import Past
from gateway.store.read_only import ReadOnlyStore
from gateway.store.schema import connect_reader
from gateway.store.series import SeriesTable
from gateway.store.stretch import Stretch
from gateway.store.taking import Key, Memory
from gateway.store.verify import Counted
from gateway.store.window import Window
from gateway.store.writer import Writer
from tests.chaos import oracle
from tests.chaos.disk import Content, write_state
from tests.chaos.life import LIVED, missing_blocks
from tests.chaos.oracle import EVERYTHING, START_US
from tests.chaos.report import Report, bits, numbers, span

_NEVER = 2**40


class Served(NamedTuple):
    """What is served of some files: numbers as bits of an integer, and what is wrong whatever was told."""

    numbers: int
    wrong: tuple[str, ...]
    blocks: Mapping[str, int] = {}
    """Of measurements, by name: numbers as bits."""
    noticed: tuple[str, ...] = ()
    """Sentences of the store on files that it set aside, or on damage."""


@dataclass(slots=True)
class Verdict:
    """What breaks the promise, by how."""

    missing: list[int]
    never_issued: list[int]
    undeleted: list[int]
    wrong: list[str]
    noticed: list[str]

    def __bool__(self) -> bool:
        """Say whether the promise is kept."""
        return not (self.missing or self.never_issued or self.undeleted or self.wrong or self.noticed)


def judged(served: Served, report: Report) -> Verdict:
    """Hold what is served against what a writer told."""
    return Verdict(
        numbers(report.kept & ~served.numbers),
        numbers(served.numbers & ~span(0, report.issued)),
        numbers(served.numbers & report.deleted),
        [*served.wrong, *missing_blocks(report, served.blocks)],
        list(served.noticed),
    )


@dataclass(slots=True)
class Counts:
    """How much was really done."""

    distinct: int = 0
    """Disk states that were opened: no two had the same bytes."""
    contents: int = 0
    """Stores, different in at least one byte after the start, of which all was read."""


@dataclass(slots=True)
class Judge:
    """One process' memory."""

    folder: Path
    counts: Counts = field(default_factory=Counts)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _key: bytes = b""
    _opened: dict[bytes, Served] = field(default_factory=dict)
    _started: dict[bytes, Served] = field(default_factory=dict)
    _read: dict[bytes, Served] = field(default_factory=dict)
    _backups: dict[str, tuple[Mapping[str, Content], int | str]] = field(default_factory=dict)

    def served(self, files: Mapping[str, Content], shared: bytes) -> Served:
        """Open what a disk holds of the store, and return what is served.

        `shared`: the head of what is left of the -shm.
        """
        mine = {name: content for name, content in files.items() if name.startswith("store/")}
        key = _key(mine, shared)
        if key not in self._opened:
            self.counts.distinct += 1
            self._opened[key] = self._open(mine, shared)
        return self._opened[key]

    def close(self) -> None:
        self._loop.close()

    def _open(self, files: Mapping[str, Content], shared: bytes) -> Served:
        """Do what a start does before it is READY, then read all.

        It brings hot.db in order first. What follows is known where there were the same bytes at that moment.
        """
        hot = {name: content.data for name, content in files.items() if "/history/" not in name}
        if shared and "store/hot.db-wal" in hot:
            hot["store/hot.db-shm"] = shared + bytes(32768 - len(shared))
        history = {name: content for name, content in files.items() if name not in hot}
        write_state(self.folder, hot)
        folder = self.folder / "store"
        if history:
            (folder / "history").mkdir()
        store = Store(folder, LIVED, SystemClock())
        store._hot.lock()
        writer = self._loop.run_until_complete(_writer(store))
        store._history.open = partial(self._go_on, store, history)  # type: ignore[method-assign]
        try:
            writer.load()
            found = self._started[self._key] = self._all(folder, writer)
            return found
        except _AsBefore as before:
            return before.served
        except (GatewayError, sqlite3.Error) as error:
            return Served(0, (f"it does not open: {error}",))
        finally:
            writer._disconnect()
            store._history.close()
            store._hot.unlock()

    def _go_on(
        self, store: Store, history: Mapping[str, Content], known: list[tuple[int, SeriesInfo]], now_us: int
    ) -> None:
        """Stand for History.open: end the start here where the rest of it is known."""
        paths = (path for path in sorted(store.folder.glob("hot.db*")) if not path.name.endswith("-shm"))
        hot = [path.name.encode() + path.read_bytes() for path in paths]
        gaps = (gap.reason.encode() for gap in store._hot.gaps)
        self._key = _digest([*gaps, *hot, _key_of_history(history)])
        if self._key in self._started:
            raise _AsBefore(self._started[self._key])
        for name, content in history.items():
            (self.folder / name).write_bytes(content.data)
        History.open(store._history, known, now_us)

    def _all(self, folder: Path, writer: Writer) -> Served:
        noticed = [gap.reason for gap in writer._work.gaps]
        noticed += [f"block {seq} is damaged" for seq in writer._pending.bad]
        key = _digest(_contents(folder))
        if key not in self._read:
            self.counts.contents += 1
            self._read[key] = _read_all(folder, writer)
        return self._read[key]._replace(noticed=tuple(noticed))

    def backup(self, name: str, files: Mapping[str, Content], must: int) -> str:
        """Say what is wrong with a backup, where a disk holds one; `must`: what has to be in it."""
        mine = {each: content for each, content in files.items() if each.startswith(f"{name}/")}
        if not mine:
            return ""
        known, found = self._backups.get(name, ({}, ""))
        if mine.keys() != known.keys() or any(mine[each] is not known[each] for each in mine):
            write_state(self.folder, {each: content.data for each, content in mine.items()})
            found = _in_backup(self.folder / name)
            self._backups[name] = mine, found
        if isinstance(found, str):
            return found
        missing = numbers(must & ~found)
        return f"the backup {name} lacks {missing[:9]}" if missing else ""


async def _writer(store: Store) -> Writer:
    """Make the writer of a store; it wants a running loop."""
    return Writer(
        store._hot, store._history, LIVED, SystemClock(), SeriesTable(), store.budget, bytes(16),
        lambda found, known: None,
    )  # fmt: skip


class _AsBefore(Exception):
    """The same bytes were read before."""

    def __init__(self, served: Served) -> None:
        self.served = served


def _contents(folder: Path) -> Iterator[bytes]:
    """Yield the files of a store; not a journal that SQLite leaves alone."""
    for path in sorted(folder.rglob("*.db*")):
        if not path.name.endswith("-shm"):
            content = path.read_bytes()
            yield path.name.encode() + (b"" if _never_began(path.name, content) else content)


def _never_began(name: str, content: bytes) -> bool:
    """Say whether it is a journal without a header, which says nothing (sqlite.org/fileformat2.html, 3)."""
    return name.endswith("-journal") and content[:1] in (b"", b"\0")


def _key(files: Mapping[str, Content], more: bytes) -> bytes:
    return _digest([*(name.encode() + files[name].digest for name in sorted(files)), more])


def _key_of_history(files: Mapping[str, Content]) -> bytes:
    nothing = Content(b"")
    return _key(
        {name: nothing if _never_began(name, each.data) else each for name, each in files.items()}, b""
    )


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


@contextmanager
def remembered() -> Iterator[None]:
    """While entered, records, chunks and all of a hot file are checked once for the same bytes."""
    unpack = lru_cache(None)(records.unpack)
    found: dict[bytes, list[int]] = {}
    check = examine._check

    def checked(conn: sqlite3.Connection) -> list[int]:
        key = hashlib.sha256(conn.serialize()).digest()
        if key not in found:
            found[key] = check(conn)
        return found[key]

    with (
        patch.object(examine, "_check", checked),
        patch.object(records, "unpack", unpack),
        patch.object(series, "unpack", unpack),
        patch.object(past, "PackedChunk", _Known),
        patch.object(hotfile, "_RESERVE_BYTES", 4096),  # a megabyte would be cleared for each state
    ):
        yield
    _Known.known.clear()


class _Known(PackedChunk):
    """A chunk that is unpacked only where its bytes were never seen."""

    known: ClassVar[dict[bytes, tuple[ChunkHeader, Stretch]]] = {}

    def __init__(self, data: bytes) -> None:
        if data not in self.known:
            super().__init__(data)
            self.known[data] = self.header, super().stretch()
        self.header, self._whole = self.known[data]
        self.ts = self._whole.ts
        self._kept = None

    def stretch(self) -> Stretch:
        number, *columns = self._whole
        if self._kept is None:
            return Stretch(number, *(column[:] for column in columns))
        return Stretch(number, *map(self._left, self._whole[1:]))


def _read_all(folder: Path, writer: Writer) -> Served:
    """Read all samples as readers do, and compare them with what was put."""
    names = {number: tag for tag, number in writer._series.of("plc").items()}
    with closing(connect_reader(folder / "hot.db")) as conn, closing(writer._history.reading()) as history:
        stored, damage = _samples(conn, history, names)
        verdict = oracle.judge(stored, (), _NEVER)
        wrong = [*verdict.wrong, *damage]
        wrong += [f"{n} is there more than once" for n in verdict.doubled]
        wrong += [f"{n} was never put" for n in verdict.never_issued]
        wrong += _newest(writer, names, stored)
        wrong += [f"hot.db: {row[0]}" for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
        wrong += _segments(folder)
        blocks = _blocks(conn, wrong)
    there = bits((sample.ts - START_US) // 1000 for _, sample in stored if sample.ts >= START_US)
    return Served(there, tuple(wrong), blocks)


def _blocks(conn: sqlite3.Connection, wrong: list[str]) -> dict[str, int]:
    """Return the blocks of measurements that are not done."""
    there: dict[str, int] = {}
    for row in recordings.rows(conn):
        for _, data in recordings.parts(conn, row.name, 0, 10_000):
            try:
                name, part = oracle.judge_block(data)
            except (CorruptBlock, ValueError) as error:
                wrong.append(f"measurement {row.name}: {error}")
                continue
            there[name] = there.get(name, 0) | 1 << part
    return there


def _samples(
    conn: sqlite3.Connection, history: Past, names: dict[int, str]
) -> tuple[list[tuple[str, Sample]], list[str]]:
    """Return all samples, each with the name of its tag, and sentences on what could not be read."""
    window, bad = Window(Memory(), names, *EVERYTHING), list[int]()
    stored: list[tuple[str, Sample]] = []
    after: Key | None = None
    done = False
    while not done:
        batch, done = window.turn(conn, history, after, 10**6, bad)
        stored += [(names[sample.series], sample) for sample in batch]
        if len(batch):
            after = batch.ts[-1], batch.series[-1]
    damage = [each.gap.reason for each in history.taken_damage()]
    return stored, damage + [f"block {seq} is damaged" for seq in bad]


def _newest(writer: Writer, names: dict[int, str], stored: list[tuple[str, Sample]]) -> Iterator[str]:
    """Judge what is in RAM: an older newest sample would have a repeated one taken for new."""
    newest = {tag: sample for number, tag in names.items() if (sample := writer.newest.get(number))}
    verdict = oracle.judge(newest.items(), (), _NEVER)
    yield from verdict.wrong
    for tag, sample in stored:
        if tag not in newest or newest[tag].ts < sample.ts:
            yield f"the newest of {tag} is older than {sample}"


def _segments(folder: Path) -> Iterator[str]:
    for each in segment.found(folder / "history"):
        try:
            with closing(segment.connect_reader(each.path)) as conn:
                for _ in segment.look_over(conn):
                    pass
        except sqlite3.Error as error:
            yield f"{each.path.name}: {error}"


def _in_backup(folder: Path) -> int | str:
    """Return the numbers in a backup, or what is wrong with it."""
    try:
        for finding in verify(folder, Counted()):
            return f"the backup {folder.name}: {finding}"
    except GatewayError as error:
        return f"the backup {folder.name}: {error}"
    store = ReadOnlyStore(folder)
    try:
        names = {number: info.tag for number, info in store.series.items()}
        stored, damage = _samples(store._conn, store._history.reading(), names)
    finally:
        store.close()
    verdict = oracle.judge(stored, (), _NEVER)
    if not verdict or damage:
        return f"the backup {folder.name}: {verdict} {damage}"
    return bits((sample.ts - START_US) // 1000 for _, sample in stored)
