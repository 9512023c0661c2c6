"""install.sh itself, below another root: what a run leaves that fails, what one installs, going back.

Python's venv and pip are played, systemctl and useradd too; tests/machine has the real ones.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {
    "systemctl": "exit 0", "useradd": "exit 0", "dpkg-query": "exit 1", "id": "echo 0",
    "python3": """\
case "$*" in
"-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo 'exit 0' > "$3/bin/edge-gateway"
    chmod 755 "$3/bin/edge-gateway" ;;
"-m pip "*) exit "${PIP:-0}" ;;
*manual.py*) echo manual ;;
esac""",
}  # fmt: skip


class Box:
    """A machine's folders below another root, with a source tree to install from."""

    def __init__(self, root: Path) -> None:
        self.root, self.source = root, root / "source"
        self.opt, self.mark = root / "opt/edge-gateway", root / "opt/edge-gateway/installed-by-install.sh"
        for folder in ("bin", "source", "opt", "usr/local/bin", "etc/systemd/system"):
            (root / folder).mkdir(parents=True)
        for name, text in TOOLS.items():
            self.tool(name, text)
        for name in ("debian", "config", "systemd"):
            shutil.copytree(ROOT / name, self.source / name, ignore=shutil.ignore_patterns("build"))
        (self.source / "gateway").mkdir()
        for name in ("pyproject.toml", "setup.py", "README.md"):
            shutil.copy(ROOT / name, self.source)
        self.of_version("1.2.0")
        text = (ROOT / "install.sh").read_text()
        for top in ("/var/", "/etc/", "/opt/", "/usr/local/", "/run/"):
            text = text.replace(top, f"{root}{top}")
        (self.source / "install.sh").write_text(text)

    def tool(self, name: str, text: str) -> None:
        (self.root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.root / "bin" / name).chmod(0o755)

    def of_version(self, version: str) -> None:
        (self.source / "debian/changelog").write_text(f"edge-gateway ({version}) bookworm; urgency=medium\n")

    def run(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", str(self.source / "install.sh"), *arguments],
            env={**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}", **environ},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def version(self) -> str:
        return (self.opt / "current/version").read_text().strip()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_first_run_that_fails_leaves_nothing_that_the_package_refuses_by(box: Box) -> None:
    assert box.run(PIP="1").returncode
    assert not box.opt.exists()
    assert not (box.root / "etc/edge-gateway").exists()


def test_an_upgrade_that_fails_leaves_the_program_before(box: Box) -> None:
    assert box.run().returncode == 0
    box.of_version("1.3.0")
    assert box.run(PIP="1").returncode
    assert box.version() == "1.2.0"
    assert box.mark.exists()
    assert len(list(box.opt.glob("[0-9]*"))) == 1


UNIT = "etc/systemd/system/edge-gateway.service"


@pytest.mark.parametrize("at", ["daemon-reload", "enable", "restart"])
def test_an_upgrade_whose_service_does_not_start_is_taken_back(box: Box, at: str) -> None:
    assert box.run().returncode == 0
    unit = (box.root / UNIT).read_text()
    box.of_version("1.3.0")
    (box.source / "systemd/edge-gateway.service").write_text(f"{unit}# 1.3.0\n")
    asked = box.root / "asked"
    # The new program alone is refused by systemd.
    box.tool(
        "systemctl", f'echo "$1" >> {asked}; case "$1" in {at}) ! grep -q "# 1.3.0" {box.root / UNIT} ;; esac'
    )
    done = box.run()
    assert done.returncode == 1
    assert "version 1.3.0 does not start" in done.stderr
    assert "version 1.2.0 runs again" in done.stderr
    assert box.version() == "1.2.0"
    assert (box.root / UNIT).read_text() == unit
    assert len(list(box.opt.glob("[0-9]*"))) == 1
    assert asked.read_text().split()[-3:] == ["daemon-reload", "enable", "restart"]


def test_an_upgrade_that_a_full_disk_ends_after_the_switch_is_taken_back(box: Box) -> None:
    assert box.run().returncode == 0
    box.of_version("1.3.0")
    full = box.root / "full"
    refusing = f'case "$*" in */share/*{UNIT}) [ ! -e {full} ] || {{ rm {full}; exit 1; }} ;; esac'
    box.tool("install", f'{refusing}; exec /usr/bin/install "$@"')
    full.touch()
    done = box.run()
    assert done.returncode == 1
    assert "version 1.2.0 runs again" in done.stderr
    assert box.version() == "1.2.0"
    assert not full.exists()


def test_a_first_installation_whose_service_does_not_start_stays_to_be_looked_at(box: Box) -> None:
    box.tool("systemctl", "[ $1 != restart ]")
    done = box.run()
    assert done.returncode == 1
    assert "journalctl -u edge-gateway" in done.stderr
    assert box.version() == "1.2.0"
    box.tool("systemctl", "exit 0")
    assert box.run().returncode == 0
    assert len(list(box.opt.glob("[0-9]*"))) == 1


@pytest.mark.seed_row(45)
def test_it_installs_what_the_package_does_and_removes_it(box: Box) -> None:
    before = set(box.root.rglob("*"))
    for arguments in ((), ("--force",)):
        done = box.run(*arguments)
        assert done.returncode == 0, done.stderr
    for file in (
        "etc/sysctl.d/60-edge-gateway.conf", "etc/systemd/system/edge-gateway.service",
        "etc/edge-gateway/gateway.yaml", "usr/local/bin/edge-gateway",
        "usr/local/share/man/man1/edge-gateway.1", "usr/local/share/bash-completion/completions/edge-gateway",
        "opt/edge-gateway/current/share/networkd/80-can0.network",
        "opt/edge-gateway/current/share/gateway.schema.json", "opt/edge-gateway/install.sh",
    ):  # fmt: skip
        assert (box.root / file).is_file(), file
    assert box.mark.exists()
    assert box.run("--uninstall", "--delete-data").returncode == 0
    left = {path for path in box.root.rglob("*") if not path.is_dir()} - before
    assert left == set()
    assert not box.opt.exists()


@pytest.mark.parametrize(
    ("version", "refused"),
    [("1.3.0", False), ("1.2.0", False), ("1.10.0", False), ("1.2.0~a3", True), ("1.1.9", True)],
)
def test_going_back_is_refused_in_the_words_of_the_package(box: Box, version: str, refused: bool) -> None:
    assert box.run().returncode == 0
    box.of_version(version)
    done = box.run()
    assert bool(done.returncode) is refused
    assert box.version() == ("1.2.0" if refused else version)
    if refused:
        words = (
            "refusing to go back from version {} to {}: the store may be of a form that {} cannot read.",
            "Install {} or newer. If the store was restored from a backup made by {} or older, or was",
        )
        package = (ROOT / "debian/edge-gateway.preinst").read_text()
        assert words[0].format("$2", "$3", "$3") in package
        assert words[1].format("$2", "$3") in package
        assert words[0].format("1.2.0", version, version) in done.stderr
        assert words[1].format("1.2.0", version) in done.stderr
        assert box.run(EDGE_GATEWAY_ALLOW_DOWNGRADE="1").returncode == 0
        assert box.version() == version
