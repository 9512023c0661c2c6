"""Our log files as others may read them: listed, their ends, all of them as a zip; without secrets."""

import contextlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, Final

from gateway.logs.files import FILE, LogFiles

TAIL_BYTES: Final = 1024 * 1024
"""The longest end of a file that is shown at once."""
_PIECE_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(re.escape(FILE) + r"(?:\.[1-9])?")
_STAMP: Final = re.compile(
    rb'^(?:\{"ts": ")?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)[.,](\d{3})(Z?)', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log file; the times are of its first and last record, ISO 8601 in UTC, None where it shows none."""

    name: str
    size: int
    first_timestamp: str | None
    last_timestamp: str | None


class NoLogFile(LookupError):
    """There is no such file; `foreign`: no file of ours could ever have this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.foreign = _NAME.fullmatch(name) is None


class LogArchive:
    """The files that LogFiles writes. Every method blocks and may raise OSError."""

    def __init__(self, files: LogFiles, redact: Callable[[str], str]) -> None:
        self._files, self._redact = files, redact

    def listed(self) -> list[LogFile]:
        """Return the files, the newest first, with what is not written yet written."""
        with contextlib.ExitStack() as stack:
            opened = [(name, stack.enter_context(file)) for name, file in self._files.opened()]
            return [_described(name, file) for name, file in opened]

    def tail(self, name: str, most_lines: int) -> str:
        """Return the last lines of a file, 1 MiB at most. NoLogFile."""
        with self.opened(name) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
        if size > TAIL_BYTES:
            data = data.partition(b"\n")[2]  # not half a line, which may be half a secret
        lines = self._text(data).splitlines(keepends=True)
        return "".join(lines[-most_lines:])

    def opened(self, name: str) -> BinaryIO:
        """Open a file; it stays what it is when the files are rotated. NoLogFile."""
        if _NAME.fullmatch(name) is None:
            raise NoLogFile(name)
        found: BinaryIO | None = None
        for each, file in self._files.opened():
            if each == name:
                found = file
            else:
                file.close()
        if found is None:
            raise NoLogFile(name)
        return found

    def pieces(self, file: BinaryIO) -> Iterator[bytes]:
        """Yield a file as it is now, without secrets, in pieces of whole lines."""
        left, rest = os.fstat(file.fileno()).st_size, b""
        while left > 0 and (data := file.read(min(_PIECE_BYTES, left))):
            left -= len(data)
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                yield self._text(whole + newline).encode()
            elif len(rest) > 4 * _PIECE_BYTES:
                break  # nothing of ours: no record is so long
        if rest:
            yield self._text(rest).encode()

    def zipped(self) -> bytes:
        """Return all files as a zip; of the 25 MiB that they are at most, a tenth is left."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as made:
            for name, file in self._files.opened():
                with file, made.open(name, "w") as entry:
                    for piece in self.pieces(file):
                        entry.write(piece)
        return target.getvalue()

    def _text(self, data: bytes) -> str:
        return self._redact(data.decode("utf-8", "replace"))


def _described(name: str, file: BinaryIO) -> LogFile:
    size = os.fstat(file.fileno()).st_size
    first = _STAMP.search(file.read(64 * 1024))
    file.seek(max(0, size - 64 * 1024))
    stamps = list(_STAMP.finditer(file.read(64 * 1024)))
    return LogFile(name, size, _iso(first), _iso(stamps[-1] if stamps else None))


def _iso(match: "re.Match[bytes] | None") -> str | None:
    if match is None:
        return None
    day, time, millis, zulu = (part.decode() for part in match.groups())
    try:
        at = datetime.fromisoformat(f"{day}T{time}.{millis}")
    except ValueError:
        return None
    at = at.replace(tzinfo=UTC) if zulu else at.astimezone(UTC)  # text has the machine's time
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
