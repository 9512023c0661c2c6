"""`edge-gateway support-bundle`: what somebody far away needs to understand this gateway, and no secret."""

import asyncio
import contextlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway import control_socket
from gateway.config import ConfigProblems, load
from gateway.config.check import check
from gateway.config.dropin import DROPIN
from gateway.identity import version
from gateway.model import GatewayError
from gateway.redaction import Redaction, secrets_in

_LOGS: Final = Path("/var/log/edge-gateway")
_LINES: Final = "20000"
_MOST_BYTES: Final = 8 * 1024 * 1024
"""Of one part: its end counts."""
_COMMANDS: Final = {
    "journal.txt": (
        "journalctl",
        "--no-pager",
        "-u",
        "edge-gateway",
        "-n",
        _LINES,
        "-o",
        "short-iso-precise",
    ),
    "unit.txt": ("systemctl", "--no-pager", "cat", "edge-gateway"),
    "unit-state.txt": ("systemctl", "--no-pager", "status", "-n", "0", "edge-gateway"),
    "disk.txt": ("df", "-h"),
    "links.txt": ("ip", "-details", "-brief", "link"),
    "package.txt": ("dpkg-query", "-W", "edge-gateway"),
}


def support_bundle(
    out: Path, file: Path, state: Path, environ: Mapping[str, str], logs: Path = _LOGS
) -> list[str]:
    """Write the bundle to a new file, for its owner only; return the names of its parts. Blocks.

    OSError: it cannot be. Root writes it where others may write too: no file and no link that is there is
    followed or overwritten.
    """
    redact = Redaction(_known_secrets(file, state, environ))
    names = []
    stamp = int(time.time())
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle, tarfile.open(fileobj=handle, mode="w:gz") as bundle:
            for name, text in _parts(file, state, environ, logs):
                data = redact(text)[-_MOST_BYTES:].encode("utf-8", "replace")
                entry = tarfile.TarInfo(f"{out.name.removesuffix('.tar.gz')}/{name}")
                entry.size, entry.mtime, entry.mode = len(data), stamp, 0o600
                bundle.addfile(entry, io.BytesIO(data))
                names.append(name)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return names


def _parts(file: Path, state: Path, environ: Mapping[str, str], logs: Path) -> Iterator[tuple[str, str]]:
    yield "about.json", json.dumps(_about(), indent=1)
    yield file.name, _text(file)
    yield "check.txt", "\n".join(check(file, environ).lines)
    yield "dropin.conf", _text(DROPIN)
    yield "status.json", _status(state)
    yield "state.txt", "\n".join(_listing(state))
    for document in sorted((state / "documents").glob("*.yaml")):
        yield f"documents/{document.name}", _text(document)
    for log in sorted(logs.glob("*.log*")):
        yield f"logs/{log.name}", _text(log)
    for name, command in _COMMANDS.items():
        yield name, _output(*command)


def _about() -> dict[str, object]:
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release().get("PRETTY_NAME", "")
        return {
            "version": version(),
            "python": platform.python_version(),
            "system": release,
            "kernel": platform.release(),
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "now": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
    return {"version": version()}


def _known_secrets(file: Path, state: Path, environ: Mapping[str, str]) -> Iterator[str]:
    with contextlib.suppress(ConfigProblems):
        yield from secrets_in(load(file, environ))
    folder = environ.get("CREDENTIALS_DIRECTORY")
    kept = sorted(Path(folder).iterdir()) if folder and os.access(folder, os.R_OK) else []
    kept += sorted((state / "documents" / "secrets").glob("*"))
    for path in (*kept, state / "admin-token"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8").rstrip("\r\n")
            yield from {text, *text.splitlines()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{file}: {error.strerror}\n"


def _status(state: Path) -> str:
    try:
        return json.dumps(asyncio.run(control_socket.ask(state, {"command": "status"}, 10)), indent=1)
    except GatewayError as error:
        return f"{error}\n"


def _listing(state: Path) -> Iterator[str]:
    """Yield mode, size, age and name of each file: never what is in one."""
    now = time.time()
    for folder, folders, files in os.walk(state):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            with contextlib.suppress(OSError):
                seen = path.lstat()
                mode, age_s = seen.st_mode & 0o7777, now - seen.st_mtime
                yield f"{mode:o} {seen.st_size:>12} {age_s:>10.0f}s {path.relative_to(state)}"


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed\n"
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}\n"
    return (done.stdout + done.stderr).decode("utf-8", "replace")
