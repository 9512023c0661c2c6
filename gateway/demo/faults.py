"""How the simulated dataspace fails, as told by POST /faults."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

_UNTIL_RESET = -1


@dataclass(slots=True)
class Canned:
    """An answer given in place of the true one, before anything is stored."""

    status: int
    count: int = 1
    """How often; -1 until the faults are reset."""
    path: str = "/"
    """Only for paths that begin so."""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(slots=True)
class Faults:
    """All the ways to fail; a count of n stands for the next n times."""

    answers: list[Canned] = field(default_factory=list)
    forget: int = 0
    """Store, then close without an answer."""
    mute: str = ""
    """Do what a request of this beginning ("POST /management") asks, once, then close without an answer."""
    truncate: int = 0
    """Store, then break off in the middle of the answer."""
    drip: int = 0
    """Answer a byte now and then, for ever."""
    flood: int = 0
    """Answer without end, fast."""
    cut: int = 0
    """Close the connection in the middle of a file that comes to the storage."""
    garble: int = 0
    """Store a file with a byte more than came, and answer that all is well."""
    hang: int = 0
    """Take the request and never answer."""
    hold: str = ""
    """Take no more bytes of the file of this name, until this is reset."""
    delay_s: float = 0.0
    poison: Any = None
    """Answer 422 to any body with a sample of this value."""
    refuse: Any = None
    """Take all but the samples of this value, and say which these are."""
    most_bytes: int = 0
    """Answer 413 to longer bodies."""
    dedupe: bool = True
    """Recognise a key, or the name of a file, that is there already."""
    token_requests: int = 0
    """An access token is good for this many requests; 0: for ever."""
    revoked: bool = False
    """Refresh tokens are refused."""
    die_after_stores: int = 0
    """End the process, as by `kill -9`, after storing that many more bodies and before the answer."""

    def tell(self, document: dict[str, Any]) -> None:
        """Set what the document names. ValueError: it names something else."""
        known = {f.name for f in dataclasses.fields(self)}
        if unknown := document.keys() - known - {"reset"}:
            raise ValueError(
                f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
            )
        if document.get("reset"):
            for name in known:
                setattr(self, name, getattr(Faults(), name))
        for name, value in document.items():
            if name == "answers":
                self.answers = [Canned(**item) for item in value]
            elif name != "reset":
                setattr(self, name, value)

    def take(self, name: str) -> bool:
        """Use up one of a count."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left != 0

    def canned(self, path: str) -> Canned | None:
        for answer in self.answers:
            if path.startswith(answer.path) and answer.count != 0:
                if answer.count != _UNTIL_RESET:
                    answer.count -= 1
                return answer
        return None
