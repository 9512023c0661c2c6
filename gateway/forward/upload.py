"""What the lanes, the quarantine and the files of one upload need of it, and the files of the gateway."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.forward.gate import Gate
from gateway.forward.status import Counters
from gateway.model import Encoding, Outlet, Refusal, Unit, UploadProblem
from gateway.store import Store
from gateway.store.outbox import UnitRow


class Upload(Protocol):
    """One upload while it runs."""

    upload: str
    gateway_id: str
    store: Store
    clock: Clock
    gate: Gate
    """Closed while the target asked to be left alone."""
    counters: Counters

    @property
    def encoding(self) -> Encoding:
        """What new units get."""

    @property
    def origin(self) -> str:
        """Gateway, store and upload: the beginning of every key."""

    def key(self, row: UnitRow) -> str:
        """Return the key of a unit."""

    async def send(self, unit: Unit) -> Sequence[Refusal]:
        """Hand a unit to the target. UploadProblem: it is not open now, or it says so."""

    def failed(self, problem: UploadProblem) -> None:
        """Take note of a failure of a lane."""

    def accepted(self, unit: Unit, refused: Sequence[Refusal], stored_bytes: int) -> None:
        """Take note of a unit that the target has taken."""


class FileSource(Protocol):
    """The measurement files of this gateway."""

    def recorded(self) -> Sequence[str]:
        """Return the names of files that measurements have written and verified."""

    def path(self, name: str) -> Path:
        """Return where a file is. ValueError: it is no name of a file."""

    async def about(self, name: str) -> Mapping[str, Any]:
        """Return what a target may list a file with. GatewayError: it cannot be read."""

    def listen(self, told: Callable[[], None]) -> AbstractContextManager[None]:
        """Call back, while entered, when a file was written or changed."""


class FileUpload(Protocol):
    """What the files need of their upload."""

    upload: str
    gateway_id: str
    store: Store
    clock: Clock

    @property
    def outlet(self) -> Outlet | None:
        """The open target."""

    async def live_first(self) -> None:
        """Wait while live samples are being sent, but not for long."""
