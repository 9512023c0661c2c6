"""A purge and `--delete-data` where folders are no plain ones: mounts, links, those of another gateway."""

import os
import subprocess
from pathlib import Path

import pytest

from gateway.state_files import IN_STATE, IN_STORE, LINK, kind_of, remember_store
from tests.appliance.test_state_files import PURGE_KEEPS, Box, files, laid_out, names

SECRETS = ["admin-token", "tokens.json", "tls/self-signed.pem"]
KEPT = {name for name in names(IN_STORE, IN_STATE) if kind_of(name) in PURGE_KEEPS}
UNSHARE = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "true"]
mounts = pytest.mark.skipif(
    subprocess.run(UNSHARE, capture_output=True).returncode != 0, reason="nothing can be mounted here"
)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.fixture
def disk(box: Box) -> Path:
    """Return the folder that is mounted at the state directory."""
    made = box.root / "disk"
    laid_out(made, [*names(IN_STORE, IN_STATE), "lost+found/#12", "what-nobody-knows"])
    box.mounts[box.state] = made
    return made


def played(box: Box, monkeypatch: pytest.MonkeyPatch, **tools: str) -> None:
    """Put commands of a machine before the real ones."""
    for name, text in tools.items():
        laid_out(box.root / "bin", [name.replace("_", "-")])
        tool = box.root / "bin" / name.replace("_", "-")
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{box.root / 'bin'}:{os.environ['PATH']}")


def test_a_purge_leaves_the_gateway_of_install_sh_alone(box: Box) -> None:
    """Also where the package's removal had found that all was delivered."""
    laid_out(box.state, [*names(IN_STORE, IN_STATE), ".all-delivered"])
    laid_out(box.root, ["var/log/edge-gateway/a.log", "opt/edge-gateway/installed-by-install.sh"])
    before = files(box.root)
    said = box.purge()
    assert files(box.root) == before
    assert "/opt/edge-gateway/install.sh --uninstall --delete-data" in said
    assert not box.debhelper  # which would disable the unit


def test_a_start_takes_back_that_all_was_delivered(box: Box) -> None:
    laid_out(box.state, [*names(IN_STORE, IN_STATE), ".all-delivered"])
    remember_store(box.state, box.state)
    said = box.purge()
    (kept,) = (box.root / "var/lib").iterdir()
    assert f"it was kept, for root only: {kept}" in said
    assert files(kept) == KEPT
    assert box.debhelper


@mounts
def test_a_state_directory_on_a_disk_of_its_own_is_emptied(box: Box, disk: Path) -> None:
    (disk / ".all-delivered").touch()
    for _ in range(2):
        assert box.purge() == ""
        assert files(disk) == {"lost+found/#12"}
    assert box.debhelper


@mounts
def test_an_undelivered_store_is_kept_on_the_disk_that_is_the_state_directory(box: Box, disk: Path) -> None:
    said = box.purge()
    (kept,) = disk.glob("edge-gateway.kept-*")
    assert f"it was kept, for root only: {box.state / kept.name}" in said
    assert kept.stat().st_mode & 0o777 == 0o700
    assert files(kept) == KEPT
    in_all = {"lost+found/#12", *(f"{kept.name}/{name}" for name in KEPT)}
    assert files(disk) == in_all
    # What was kept once is there after any purge: of nothing, of a delivered store, and without the disk.
    assert box.purge() == ""
    laid_out(disk, ["hot.db", *SECRETS, ".all-delivered"])
    assert box.purge() == ""
    assert files(disk) == in_all


@mounts
def test_keeping_on_a_disk_that_was_cut_is_done_to_its_end(box: Box, disk: Path) -> None:
    (disk / ".edge-gateway").mkdir()
    for name in ("hot.db", "history", "admin-token"):
        (disk / name).rename(disk / ".edge-gateway" / name)
    box.purge()
    (kept,) = disk.glob("edge-gateway.kept-*")
    assert files(kept) == KEPT


