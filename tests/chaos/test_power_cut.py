"""Power cuts: the traced life of a store, and legal disk states at random moments of it.

CHAOS_STATES of them (20,000; in `make chaos` 1,000,000), of four lives or more, 25,000 of each at most.
The model: a write reaches the disk by sectors, in any order, until its file is synced; a file never synced
may be missing; a removal or a renaming is undone until the folder is synced; the WAL's shared memory, which
nobody syncs, is any of those that were. Of what a failed sync was to write any part is lost for good. A disk
that lies is not in it.
"""

import asyncio
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.disk import Disk, write_state
from tests.chaos.judge import Judge, Verdict, judged, remembered
from tests.chaos.life import judge_life
from tests.chaos.report import Report
from tests.chaos.traced import Operation, run_traced

STATES = int(os.environ.get("CHAOS_STATES", "20000"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
_LIVES = max(4, STATES // 25_000)
_COMMITS = 200
_WHOLE_EVERY = 100
"""Each state is opened as a start does it and read; one in so many by the whole Store, which writes on."""
_FAILING = ("", "30+37", "25+29", "40+53")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120 + STATES // _LIVES // 20),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace"),
]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: opening thousands of stores must not wear a disk."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=shared if os.access(shared, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def cuts(operations: list[Operation], count: int, rng: random.Random) -> Iterator[tuple[Disk, Report, int]]:
    """Yield the disk at random moments, in order, what was told by then, and how many states to look at."""
    moments = Counter(rng.randrange(1, len(operations) + 1) for _ in range(count))
    disk, report = Disk(), Report()
    for moment, operation in enumerate(operations, 1):
        disk.take(operation, rng)
        if operation.call == "report":
            report.take(operation.data.decode())
        elif operation.call == "unlink" and operation.file.endswith("hot.db-wal"):
            report.shared.clear()  # it goes with the WAL, and before it
        if moments[moment]:
            yield disk, report, moments[moment]


def replayed(
    operations: list[Operation], count: int, folder: Path, seed: int, *, strict: bool = True
) -> Counter[str]:
    """Judge `count` states; return how many broke the promise, and by how."""
    rng, found, judge = random.Random(seed), Counter[str](), Judge(folder)
    for disk, report, times in cuts(operations, count, rng):
        for _ in range(times):
            files, torn = disk.state(rng)
            shared = rng.choice(report.shared) if report.shared and rng.random() < 0.15 else b""
            served = judge.served(files, shared)
            verdict = judged(served, report)
            for name, acked in report.backups.items():
                if problem := judge.backup(name, files, acked & ~report.doubtful):
                    verdict.wrong.append(problem)
            _count(found, verdict, torn=torn, more=served.numbers & ~report.acked > 0)
            if strict and found["states"] % _WHOLE_EVERY == 0:
                store = {name: each.data for name, each in files.items() if name.startswith("store/")}
                write_state(folder, store)
                again = asyncio.run(judge_life(folder / "store", report))
                found["opened whole"] += 1
                assert again, (again, found)
            assert verdict or not strict, (seed, found["states"], verdict, report.issued)
    judge.close()
    found["distinct"], found["contents"] = judge.counts.distinct, judge.counts.contents
    print(dict(found))  # noqa: T201  # for -s
    return found


def _count(found: Counter[str], verdict: Verdict, *, torn: bool, more: bool) -> None:
    found["states"] += 1
    found["torn"] += torn
    found["more than acknowledged"] += more
    found["broken"] += not verdict
    found["missing"] += bool(verdict.missing)
    found["noticed"] += bool(verdict.noticed)
    found["otherwise wrong"] += bool(verdict.wrong or verdict.never_issued or verdict.undeleted)


@pytest.mark.parametrize("life", range(_LIVES))
def test_no_power_cut_loses_what_was_acknowledged(life: int, tmp_path: Path, memory: Path) -> None:
    seed, failing, states = SEED * 1000 + life, _FAILING[life % len(_FAILING)], STATES // _LIVES
    operations = run_traced(tmp_path, "life", 0, _COMMITS, seed=seed, failing=failing)
    lived(operations, failing=bool(failing))
    with remembered():
        found = replayed(operations, states, memory, seed)
    assert not found["broken"], found
    assert found["torn"] > states // 20 and found["more than acknowledged"], found


def lived(operations: list[Operation], *, failing: bool) -> None:
    """See that all that a store does was traced."""
    calls = Counter((operation.call, Path(operation.file).name) for operation in operations)
    segments = {
        Path(o.file).name for o in operations if "store/history/" in o.file and o.file.endswith(".db")
    }
    unlinked = {name for call, name in calls if call == "unlink"}
    told = b"".join(o.data for o in operations if o.call == "report").decode().splitlines()
    words = Counter(line.split()[0] for line in told)
    assert calls["sync", "hot.db"] > 3, f"no checkpoint was cut: {calls}"
    assert calls["sync", "hot.db-wal"] > _COMMITS, calls
    assert len(segments) > 3 and segments & unlinked, f"none was sealed and unlinked: {segments}"
    assert words["d"] > 5 and words["b"] and words["r"] and words["m"], words
    assert any(call == "rename" and "backup" in name for call, name in calls), calls
    if failing:
        assert calls["rename", "hot.db.renewing"] and calls["rename", "hot.db.renewed"], calls


@pytest.mark.parametrize("mutant", ["normal", "early", "fold"])
def test_the_mutants_lose_samples(mutant: str, tmp_path: Path, memory: Path) -> None:
    operations = run_traced(tmp_path, "life", 0, _COMMITS, mutant)
    with remembered():
        found = replayed(operations, 400, memory, SEED, strict=False)
    assert found["missing"] > 10, found
