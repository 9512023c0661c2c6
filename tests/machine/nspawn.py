"""Boots real systemd in a root of Debian (systemd-nspawn), runs commands in it and beside it, and cleans up.

A root is made once by mmdebstrap and kept as a tar in $MACHINE_ROOTS (default /tmp/edge-gateway-roots). A
machine is an overlay over an unpacked one, so that each begins fresh and may be cut off and booted again.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOTS = Path(os.environ.get("MACHINE_ROOTS", "/tmp/edge-gateway-roots"))
REPOSITORY = Path(__file__).resolve().parents[2]
SUITES = {"bookworm": "deb12", "trixie": "deb13"}
INCLUDED = "systemd,systemd-sysv,dbus,python3,python3-venv,libpam-systemd"
TOOLS = ("systemd-nspawn", "mmdebstrap", "nsenter", "dpkg-deb")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_S = 60
_UP = ("running", "degraded")


def why_not() -> str:
    """Return why no machine can be booted here, or ""."""
    if os.geteuid() != 0:
        return "a machine is booted by root: sudo make machine-test"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(lacking)} is not installed: apt-get install systemd-container mmdebstrap"
    if not cgroups():
        return "there is no cgroup v2 hierarchy that systemd in a machine could use"
    return ""


def cgroups() -> list[Path]:
    """Return where this machine's cgroup2 and, beside an older init, systemd's own hierarchy are mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        Path(point)
        for _device, point, kind, options, *_ in mounts
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options)
    ]


def pristine(suite: str, arch: str = "") -> Path:
    """Return the unpacked root of a suite, made where it is not there yet (half a minute).

    `arch`: of another processor, emulated by qemu-user (two minutes).
    """
    name = f"{suite}{arch}-{zlib.crc32(INCLUDED.encode()):x}"
    tar, folder = ROOTS / f"{name}.tar", ROOTS / name
    if not folder.is_dir():
        ROOTS.mkdir(parents=True, exist_ok=True)
        if not tar.exists():
            at = mirror()
            draft = ROOTS / f".{name}.tar"
            command = [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={INCLUDED}",
                *([f"--arch={arch}"] if arch else []),
                suite,
                str(draft),
            ]
            subprocess.run([*command, *([at] if at else [])], check=True)
            draft.replace(tar)
        draft = ROOTS / f".{name}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        subprocess.run(["tar", "-C", draft, "-xf", tar], check=True)
        draft.rename(folder)
    return folder


def mirror() -> str:
    """Return $MIRROR, else this machine's own mirror of Debian, or "" for mmdebstrap's."""
    if named := os.environ.get("MIRROR"):
        return named
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    found = re.search(r"^URIs:\s*(\S+)", sources.read_text(), re.MULTILINE) if sources.exists() else None
    return found[1] if found else ""


