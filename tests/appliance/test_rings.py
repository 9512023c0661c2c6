"""A ring of one box: what is asked of it, and in which order; its systemd and dpkg's database are played."""

import json
import os
import subprocess
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.test_deployment import DEPLOY, module, run

SUITE = run("sh", "-c", ". /etc/os-release; echo ${VERSION_ID:-none}").stdout.strip()
ARCHITECTURE = run("dpkg", "--print-architecture").stdout.strip()


class Box:
    """What deploy.py and box.py see of a box: its folder, what is installed, what its job was asked to do."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deploy, self.box = module(DEPLOY / "deploy.py"), module(DEPLOY / "box.py")
        self.root, self.folder = root, root / "deploy"
        self.packages, self.previous = root / "packages", root / "previous"
        for each in (self.folder, self.packages, self.previous, root / "bin"):
            each.mkdir()
        monkeypatch.setattr(self.deploy, "FOLDER", str(self.folder))
        for name, file in {
            "FOLDER": "",
            "NEW": "new.deb",
            "KEPT": "installed.deb",
            "BACKUP": "backup",
        }.items():
            monkeypatch.setattr(self.box, name, self.folder / file)
        monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
        self.tool("systemctl", f"[ -e {root}/busy ]")
        self.tool("dpkg-query", f'case "$*" in *Status*) echo installed ;; *) cat {root}/installed ;; esac')
        self.tool("edge-gateway", "exit 1")
        self.tool("apt-get", f"echo apt-get >> {root}/asked")
        self.job("upgraded")

    def tool(self, name: str, text: str) -> None:
        (self.root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.root / "bin" / name).chmod(0o755)

    def job(self, outcome: str) -> None:
        """Play box.py: note the version it is given, and say how it ended."""
        said = json.dumps({"outcome": outcome, "why": "", "version": "?"})
        self.tool(
            "systemd-run",
            f"cd {self.folder}; dpkg-deb -f new.deb Version >> {self.root}/asked; echo '{said}' > result.json"
            + ("; mv new.deb installed.deb" if outcome == "upgraded" else ""),
        )

    def package(self, file: Path, version: str) -> None:
        tree = self.root / "tree" / version
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: edge-gateway\nVersion: {version}~deb{SUITE}\nArchitecture: all\n"
            "Maintainer: a <a@b.invalid>\nDescription: a\n"
        )
        subprocess.run(["dpkg-deb", "-Znone", "-b", tree, file], check=True, capture_output=True)

    def has(self, installed: str, *, kept: str = "", brought: str = "") -> None:
        (self.root / "installed").write_text(f"{installed}~deb{SUITE}\n")
        for name, version in (("installed", kept), ("new", brought)):
            if version:
                self.package(self.folder / f"{name}.deb", version)

    def upgrade(self, version: str) -> str:
        self.package(self.packages / f"edge-gateway_{version}~deb{SUITE}_{ARCHITECTURE}.deb", version)
        given = Namespace(packages=self.packages, previous=self.previous, well=1.0, settle=0.0)
        result = self.deploy.upgrade(self.deploy.Box("box", "env"), given)
        return str(result["outcome"])

    def asked(self) -> list[str]:
        file = self.root / "asked"
        return [line.partition("~deb")[0] for line in file.read_text().split()] if file.exists() else []

    def of(self, name: str) -> str:
        return run("dpkg-deb", "-f", self.folder / name, "Version").stdout.partition("~deb")[0]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def test_a_box_that_an_earlier_deployment_works_on_is_not_disturbed(box: Box) -> None:
    box.has("0.1", kept="0.1", brought="0.2")
    (box.folder / "result.json").write_text("{}")
    (box.root / "busy").touch()
    with pytest.raises(box.deploy.Problem, match="an earlier deployment is at work there"):
        box.upgrade("0.3")
    assert (box.of("new.deb"), box.of("installed.deb")) == ("0.2", "0.1")
    assert (box.folder / "result.json").exists()
    (box.root / "busy").unlink()
    assert box.upgrade("0.3") == "upgraded"
    assert box.asked() == ["0.3"]


def test_a_watch_that_a_power_cut_ended_is_done_before_the_next_package_comes(box: Box) -> None:
    """There is no release of 0.2 to take the way back from."""
    box.has("0.2", kept="0.1", brought="0.2")
    assert box.upgrade("0.3") == "upgraded"
    assert box.asked() == ["0.2", "0.3"]
    assert box.of("installed.deb") == "0.3"


def test_a_box_that_is_not_well_after_a_power_cut_stops_the_ring(box: Box) -> None:
    box.has("0.2", kept="0.1", brought="0.2")
    box.job("rolled back")
    assert box.upgrade("0.3") == "rolled back"
    assert box.asked() == ["0.2"]
    assert (box.of("new.deb"), box.of("installed.deb")) == ("0.2", "0.1")


@pytest.mark.parametrize(
    ("offered", "refusal"), [("0.1", "0.1~deb{} is older than 0.2~deb{}"), ("0.3", "no package of 0.2~deb{}")]
)
def test_an_older_package_is_refused_before_dpkg_is_asked(box: Box, offered: str, refusal: str) -> None:
    """dpkg would refuse it too, and then run the scripts of what is installed."""
    box.has("0.2", kept="0.2" if offered == "0.1" else "0.1", brought=offered)
    with pytest.raises(box.box.Refused, match=refusal.replace("{}", SUITE)):
        box.box.upgrade(box.box.Limits(0, 0))
    assert box.asked() == []


@pytest.mark.parametrize(("active", "goes_on"), [("exit 0", False), ("exit 3", True)])
def test_a_refused_downgrade_restarts_nothing(
    box: Box, tmp_path: Path, active: str, goes_on: bool, played: Callable[[str, str], str]
) -> None:
    box.tool("systemctl", active)
    assert ("debhelper" in played("postinst", "abort-upgrade")) is goes_on
    assert "debhelper" in played("postinst", "configure")


@pytest.fixture
def played(tmp_path: Path) -> Callable[[str, str], str]:
    """Return a function that runs a maintainer script below another root, and returns what it says."""
    (tmp_path / "etc/edge-gateway/secrets").mkdir(parents=True)
    (tmp_path / "etc/edge-gateway/gateway.yaml").touch()

    def running(name: str, argument: str) -> str:
        text = (DEPLOY.parents[1] / f"debian/edge-gateway.{name}").read_text()
        for top in ("/var/", "/etc/", "/run/"):
            text = text.replace(top, f"{tmp_path}{top}")
        text = text.replace("root:root", f"{os.geteuid()}:{os.getegid()}")
        done = run("sh", "-c", text.replace("#DEBHELPER#", "echo debhelper"), name, argument, "0.2")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return running
