"""What a disk that refuses the store's folder is told with."""

import errno
from pathlib import Path
from typing import Final

from gateway.store.schema import DiskRefuses

_LET: Final = "sudo edge-gateway systemd-dropin && sudo systemctl restart edge-gateway"


def refused(folder: Path, error: OSError) -> DiskRefuses:
    """Return what to raise where the store's folder cannot be used now. Blocks."""
    how = ""
    if error.errno == errno.EROFS:  # of the disk, or of the unit's sandbox
        if folder.is_dir():
            how = f"; its disk is read-only, or let the service write there: {_LET}"
        else:
            make = f"sudo install -d -o edge-gateway -g edge-gateway -m 700 {folder}"
            how = f"; there is no such folder: mount its disk, or make it: {make} && {_LET}"
    return DiskRefuses(f"the store's folder {folder}: {error.strerror}{how}")
