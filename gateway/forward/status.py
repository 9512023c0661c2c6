"""How an upload is, as /v1/uploads shows it."""

from dataclasses import dataclass, field

from gateway.controls.files import Reachable


@dataclass(frozen=True, slots=True)
class Backlog:
    """What an upload has not acknowledged yet; `oldest_us` is the wall time of the oldest commit among it."""

    blocks: int = 0
    samples: int = 0
    bytes: int = 0
    oldest_us: int | None = None


@dataclass(slots=True)
class Counters:
    """Since the start of the forwarder."""

    units: int = 0
    samples: int = 0
    bytes: int = 0
    """As stored."""
    repeats: int = 0
    """Units sent again under their key."""
    refused: int = 0
    failures: int = 0
    closed: int = 0
    """Units given up by the store, with a gap record, while they waited."""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane and its unit in flight, if any."""

    lane: str
    state: str
    """idle, sending, waiting (for its next attempt), settling."""
    key: str | None = None
    from_seq: int | None = None
    to_seq: int | None = None
    samples: int = 0
    attempts: int = 0


@dataclass(slots=True)
class FilesStatus:
    """The measurement files of an upload; numbers of delivered ones since its start."""

    waiting: int = 0
    """To be sent."""
    failing: int = 0
    """Of these, how many could not be sent when it was tried."""
    delivered: int = 0
    bytes: int = 0
    failures: int = 0
    reachable: Reachable = field(default_factory=lambda: Reachable(healthy=None))


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """One upload."""

    state: str
    last_error: str
    last_error_us: int | None
    last_success_us: int | None
    lag_s: float
    """Age of the oldest commit that is not acknowledged yet; 0 where there is none."""
    backlog: Backlog
    lanes: tuple[LaneStatus, ...]
    counters: Counters
    files: FilesStatus | None = None
    """None: it takes no files."""
