"""Real file systems for a test, unmounted whatever happens; it skips itself where they cannot be made."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

_UNMOUNT = """
    for n in 1 2 3 4 5 6 7 8 9 10; do umount "$0" 2>/dev/null && exit; sleep 0.3; done
    umount -l "$0"
"""
# Lazily only as a last resort: the next mount of an image gets the file system that is still in use,
# read-only as an error has left it (Linux 6.18: emergency_ro), and a store that is opened there waits
# for ever.


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
        subprocess.run(["sh", "-c", _UNMOUNT, where], check=True)


@contextmanager
def tmpfs(where: Path, size: str) -> Iterator[Path]:
    with mounted(where, "-t", "tmpfs", "-o", f"size={size}", "chaos") as disk:
        yield disk


@contextmanager
def ext4(image: Path, where: Path, size_bytes: int, *options: str) -> Iterator[Path]:
    """Make and mount a file system in a file."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
        subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-b", "4096", *options, image], check=True, capture_output=True
        )
        os.posix_fallocate(file.fileno(), 0, size_bytes)  # mkfs leaves holes
    with mounted(where, "-o", "loop", image) as disk:
        # The loop device takes a write that was cut short for one that succeeded: none is longer than a page.
        (device(disk) / "queue" / "max_sectors_kb").write_text("4")
        yield disk


def device(disk: Path) -> Path:
    """Return the block device of a file system, in /sys."""
    number = disk.stat().st_dev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()


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


def fail_new_blocks(image: Path, disk: Path) -> Path:
    """Make the writes to all blocks that are free now fail with EIO, until the file returned is removed.

    The image gives their bytes back to the file system that it lies on, and that one is filled.
    """
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    run(["fsfreeze", "-f", disk])  # what the image says of its blocks is true then
    try:
        said = run(["dumpe2fs", image]).stdout
        size = int(re.search(r"^Block size: +(\d+)", said, re.M)[1])  # type: ignore[index]
        for group in re.findall(r"^  Free blocks: (.+)$", said, re.M):
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", group):
                length = (int(last or first) - int(first) + 1) * size
                run(["fallocate", "-p", "-o", str(int(first) * size), "-l", str(length), image])
    finally:
        run(["fsfreeze", "-u", disk])
    filler = image.with_name("filler")
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler
