"""Damaged files: whatever any byte of a stopped store's files holds, it opens and serves no wrong value.

CHAOS_DAMAGES stores (250; in `make chaos` 10,000).
"""

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.store import Store, StoreProblem, codec
from tests.chaos import writers
from tests.chaos.oracle import SETTINGS, Verdict, judge_store, samples, tags_of

DAMAGES = int(os.environ.get("CHAOS_DAMAGES", "250"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
_COMMITS = 60
_ISSUED = _COMMITS * writers.PER_COMMIT
_PAGE = 1024

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


DAMAGE: tuple[Damage, ...] = (
    flip_bits, flip_bits, flip_in_block, zero_pages, scramble_page, swap_pages, truncate, grow,
)  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stores: one stopped in order, one killed with its last samples in the WAL."""
    folders = tmp_path_factory.mktemp("orderly"), tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.chaos.writers"]
    for folder, commits in zip(folders, (_COMMITS, 10**6), strict=True):
        process = subprocess.Popen([*command, folder, str(commits), ""], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if commits != _COMMITS and line == f"a {_ISSUED - writers.PER_COMMIT} {_ISSUED}\n":
                process.kill()
        process.wait()
        process.stdout.close()
    return folders


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
    """What a damaged store served; `refused` where it said that it cannot be read."""

    verdict: Verdict
    gaps: int = 0
    refused: bool = False
    hidden: int = 0
    """New samples that were acknowledged and that a window does not show."""


async def opened(folder: Path) -> Opened:
    """Judge a damaged store, which takes new samples too."""
    fresh = range(_ISSUED + 500, _ISSUED + 520)
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        verdict, refused = await _judged(store, (), _ISSUED)
        await (await store.put(samples(fresh, tags_of(store))))
        after, refused_after = await _judged(store, fresh, fresh.stop)
        hidden = len(after.missing)
        verdict.wrong += after.wrong
        verdict.doubled += after.doubled
        await store.flush()
        try:
            gaps = len(await store.gaps())
        except StoreProblem:
            gaps, refused = 0, True
        return Opened(verdict, gaps, refused or refused_after, hidden)


async def _judged(store: Store, acked: Iterable[int], issued: int) -> tuple[Verdict, bool]:
    """Judge an open store; True where it says that it cannot be read."""
    try:
        return await judge_store(store, acked, issued), False
    except StoreProblem:
        return Verdict(), True


def damaged(
    stopped: tuple[Path, Path], folder: Path, count: int, ways: Sequence[Damage] = DAMAGE
) -> tuple[Counter[str], list[str]]:
    found, failures = Counter[str](), []
    for number in range(count):
        rng = random.Random(SEED * 1_000_003 + number)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stopped[number % 2], folder)
        how = f"number {number}, {'killed' if number % 2 else 'orderly'}: {damage(folder, rng, ways)}"
        try:
            result = asyncio.run(asyncio.wait_for(opened(folder), 30))
        except Exception as error:  # noqa: BLE001  # whatever it raises is the finding
            failures.append(f"{how}: {type(error).__name__}: {error}")
            continue
        aside = bool(list(folder.glob("*.corrupt-*")))
        found["set aside"] += aside
        found["reads refused"] += result.refused
        found["new ones hidden"] += result.hidden > 0
        found["with a gap"] += result.gaps > 0
        found["whole"] += result.verdict.stored >= _ISSUED
        found["fewer, and no gap"] += (
            not result.refused and result.verdict.stored < _ISSUED and not result.gaps
        )
        if not result.verdict:
            failures.append(f"{how}: {result.verdict}"[:600])
    print(dict(found), len(failures), "failures")  # noqa: T201  # for -s
    return found, failures


def test_a_damaged_store_opens_and_serves_no_wrong_value(stopped: tuple[Path, Path], memory: Path) -> None:
    found, failures = damaged(stopped, memory, DAMAGES)
    assert not failures, "\n".join(failures)
    # Not good enough yet: a damaged inner page lets a window be refused (503) or hides blocks without a gap,
    # until the store salvages by scanning. Neither is a wrong value; neither may become common.
    assert found["reads refused"] <= DAMAGES * 0.08, found
    assert found["fewer, and no gap"] <= DAMAGES * 0.1, found
    assert found["new ones hidden"] <= max(1, DAMAGES * 0.01), found
    assert found["set aside"] > DAMAGES // 20 and found["with a gap"] and found["whole"]


def test_without_the_checksum_wrong_values_are_served(
    stopped: tuple[Path, Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_CRC", _AlwaysHolds())
    _, failures = damaged(stopped, memory, 60, [flip_in_block])
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
