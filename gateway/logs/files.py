"""Log files of our own: five of 5 MiB, written in batches by a thread; their bytes are counted."""

import contextlib
import datetime
import errno
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

FILE: Final = "edge-gateway.log"
FILES: Final = 5
FILE_BYTES: Final = 5 * 1024 * 1024
_BATCH_BYTES: Final = 64 * 1024
_PENDING_BYTES: Final = 1024 * 1024
BATCH_EVERY_S: Final = 10.0


class JsonLines(logging.Formatter):
    """A JSON object a line: ts (ISO 8601, UTC), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class LogFiles(logging.Handler):
    """Writes records to FILE in `folder`, FILE.1 being the one before it.

    Each 10 s in one write, or sooner: 64 KiB wait, or an error. What waits is bounded (1 MiB); what finds no
    room, or meets a disk that refuses, is counted as `dropped`, and the journal has it.
    """

    def __init__(self, folder: Path, *, every_s: float = BATCH_EVERY_S, file_bytes: int = FILE_BYTES) -> None:
        super().__init__()
        self.folder = folder
        self.bytes_written = 0
        """Since the start."""
        self.dropped = 0
        """Records since the start."""
        self._every_s, self.file_bytes = every_s, file_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._size_bytes = -1
        """Of FILE; -1 until it was looked at."""
        self._due = threading.Event()
        # Not the handler's own lock: logging.shutdown holds that while it waits for `flush`.
        self._swapping = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log files", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except (TypeError, ValueError):
            self.handleError(record)
            return
        if self._pending_bytes + len(line) > _PENDING_BYTES:
            self.dropped += 1
            return
        with self._swapping:
            self._pending.append(line)
            self._pending_bytes += len(line)
        if record.levelno >= logging.ERROR or self._pending_bytes >= _BATCH_BYTES:
            self._due.set()

    def flush(self) -> None:
        """Write what waits. Blocks."""
        with self._writing:
            self._write()

    def close(self) -> None:
        """Write what waits and end the thread. Blocks."""
        self._closed = True
        self._due.set()
        self._thread.join(5)
        self.flush()
        super().close()

    def opened(self) -> list[tuple[str, BinaryIO]]:
        """Write what waits, then open all files, the newest first: no rotation comes between. Blocks."""
        with self._writing:
            self._write()
            return list(self._open_all())

    def _open_all(self) -> Iterator[tuple[str, BinaryIO]]:
        for file in self._names():
            try:
                descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ELOOP):
                    raise
            else:
                yield file.name, os.fdopen(descriptor, "rb")

    def _names(self) -> list[Path]:
        file = self.folder / FILE
        return [file, *(file.with_name(f"{FILE}.{number}") for number in range(1, FILES))]

    def _run(self) -> None:
        while not self._closed:
            if self._due.wait(self._every_s):
                self._due.clear()
            self.flush()

    def _write(self) -> None:
        with self._swapping:
            lines, self._pending, self._pending_bytes = self._pending, [], 0
        if not lines:
            return
        batch = b"".join(lines)
        try:
            self._append(batch)
        except OSError:
            # The disk refuses, which the store reports: a log of it would go the same way.
            self.dropped += len(lines)
            self._size_bytes = -1

    def _append(self, batch: bytes) -> None:
        file = self.folder / FILE
        if self._size_bytes < 0:
            self._size_bytes = file.stat().st_size if file.exists() else 0
        if self._size_bytes and self._size_bytes + len(batch) > self.file_bytes:
            self._rotate()
        with os.fdopen(
            os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb"
        ) as handle:
            handle.write(batch)
        self._size_bytes += len(batch)
        self.bytes_written += len(batch)

    def _rotate(self) -> None:
        names = self._names()
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._size_bytes = 0
