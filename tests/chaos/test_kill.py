"""SIGKILL at random moments of a store's life: CHAOS_KILLS times (2,000, in `make chaos` 10,000)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("CHAOS_KILLS", "2000"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
_LANES = 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + KILLS // 4)]


def killed(folder: Path, kills: int, mutant: str = "", seed: int = SEED) -> dict[str, int]:
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


@pytest.mark.parametrize("lane", range(_LANES))
def test_no_kill_loses_or_doubles_what_was_acknowledged(lane: int, tmp_path: Path) -> None:
    found = killed(tmp_path, KILLS // _LANES, seed=SEED * _LANES + lane)
    assert not broken(found), found
    assert found["acked"] > KILLS // _LANES and found["kills while opening"], found
    assert found["deleted"] and found["taken by retention"], found


def test_acknowledging_before_commit_is_caught(tmp_path: Path) -> None:
    found = killed(tmp_path, 40, "early")
    assert found["missing"], found
    assert not (found["doubled"] or found["wrong"] or found["never_issued"])
