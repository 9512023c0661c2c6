"""What is left after kill -9, and after a disk that refuses."""

import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.store import Store, StoreSettings
from tests.store import child
from tests.store.folding import rows, segments
from tests.store.reading import everything


def started(mode: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.store.child", mode, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def killed_runs(mode: str, folder: Path, kills: int, rng: random.Random, again: int = 50) -> tuple[int, int]:
    """Kill a writer at random points; return the first number never acknowledged and the last ever sent."""
    acknowledged = 0
    for _ in range(kills):
        process = started(mode, folder, max(0, acknowledged - again))  # some are sent again
        try:
            for _ in range(rng.randrange(1, 120)):
                acknowledged = max(acknowledged, int(line(process)))
        finally:
            process.kill()
        rest, _ = process.communicate()
        acknowledged = max([acknowledged, *map(int, rest.split())])
    return acknowledged, acknowledged + 1000


async def ledger(folder: Path, acknowledged: int, sent: int) -> tuple[list[int], list[int]]:
    """Compare the store with what was acknowledged: the numbers missing, and those doubled or wrong."""
    async with Store.open(folder, StoreSettings(), SystemClock()) as store:
        stored = await everything(store, range(1, child.SERIES + 1))
    numbers = [(sample.ts - child.START_US) // 1000 for sample in stored]
    expected = child.batch(numbers)
    wrong = [
        n
        for n, sample, right in zip(numbers, stored, expected, strict=True)
        if sample != right or not 0 <= n < sent
    ]
    wrong += [n for before, n in pairwise(numbers) if before == n]
    return sorted(set(range(acknowledged)) - set(numbers)), wrong


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_nothing_acknowledged_is_missing_or_doubled_after_twenty_kills(tmp_path: Path) -> None:
    acknowledged, sent = killed_runs("numbered", tmp_path, 20, random.Random(1))
    assert acknowledged > 1000
    assert await ledger(tmp_path, acknowledged, sent) == ([], [])


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_nothing_is_missing_or_doubled_when_kills_hit_folds_and_deletions(tmp_path: Path) -> None:
    acknowledged, sent = killed_runs("folding-numbered", tmp_path, 20, random.Random(2))
    assert segments(tmp_path) and rows(segments(tmp_path)[0], "SELECT count(*) FROM fold")[0][0] > 5
    assert await ledger(tmp_path, acknowledged, sent) == ([], [])


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("control", ["", "-forgetting"])
async def test_what_was_deleted_stays_deleted_after_kills_in_deletions_and_folds(
    tmp_path: Path, control: str
) -> None:
    """One sample in ten is deleted. The control: tombstones that are not in the file."""
    mode = f"folding-deleting{control}"
    acknowledged, sent = killed_runs(mode, tmp_path, 2 if control else 12, random.Random(3), again=0)
    missing, wrong = await ledger(tmp_path, acknowledged, sent)
    assert acknowledged > 200 and segments(tmp_path)
    assert (missing == list(range(0, acknowledged, 10))) == (not control) and wrong == []


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_ledger_catches_a_writer_that_acknowledges_before_commit(tmp_path: Path) -> None:
    acknowledged, sent = killed_runs("mutant", tmp_path, 8, random.Random(1))
    missing, wrong = await ledger(tmp_path, acknowledged, sent)
    assert missing and not wrong


@pytest.mark.seed_row("L5")
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["", "folding-"])
def test_a_million_samples_sent_again_in_random_order_add_nothing(tmp_path: Path, how: str) -> None:
    count = 1_000_000
    writer = started(f"{how}fill", tmp_path, count)
    assert line(writer) == "done\n"
    writer.kill()
    writer.communicate()
    assert bool(segments(tmp_path)) == bool(how)
    sender = started("again", tmp_path, count)
    added, same, moved, grown_kib = map(int, line(sender).split())
    sender.communicate()
    assert (added, same, moved) == (0, count, 0)
    assert grown_kib < 100 * 1024


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_disk_that_refuses_acknowledges_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the kernel refuses to let a file grow, with EFBIG, in the middle of real writes."""
    process = started("limited", tmp_path, 2000)
    acknowledged, sent, sentence = line(process).split(maxsplit=2)
    assert 0 < int(acknowledged) < int(sent)
    assert "the disk refuses" in sentence
    output, _ = process.communicate("go on\n", timeout=30)
    assert output.split() == [str(int(sent) * 100), "0", "-"]
    assert process.returncode == 0
    assert await ledger(tmp_path, int(sent) * 100, int(sent) * 100) == ([], [])
