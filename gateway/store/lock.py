"""`store.lock`: who has the store's folder, and what must be known of the store where its hot file is lost.

    boot id 16s | hot files set aside so far u32

Its time of change says when the store was made (recovery.py).
"""

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

from gateway.store.schema import StoreProblem, refused

_CONTENT = struct.Struct("<16sI")
_PASSING = frozenset(
    {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)
"""What may clear without anybody changing the configuration."""


class StoreLock:
    """Used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "store.lock"
        self._fd: int | None = None

    def take(self) -> None:
        """Take the folder for this process; raise StoreProblem where another has it, DiskRefuses."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in _PASSING:
                raise refused(self._folder, error) from error
            raise StoreProblem(
                f"the store's folder {self._folder} cannot be used: {error.strerror}; check that it "
                f"exists and belongs to the user that edge-gateway runs as"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise StoreProblem(
                f"the store in {self._folder} is in use by another edge-gateway: stop that one first, or "
                f"give this one another --state folder"
            ) from error

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def boot(self) -> bytes:
        """Return the boot in which the hot file was last opened. After a power cut that is another one."""
        return self._content()[0]

    def set_aside(self) -> int:
        """Return how many hot files were set aside, as far as this file knows."""
        return self._content()[1]

    def note_boot(self, boot: bytes) -> None:
        """Where it cannot be written, shared memory counts for less, were the process killed."""
        if self.boot() != boot:
            self._write(boot, self.set_aside())

    def note_set_aside(self, number: int) -> None:
        """Where it cannot be written, the files that are there tell the number."""
        self._write(self.boot(), number)

    def _content(self) -> tuple[bytes, int]:
        raw = os.pread(self._fd, _CONTENT.size, 0) if self._fd is not None else b""
        boot, number = _CONTENT.unpack(raw.ljust(_CONTENT.size, b"\0"))
        return boot, number

    def _write(self, boot: bytes, number: int) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            made_ns = os.fstat(self._fd).st_mtime_ns
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, _CONTENT.pack(boot, number), 0)
                os.utime(fd, ns=(made_ns, made_ns))
                os.fsync(fd)
            finally:
                os.close(fd)