class Machine:
    """One booted root. Its network is its own loopback."""

    def __init__(self, suite: str, folder: Path, packages: Path, arch: str = "") -> None:
        self.suite, self.arch, self.folder, self.packages = suite, arch, folder, packages
        self.root = folder / "root"
        self.name = f"egw-{os.getpid()}-{folder.name}"[:60]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._beside: list[subprocess.Popen[str]] = []

    def mount(self) -> None:
        lower, upper, work = pristine(self.suite, self.arch), self.folder / "upper", self.folder / "work"
        for each in (upper, work, self.root):
            each.mkdir(parents=True)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.root], check=True)

    def boot(self) -> None:
        """Start it and wait until systemd has nothing more to start."""
        Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
        groups = [point / self.name for point in cgroups()]
        for group in groups:
            group.mkdir(exist_ok=True)
        command = (
            "systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--boot", f"--directory={self.root}",
            f"--machine={self.name}", "--hostname=box", "--private-network", "--console=pipe",
            "--kill-signal=SIGRTMIN+3", f"--bind-ro={self.packages}:/packages",
        )  # fmt: skip
        # A shell puts itself into the groups first: no thread of this process may be there.
        enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups) + 'exec "$@"'
        with (self.folder / "console.log").open("ab") as log:
            self._nspawn = subprocess.Popen(
                ("sh", "-c", enter, "sh", *command),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )  # fmt: skip
        until = time.monotonic() + _BOOT_S
        # By its word: nsenter fails with 1 too, as long as nspawn's child is not yet PID 1 of the machine.
        while self.sh("systemctl is-system-running --wait 2>&1 || true", check=False).strip() not in _UP:
            if time.monotonic() > until or self._nspawn.poll() is not None:
                raise AssertionError(
                    f"it does not boot:\n{(self.folder / 'console.log').read_text()[-3000:]}"
                )
            time.sleep(0.1)

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as root; stdout and stderr as text."""
        leader = self.leader()
        if leader is None:
            return subprocess.CompletedProcess(command, 255, "", "the machine is not up")
        environ = (
            "env",
            "-i",
            f"PATH={_PATH}",
            "HOME=/root",
            "LANG=C.UTF-8",
            "DEBIAN_FRONTEND=noninteractive",
        )
        into = ("nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "--")
        done = subprocess.run(
            (*into, *environ, *command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return done

    def sh(self, script: str, *, check: bool = True, timeout_s: float = 120) -> str:
        """Run a shell script in the machine; return what it printed, stderr last."""
        done = self.run("sh", "-ec", script, check=check, timeout_s=timeout_s)
        return done.stdout + done.stderr

    def beside(self, *command: str, **keywords: Any) -> subprocess.Popen[str]:
        """Start a command of this machine (the host) in the network of that one; it ends with it."""
        into = ("nsenter", "-t", str(self.leader()), "-n", "--")
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        started = subprocess.Popen((*into, *command), text=True, env=environ, cwd=REPOSITORY, **keywords)
        self._beside.append(started)
        return started

    def client(self, *arguments: str, **keywords: Any) -> subprocess.Popen[str]:
        """Start tests/machine/client.py in the machine's network."""
        return self.beside(sys.executable, "-m", "tests.machine.client", *arguments, **keywords)

    def get(self, path: str) -> Any:
        """Ask the gateway's API with the admin's token; return the JSON."""
        asked = self.client("get", self.token(), path, stdout=subprocess.PIPE)
        text, _ = asked.communicate(timeout=30)
        assert asked.returncode == 0, text
        return json.loads(text)

    def token(self) -> str:
        return (self.root / "var/lib/edge-gateway/admin-token").read_text().strip()

    def property(self, name: str) -> str:
        return self.sh(f"systemctl show -P {name} edge-gateway").strip()

    def journal(self, unit: str = "edge-gateway") -> str:
        return self.sh(f"journalctl --no-pager -o cat -u {unit}")

    def until(self, what: str, within_s: float, script: str) -> float:
        """Wait until a shell script succeeds; return after how many seconds."""
        began = time.monotonic()
        while self.run("sh", "-ec", script, check=False).returncode:
            if time.monotonic() - began > within_s:
                raise AssertionError(f"not within {within_s} s: {what}\n{self.journal()[-3000:]}")
            time.sleep(0.1)
        return time.monotonic() - began

    def install(self, package: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("apt-get", "install", "-y", "--no-install-recommends", "--allow-downgrades",
                        f"/packages/{package}", check=check)  # fmt: skip

    def cut(self) -> None:
        """Kill it as a power cut does: nothing of it gets a word in."""
        leader = self.leader()
        assert leader is not None
        os.kill(leader, signal.SIGKILL)
        self._ended()

    def shut_down(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            self._nspawn.terminate()
        self._ended()

    def close(self) -> None:
        """End it and take away what it left: processes, cgroups, the mount."""
        for started in self._beside:
            started.kill()
            started.wait()
        if self._nspawn is not None:
            with contextlib.suppress(AssertionError):
                self.shut_down()
        for point in cgroups():
            group = point / self.name
            for folder in [*sorted(group.rglob("*/"), reverse=True), group] if group.is_dir() else []:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        if self.root.is_mount():
            subprocess.run(["umount", self.root], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def leader(self) -> int | None:
        """Return the process that is PID 1 in there."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            return None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def _ended(self) -> None:
        if self._nspawn is None:
            return
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            if (leader := self.leader()) is not None:
                os.kill(leader, signal.SIGKILL)  # it would outlive its nspawn
            self._nspawn.kill()
            self._nspawn.wait()
            raise AssertionError("the machine did not shut down within 30 s") from None


class MachineOfImage(Machine):
    """The disk of another machine, booted here."""

    def __init__(self, image: Path, folder: Path) -> None:
        super().__init__("", folder, folder)
        self._image = image

    def mount(self) -> None:
        self.root.mkdir(parents=True)
        subprocess.run(["mount", "-o", "loop", self._image, self.root], check=True)


@contextlib.contextmanager
def booted(made: Machine) -> Iterator[Machine]:
    """Boot a machine; end it."""
    try:
        made.mount()
        made.boot()
        yield made
    finally:
        made.close()


def machine(
    suite: str, folder: Path, packages: Path, arch: str = ""
) -> contextlib.AbstractContextManager[Machine]:
    """Boot a fresh machine."""
    return booted(Machine(suite, folder, packages, arch))
