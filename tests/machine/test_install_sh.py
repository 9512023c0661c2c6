"""install.sh on a machine that really boots: installed twice, beside the package, removed."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine.nspawn import REPOSITORY, Machine

SOURCE = "/root/source"


@pytest.fixture
def source(boot: Callable[[str], Machine], files: Path) -> Machine:
    """Return a Debian 12 machine with this tree and the files of its libraries, without network."""
    made = boot("bookworm")
    shutil.copytree(files, made.root / "files")
    folder = made.root / SOURCE[1:]
    folder.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True,
    ).stdout  # fmt: skip
    archive = subprocess.run(
        ["tar", "--null", "-T", "-", "-cf", "-"],
        cwd=REPOSITORY,
        input=listed,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["tar", "-C", folder, "-xf", "-"], input=archive, check=True)
    return made


def test_a_first_run_that_fails_leaves_the_box_to_the_package(source: Machine) -> None:
    source.sh(f"cd {SOURCE}; ! PIP_NO_INDEX=1 PIP_FIND_LINKS=/nowhere ./install.sh", timeout_s=120)
    source.install("edge-gateway-deb12.deb")
    source.until("active", 5, "systemctl is-active --quiet edge-gateway")


@pytest.mark.seed_row(45)
def test_it_installs_twice_refuses_beside_the_package_and_keeps_the_store(
    source: Machine,
) -> None:
    environ = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/files"
    for arguments in ("", "", "--force"):
        source.sh(f"cd {SOURCE}; {environ} ./install.sh {arguments}", timeout_s=280)
        source.until("active", 5, "systemctl is-active --quiet edge-gateway")
        assert len(source.sh("ls -d /opt/edge-gateway/[0-9]*").split()) == 1
    assert "80-can0.network" in source.sh("ls /opt/edge-gateway/current/share/networkd")
    assert source.sh("cat /usr/local/share/man/man1/edge-gateway.1").startswith(".TH EDGE-GATEWAY")
    assert "edge-gateway" in source.sh("cat /usr/local/share/bash-completion/completions/edge-gateway")
    assert "rmem_max" in source.sh("cat /etc/sysctl.d/60-edge-gateway.conf")
    back = source.sh(
        f"cp -r {SOURCE} /root/older; cd /root/older; sed -i '1s/([^)]*)/(0.0.1)/' debian/changelog; "
        "./install.sh 2>&1 || true"
    )
    assert "refusing to go back" in back
    token = source.token()
    assert source.get("/v1/state")["version"]
    assert source.sh("systemd-analyze verify edge-gateway.service") == ""
    refused = source.install("edge-gateway-deb12.deb", check=False)
    assert refused.returncode
    assert "--uninstall" in refused.stderr + refused.stdout
    source.sh("/opt/edge-gateway/install.sh --uninstall")
    assert source.token() == token
    source.install("edge-gateway-deb12.deb")
    source.until("active", 5, "systemctl is-active --quiet edge-gateway")
    assert source.token() == token
    assert "the Debian package" in source.sh(f"cd {SOURCE}; ./install.sh || true")
    source.sh("apt-get remove -y edge-gateway")
    source.sh(f"{SOURCE}/install.sh --uninstall --delete-data")
    assert not (source.root / "var/lib/edge-gateway").exists()
    assert not (source.root / "etc/edge-gateway").exists()
