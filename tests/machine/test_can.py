"""Real CAN: tests/can/real_can.py in a machine whose kernel has it (Debian's stock one, in QEMU).

Its root is this machine's own, read-only through 9p, with what it writes in its memory. It has two emulated
Kvaser cards on one bus.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import qemu
from tests.machine.nspawn import REPOSITORY

_MODULES = (
    "virtio_pci",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "overlay",
    "can_raw",
    "vcan",
    "kvaser_pci",
    "slcan",
)
_INIT = """\
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module; done < /modules/order
mkdir -p /lower /upper /root
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro root /lower
mount -t tmpfs tmpfs /upper; mkdir /upper/u /upper/w
mount -t overlay -o lowerdir=/lower,upperdir=/upper/u,workdir=/upper/w overlay /root
mkdir -p /root/out
mount -t 9p -o trans=virtio,version=9p2000.L out /root/out
mount -t tmpfs tmpfs /root/run
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm 2>/dev/null
mount --move /proc /root/proc; mount --move /sys /root/sys; mount --move /dev /root/dev
mkdir -p /root/dev/pts; mount -t devpts devpts /root/dev/pts
exec switch_root /root /bin/sh /out/run.sh
"""

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(qemu.why_not()), reason=qemu.why_not()),
]


def test_real_can(tmp_path: Path) -> None:
    vmlinuz, initrd = qemu.kernel(_MODULES, _INIT)
    script = REPOSITORY / "tests" / "machine" / "can_guest.sh"
    (tmp_path / "run.sh").write_text(f"exec sh {script} {sys.executable} {REPOSITORY} /out\n")
    command = (
        "qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", "1536",
        "-kernel", vmlinuz, "-initrd", initrd,
        "-append", "console=ttyS0 quiet panic=-1 mitigations=off nowatchdog random.trust_cpu=1",
        "-serial", f"file:{tmp_path / 'serial.log'}", "-device", "virtio-rng-pci",
        "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
        "-fsdev", f"local,id=out,path={tmp_path},security_model=none",
        "-device", "virtio-9p-pci,fsdev=out,mount_tag=out",
        "-object", "can-bus,id=bus",
        "-device", "kvaser_pci,canbus=bus", "-device", "kvaser_pci,canbus=bus",
    )  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=850)
    serial = (tmp_path / "serial.log").read_text(errors="replace")[-3000:]
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else serial
    assert (tmp_path / "code").exists(), serial
    assert (tmp_path / "code").read_text().strip() == "0", log
    sys.stdout.write(log[-3000:])
