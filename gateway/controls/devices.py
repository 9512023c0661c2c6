"""What may be asked of a device's live session: its address space, its tags, a scan, a push."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

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
    unit: str = ""
    meaning: str = ""
    """What the value means, where it is one of an enumeration."""
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
    """Texts of the integers that a value may be; of a boolean "0" and "1"."""

    def meaning(self, value: Value) -> str:
        """Return the text of a value, "" where it has none."""
        return self.enum.get(str(int(value)), "") if isinstance(value, int) else ""


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


@dataclass(frozen=True, slots=True)
class HeardId:
    """The frames of one id on a CAN bus."""

    id: str
    """As in 0x1A0 (11 bits) or 0x18FEF100 (29 bits)."""
    message: str
    """What the database calls it; "" where none knows it."""
    source: int | None
    """The source address of a J1939 message."""
    frames: int
    rate_hz: float | None
    """None where there was but one."""
    lengths: Sequence[int]
    """In bytes, those that came."""
    changes: int
    """How often the payload was another one than before."""
    payload: bytes
    """The newest."""
    hints: Sequence[str]
    """What it looks like where no database knows it, and what does not fit where one does."""
    values: Mapping[str, Value]
    """The newest of each signal; None where it stands for no value."""
    kind: Literal["data", "remote", "packets"] = "data"
    """Remote frames ask for those of data. Packets (SAE J1939-21) bring messages, which are heard apart."""


@runtime_checkable
class Scan(Protocol):
    """Say what is on a bus, also what is not collected."""

    async def scan(self, seconds: float) -> Sequence[HeardId]:
        """Listen for so long; return what was heard, by id. DeviceProblem: it cannot be listened."""


@runtime_checkable
class Push(Protocol):
    """Take samples from a client."""

    most: int
    """Samples of one push."""

    async def push(self, samples: Sequence[PushedSample]) -> Receipt:
        """Store them; returns after COMMIT. TimeoutError: no room or no commit in 10 s, try again.

        ValueError with a sentence: one of them is refused, and then nothing is stored.
        """

    def stamp(self) -> tuple[int, int]:
        """Return our own (ts, flags), for samples that are of one moment and brought no time."""
