"""What the API needs of the rest of the daemon; the daemon implements it, structurally."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gateway.api.tokens import Tokens
from gateway.clock import Clock
from gateway.controls.certificates import Certificates
from gateway.controls.documents import Documents
from gateway.controls.files import FileState, Reachable, RemoteListing
from gateway.logs import Logs
from gateway.measurements import Catalogue, Measurements
from gateway.model import BatchListener, Quarantined, RunRecord
from gateway.store import Store
from gateway.supervise import Health

C = TypeVar("C")


class DeviceView(Protocol):
    """A device and its live session."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str:
        """Its protocol: the key in the YAML."""

    @property
    def url(self) -> str:
        """Where it is, without secrets; "" where it comes to us."""

    @property
    def insecure(self) -> str:
        """A sentence where the session is not secured, or ""."""

    @property
    def health(self) -> Health: ...
    @property
    def tags(self) -> Mapping[str, int]:
        """Tag to series."""

    @property
    def last_heard_us(self) -> int | None: ...
    @property
    def hole(self) -> tuple[int, str] | None:
        """Since when nothing is heard (wall, microseconds) and why; no gap record yet."""

    def control(self, contract: type[C]) -> C | None:
        """Return what the live session offers under this contract of gateway.controls, if anything now."""

    async def poll(self) -> tuple[int, "asyncio.Future[RunRecord]"]:
        """Ask for a poll, joining one that is pending or running. NotPollable where that cannot be."""


class FilesStatusView(Protocol):
    """Numbers of the files of an upload."""

    waiting: int
    failing: int


class FilesView(Protocol):
    """The measurement files of one upload."""

    @property
    def status(self) -> FilesStatusView: ...
    @property
    def reachable(self) -> Reachable: ...

    async def states(self) -> Mapping[str, FileState]:
        """Return how files are that it has, had or is to get, by name."""

    async def send(self, name: str, replace: str, patience_s: float) -> FileState:
        """Have a file sent now, over the one with the id `replace`; return how it is then."""

    async def listed(self, most: int) -> RemoteListing:
        """List what the target has, and show at most so many. UploadProblem."""

    async def authenticate(self) -> None:
        """Log in anew. UploadProblem."""


class UploadView(Protocol):
    """An upload as it runs."""

    @property
    def kind(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def insecure(self) -> str: ...
    @property
    def manage_url(self) -> str: ...
    @property
    def health(self) -> Health: ...
    @property
    def files(self) -> FilesView | None:
        """None: it takes no files."""

    def status(self) -> object:
        """Return backlog, lag, lanes and counters as a dataclass or mapping that JSON carries."""

    async def quarantine(self, *, before_id: int | None, limit: int) -> Sequence[Quarantined]:
        """List what was refused, newest first."""

    async def replay(self, ids: Sequence[int] | None) -> int:
        """Send refused samples again (None: all); returns how many."""

    async def discard(self, ids: Sequence[int] | None) -> int:
        """Forget refused samples (None: all); returns how many."""


@dataclass(frozen=True, slots=True)
class ConfigInfo:
    """The configuration as it runs."""

    file: str
    loaded_us: int
    warnings: Sequence[str] = ()
    problems: Sequence[str] = ()
    """Of an edit that could not be taken: `file:line:column: sentence` each."""
    projected_bytes_per_day: int | None = None
    """What it writes to the flash at most, as far as that is known before it runs."""


@dataclass(frozen=True, slots=True)
class LogFilesInfo:
    """The gateway's own log files, beside the journal; numbers since the start."""

    folder: str
    bytes_written: int
    """They wear the flash too."""
    dropped: int
    """Records that found no room in memory, or met a disk that refuses."""


class GatewayView(Protocol):
    """The daemon as the API sees it."""

    @property
    def id(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def started_ns(self) -> int:
        """Monotonic time of the start."""

    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> Store: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def devices(self) -> Mapping[str, DeviceView]: ...
    @property
    def uploads(self) -> Mapping[str, UploadView]: ...

    @property
    def files(self) -> Catalogue: ...

    @property
    def measurements(self) -> Measurements: ...

    @property
    def certificates(self) -> Certificates: ...
    @property
    def documents(self) -> Documents: ...
    @property
    def logs(self) -> Logs | None: ...

    async def reconnect(self, device: str) -> None:
        """End the session of a device, where there is one, and begin a new one.

        Returns once its health tells how that went.
        """

    def config(self) -> ConfigInfo: ...
    def compat(self) -> Mapping[str, Health]:
        """How the listeners of http.compat are, those that are configured."""

    def log_files(self) -> LogFilesInfo | None: ...

    def subscribe(self, listener: BatchListener) -> AbstractContextManager[None]:
        """Call the listener with every batch at intake, before COMMIT, while entered."""
