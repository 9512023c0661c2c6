"""The documents of this gateway: stored, restored, listed, and what they mean to the rest of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from gateway.clock import Clock
from gateway.config import UploadConfig
from gateway.controls.documents import (
    DocumentHeader,
    DocumentInfo,
    DocumentRefused,
    DocumentStored,
    DocumentVersion,
    Fault,
)
from gateway.documents import dataspace, metadata, sensors
from gateway.documents.dataspace import Dataspace
from gateway.documents.kinds import KINDS, Kind
from gateway.documents.reading import Header, Source, parse
from gateway.documents.secret_files import REFERENCE, SecretFiles
from gateway.documents.shelf import Shelf
from gateway.model import GatewayError
from gateway.sensors import SensorLibrary

_log = logging.getLogger(__name__)
_FOREIGN: Final = "it was not written by the gateway and may hold a password, so it is not shown; upload it"


class Applied(NamedTuple):
    """What a change of a document came to: what was restarted, and sentences on what is not as it seems."""

    changed: Sequence[str] = ()
    warnings: Sequence[str] = ()


_Given: TypeAlias = Callable[[], tuple[bytes, list[str]]]
"""Gives the bytes of a document, and what of an upload is not among them."""


class DocumentsProblem(GatewayError):
    """The disk refuses."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A document as it is on the disk, or the built-in one."""

    header: DocumentHeader | None
    content: Any
    """A SensorLibrary, a Dataspace, or None."""
    refused: DocumentRefused | None = None


