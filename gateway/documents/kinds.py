"""The list of documents: what they are called, and what is in force while none was stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DEFAULTS: Final = Path(__file__).with_name("defaults")


@dataclass(frozen=True, slots=True)
class Kind:
    """A document: its name in `/v1/config`, and what people are told of it."""

    name: str
    title: str
    description: str

    @property
    def filename(self) -> str:
        return f"{self.name}.yaml"

    def default(self) -> bytes:
        """Return the built-in one. Blocks."""
        return (_DEFAULTS / self.filename).read_bytes()


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            "metadata", "Metadata", "What is asked of a person before and after a measurement, by profiles."
        ),
        Kind(
            "sensors", "Sensors", "The sensors of sensor nodes, and which of them a node's channels measure."
        ),
        Kind("dataspace", "Dataspace", "The dataspace that measurements and samples are sent to."),
    )
}
