"""How a file gets its place: a draft is written, synced and read again from the disk before it is renamed.

For the child processes. Under a name without a dot before it there is never half a file.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.durable import give_to_owner_of, sync
from gateway.measurements import hdf5
from gateway.measurements.names import DRAFT


@contextmanager
def drafted(folder: Path, name: str) -> Iterator[Path]:
    """Make a draft of our own, which does not stay: the process of a killed gateway may still be at its."""
    descriptor, path = tempfile.mkstemp(DRAFT, f".{name}.", folder)
    draft = Path(path)
    try:
        give_to_owner_of(folder, descriptor)
        os.close(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def settle(draft: Path, written: hdf5.Written) -> None:
    """Return once the draft is on the disk, and reads from there as it was written."""
    sync(draft)
    descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    if hdf5.read_back(draft) != written:
        raise OSError(f"{draft} does not read as it was written: the disk may be failing")


@contextmanager
def rewriting(final: Path) -> Iterator[Any]:
    """Yield a copy of a file, open to be changed, that takes its place afterwards."""
    with hdf5.looking(final) as file:
        if hdf5.TABLE not in file:
            raise hdf5.NotHdf5(f"it is no measurement: it has no table {hdf5.TABLE}")
    before = hdf5.read_back(final)
    with drafted(final.parent, final.stem) as draft:
        shutil.copyfile(final, draft)
        with hdf5.opened(draft) as file:
            yield file
        settle(draft, before)
        draft.replace(final)
    sync(final.parent)
