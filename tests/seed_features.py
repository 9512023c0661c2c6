"""The table of docs/seed-features.md, by the tests that verify its rows, and how those went.

A test says by `@pytest.mark.seed_row(8, "L5")` which rows it verifies; `python -m tests.seed_features` writes
the page's last column. As a plugin of pytest: a run of all tests puts the table, with how each row went, into
build/.
"""

import ast
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = Path("docs/seed-features.md")
OUTCOMES = Path("build/seed-features.md")
_MACHINE, _MACHINE_COMMAND = "tests/machine/", "make machine-test"

Tests = Mapping[str, Sequence[str]]
"""The tests of each row, as pytest names them."""


def verifying(root: Path) -> Tests:
    """Return what the tests under `root` say of themselves."""
    rows = defaultdict(list)
    for file in sorted((root / "tests").rglob("test_*.py")):
        for test, row in _marked(file.read_text(encoding="utf-8")):
            rows[row].append(f"{file.relative_to(root)}::{test}")
    return rows


def _marked(text: str) -> Iterator[tuple[str, str]]:
    for node in ast.parse(text).body if "seed_row" in text else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for mark in node.decorator_list:
                match mark:
                    case ast.Call(func=ast.Attribute(attr="seed_row"), args=rows):
                        yield from ((node.name, str(ast.literal_eval(row))) for row in rows)


def rows_of(page: str) -> list[str]:
    return [row for line in page.splitlines() if (row := _row(line))]


def _row(line: str) -> str:
    first = line.removeprefix("| ").partition(" | ")[0]
    return first if first.removeprefix("L").isdecimal() else ""


def in_page(page: str, tests: Tests) -> str:
    """Return the page with these tests in the last column of its table."""
    return _with_cells(page, {row: [_said(tests.get(row, ()))] for row in rows_of(page)})


def with_outcomes(page: str, tests: Tests, outcomes: Mapping[str, str]) -> str:
    """Return the page with a column more."""
    page = page.replace("| verified by |\n|", "| verified by | outcome |\n|---|")
    return _with_cells(page, {row: [_said(tests.get(row, ())), outcomes[row]] for row in rows_of(page)})


def _with_cells(page: str, last: Mapping[str, Sequence[str]]) -> str:
    lines = page.splitlines()
    for n, line in enumerate(lines):
        if row := _row(line):
            lines[n] = " | ".join([*line.split(" | ")[:3], *last[row]]) + " |"
    return "\n".join(lines) + "\n"


def _said(tests: Sequence[str]) -> str:
    return "; ".join(map(_words, tests))


def _words(test: str) -> str:
    file, _, name = test.partition("::")
    command = f", `{_MACHINE_COMMAND}`" if test.startswith(_MACHINE) else ""
    return f"{name.removeprefix('test_').replace('_', ' ')} (`{file.removeprefix('tests/')}`{command})"


def outcome(tests: Sequence[str], went: Mapping[str, Collection[str]]) -> str:
    """Return how a row went, given what all variants of each test reported."""
    failed = [test for test in tests if "failed" in went.get(test, ())]
    if failed:
        return f"**failed**: {_said(failed)}"
    missing = [test for test in tests if "passed" not in went.get(test, ())]
    if len(missing) < len(tests):
        return f"passed, but not run: {_said(missing)}" if missing else "passed"
    return "not run"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"seed_row(row, ...): it verifies these rows of {PAGE}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the table of a run of all tests, also where several workers ran them, and tell the sum of it."""
    if config.args_source is not config.ArgsSource.TESTPATHS:
        return
    went = defaultdict(set)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport) and (report.failed or report.when == "call"):
            went[report.nodeid.partition("[")[0]].add(report.outcome)
    page, tests = (config.rootpath / PAGE).read_text(encoding="utf-8"), verifying(config.rootpath)
    outcomes = {row: outcome(tests.get(row, ()), went) for row in rows_of(page)}
    file = config.rootpath / OUTCOMES
    file.parent.mkdir(exist_ok=True)
    file.write_text(with_outcomes(page, tests, outcomes), encoding="utf-8")
    passed = sum(said == "passed" for said in outcomes.values())
    failed = [row for row, said in outcomes.items() if "failed" in said]
    missing = [row for row, said in outcomes.items() if "not run" in said]
    terminalreporter.write_line(
        f"{PAGE}: {passed} of {len(outcomes)} rows passed; failed: {', '.join(failed) or 'none'}; "
        f"not run, or not all: {', '.join(missing) or 'none'}. The table: {OUTCOMES}"
    )


if __name__ == "__main__":
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    (ROOT / PAGE).write_text(in_page(text, verifying(ROOT)), encoding="utf-8")
