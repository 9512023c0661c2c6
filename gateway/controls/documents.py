"""What may be asked of the configuration files that clients upload: sensors, metadata, dataspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.model import GatewayError
from gateway.sensors import SensorLibrary


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a document, and where: line and column from 1."""

    field: str
    """The names down to it, as in "sensors.3.volt_min"; "" for the whole."""
    line: int
    column: int
    message: str


class DocumentRefused(GatewayError):
    """A document cannot be used, and all the reasons. `unreadable`: it is not even YAML."""

    def __init__(self, name: str, faults: Sequence[Fault], *, unreadable: bool = False) -> None:
        first, rest = faults[0], len(faults) - 1
        more = f" (and {rest} more)" if rest else ""
        super().__init__(f"{name}:{first.line}:{first.column}: {first.message}{more}")
        self.faults, self.unreadable = tuple(faults), unreadable


@dataclass(frozen=True, slots=True)
class DocumentHeader:
    """The `info` block of a document, as ICOapi's clients show it."""

    schema_name: str
    schema_version: str
    config_name: str
    config_date: str
    """ISO 8601."""
    config_version: str


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """An earlier version of a document, kept when another took its place."""

    filename: str
    timestamp: str
    """When it was replaced, ISO 8601 in UTC."""
    info_header: DocumentHeader | None
    """None: it cannot be read."""


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document as it is kept, in ICOapi's words."""

    endpoint: str
    """Its name in `/v1/config`: "sensors", "metadata" or "dataspace"."""
    name: str
    """A title."""
    filename: str
    description: str
    timestamp: str | None
    """When it was stored, ISO 8601 in UTC; None: nothing was stored, the built-in one is in force."""
    info_header: DocumentHeader | None
    problems: Sequence[Fault]
    """Why it is not used, where it is broken on the disk."""
    backup: Sequence[DocumentVersion]
    """Newest first."""


@dataclass(frozen=True, slots=True)
class DocumentStored:
    """What came of storing a document."""

    info_header: DocumentHeader
    backup: str | None
    """The file name that the version before it has now; None: it was the same already."""
    changed: Sequence[str]
    """What was restarted because of it, such as "upload dataspace"."""
    warnings: Sequence[str]


class Documents(Protocol):
    """sensors.yaml, metadata.yaml and dataspace.yaml; what has no `async` blocks, but for `sensors`."""

    def listed(self) -> Sequence[DocumentInfo]: ...

    def text(self, name: str) -> bytes:
        """Return the YAML of a document; no secret is in it. KeyError: there is no such document.

        DocumentRefused: somebody put there what may hold one.
        """

    async def store(self, name: str, data: bytes) -> DocumentStored:
        """Put YAML in a document's place. DocumentRefused: it will not do. KeyError: no such document."""

    async def restore(self, name: str, filename: str) -> DocumentStored:
        """Put an earlier version in its place. KeyError: there is none. DocumentRefused: as for `store`."""

    def sensors(self) -> SensorLibrary:
        """Return the sensors in force. DocumentRefused: what was stored is broken."""
