"""What has to be on the disk before anything else may rely on it."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Return once a file's content, or which files a folder has, outlasts a power cut. OSError. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
