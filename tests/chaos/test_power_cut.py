"""Power cuts: a traced writer, and legal disk states at random moments of it.

CHAOS_STATES of them (2,000; in `make chaos` 150,000; 1,000,000 take some two and a half hours of one core).
The model: a write reaches the disk by sectors, in any order, until its file is synced; a file never synced
may be missing; a removal is undone until the folder or a file of that name is synced. A disk that lies is
not in it.
"""

import asyncio
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.model import Sample
from gateway.store.codec import Kind, decode
from gateway.store.history import History
from gateway.store.hotfile import HotFile
from tests.chaos.disk import Disk, write_state
from tests.chaos.oracle import Verdict, judge, judge_folder
from tests.chaos.traced import Operation, run_traced
from tests.chaos.writers import read_report

STATES = int(os.environ.get("CHAOS_STATES", "2000"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
_COMMITS = 150
_WHOLE_EVERY = 40
"""Each state is opened by the store's loading code; one in so many by the whole Store too."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120 + STATES // 40),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace"),
]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: opening thousands of stores must not wear a disk."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=shared if os.access(shared, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def judge_file(folder: Path, acked: set[int], issued: int) -> Verdict:
    """Open the hot file as a start does, and judge every block of it."""
    hot = HotFile(folder)
    conn, loaded = hot.open(0, History(folder, 2**32, 0, SystemClock()))
    with closing(conn):
        problems = [gap.reason for gap in hot.gaps] if acked else []
        problems += [f"block {seq} is damaged" for seq in loaded.bad]
        names = {series: info.tag for series, info in loaded.series}
        stored: list[tuple[str, Sample]] = []
        rows = conn.execute("SELECT data FROM block WHERE kind = ? ORDER BY seq", (Kind.SAMPLES,))
        for (data,) in rows:
            stored += [(names[sample.series], sample) for sample in decode(data)[1]]
        verdict = judge(stored, acked, issued)
        check = conn.execute("PRAGMA integrity_check").fetchone()[0]
        verdict.wrong += problems + ([] if check == "ok" else [check])
        return verdict


def cuts(operations: list[Operation], count: int, rng: random.Random) -> Iterator[tuple[Disk, int]]:
    """Yield the disk at random moments, in order, each with the number of states to look at."""
    moments = Counter(rng.randrange(1, len(operations) + 1) for _ in range(count))
    disk = Disk()
    for moment, operation in enumerate(operations, 1):
        disk.take(operation)
        if moments[moment]:
            yield disk, moments[moment]


def replayed(operations: list[Operation], count: int, folder: Path, *, whole: bool) -> Counter[str]:
    """Judge `count` states; return how many broke the promise, and by how."""
    rng, found = random.Random(SEED), Counter[str]()
    ever = read_report(b"".join(o.data for o in operations if o.call == "report").decode())[1]
    for disk, times in cuts(operations, count, rng):
        acked, issued = read_report(disk.report.decode())
        for _ in range(times):
            files, torn = disk.state(rng)
            write_state(folder, files)
            verdict = judge_file(folder, acked, min(ever, issued))
            found["states"] += 1
            found["torn"] += torn
            found["more than acknowledged"] += verdict.stored > len(acked)
            found["broken"] += not verdict
            found["missing"] += bool(verdict.missing)
            noticed = [problem for problem in verdict.wrong if "its WAL is damaged" in problem]
            found["noticed"] += bool(noticed)
            others = set(verdict.wrong) - set(noticed)
            found["otherwise wrong"] += bool(verdict.doubled or others or verdict.never_issued)
            if whole and found["states"] % _WHOLE_EVERY == 0:
                write_state(folder, files)
                verdict = asyncio.run(judge_folder(folder, acked, issued))
                found["opened whole"] += 1
                found["broken"] += not verdict
            assert verdict or not whole, (verdict, len(acked), issued)
    print(dict(found))  # noqa: T201  # for -s
    return found


def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path, memory: Path) -> None:
    operations = run_traced(tmp_path / "store", _COMMITS)
    calls = Counter((operation.call, operation.file) for operation in operations)
    assert calls["sync", "hot.db"] > 3, f"no checkpoint was cut: {calls}"
    assert calls["sync", "hot.db-wal"] > _COMMITS, calls
    found = replayed(operations, STATES, memory / "store", whole=True)
    assert not found["broken"], found
    assert found["torn"] > STATES // 20 and found["more than acknowledged"], found


@pytest.mark.parametrize("mutant", ["normal", "early"])
def test_the_mutants_lose_samples(mutant: str, tmp_path: Path, memory: Path) -> None:
    operations = run_traced(tmp_path / "store", _COMMITS, mutant)
    found = replayed(operations, 200, memory / "store", whole=False)
    assert found["missing"] > 10, found
    # Where commits are not made to last one after another, one can be there without the one before it.
    assert mutant == "normal" or not found["noticed"], found
    assert not found["otherwise wrong"], found
