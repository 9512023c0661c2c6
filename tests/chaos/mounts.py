"""Real file systems for a test, unmounted whatever happens; it skips itself where they cannot be made."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)


@contextmanager
def mounted(where: Path, *arguments: object) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    where.mkdir(parents=True, exist_ok=True)
    done = mount(*arguments, where)
    if done.returncode:
        pytest.skip(f"this machine cannot mount it: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


@contextmanager
def tmpfs(where: Path, size: str) -> Iterator[Path]:
    with mounted(where, "-t", "tmpfs", "-o", f"size={size}", "chaos") as disk:
        yield disk


@contextmanager
def ext4(image: Path, where: Path, size_bytes: int, *options: str) -> Iterator[Path]:
    """Make and mount a file system in a sparse file: it takes of its own disk what is written to it."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, image], check=True, capture_output=True)
    with mounted(where, "-o", "loop", image) as disk:
        yield disk


def fill(disk: Path, until_percent: float) -> Path:
    """Leave the file system filled to so many percent, as df counts."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    total = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
    used = (found.f_blocks - found.f_bfree) * found.f_frsize - (
        filler.stat().st_size if filler.exists() else 0
    )
    with filler.open("ab") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, int(total * until_percent / 100) - used)
    return filler
