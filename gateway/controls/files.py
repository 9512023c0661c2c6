"""What may be asked of an upload that takes files."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class RemoteFiles(Protocol):
    """The files at a target that takes files. All raise UploadProblem, with a sentence."""

    def files(self) -> "AsyncGenerator[RemoteFile]":
        """Yield what is there, as it is read: there may be more than memory has room for."""

    async def authenticate(self) -> None:
        """Log in anew."""

    async def check(self) -> None:
        """Return where the target would take a file now."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file at a target."""

    id: str
    name: str
    size: int | None
    """None: the target does not say."""
    etag: str
    """As listed: of files sent in one piece mostly their MD5."""
    stored: bool
    """Its bytes are there; False: it was announced only."""
    modified: str
    """When its bytes were stored, in the target's words; "" where it does not say."""
    metadata: Mapping[str, Any]
    listed: Mapping[str, Any]
    """All that the target says of it."""


@dataclass(frozen=True, slots=True)
class RemoteListing:
    """What a target has, as far as it is shown."""

    files: Sequence[RemoteFile]
    left_out: int
    """Files there beyond those shown."""


@dataclass(frozen=True, slots=True)
class FileState:
    """How one measurement file is with one upload."""

    state: str
    """not_uploaded, updating (being sent), up_to_date, outdated (the target has it as it was before), created
    (the target has it announced, and no bytes of it) or error (it could not be sent; that is tried again)."""
    queued: bool = False
    """It is to be sent."""
    detail: str = ""
    """A sentence: why it is not up to date."""
    attempts: int = 0
    """That failed in a row."""
    sent_bytes: int = 0
    """Of the file being sent."""
    remote_id: str = ""
    uploaded_us: int | None = None
    """When the target was seen to have it."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """Whether a target took files when it was asked last."""

    healthy: bool | None
    """None: it was not asked yet."""
    detail: str = ""
    checked_us: int | None = None
