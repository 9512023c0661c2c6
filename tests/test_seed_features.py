"""The table of docs/seed-features.md: each row has tests, named there, and a run says how they went."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.seed_features import OUTCOMES, PAGE, ROOT, in_page, rows_of, verifying

ROWS = [*(str(n) for n in range(1, 56) if n != 53), *(f"L{n}" for n in range(1, 9))]

CASES = """\
import pytest

@pytest.mark.seed_row(1, "L1")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_good(n):
    pass

@pytest.mark.seed_row(2, "L1")
@pytest.mark.parametrize("n", [1, 2])
def test_bad(n):
    assert n == 1

@pytest.mark.seed_row(1)
@pytest.mark.parametrize("n", [1, 2])
def test_in_part(n):
    if n == 1:
        pytest.skip()

@pytest.mark.seed_row(3)
def test_not_for_here():
    pytest.skip()

@pytest.fixture
def broken():
    yield
    raise OSError

@pytest.mark.seed_row(4)
def test_unclean(broken):
    pass

@pytest.mark.seed_row(1, 5)
def test_(): pass
"""
MACHINE = "import pytest\n\n@pytest.mark.seed_row(5, 6)\n@pytest.mark.skip\ndef test_boots():\n    pass\n"


def test_each_row_has_a_test_and_the_page_says_which() -> None:
    page, tests = (ROOT / PAGE).read_text(encoding="utf-8"), verifying(ROOT)
    assert rows_of(page) == ROWS
    assert set(tests) == set(ROWS)
    assert in_page(page, tests) == page, "python -m tests.seed_features writes it"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_says_how_each_row_went(tmp_path: Path, workers: str) -> None:
    for name, text in (
        ("tests/test_cases.py", CASES), ("tests/machine/test_boot.py", MACHINE),
        ("pytest.ini", "[pytest]\ntestpaths = tests\naddopts = --strict-markers\n"),
        (PAGE, "| row | feature | to be seen | verified by |\n|---|---|---|---|\n"
         + "".join(f"| {row} | a | b | c |\n" for row in ("1", "2", "3", "4", "5", "6", "7", "L1"))),
    ):  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-p", "tests.seed_features", "-n", workers],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 1, said.stdout + said.stderr
    sums = "1 of 8 rows passed; failed: 2, 4, L1; not run, or not all: 3, 5, 6, 7. "
    assert sums in said.stdout, said.stdout
    header, _, *rows = (tmp_path / OUTCOMES).read_text().splitlines()
    assert header == "| row | feature | to be seen | verified by | outcome |"
    assert dict(row.strip("| ").split(" | ")[::4] for row in rows) == {
        "1": "passed",
        "2": "**failed**: bad (`test_cases.py`)",
        "3": "not run",
        "4": "**failed**: unclean (`test_cases.py`)",
        "5": "passed, but not run: boots (`machine/test_boot.py`, `make machine-test`)",
        "6": "not run",
        "7": "not run",
        "L1": "**failed**: bad (`test_cases.py`)",
    }
