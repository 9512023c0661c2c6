"""Builds the image from a base made here, and runs it with the host's network, in a store of its own.

The tools are Debian's: buildah, podman, runc. A base is a minimal root of Debian 12 by mmdebstrap, kept as a
tar in $MACHINE_ROOTS; what the Dockerfile fetches comes from this machine's mirror and pip's registry.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.machine.nspawn import REPOSITORY, ROOTS, mirror

TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "dpkg-parsechangelog")
BASE = "localhost/debian:12-slim"
STATE = "/var/lib/edge-gateway"
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
"""


def why_not() -> str:
    """Return why no container can be made here, or ""."""
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(lacking)} is not installed: apt-get install buildah podman runc dpkg-dev"
    return ""


class Containers:
    """A store of images, volumes and containers, apart from the machine's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(storage)
        (folder / "containers.conf").write_text(
            f'{_CONTAINERS}\nvolume_path = "{folder}/volumes"\ntmp_dir = "{folder}/tmp"\n'
        )
        self._environ = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 60, **keywords: Any
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, env=self._environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout_s,
            **keywords,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)}: {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}"
            )
        return done

    def build(self, image: str) -> None:
        """Build it as `make image` does, from a base made here."""
        if self.run("podman", "image", "exists", BASE, check=False).returncode:
            self.run("podman", "import", "--quiet", str(_base()), BASE)
        certificates = os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt")
        (self.folder / "pip.conf").write_text(f"[global]\ncert = /etc/host.crt\n{_registry()}")
        more = (
            f"--isolation chroot --network host --volume {certificates}:/etc/host.crt:ro "
            f"--volume {self.folder}/pip.conf:/etc/pip.conf:ro --build-arg BASE={BASE}"
        )
        self.run("make", "image", f"IMAGE={image}", f"IMAGE_ARGS={more}", timeout_s=600)

    def inspect(self, image: str) -> Any:
        return json.loads(self.run("podman", "image", "inspect", image).stdout)[0]

    @contextlib.contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Yield the image's files."""
        yield Path(self.run("podman", "image", "mount", image).stdout.strip())
        self.run("podman", "image", "unmount", image)

    def close(self) -> None:
        for command in (
            "podman rm --all --force --time 1",
            "podman volume rm --all --force",
            "podman rmi --all --force",
        ):
            self.run(*command.split(), check=False, timeout_s=120)
        shutil.rmtree(self.folder, ignore_errors=True)


class Container:
    """One container with the host's network, run as docs/appliance.md says: read-only but for its state."""

    ARGUMENTS = (
        "--network=host", "--read-only", "--cap-drop=all",
        "--security-opt=no-new-privileges", "--no-healthcheck",  # podman's timer for it is systemd's
    )  # fmt: skip

    def __init__(self, containers: Containers, image: str, name: str, port: int) -> None:
        self.containers, self.image, self.name, self.port = containers, image, name, port
        self._beside: list[subprocess.Popen[str]] = []

    def run(self, *arguments: str, command: tuple[str, ...] = ()) -> None:
        listen = f"EDGE_GATEWAY__HTTP__LISTEN=127.0.0.1:{self.port}"
        self.containers.run(
            "podman", "run", "--detach", f"--name={self.name}", *self.ARGUMENTS, f"--env={listen}",
            f"--volume={self.name}:{STATE}", *arguments, self.image, *command,
        )  # fmt: skip

    def podman(self, verb: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.containers.run("podman", verb, *arguments, self.name, check=check)

    def inside(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.containers.run("podman", "exec", self.name, *command, check=check)

    def health(self) -> int:
        """Run what the image's HEALTHCHECK says."""
        test = self.containers.inspect(self.image)["Healthcheck"]["Test"]
        assert test[0] == "CMD"
        return self.inside(*test[1:], check=False).returncode

    def log(self) -> str:
        done = self.podman("logs", check=False)
        return done.stdout + done.stderr

    def stop(self) -> float:
        """SIGTERM it; return how long it took. Its exit code must be 0: it was not killed."""
        began = time.monotonic()
        self.podman("stop", "--time=30")
        took_s = time.monotonic() - began
        assert self.podman("inspect", "--format={{.State.ExitCode}}").stdout.strip() == "0"
        return took_s

    def until_healthy(self, within_s: float = 15) -> None:
        until = time.monotonic() + within_s
        while self.health():
            assert time.monotonic() < until, self.log()
            time.sleep(0.2)

    def token(self) -> str:
        return self.inside("cat", f"{STATE}/admin-token").stdout.strip()

    def get(self, path: str) -> Any:
        command = (sys.executable, "-m", "tests.machine.client", "get", self.token(), path)
        environ = {**os.environ, "GATEWAY": f"https://127.0.0.1:{self.port}", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            command, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    def beside(self, *command: str) -> None:
        """Start a command of this machine; it ends with the container."""
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._beside.append(subprocess.Popen(command, text=True, env=environ, cwd=REPOSITORY, **quiet))

    def close(self) -> None:
        for started in self._beside:
            started.kill()
            started.wait()
        self.podman("rm", "--force", "--time=1", check=False)
        self.containers.run("podman", "volume", "rm", "--force", self.name, check=False)


def _base() -> Path:
    tar = ROOTS / "bookworm-image.tar"
    if not tar.exists():
        ROOTS.mkdir(parents=True, exist_ok=True)
        draft = ROOTS / ".bookworm-image.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(draft)]
        subprocess.run([*command, *([at] if (at := mirror()) else [])], check=True)
        draft.replace(tar)
    return tar


def _registry() -> str:
    """Return pip's registry as this machine names it, where it is another than pip's own."""
    command = (sys.executable, "-m", "pip", "config", "get", "global.index-url")
    found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    url = os.environ.get("PIP_INDEX_URL") or found
    return f"index-url = {url}\n" if url else ""
