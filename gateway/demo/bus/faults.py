"""How the simulated STU fails, as told by POST /faults."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Faults:
    """All the ways to fail; a count of n stands for the next n times, -1 until it is reset."""

    lose_requests: int = 0
    """Requests are not heard."""
    lose_acks: int = 0
    """Requests are done, but not answered."""
    error_acks: int = 0
    """Requests are answered with an error acknowledgement and not done."""
    error_number: int = 2
    """Of these: 1 not available, 2 general, 3 write not allowed, 4 unsupported format."""
    doubled_acks: bool = False
    """Each answer comes again after 30 ms."""
    delay_s: float = 0.0
    """Answers come so late."""
    wrong_bytes: bool = True
    """Some acknowledgements repeat subcommand and number wrongly, as those of the real firmware."""
    frame_loss: float = 0.0
    """So many of the stream's frames are lost, at random: 0 to 1."""
    lose_frames: int = 0
    """Frames of the stream are lost in a row."""
    mute: bool = False
    """The STU neither answers nor passes anything on, as without power."""
    hang: bool = False
    """Connected nodes neither answer nor stream, though the STU holds the link."""
    unreachable: list[str] = field(default_factory=list)
    """Names of nodes out of the radio's range."""
    find_s: float = 0.15
    """A node is found so long after the one before."""
    connect_s: float = 0.2
    """So long a connection takes."""
    refuse_connects: int = 0
    """Connections that the STU does not begin."""

    def tell(self, document: dict[str, Any]) -> None:
        """Set what the document names; `reset: true` sets all others back. ValueError: it names another."""
        known = {f.name for f in dataclasses.fields(self)}
        if unknown := document.keys() - known - {"reset"}:
            raise ValueError(
                f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
            )
        fresh = Faults() if document.get("reset") else self
        for name in known:
            setattr(self, name, document.get(name, getattr(fresh, name)))

    def take(self, name: str) -> bool:
        """Use up one of a count."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left != 0
