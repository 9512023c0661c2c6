"""Seven days offline at 500 samples/s, then drained under load.

Here one block in CHAOS_OFFLINE_STEP (1800) seconds; by hand, 1: all of them (docs/store.md has the figures).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STEP_S = int(os.environ.get("CHAOS_OFFLINE_STEP", "1800"))
_WEEK_S = 7 * 86_400

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 8_000_000 // STEP_S)]


def test_a_week_offline_is_drained_live_first_within_the_budgets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos.offline", str(STEP_S), "7200", str(tmp_path / "store")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    print(found)  # noqa: T201  # for -s
    assert found["live"] + found["backlog"] == found["put"] > _WEEK_S // STEP_S * 500
    assert (found["overlapping"], found["holes"], found["lost"]) == (0, 0, 0)
    assert found["most_bytes"] < 4_000_000_000 and found["most_mib"] < 256
    assert found["ack_ms"][1] < 2000, "intake waits no longer than this during the drain"


def test_a_week_offline_that_does_not_fit_leaves_gaps_and_keeps_the_budget(tmp_path: Path) -> None:
    budget = 2_000_000
    command = [
        sys.executable, "-m", "tests.chaos.offline", "60", "60", str(tmp_path / "store"), str(budget),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    assert found["bytes_offline"] < budget * 1.2, found
    # What a fold adds (a million samples) is there before its blocks go: small beside a real budget.
    assert found["most_bytes"] < budget + 4_000_000, found
    arrived = found["live"] + found["backlog"]
    assert 0 < arrived < found["put"], found
    assert found["put"] - arrived == found["lost_offline"] + found["lost"], "each one is counted"
