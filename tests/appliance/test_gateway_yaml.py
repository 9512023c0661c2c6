"""gateway.yaml and dpkg: whose it is over installation, upgrade, removal and purge.

A package with the real maintainer scripts and starter, without program and unit, in a dpkg of its own.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "debian"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
FOLDERS = ("/var/lib/edge-gateway", "/var/log/edge-gateway", "/etc/", "/opt/", "/usr/share/", "/run/systemd")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="dpkg wants root")


class Box:
    """A root with a dpkg of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = folder / "root", folder
        (self.root / "var/lib/dpkg/updates").mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        self.yaml = self.root / "etc/edge-gateway/gateway.yaml"
        self.state = self.root / "var/lib/edge-gateway"
        self.starter = (ROOT / "config/starter.yaml").read_text()

    def dpkg(self, *arguments: str) -> str:
        done = subprocess.run(
            ["dpkg", f"--root={self.root}", "--force-script-chrootless", "--force-bad-path", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, version: str) -> None:
        tree = self.folder / version
        for name in (*(DEBIAN / "edge-gateway.dirs").read_text().split(), "DEBIAN"):
            (tree / name).mkdir(parents=True)
        for line in (DEBIAN / "edge-gateway.install").read_text().splitlines():
            *files, into = line.split()
            for file in files:
                if file == "config/starter.yaml":
                    (tree / into).mkdir(parents=True)
                    (tree / into / "starter.yaml").write_text(self.starter)
        for name in SCRIPTS:
            text = (DEBIAN / f"edge-gateway.{name}").read_text().replace("#DEBHELPER#", "")
            for top in FOLDERS:
                text = text.replace(top, f"{self.root}{top}")
            (tree / "DEBIAN" / name).write_text(text)
            (tree / "DEBIAN" / name).chmod(0o755)
        (tree / "DEBIAN/control").write_text(
            f"Package: edge-gateway\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: a <a@b.invalid>\nDescription: a\n"
        )
        package = self.folder / f"{version}.deb"
        subprocess.run(["dpkg-deb", "-Znone", "-b", tree, package], check=True, capture_output=True)
        self.dpkg("--install", str(package))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_the_starter_is_there_once_installed_and_gone_once_purged(box: Box) -> None:
    box.install("1")
    assert box.yaml.read_text() == box.starter
    found = box.yaml.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o644, 0, 0)
    assert [path.name for path in box.yaml.parent.iterdir() if path.is_file()] == ["gateway.yaml"]
    box.dpkg("--remove", "edge-gateway")
    assert box.yaml.read_text() == box.starter
    box.dpkg("--purge", "edge-gateway")
    assert not box.yaml.parent.exists()


def test_an_edit_outlives_upgrades_whose_starter_is_another_without_a_question(box: Box) -> None:
    box.install("1")
    box.yaml.write_text("devices: {scale: {push: {}}}\n")
    box.state.mkdir(parents=True)
    box.starter += "# A comment more.\n"
    box.install("2")
    box.dpkg("--remove", "edge-gateway")
    box.install("3")
    assert box.yaml.read_text() == "devices: {scale: {push: {}}}\n"
    assert sorted(path.name for path in box.yaml.parent.iterdir()) == ["gateway.yaml", "secrets"]


def test_a_file_that_is_gone_is_not_replaced_under_a_gateway_that_has_run(box: Box) -> None:
    box.install("1")
    box.yaml.unlink()
    box.state.mkdir(parents=True)
    box.install("2")
    assert not box.yaml.exists()
    box.dpkg("--remove", "edge-gateway")
    box.state.rmdir()
    box.install("3")
    assert box.yaml.read_text() == box.starter


def test_one_that_was_there_before_the_package_stays(box: Box) -> None:
    box.yaml.parent.mkdir(parents=True)
    box.yaml.write_text("devices: {scale: {push: {}}}\n")
    box.install("1")
    assert box.yaml.read_text() == "devices: {scale: {push: {}}}\n"


def test_a_link_is_the_operator_s_too(box: Box) -> None:
    mine = box.folder / "mine.yaml"
    box.yaml.parent.mkdir(parents=True)
    box.yaml.symlink_to(mine)
    box.install("1")
    assert box.yaml.is_symlink()
    mine.write_text("devices: {}\n")
    box.dpkg("--purge", "edge-gateway")
    assert not box.yaml.is_symlink()
    assert mine.exists()


def test_the_package_has_no_conffile() -> None:
    """What debhelper installs below /etc would be one."""
    installed = [line.split()[-1] for line in (DEBIAN / "edge-gateway.install").read_text().splitlines()]
    assert not [folder for folder in installed if folder.lstrip("/").startswith("etc")]
    assert "etc/edge-gateway/gateway.yaml" not in (DEBIAN / "rules").read_text()
