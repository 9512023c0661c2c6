"""Hundreds of days of a box, simulated: clock steps, power cuts, kills, bad disks, targets away.

CHAOS_SEED chooses, CHAOS_SEEDS so many (1), CHAOS_DAYS each (60). A seed gives the same run again.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SEEDS = int(os.environ.get("CHAOS_SEEDS", "1"))
DAYS = int(os.environ.get("CHAOS_DAYS", "60"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180 + DAYS)]


def simulated(seed: int, days: int, mutant: str = "", **environ: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.chaos.simulation", str(seed), str(days), mutant]
    settings = {**os.environ, "PYTHONHASHSEED": "0", **environ}
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(ended.stdout)
    print({**found, "seed": seed}, ended.stderr.splitlines()[-1])  # noqa: T201  # for -s
    return found


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
def test_nothing_that_was_acknowledged_is_lost_or_doubled_over_the_days(seed: int) -> None:
    found = simulated(seed, DAYS)
    assert not found["broken"], f"PYTHONHASHSEED=0 python -m tests.chaos.simulation {seed} {DAYS}: {found}"
    happened = ("power cut", "killed", "stopped", "clock steps", "checks", "refused", "cloud repeats", "gone")
    assert all(found[what] for what in happened), found


@pytest.mark.parametrize(
    ("mutant", "words"),
    [
        ("normal", ("gone for nothing", "lacks")),
        ("early", ("gone for nothing", "lacks")),
        ("silent", ("lacks",)),
        ("wall", ("gone for nothing",)),
        ("fold", ("gone for nothing",)),
    ],
)
def test_the_mutants_are_caught(mutant: str, words: tuple[str, ...]) -> None:
    # A seed may never come to where the mutant shows.
    tried = (simulated(seed, 60, mutant) for seed in (1, 2, 3))
    assert any(word in found["broken"] for found in tried for word in words)


def test_neither_the_time_zone_nor_another_run_changes_a_byte() -> None:
    """The simulated clock is set to both edges of DST again and again."""
    zones = ("UTC", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
    first, *others = [simulated(3, 25, TZ=zone) for zone in zones]
    assert first["clock steps"] > 20 and not first["broken"]
    assert others == [first] * len(others)
