"""A file as it lies on the gateway's own disk. Blocking."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

_HASH_BYTES = 1 << 20


def opened(path: Path) -> BinaryIO:
    """Open a file, not what a link leads to."""
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb", buffering=0)  # noqa: PTH123


def look_of(status: os.stat_result) -> str:
    """Return what tells a file from one that was changed since."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def hashed(content: BinaryIO) -> tuple[str, int]:
    """Return the MD5 of a file, and its size."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    while piece := content.read(_HASH_BYTES):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size