@mounts
@pytest.mark.parametrize("delivered", [True, False])
def test_a_store_on_a_disk_inside_the_state_directory(box: Box, delivered: bool) -> None:
    disk = box.root / "disk"
    laid_out(disk, [*names(IN_STORE), "mine"])
    laid_out(box.state, [*SECRETS, "store/x", *([".all-delivered"] if delivered else [])])
    (box.state / "store/x").unlink()
    (box.state / LINK).symlink_to(box.state / "store")
    box.mounts[box.state / "store"] = disk
    for _ in range(2):
        box.purge()
    assert files(box.state) == set()
    kept = KEPT & set(names(IN_STORE))
    at = [path.name for path in disk.glob("edge-gateway.kept-*")]
    assert len(at) == (0 if delivered else 1)
    assert files(disk) == {f"{folder}/{name}" for folder in at for name in kept}


@mounts
def test_a_configuration_on_a_disk_of_its_own_is_emptied(box: Box) -> None:
    disk = box.root / "disk"
    laid_out(disk, ["gateway.yaml", "secrets/cloud"])
    box.mounts[box.etc] = disk
    for _ in range(2):
        box.purge()
    assert files(disk) == set()
    assert box.debhelper


def test_a_linked_configuration_goes_and_the_link_stays(box: Box) -> None:
    box.etc.rename(box.root / "mine")
    box.etc.symlink_to(box.root / "mine")
    for _ in range(2):
        box.purge()
    assert files(box.root / "mine") == set()
    assert box.debhelper


@mounts
def test_logs_and_secrets_on_disks_of_their_own_are_emptied(box: Box) -> None:
    logs = box.root / "var/log/edge-gateway"
    logs.mkdir(parents=True)
    for name, at in (("secrets", box.etc / "secrets"), ("logs", logs)):
        laid_out(box.root / name, ["one", "folder/two"])
        box.mounts[at] = box.root / name
    for _ in range(2):
        box.purge()
    assert files(box.root / "secrets") == files(box.root / "logs") == set()


@pytest.mark.parametrize("delivered", [True, False])
def test_a_linked_state_directory_is_purged_where_it_lies(box: Box, delivered: bool) -> None:
    data = box.root / "data/eg"
    laid_out(data, [*names(IN_STORE, IN_STATE), *([".all-delivered"] if delivered else [])])
    laid_out(box.root / "data/log", ["edge-gateway.log"])
    box.state.rmdir()
    box.state.symlink_to(data)
    (box.root / "var/log").mkdir()
    (box.root / "var/log/edge-gateway").symlink_to(box.root / "data/log")
    said = box.purge()
    assert list((box.root / "var/lib").iterdir()) == list((box.root / "var/log").iterdir()) == []
    left = list((box.root / "data").iterdir())
    if delivered:
        assert (left, said) == ([], "")
    else:
        assert [f"it was kept, for root only: {path}" in said for path in left] == [True]
        assert files(left[0]) == KEPT
    assert box.purge() == ""


@mounts
def test_install_sh_empties_a_disk_of_its_own(box: Box, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played(box, monkeypatch, systemctl="exit 0", dpkg_query="exit 1", id="echo 0")
    configuration = box.root / "configuration"
    laid_out(configuration, ["gateway.yaml", "secrets/cloud"])
    box.mounts[box.etc] = configuration
    for _ in range(2):
        box.run("install.sh", "--uninstall", "--delete-data")
    assert files(disk) == {"lost+found/#12"}
    assert files(configuration) == set()


def test_install_sh_follows_a_linked_state_directory(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    data = box.root / "data/eg"
    laid_out(data, names(IN_STORE, IN_STATE))
    box.state.rmdir()
    box.state.symlink_to(data)
    played(box, monkeypatch, systemctl="exit 0", dpkg_query="exit 1", id="echo 0")
    box.run("install.sh", "--uninstall", "--delete-data")
    assert not data.exists()
    assert not box.state.is_symlink()
