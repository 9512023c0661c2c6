"""The package for the other processor, on a machine of it: every instruction is emulated by qemu-user."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.conftest import built
from tests.machine.nspawn import machine
from tests.machine.test_package import CONFIG, PUSHING

EMULATOR = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
EMULATED = "[Service]\nLoadCredential=\nPrivateIPC=no\nPrivateUsers=no\n"
"""What systemd does by a clone() that qemu-user has not (EINVAL); the rest of the sandbox is in force."""

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not EMULATOR.exists(), reason="qemu-user-static is not installed"),
]


@pytest.fixture(scope="module")
def _emulated() -> Iterator[None]:
    """Let this kernel run programs of AArch64, as systemd-binfmt does where systemd runs."""
    mounted = (BINFMT / "register").exists()
    if not mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=True)
    registered = (BINFMT / "qemu-aarch64").exists()
    if not registered:
        (BINFMT / "register").write_text(EMULATOR.read_text())
    yield
    if not registered:
        (BINFMT / "qemu-aarch64").write_text("-1")
    if not mounted:
        subprocess.run(["umount", BINFMT], check=True)


@pytest.mark.usefixtures("_emulated")
@pytest.mark.parametrize("suite", ["bookworm"])
def test_it_installs_without_network_and_takes_a_sample(suite: str, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    shutil.copy(built(suite, "arm64"), packages / "edge-gateway.deb")
    with machine(suite, tmp_path / suite, packages, "arm64") as box:
        assert box.sh("uname -m; dpkg --print-architecture").split() == ["aarch64", "arm64"]
        folder = box.root / "etc/systemd/system/edge-gateway.service.d"
        folder.mkdir()
        (folder / "emulated.conf").write_text(EMULATED)
        box.install("edge-gateway.deb")
        box.until("active", 120, "systemctl is-active --quiet edge-gateway")
        healthy = "import ssl, urllib.request as r; c = ssl._create_unverified_context(); "
        healthy += "print(r.urlopen('https://127.0.0.1:8443/healthz', context=c).status)"
        asked = box.beside(sys.executable, "-c", healthy, stdout=subprocess.PIPE)
        assert asked.communicate(timeout=60)[0].strip() == "200"
        (box.root / CONFIG[1:]).write_text(PUSHING)
        box.sh("systemctl reload edge-gateway")
        sample = {"tag": "weight", "ts": 1_790_000_000_000_000, "value": 12.5}
        pushed = box.client("post", box.token(), json.dumps({"samples": [sample]}), stdout=subprocess.PIPE)
        assert json.loads(pushed.communicate(timeout=60)[0]) == {"added": 1, "same": 0, "moved": 0}
        stored = box.get("/v1/devices/scale/samples")["samples"]
        assert [(each["tag"], each["ts"], each["value"]) for each in stored] == [tuple(sample.values())]
        box.sh("apt-get purge -y edge-gateway")
