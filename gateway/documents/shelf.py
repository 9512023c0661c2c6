"""Where documents and their earlier versions lie: NAME.yaml, and backup/NAME__20261121T181759Z.yaml."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.config.yaml_source import MAX_BYTES
from gateway.durable import write

KEPT: Final = 50
"""Earlier versions of each document; the oldest goes."""
BACKUP: Final = "backup"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_VERSION: Final = re.compile(r"([a-z]+)__([0-9]{8}T[0-9]{6}Z)(?:_([0-9]{1,6}))?\.yaml")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """An earlier version; they sort by age, the oldest first."""

    at: datetime
    number: int
    """Of those of one second."""
    filename: str


class Shelf:
    """The files of all documents. Every method blocks and may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        (self._folder / BACKUP).mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        """Return a document, at most a byte more of it than is taken; None: it was never stored."""
        try:
            return _read(self._file(name))
        except FileNotFoundError:
            return None

    def stored_at(self, name: str) -> datetime | None:
        with contextlib.suppress(FileNotFoundError):
            return datetime.fromtimestamp(int(self._file(name).stat().st_mtime), UTC)
        return None

    def versions(self, name: str) -> list[Version]:
        """Return the earlier versions of a document, the newest first."""
        return sorted(self._versions(name), reverse=True)

    def read_version(self, name: str, filename: str) -> bytes:
        """Return an earlier version. KeyError: there is none of this name."""
        if all(each.filename != filename for each in self.versions(name)):
            raise KeyError(filename)
        return _read(self._folder / BACKUP / filename)

    def put(self, name: str, data: bytes, before: bytes, now: datetime) -> str | None:
        """Store a document, and what it replaces (`before`) as a version; return the version's file name.

        None: it is the same already. At no instant, power cuts included, is there none.
        """
        if data == self.read(name):
            return None
        versions = self.versions(name)
        filename = _next(name, now, versions)
        write(self._folder / BACKUP / filename, before)
        write(self._file(name), data)
        for old in versions[KEPT - 1 :]:
            (self._folder / BACKUP / old.filename).unlink(missing_ok=True)
        return filename

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.yaml"

    def _versions(self, name: str) -> Iterator[Version]:
        with contextlib.suppress(FileNotFoundError):
            for file in (self._folder / BACKUP).iterdir():
                match = _VERSION.fullmatch(file.name)
                if match is not None and match[1] == name:
                    with contextlib.suppress(ValueError):
                        at = datetime.strptime(match[2], _STAMP).replace(tzinfo=UTC)
                        yield Version(at, int(match[3] or 0), file.name)


def _next(name: str, now: datetime, versions: list[Version]) -> str:
    """Return the file name of the version to come: it sorts after all others, whatever the clock did."""
    newest = versions[0] if versions else None
    now = now.replace(microsecond=0)
    if newest is None or newest.at < now:
        return f"{name}__{now.strftime(_STAMP)}.yaml"
    return f"{name}__{newest.at.strftime(_STAMP)}_{newest.number + 1}.yaml"


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)
