"""The workflows: least rights, an end in time, pinned actions, and only what a developer can do too."""

import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
WRITES = {
    ("packages.yml", "image"): {"packages"},
    ("main.yml", "packages"): {"packages"},
    ("release.yml", "packages"): {"packages"},
    ("release.yml", "release"): {"contents", "packages", "id-token", "attestations"},
}
"""Who may write what; everybody else reads."""
TOOLS = ("apt-get", "sudo", "git config", "gh release create")


def problems(name: str, text: str) -> Iterator[str]:
    """Yield what is wrong with a workflow."""
    workflow = yaml.safe_load(text)
    if workflow.get("permissions") != {"contents": "read"}:
        yield "its permissions are not contents: read"
    if not set(workflow.get(True, ())) <= {"workflow_call"} and "concurrency" not in workflow:  # on: is True
        yield "it has no concurrency"
    for job, said in workflow["jobs"].items():
        rights = said.get("permissions", {})
        if {right for right, how in rights.items() if how != "read"} != WRITES.get((name, job), set()):
            yield f"{job}: its permissions are not those of the list here"
        if "uses" in said:
            yield from (
                f"{job}: {said['uses']} is not there" for _ in [0] if not (ROOT / said["uses"]).is_file()
            )
            continue
        if not 0 < said.get("timeout-minutes", 0) <= 240:
            yield f"{job}: it has no timeout-minutes"
        if "secrets." in str(said) and "environment" not in said:
            yield f"{job}: it takes secrets outside of an environment"
        for step in said["steps"]:
            yield from (f"{job}: {each}" for each in step_problems(step))
    for line in re.findall(r"uses: (?!\./)(.*)", text):
        if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line):
            yield f"{line} is not pinned by the SHA of a commit, with its version beside it"


def step_problems(step: dict[str, Any]) -> Iterator[str]:
    if "uses" in step:
        if step["uses"].startswith("actions/checkout@") and step["with"]["persist-credentials"] is not False:
            yield "checkout leaves its token behind"
        return
    if "${{" in step["run"]:
        yield f"{step['run']}: an expression is put into a script, where its text would be run"
    for command in step["run"].split(" && "):
        words = shlex.split(command)
        if words[0] == "make":
            if not re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE):
                yield f"make {words[1]} is not there"
        elif not command.startswith(TOOLS):
            file = ROOT / words[0]
            if not file.is_file() or not file.stat().st_mode & stat.S_IXUSR:
                yield f"{words[0]} is no script here"


@pytest.mark.seed_row("L7")
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_a_workflow_has_the_least_rights_and_calls_what_is_there(file: Path) -> None:
    assert list(problems(file.name, file.read_text())) == []


@pytest.mark.seed_row("L7")
def test_every_kind_of_push_is_checked_first() -> None:
    jobs = {file.name: yaml.safe_load(file.read_text()) for file in FILES}
    assert jobs["check.yml"][True]["push"]["branches"] == ["**", "!main"]
    assert jobs["main.yml"][True]["push"]["branches"] == ["main"]
    assert jobs["release.yml"][True]["push"]["tags"] == ["v*"]
    for name in ("main.yml", "release.yml"):
        assert jobs[name]["jobs"]["check"]["uses"] == "./.github/workflows/check.yml"
        assert "check" in jobs[name]["jobs"]["packages"]["needs"]
    assert "packages" in jobs["main.yml"]["jobs"]["deploy"]["needs"]
    steps = [step.get("run", "") for job in jobs["check.yml"]["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in steps
    assert any(step.startswith("make machine-test ") for step in steps)


BROKEN = """
on: {push: {}}
permissions: {contents: write}
jobs:
  one:
    permissions: {packages: write}
    steps:
      - uses: actions/checkout@v4
        with: {persist-credentials: true}
      - run: make nothing && ./nowhere.sh
      - run: echo ${{ github.ref_name }}
      - run: .ci/run
        env: {KEY: "${{ secrets.KEY }}"}
  two:
    uses: ./.github/workflows/nowhere.yml
"""


def test_the_lint_finds_what_breaks_it() -> None:
    found = "\n".join(problems("broken.yml", BROKEN))
    for sentence in (
        "its permissions are not contents: read",
        "it has no concurrency",
        "one: its permissions are not those of the list here",
        "one: it has no timeout-minutes",
        "one: it takes secrets outside of an environment",
        "one: checkout leaves its token behind",
        "one: make nothing is not there",
        "one: ./nowhere.sh is no script here",
        "an expression is put into a script",
        "actions/checkout@v4 is not pinned",
        "two: ./.github/workflows/nowhere.yml is not there",
    ):
        assert sentence in found