class Documents:
    """sensors.yaml, metadata.yaml and dataspace.yaml, in the state directory (controls.Documents)."""

    def __init__(self, state: Path, clock: Clock, applied: Callable[[], Awaitable[Applied]]) -> None:
        self.folder = state / "documents"
        self._clock = clock
        self._shelf, self._secrets = Shelf(self.folder), SecretFiles(self.folder)
        self._kept: dict[str, _Kept] = {}
        self._headers: dict[str, DocumentHeader | None] = {}
        """Of earlier versions, which never change, by file name."""
        self._storing = asyncio.Lock()
        self._applied = applied

    def open(self) -> None:
        """Read all that is stored. Blocks. A document that is broken is told, and is not used."""
        try:
            self._shelf.open()
            self._secrets.open()
        except OSError as error:
            _log.error("%s cannot be made: %s", self.folder, error.strerror)
        for kind in KINDS.values():
            self._kept[kind.name] = kept = self._load(kind)
            if kept.refused is not None:
                _log.error("%s is not used: %s", kind.filename, kept.refused)
        self._forget_passwords()  # one that a power cut left, whose document was not stored

    # -- what they mean ------------------------------------------------------------------------

    def sensors(self) -> SensorLibrary:
        kept = self._kept["sensors"]
        if kept.refused is not None:
            raise kept.refused
        assert isinstance(kept.content, SensorLibrary)
        return kept.content

    def uploads(self) -> Mapping[str, UploadConfig]:
        """Return the uploads that documents make: the dataspace, where one is enabled."""
        content = self._kept[dataspace.UPLOAD].content
        upload = content.upload() if isinstance(content, Dataspace) else None
        return {} if upload is None else {upload.id: upload}

    def waiting(self) -> list[str]:
        """Return the uploads that a document may mean which cannot be used now: nothing of theirs may go."""
        return [dataspace.UPLOAD] if self._kept[dataspace.UPLOAD].refused is not None else []

    def passwords(self) -> list[str]:
        """Return what must not be shown anywhere."""
        content = self._kept[dataspace.UPLOAD].content
        return [content.password.text] if isinstance(content, Dataspace) and content.password else []

    @property
    def problems(self) -> list[str]:
        """What is broken, a sentence each."""
        return [f"{kept.refused}; it is not used" for kept in self._kept.values() if kept.refused is not None]

    # -- what the API asks (controls.Documents) ------------------------------------------------

    def listed(self) -> Sequence[DocumentInfo]:
        try:
            return [self._info(kind) for kind in KINDS.values()]
        except OSError as error:
            raise _refusal(error, "they cannot be read") from error

    def text(self, name: str) -> bytes:
        kind = KINDS[name]
        try:
            data = self._shelf.read(name)
        except OSError as error:
            raise _refusal(error, "it cannot be read") from error
        if data is not None and name == dataspace.UPLOAD and not dataspace.is_ours(data):
            raise DocumentRefused(kind.filename, [Fault("", 1, 1, _FOREIGN)])
        return kind.default() if data is None else data

    async def store(self, name: str, data: bytes) -> DocumentStored:
        kind = KINDS[name]
        async with self._storing:
            return await self._put(kind, lambda: self._accepted(kind, data))

    async def restore(self, name: str, filename: str) -> DocumentStored:
        kind = KINDS[name]
        async with self._storing:
            return await self._put(kind, lambda: (self._shelf.read_version(name, filename), []), filename)

    # -- storing -------------------------------------------------------------------------------

    async def _put(self, kind: Kind, read: _Given, name: str = "") -> DocumentStored:
        header, backup, unused = await asyncio.to_thread(self._write, kind, read, name or kind.filename)
        changed, warnings = await self._applied()
        return DocumentStored(header, backup, changed, [*unused, *warnings])

    def _write(self, kind: Kind, read: _Given, name: str) -> tuple[DocumentHeader, str | None, list[str]]:
        """Judge the bytes that `read` gives as they will lie on the disk, then put them there."""
        try:
            data, warnings = read()
            source = parse(data, name)
            header, content = self._read(kind, source)
            before = self._shelf.read(kind.name)
            was = self._kept[kind.name].header
            now = datetime.fromtimestamp(self._clock.wall_us() // 1_000_000, UTC)
            backup = self._shelf.put(kind.name, data, kind.default() if before is None else before, now)
            if backup is not None:
                self._headers[backup] = was
                self._kept[kind.name] = _Kept(header.shown(), content)
        except OSError as error:
            raise _refusal(error, "nothing was changed") from error
        finally:
            if kind.name == dataspace.UPLOAD:
                self._forget_passwords()
        return header.shown(), backup, warnings + source.warnings

    def _accepted(self, kind: Kind, data: bytes) -> tuple[bytes, list[str]]:
        """Return what of an upload is to be kept, and warnings; a password goes into a file of its own."""
        if kind.name != dataspace.UPLOAD:
            return data, []
        source = parse(data, kind.filename)
        whole, given = dataspace.given_in(source)
        now = self._kept[kind.name].content
        reference = ""
        if given is not None and given.text:
            reference = self._reference(now, whole.connection, given.text) or self._secrets.keep(given.text)
        elif given is not None:
            reference = given.reference
            if self._reference(now, whole.connection, None) != reference:
                source.add(
                    given.place,
                    '"password" was given for another address or user, and goes nowhere else; write it anew',
                )
                source.check()
        return dataspace.written(whole, reference), source.warnings

    def _reference(self, now: Any, wanted: dataspace.Connection, text: str | None) -> str:
        """Return the reference of the password in use where it is for the same account, and the same."""
        if not isinstance(now, Dataspace) or now.password is None:
            return ""
        if now.connection.account != wanted.account or text not in (None, now.password.text):
            return ""
        return now.password.reference.removeprefix("file ")

    def _forget_passwords(self) -> None:
        """Remove passwords that no version names any more. What fails now is done the next time."""
        try:
            datas = [self._shelf.read(dataspace.UPLOAD) or b""]
            datas += [
                self._shelf.read_version(dataspace.UPLOAD, each.filename)
                for each in self._shelf.versions(dataspace.UPLOAD)
            ]
            used = {
                found[0] for data in datas for found in REFERENCE.finditer(data.decode("utf-8", "replace"))
            }
            self._secrets.forget(used)
        except OSError as error:
            _log.warning("passwords that are not used any more could not be removed: %s", error)

    # -- reading -------------------------------------------------------------------------------

    def _load(self, kind: Kind) -> _Kept:
        try:
            data = self._shelf.read(kind.name)
            header, content = self._read(kind, parse(kind.default() if data is None else data, kind.filename))
        except DocumentRefused as refused:
            return _Kept(None, None, refused)
        except OSError as error:
            fault = Fault("", 1, 1, f"it cannot be read: {error.strerror}")
            return _Kept(None, None, DocumentRefused(kind.filename, [fault]))
        return _Kept(header.shown(), content)

    def _read(self, kind: Kind, source: Source) -> tuple[Header, Any]:
        match kind.name:
            case "sensors":
                return sensors.read(source)
            case "metadata":
                return metadata.read(source)
            case _:
                return dataspace.read(source, self.folder)

    def _info(self, kind: Kind) -> DocumentInfo:
        kept = self._kept[kind.name]
        stored = self._shelf.stored_at(kind.name)
        return DocumentInfo(
            endpoint=kind.name,
            name=kind.title,
            filename=kind.filename,
            description=kind.description,
            timestamp=None if stored is None else _iso(stored),
            info_header=kept.header,
            problems=kept.refused.faults if kept.refused is not None else (),
            backup=list(self._backups(kind)),
        )

    def _backups(self, kind: Kind) -> Iterator[DocumentVersion]:
        for version in self._shelf.versions(kind.name):
            if version.filename not in self._headers:
                self._headers[version.filename] = self._header(kind, version.filename)
            yield DocumentVersion(version.filename, _iso(version.at), self._headers[version.filename])

    def _header(self, kind: Kind, filename: str) -> DocumentHeader | None:
        try:
            header = parse(self._shelf.read_version(kind.name, filename), filename).header()
        except (DocumentRefused, KeyError):
            return None
        return None if header is None else header.shown()


def _refusal(error: OSError, so: str) -> DocumentsProblem:
    return DocumentsProblem(f"{error.filename or 'the disk'}: {error.strerror}; {so}")


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
