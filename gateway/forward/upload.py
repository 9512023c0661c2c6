"""What the lanes and the quarantine of one upload share: its name, its target, and who takes note."""

from collections.abc import Sequence
from typing import Protocol

from gateway.clock import Clock
from gateway.forward.gate import Gate
from gateway.forward.status import Counters
from gateway.model import Encoding, Refusal, Unit, UploadProblem
from gateway.store import Store
from gateway.store.outbox import UnitRow


class Upload(Protocol):
    """One upload while it runs."""

    upload: str
    gateway_id: str
    store: Store
    clock: Clock
    gate: Gate
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
        """Take note of a failure."""

    def accepted(self, unit: Unit, refused: Sequence[Refusal], stored_bytes: int) -> None:
        """Take note of a unit that the target has taken."""
