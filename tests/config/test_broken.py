"""Broken files: every problem at once, each on its line and column, in words for a technician."""

import shutil
from pathlib import Path

import pytest

from gateway.config import ConfigProblems, load

BROKEN = Path(__file__).parent / "broken"
NAMES = sorted(file.stem for file in BROKEN.glob("*.yaml"))


def problems_of(name: str, folder: Path) -> list[str]:
    """Return the problems of a broken file, read in a folder of its own with the files that it refers to."""
    file = shutil.copy(BROKEN / f"{name}.yaml", folder)
    for each, content, mode in (
        ("open.txt", "hunter2\n", 0o644),
        ("empty.txt", "\n", 0o600),
        ("private.txt", "hunter2\n", 0o600),
    ):
        (folder / each).write_text(content)
        (folder / each).chmod(mode)
    with pytest.raises(ConfigProblems) as caught:
        load(Path(file), {"EMPTY": ""})
    return [line.replace(f"{folder}/", "").replace(str(folder), "FOLDER") for line in caught.value.problems]


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_is_listed_with_its_place(name: str, tmp_path: Path) -> None:
    problems = problems_of(name, tmp_path)
    assert problems == (BROKEN / f"{name}.expected").read_text().splitlines()


def test_no_problem_shows_a_secret() -> None:
    assert "hunter2" not in "".join(file.read_text() for file in BROKEN.glob("*.expected"))


def test_there_are_enough_broken_files() -> None:
    assert len(NAMES) >= 10
    several = [name for name in NAMES if len((BROKEN / f"{name}.expected").read_text().splitlines()) > 1]
    assert len(several) >= 10
