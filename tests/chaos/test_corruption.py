"""Damaged files: whatever any byte of a stopped store's files holds, it opens and serves no wrong value.

CHAOS_DAMAGES stores (250; in `make chaos` 10,000), and each byte of the headers.
"""

import asyncio
import itertools
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.clock import SystemClock
from gateway.model import Gap
from gateway.store import Store, StoreProblem, codec, history
from tests.chaos import oracle, writers
from tests.chaos.oracle import SETTINGS, Verdict, judge_store, samples, tags_of
from tests.store import folding
from tests.store.searching import searched

DAMAGES = int(os.environ.get("CHAOS_DAMAGES", "250"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
_COMMITS = 60
_ISSUED = _COMMITS * writers.PER_COMMIT
_PAGE = 1024
_LANES = 4
_VALUES = (0x05, 0x01, 0x02, 0x80, 0xFF)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + DAMAGES // 4)]

Damage = Callable[[bytearray, random.Random], None]


def flip_bits(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def flip_in_block(content: bytearray, rng: random.Random) -> None:
    """One bit in what a block holds, behind its header: what only the checksum can see."""
    starts = [match.start() for match in re.finditer(re.escape(codec.MAGIC), content)]
    if starts:
        at = rng.choice(starts) + codec.HEADER_BYTES + rng.randrange(60)
        content[min(at, len(content) - 1)] ^= 1 << rng.randrange(8)


def zero_pages(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content)) // _PAGE * _PAGE
    size = min(rng.randint(1, 4) * _PAGE, len(content) - at)
    content[at : at + size] = bytes(size)


def scramble_page(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content)) // _PAGE * _PAGE
    size = min(_PAGE, len(content) - at)
    content[at : at + size] = rng.randbytes(size)


def swap_pages(content: bytearray, rng: random.Random) -> None:
    """A page in another's place: each is sound by itself."""
    if len(content) < 2 * _PAGE:
        return
    one, other = (rng.randrange(len(content) // _PAGE) * _PAGE for _ in range(2))
    here, there = content[one : one + _PAGE], content[other : other + _PAGE]
    content[one : one + _PAGE], content[other : other + _PAGE] = there, here


def truncate(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def grow(content: bytearray, rng: random.Random) -> None:
    content.extend(rng.randbytes(rng.randrange(5000)))


def damage_header(content: bytearray, rng: random.Random) -> None:
    """Other bytes in the first hundred: what the file says of itself (or a WAL of itself)."""
    for _ in range(rng.choice((1, 1, 4))):
        content[rng.randrange(min(100, len(content)))] = rng.randrange(256)


DAMAGE: tuple[Damage, ...] = (
    flip_bits, flip_bits, flip_in_block, zero_pages, scramble_page, swap_pages, truncate, grow, damage_header,
)  # fmt: skip


class Made(NamedTuple):
    """A stopped store, and when its samples were committed: number to wall time."""

    name: str
    folder: Path
    walls: dict[int, int]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Three stores: stopped in order, killed with its last samples in the WAL, and with half of it folded."""
    made = []
    command = [sys.executable, "-m", "tests.chaos.writers", "plain"]
    for name, commits in (("orderly", _COMMITS), ("killed", 10**6)):
        folder = tmp_path_factory.mktemp(name)
        writer = [*command, folder, "0", str(commits), "", "0"]
        process = subprocess.Popen(writer, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if commits != _COMMITS and line == f"a {_ISSUED - writers.PER_COMMIT} {_ISSUED}\n":
                process.kill()
        process.wait()
        process.stdout.close()
        made.append(Made(name, folder, _walls(folder)))
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("folded")
        made.append(Made("folded", folder, asyncio.run(_folded(folder, patch))))
    return made


def _walls(folder: Path) -> dict[int, int]:
    """Read from the blocks of a whole store when each sample was committed."""
    walls: dict[int, int] = {}
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.copytree(folder, copy)
    with closing(sqlite3.connect(copy / "hot.db")) as conn:
        for (data,) in conn.execute("SELECT data FROM block ORDER BY seq"):
            header, batch = codec.decode(data)
            for ts in batch.ts:
                walls.setdefault((ts - oracle.START_US) // 1000, header.wall_us)
    return walls


async def _folded(folder: Path, patch: pytest.MonkeyPatch) -> dict[int, int]:
    """Make a store of two segments; the last samples are in blocks."""
    folding.eager(patch)
    patch.setattr(history, "_LEAST_BYTES", 8 * 1024)
    clock, walls = SystemClock(), {}
    for part, settings in enumerate((replace(SETTINGS, chunk_minutes=0, max_bytes=100_000_000),) * 3):
        patch.setattr(history, "_SEGMENT_BYTES", 10 * 1024)
        if part == 2:
            settings = replace(settings, chunk_minutes=60)
        async with Store.open(folder, settings, clock) as store:
            tags = tags_of(store)
            for first in range(part * _ISSUED // 3, (part + 1) * _ISSUED // 3, writers.PER_COMMIT):
                numbers = range(first, first + writers.PER_COMMIT)
                await (await store.put(samples(numbers, tags)))
                walls.update(dict.fromkeys(numbers, clock.wall_us()))
            if part < 2:
                await folding.folded(store)
    return walls


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    folder = Path("/dev/shm") / f"chaos-{os.getpid()}"
    folder = folder if os.access("/dev/shm", os.W_OK) else tmp_path / "damaged"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def damage(folder: Path, rng: random.Random, ways: Sequence[Damage]) -> str:
    """Damage one file of a folder; say how."""
    file = rng.choices(
        [folder / "hot.db", *sorted(each for each in folder.rglob("*") if each.is_file())], k=1
    )[0]
    content, way = bytearray(file.read_bytes()), rng.choice(ways)
    if not content:
        way = grow
    way(content, rng)
    file.write_bytes(content)
    return f"{way.__name__} in {file.name}"


@dataclass(slots=True)
class Opened:
    """What a damaged store served."""

    verdict: Verdict
    missing: list[int]
    """Samples that are not served and that no gap record covers."""
    served: int
    gaps: int


async def opened(folder: Path, walls: dict[int, int]) -> Opened:
    """Judge a damaged store at once, which takes new samples too, and again once it has been searched."""
    fresh = range(_ISSUED + 500, _ISSUED + 520)
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        early = await _early(store)
        await (await store.put(samples(fresh, tags_of(store))))
        await searched(store)
        verdict = await judge_store(store, fresh, fresh.stop)
        verdict.wrong += early.wrong
        verdict.doubled += early.doubled
        there = await oracle.numbers(store)
        await store.flush()
        gaps = [gap for _, gap in await store.gaps(limit=10_000)]
        lost = [n for n in sorted(walls) if n not in there and not _covered(n, walls[n], gaps)]
        counted = await _buckets(store)
        # The header of a chunk whose body is damaged still answers for whole buckets.
        if not len(there) <= counted <= len(walls) + len(fresh):
            verdict.wrong.append(f"{counted} samples in buckets instead of {len(there)}")
        return Opened(verdict, lost, len(there & walls.keys()), len(gaps))


def _covered(n: int, wall_us: int, gaps: list[Gap]) -> bool:
    """Say whether a gap covers a sample: by its own time, or by when it was committed."""
    times = (oracle.START_US + n * 1000, wall_us)
    return any(gap.from_us <= at <= gap.to_us for gap in gaps for at in times)


async def _early(store: Store) -> Verdict:
    """Judge what is served before anything was repaired; a window may be refused for the moment."""
    try:
        return await judge_store(store, (), _ISSUED)
    except StoreProblem:
        return Verdict()


async def _buckets(store: Store) -> int:
    """Count the samples that are numbers or not, as buckets see them."""
    series = list(store.series_of("plc").values())
    found = await store.buckets(series, *oracle.EVERYTHING, 10**15)
    numbers = sum(bucket.n for bucket in found)
    others = 0
    async for batch in store.samples(series, *oracle.EVERYTHING):
        others += sum(type(value) not in (int, float) for value in batch.values)
    return numbers + others


def damaged(
    stopped: list[Made], folder: Path, cases: Iterable[int], ways: Sequence[Damage] = DAMAGE
) -> tuple[Counter[str], list[str]]:
    """Damage a store for each number; return what came of it, and a sentence on each broken promise."""
    found, failures = Counter[str](), []
    for number in cases:
        rng = random.Random(SEED * 1_000_003 + number)
        shutil.rmtree(folder, ignore_errors=True)
        made = stopped[number % len(stopped)]
        shutil.copytree(made.folder, folder)
        how = f"number {number}, {made.name}: {damage(folder, rng, ways)}"
        try:
            result = asyncio.run(asyncio.wait_for(opened(folder, made.walls), 30))
        except Exception as error:  # noqa: BLE001  # whatever it raises is the finding
            failures.append(f"{how}: {type(error).__name__}: {error}")
            continue
        found["set aside"] += bool([*folder.glob("*.salvaged-*"), *folder.glob("history/*.salvaged")])
        found["with a gap"] += result.gaps > 0
        found["whole"] += result.served == len(made.walls)
        found["samples"] += len(made.walls)
        found["samples lost"] += len(made.walls) - result.served
        if result.missing:
            failures.append(f"{how}: missing without a gap: {result.missing[:20]}")
        if not result.verdict:
            failures.append(f"{how}: {result.verdict}"[:600])
    print(dict(found), len(failures), "failures")  # noqa: T201  # for -s
    return found, failures


@pytest.mark.parametrize("lane", range(_LANES))
def test_a_damaged_store_opens_and_serves_no_wrong_value(
    lane: int, stopped: list[Made], memory: Path
) -> None:
    """No window is refused for long, and every sample is served or lies in a gap record."""
    cases = range(lane, DAMAGES, _LANES)
    found, failures = damaged(stopped, memory, cases)
    assert not failures, "\n".join(failures)
    assert found["set aside"] > len(cases) // 20 and found["with a gap"] and found["whole"]


@pytest.mark.parametrize("file", ["hot.db", "history/000001.db"])
def test_each_byte_of_a_header(file: str, stopped: list[Made], memory: Path) -> None:
    """Few random numbers meet the bytes that SQLite itself believes, and none that lack their bits alone."""
    values, failures = _VALUES if DAMAGES >= 10_000 else _VALUES[:1], []
    made = stopped[-1]
    for place, value in itertools.product(range(100), values):
        shutil.rmtree(memory, ignore_errors=True)
        shutil.copytree(made.folder, memory)
        content = bytearray((memory / file).read_bytes())
        content[place] = content[place] ^ value
        (memory / file).write_bytes(content)
        try:
            result = asyncio.run(asyncio.wait_for(opened(memory, made.walls), 30))
        except Exception as error:  # noqa: BLE001  # whatever it raises is the finding
            failures.append(f"byte {place} ^ {value}: {type(error).__name__}: {error}")
        else:
            if result.missing or not result.verdict:
                failures.append(f"byte {place} ^ {value}: {result.missing[:20]} {result.verdict}"[:600])
    assert not failures, "\n".join(failures)


def test_without_the_checksum_wrong_values_are_served(
    stopped: list[Made], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_CRC", _AlwaysHolds())
    _, failures = damaged(stopped, memory, range(60), [flip_in_block])
    assert any("wrong=[" in failure and "wrong=[]" not in failure for failure in failures), failures


class _Equal:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class _AlwaysHolds:
    """A checksum that any bytes satisfy."""

    def unpack_from(self, *_: object) -> tuple[_Equal]:
        return (_Equal(),)

    def pack(self, checksum: int) -> bytes:
        return checksum.to_bytes(4, "little")
