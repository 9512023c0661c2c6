"""SIGKILL at random moments, again and again: CHAOS_KILLS times (300, in `make chaos` 10,000)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("CHAOS_KILLS", "300"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + KILLS // 4)]


def killed(folder: Path, kills: int, mutant: str = "") -> dict[str, int]:
    seed = os.environ.get("CHAOS_SEED", "1")
    command = [sys.executable, "-m", "tests.chaos.kill_server", folder / "store", kills, mutant, seed]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, int] = json.loads(ended.stdout)
    print(found)  # noqa: T201  # for -s
    return found


def broken(found: dict[str, int]) -> dict[str, int]:
    return {
        name: found[name]
        for name in ("missing", "doubled", "wrong", "never_issued", "set aside")
        if found[name]
    }


def test_no_kill_loses_or_doubles_what_was_acknowledged(tmp_path: Path) -> None:
    found = killed(tmp_path, KILLS)
    assert not broken(found), found
    assert found["acked"] > KILLS and found["kills while opening"] and found["kept unacknowledged"], found


def test_acknowledging_before_commit_is_caught(tmp_path: Path) -> None:
    found = killed(tmp_path, 40, "early")
    assert found["missing"], found
    assert not (found["doubled"] or found["wrong"] or found["never_issued"])
