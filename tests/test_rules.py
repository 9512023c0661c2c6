"""The rules of the house that no linter knows, held over the source and the documents."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
BROAD = {"gateway/supervise.py", "gateway/api/errors.py", "gateway/store/writer.py"}
"""Where anything may be caught: a kept part, a request, the writer thread's boundary."""
TASKS = {
    "gateway/supervise.py",
    # A session under way is awaited where it is begun, also when cancelled: it must be closed at the server.
    "gateway/protocols/opcua/opening.py",
}
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def broad_excepts(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of handlers that catch everything and do not raise it again."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type is not None else "BaseException"
            raised_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if re.search(r"\b(Base)?Exception\b", caught) and not raised_again:
                yield node.lineno


def loose_tasks(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that start a task outside a TaskGroup."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr in ("create_task", "ensure_future") and not owner.endswith("group"):
                yield node.lineno


def test_everything_is_caught_in_three_places_only() -> None:
    found = {name(f): list(broad_excepts(ast.parse(f.read_text()))) for f in SOURCES}
    assert {file for file, lines in found.items() if lines} == BROAD


def test_only_the_supervisor_starts_a_task_that_outlives_its_caller() -> None:
    found = {name(f): list(loose_tasks(ast.parse(f.read_text()))) for f in SOURCES}
    assert {file for file, lines in found.items() if lines} == TASKS


def test_the_rules_find_what_breaks_them() -> None:
    broken = ast.parse("try:\n    asyncio.create_task(x())\nexcept Exception:\n    pass\n")
    assert list(broad_excepts(broken)) == [3]
    assert list(loose_tasks(broken)) == [2]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", document.read_text()):
        if target and "://" not in target:
            assert (document.parent / target).exists(), f"{name(document)} links to {target}"


def test_the_readme_names_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    sources = [ROOT / "gateway/__main__.py", *(ROOT / "gateway/commands").glob("*.py")]
    help_of = "".join(source.read_text() for source in sources)
    for command in set(re.findall(r"^edge-gateway ([\w-]+)", readme, re.M)):
        assert f'"{command}"' in help_of, f"README names `edge-gateway {command}`"
    targets = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?\bmake ([\w-]+)`?", readme)) - {"and"}:
        assert re.search(rf"^{target}:", targets, re.M), f"README names `make {target}`"
