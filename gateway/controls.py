"""Typed contracts of what may be asked of a live session; the API looks them up by type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gateway.model import GatewayError, Receipt, Value


class NotPollable(GatewayError):
    """The device cannot be polled now; the API answers 409."""


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of an address space."""

    id: str
    """What the YAML takes to name it."""
    name: str
    kind: str
    """"object" (a folder) or "variable"."""
    type: str = ""
    access: str = ""
    """Of "r", "w", "rw" or "" where it is not a variable."""
    value: Value = None
    has_children: bool = False


@dataclass(frozen=True, slots=True)
class NodePage:
    """Children of a node; `next` continues, None at the end."""

    nodes: Sequence[Node]
    next: str | None = None


@runtime_checkable
class Browse(Protocol):
    """Walk the address space of a device."""

    async def browse(self, node: str | None, limit: int, cursor: str | None) -> NodePage:
        """List the children of `node` (None: the root), `limit` at a time. KeyError: no such node."""


@dataclass(slots=True)
class Channel:
    """How the live session with a device is secured, as far as that is known now."""

    security: str
    """"Basic256Sha256/SignAndEncrypt", "none"..."""
    insecure: str = ""
    """A sentence saying what is insecure about it, or ""."""
    thumbprint: str = ""
    """Of the device's certificate; "" for none."""
    clock_offset_us: int | None = None
    """What the device's clock is ahead of ours."""
    warnings: tuple[str, ...] = ()
    """Sentences: a certificate that expires, a clock that is wrong."""


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """A certificate in one of the folders of the gateway."""

    place: str
    """"own", "trusted", "issuers", "trusted_expired" or "rejected"."""
    thumbprint: str
    """SHA-1 in hex, as OPC UA tools show it."""
    sha256: str
    subject: str
    issuer: str
    application_uri: str
    valid_from_us: int
    valid_until_us: int
    device: str
    """Which device showed it, where it was rejected; else ""."""
    file: str


class Certificates(Protocol):
    """Whom the gateway trusts. Blocking: files."""

    def own(self) -> bytes | None:
        """Return the gateway's application certificate, DER; None where it was never needed."""

    def entries(self) -> Sequence[CertificateEntry]:
        """List all certificates, the gateway's own first."""

    def trust(self, name: str, *, expired: bool = False) -> object:
        """Trust a rejected one, by thumbprint or device. KeyError: there is none; ValueError: several."""

    def distrust(self, name: str) -> int:
        """Remove one by its thumbprint; return how many files went."""


@dataclass(frozen=True, slots=True)
class TagAbout:
    """What the device says of a tag beside its values; all of raw values, before any scaling."""

    type: str = ""
    format: str = ""
    """"json" where structures are decoded to JSON text."""
    unit: str = ""
    range: tuple[float, float] | None = None
    """Low and high of normal operation."""
    instrument_range: tuple[float, float] | None = None
    """Low and high of what the instrument can measure."""
    enum: Mapping[str, str] = field(default_factory=dict)
    """Texts of the integers that a value may be."""


@dataclass(frozen=True, slots=True)
class TagState:
    """How one tag is in the live session."""

    way: str
    """"subscribed", "polled" (read cyclically) or "bad" (it gives no values)."""
    address: str
    """Where the device has it, as the YAML would name it."""
    detail: str = ""
    """Why it is bad, or polled though it should be subscribed."""
    alive: bool = False
    """A value of it came in this session."""
    about: TagAbout | None = None
    """What the device says of it, where it was asked."""


@runtime_checkable
class TagStates(Protocol):
    """Say how each tag is in the live session."""

    def tag_states(self) -> Mapping[str, TagState]:
        """Return the state of every tag, by its name."""


@dataclass(frozen=True, slots=True)
class PushedSample:
    """A sample as a client sent it; `ts` None means: now. `flags` of Flag, 0 for the client's own time."""

    tag: str
    value: Value
    ts: int | None = None
    status: int = 0
    flags: int = 0


@runtime_checkable
class Push(Protocol):
    """Take samples from a client."""

    async def push(self, samples: Sequence[PushedSample]) -> Receipt:
        """Store them; returns after COMMIT. TimeoutError: no room or no commit in 10 s, try again.

        ValueError with a sentence: one of them is refused, and then nothing is stored.
        """

    def stamp(self) -> tuple[int, int]:
        """Return our own (ts, flags), for samples that are of one moment and brought no time."""


@runtime_checkable
class RemoteFiles(Protocol):
    """The files at a target that takes files."""

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """List what is there."""

    async def authenticate(self) -> None:
        """Log in anew."""

    async def healthy(self) -> bool:
        """Ask the target whether it would take a file now."""

    async def replace(self, remote_id: str, path: Path) -> None:
        """Store the file over a remote one."""
