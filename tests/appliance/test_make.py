"""What `make` mends by itself; python's venv and pip are played."""

import shutil
from pathlib import Path

import pytest

from tests.appliance.test_deployment import ROOT, run

PYTHON = """\
#!/bin/sh
echo "$*" >> {asked}
case "$*" in
"-m venv --clear "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; touch "$4/pip" ;;
"-m pip"*) [ -e "${{0%/bin/python}}/pip" ] ;;
esac
"""


@pytest.mark.parametrize("left", ["nothing", "a venv cut before its pip", "a whole venv"])
def test_a_venv_that_was_cut_is_made_anew(tmp_path: Path, left: str) -> None:
    for name in ("Makefile", "pyproject.toml", "setup.py", "debian/changelog"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    asked, python, venv = tmp_path / "asked", tmp_path / "python3", tmp_path / ".venv"
    python.write_text(PYTHON.format(asked=asked))
    python.chmod(0o755)
    if left != "nothing":
        (venv / "bin").mkdir(parents=True)
        shutil.copy(python, venv / "bin/python")
        if left == "a whole venv":
            (venv / "pip").touch()
    done = run("make", "-C", tmp_path, f"PYTHON={python}", ".venv/run")
    assert done.returncode == 0, done.stderr
    assert ("-m venv" in asked.read_text()) is (left != "a whole venv")
    assert "install -q --disable-pip-version-check -e ." in asked.read_text()
    assert (venv / "run").exists()
