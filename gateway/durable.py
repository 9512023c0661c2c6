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


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put a file in its place, all of it or nothing, also through a power cut. OSError. Blocks."""
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)  # one left by a power cut
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        give_to_owner_of(path.parent, file.fileno())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync(path.parent)


def give_to_owner_of(folder: Path, file: int | Path) -> None:
    """Let what root makes (`sudo edge-gateway token`) belong to the folder's owner: the service reads it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(file, int))
