"""A whole machine: QEMU in software, Debian's stock kernel, and what systemd-nspawn installed as its disk.

Its disk has a cache that a power cut loses (disk.py). The gateway's port is forwarded, so that what it
acknowledged is known outside of it.
"""

import contextlib
import http.client
import json
import random
import shutil
import socket
import ssl
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.machine.disk import Cut, VolatileDisk
from tests.machine.nspawn import ROOTS

TOOLS = ("qemu-system-x86_64", "busybox", "mke2fs", "modprobe", "cpio")
HOST = "10.0.2.2"
"""This machine, seen from that one."""
_GUEST = "10.0.2.15"
_DISK_BYTES = 1 << 30
# No hardware to wait for, and nothing that has to do with the gateway.
_UNNEEDED = (
    "serial-getty@ttyS0.service", "getty@tty1.service", "systemd-logind.service", "apt-daily.timer",
    "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "proc-sys-fs-binfmt_misc.automount", "modprobe@configfs.service",
    "modprobe@dm_mod.service", "modprobe@efi_pstore.service", "modprobe@fuse.service",
    "modprobe@loop.service",
)  # fmt: skip
_MODULES = (
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "crc32c_generic", "can_raw", "vcan"
)  # fmt: skip
VCAN = "vcan0"
"""A CAN bus on which nobody speaks."""
_INIT = f"""\
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module; done < /modules/order
while [ ! -b /dev/vda ]; do sleep 0.05; done
ip addr add {_GUEST}/24 dev eth0; ip link set eth0 up; ip route add default via {HOST}
ip link add {VCAN} type vcan; ip link set {VCAN} up
mount -t ext4 /dev/vda /root
mount --move /dev /root/dev; umount /proc /sys
exec switch_root /root /sbin/init
"""


def why_not() -> str:
    """Return why there is no whole machine here, or ""."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        packages = "qemu-system-x86 busybox-static e2fsprogs kmod cpio"
        return f"{', '.join(lacking)} is not installed: apt-get install {packages}"
    return ""


def kernel(modules: Sequence[str] = _MODULES, init: str = _INIT) -> tuple[Path, Path]:
    """Return Debian's stock kernel and an initrd that mounts the disk, made where they are not there."""
    depends = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True
    )
    (name,) = [line.split()[1] for line in depends.stdout.splitlines() if "Depends: linux-image" in line]
    name_of_both = f"{name}-{zlib.crc32(repr((modules, init)).encode()):08x}"
    folder = ROOTS / name_of_both
    if not folder.is_dir():
        draft = ROOTS / f".{name_of_both}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        subprocess.run(
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name], cwd=draft, check=True
        )
        (package,) = draft.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, draft / "unpacked"], check=True)
        (image,) = (draft / "unpacked" / "boot").glob("vmlinuz-*")
        image.rename(draft / "vmlinuz")
        _make_initrd(draft / "unpacked", image.name.removeprefix("vmlinuz-"), draft, modules, init)
        shutil.rmtree(draft / "unpacked")
        package.unlink()
        draft.rename(folder)
    return folder / "vmlinuz", folder / "initrd"


def _make_initrd(unpacked: Path, version: str, folder: Path, modules: Sequence[str], init: str) -> None:
    root = folder / "root"
    for each in ("bin", "dev", "proc", "sys", "root", "modules"):
        (root / each).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, root / "bin" / "busybox")
    for command in ("sh", "mount", "umount", "insmod", "switch_root", "ip", "sleep", "mkdir"):
        (root / "bin" / command).symlink_to("busybox")
    subprocess.run(["depmod", "-b", unpacked, version], check=True)
    order = []
    for module in modules:
        command = ["modprobe", "-d", unpacked, "-S", version, "--show-depends", module]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for file in [Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod")]:
            if file.name not in order:
                order.append(file.name)
                shutil.copy(file, root / "modules")
    (root / "modules" / "order").write_text("".join(f"{each}\n" for each in order))
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    subprocess.run("find . | cpio -o -H newc --quiet > ../initrd", shell=True, cwd=root, check=True)
    shutil.rmtree(root)


def disk_of(root: Path, file: Path) -> None:
    """Make a disk with one ext4 file system of what is in a folder."""
    with file.open("wb") as made:
        made.truncate(_DISK_BYTES)
    # Nothing is left for the kernel to initialise later.
    options = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", options, "-d", root, file], check=True)


def patient(root: Path) -> None:
    """Let the service take its time: a start takes more than a minute where others want the processor too."""
    folder = root / "etc/systemd/system/edge-gateway.service.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "emulated.conf").write_text("[Service]\nTimeoutStartSec=300\n")


class Refused(Exception):
    """The gateway answered, with an error."""


class NotNow(Exception):
    """The gateway answered 503: to be asked again."""


class Box:
    """The machine. Cut off, it boots from what its disk was left with."""

    def __init__(self, disk: Path, folder: Path, token: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.token = token
        self.serial = folder / "serial.log"
        self.port = free_port()
        self._socket, self._monitor = folder / "disk.sock", folder / "qmp.sock"
        self.disk = VolatileDisk(disk, self._socket)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (folder / "qemu.log").open("ab")

    def start(self) -> None:
        vmlinuz, initrd = kernel()
        self.serial.unlink(missing_ok=True)
        append = " ".join((
            "console=ttyS0 quiet panic=-1 net.ifnames=0 audit=0 apparmor=0 selinux=0 mitigations=off",
            "nowatchdog no_timer_check random.trust_cpu=1 systemd.show_status=1 systemd.log_color=0",
            "systemd.journald.forward_to_console=1",
            *(f"systemd.mask={unit}" for unit in _UNNEEDED),
        ))  # fmt: skip
        disk = f"if=none,id=disk,format=raw,cache=none,file=nbd+unix:///?socket={self._socket}"
        network = f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:8443"
        command = (
            "qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
            "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", "1024",
            "-kernel", str(vmlinuz), "-initrd", str(initrd), "-append", append,
            "-qmp", f"unix:{self._monitor},server=on,wait=off", "-serial", f"file:{self.serial}",
            "-device", "virtio-rng-pci",
            "-drive", disk, "-device", "virtio-blk-pci,drive=disk",
            "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=",
        )  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def until_ready(self, within_s: float) -> float:
        """Wait until systemd says that the service has started; return after how many seconds."""
        began = time.monotonic()
        while "Started edge-gateway.service" not in (said := self.said()):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() - began > within_s:
                raise AssertionError(f"not ready within {within_s} s:\n{said[-4000:]}")
            time.sleep(0.1)
        return time.monotonic() - began

    def said(self) -> str:
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def cut(self, chance: random.Random) -> Cut:
        """Take the power away at once, or while the disk is asked to flush what it was given."""
        assert self._process is not None
        if chance.random() < 0.7:
            self.disk.hold(10)
        self._process.kill()
        self._process.wait()
        return self.disk.cut(chance)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let its time stand still."""
        self._command("stop")
        yield
        self._command("cont")

    def _command(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw") as stream:
            monitor.settimeout(60)
            monitor.connect(str(self._monitor))
            for request in ({"execute": "qmp_capabilities"}, {"execute": command}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    assert "error" not in answer, answer

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)

    def ask(self, connection: http.client.HTTPSConnection, path: str, body: object = None) -> Any:
        """Ask the gateway; return the JSON. NotNow, Refused; OSError, HTTPException: there is no answer."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status == 503:
            raise NotNow(text)
        if answer.status >= 400:
            raise Refused(f"{answer.status} {text[:500]!r}")
        return json.loads(text)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.disk.close()
        self._log.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
