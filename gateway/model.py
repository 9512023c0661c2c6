"""The words of the gateway as types: Sample, Batch, Link, and the Protocol and Uploader contracts.

It imports nothing of ours. The exceptions:

    GatewayError            every failure we name; its text is a sentence for a technician
    ├── NotStored           a batch was given up: it is not in the store and never will be
    ├── DeviceProblem       the device cannot be used as configured; shown as its state, tried again
    │   └── WaitingForTrust a certificate has to be trusted by a person first
    └── UploadProblem       a delivery did not succeed; everything is kept and tried again
        └── UnitRefused     the target refuses this body whenever it is sent; it is tried in parts
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeAlias

from gateway.clock import Clock

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | None"
"""What a sample may hold: integers from -2**63 to 2**64-1, IEEE doubles bit for bit, text, bytes, arrays."""

GOOD = 0
"""OPC UA StatusCode Good (Part 4, 7.39)."""


class GatewayError(Exception):
    """A failure that we name, with a sentence for a technician."""


class NotStored(GatewayError):
    """A batch was given up: it is not in the store and never will be."""


class DeviceProblem(GatewayError):
    """The device cannot be used as configured now; `state` is the word shown for it."""

    state = "failed"


class WaitingForTrust(DeviceProblem):
    """A certificate (the server's by us, or ours by the server) has to be trusted by a person first."""

    state = "waiting for trust"


class UploadProblem(GatewayError):
    """A delivery did not succeed: all is kept; not tried again before `retry_after_s`, if given."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnitRefused(UploadProblem):
    """The target refuses this body whenever it is sent: the forwarder sends it in parts, down to one sample.

    Its text is the target's words. `too_large`: for its size, so that each half may do.
    """

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class Flag(enum.IntFlag):
    """What is to be known of a sample beside its value; 0 means: the device's own source time, plausible."""

    SERVER_TIME = 1
    """`ts` is the server's time: the source gave none."""
    OWN_TIME = 2
    """`ts` is the gateway's time: neither source nor server gave one."""
    MOVED = 4
    """Another value came under the same key; this one stands at the next free microsecond."""
    IMPLAUSIBLE = 8
    """`ts` lies in the far future or past of the gateway's clock; it is kept as given."""
    UNSYNCED = 16
    """The gateway's clock was not synchronised when it made this `ts`."""
    HISTORY = 32
    """Fetched later from the device's own history, to fill a hole."""


class Sample(NamedTuple):
    """One value of one series. `ts` is microseconds since 1970 UTC (may be negative)."""

    series: int
    ts: int
    value: Value
    status: int = GOOD
    flags: int = 0


@dataclass(slots=True)
class Batch:
    """Samples as parallel columns of equal length, in arrival order. Never changed after it was emitted."""

    series: list[int] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Generator[Sample]:
        return (Sample(*row) for row in zip(*self.columns(), strict=True))

    def add(self, series: int, ts: int, value: Value, status: int = GOOD, flags: int = 0) -> None:
        self.series.append(series)
        self.ts.append(ts)
        self.values.append(value)
        self.statuses.append(status)
        self.flags.append(flags)

    def columns(self) -> tuple[list[int], list[int], list[Value], list[int], list[int]]:
        return self.series, self.ts, self.values, self.statuses, self.flags

    def extend(self, other: "Batch") -> None:
        self.series.extend(other.series)
        self.ts.extend(other.ts)
        self.values.extend(other.values)
        self.statuses.extend(other.statuses)
        self.flags.extend(other.flags)

    def part(self, start: int, end: int) -> "Batch":
        """Return the samples from one place up to before another, as `list[start:end]` does."""
        return Batch(
            self.series[start:end],
            self.ts[start:end],
            self.values[start:end],
            self.statuses[start:end],
            self.flags[start:end],
        )

    def chosen(self, yes: Sequence[object]) -> "Batch":
        """Return the samples in whose places something true stands."""
        return Batch(
            list(compress(self.series, yes)),
            list(compress(self.ts, yes)),
            list(compress(self.values, yes)),
            list(compress(self.statuses, yes)),
            list(compress(self.flags, yes)),
        )

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> "Batch":
        batch = cls()
        for sample in samples:
            batch.add(*sample)
        return batch


class Receipt(NamedTuple):
    """What the commit did with a batch: counts of samples."""

    added: int
    same: int
    moved: int


class Ticket:
    """The promise for one emitted batch: awaiting it gives the Receipt after COMMIT, or raises NotStored."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, Receipt]:
        return asyncio.shield(self._future).__await__()

    @property
    def done(self) -> bool:
        return self._future.done()

    def resolve(self, receipt: Receipt) -> None:
        if not self._future.done():
            self._future.set_result(receipt)

    def fail(self, error: NotStored) -> None:
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # nobody has to await a ticket

    def add_done_callback(self, callback: Callable[[bool], None]) -> None:
        """Call back with True once committed, with False once given up."""
        self._future.add_done_callback(lambda f: callback(not f.cancelled() and f.exception() is None))


@dataclass(frozen=True, slots=True)
class Gap:
    """A known hole: of a device (samples that never arrived) or of an upload (samples never delivered).

    `from_us` and `to_us` are gateway wall time; `count` is the number of samples lost where it is known, of a
    bus that lost frames that of frames.
    """

    from_us: int
    to_us: int
    reason: str
    device: str | None = None
    upload: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One poll cycle, or up to 60 s of a subscription. `status` is running, ok, partial or error."""

    id: int
    device: str
    kind: str
    start_us: int
    duration_us: int
    samples: int
    status: str
    error: str | None = None


class Run(Protocol):
    """A run in progress. A subscription's run is cut into rows of at most 60 s by itself."""

    id: int

    def add(self, samples: int, late_us: int = 0) -> None:
        """Count samples received; 0 tells that the device was heard (a keep-alive).

        `late_us`: how long ago the device put together what came; a hole after it begins then.
        """

    def problem(self, sentence: str) -> None:
        """Note a failure of a part (one tag): the run goes on and ends as `partial`."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as configured: its id and its tags, each as its protocol's TagSettings."""

    id: str
    tags: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Tag (or "" for the device) to "file:line", for messages; moving a line is no change of the device."""


class Polls(Protocol):
    """Requests for a poll out of cycle, joined into one while it is pending or running."""

    async def next(self) -> int:
        """Wait for a request and return the run id to give to `link.run("poll", run_id)`."""


class Hole(Protocol):
    """An open hole whose record is held back while the protocol fetches what it missed."""

    since_us: int
    """Gateway wall time of the last sign of life."""
    reason: str

    def close(self, left: str = "") -> None:
        """End it: without a record where nothing is missing any more, else with `left` saying what is."""


class Surroundings(Protocol):
    """As much of a link as opening a session takes."""

    device: str
    gateway_id: str
    clock: Clock
    state: Path
    """Folder for what the protocol must keep (certificates); shared by all devices of a kind."""
    memory: dict[str, Any]
    """What the protocol keeps from one attempt to the next; gone with the process."""


class Link(Surroundings, Protocol):
    """All that a protocol is handed."""

    @property
    def polls(self) -> Polls:
        """Requests of the API for a poll out of cycle."""

    @property
    def tags(self) -> Mapping[str, int]:
        """Series by tag, of those in use and those that there are samples of."""

    def tag(self, name: str, *, unit: str | None = "") -> int:
        """Return the series of a tag of this device, made on first use. `unit` None: it stays as it is."""

    def last(self, series: int) -> Sample | None:
        """Return the newest committed sample of a series."""

    def stamp(self) -> tuple[int, int]:
        """Return our own (ts, flags) for a sample that brought no time."""

    async def emit(self, batch: Batch) -> Ticket:
        """Hand samples over; waits only while the memory budget is full (the back-pressure)."""

    def try_emit(self, batch: Batch) -> Ticket | None:
        """Hand samples over, or return None at once where the memory budget is full."""

    def hurry(self) -> None:
        """Have what was handed over committed now, not at the next tick: somebody waits for it."""

    def run(self, kind: str, run_id: int | None = None) -> AbstractAsyncContextManager[Run]:
        """Record a run: leaving records it; an exception makes it an error with its traceback.

        A hole begins at the last sign of life where the session ends, and is recorded as a gap with the
        first sign of life after it. A run of kind "poll" (out of cycle), "backfill" or "push" moves and ends
        none, nor does a "cycle" while a "subscription" is under way.
        """

    def gap(self, from_us: int, to_us: int, reason: str, count: int | None = None) -> None:
        """Record a hole."""

    def mending(self) -> AbstractContextManager[Hole | None]:
        """Hold back, while entered, the record of the hole that is open now, if any.

        Left without having been closed, it is recorded up to the first sign of life after it.
        """

    def report(self, state: str, detail: str = "") -> None:
        """Say how the device is: "running", "degraded", "waiting for trust"... with a sentence."""

    def offer(self, *controls: object) -> AbstractContextManager[None]:
        """Publish, while entered, what the API may ask of the live session (see gateway.controls)."""


class ProtocolModule(Protocol):
    """What a module (or package) under protocols/ has."""

    Settings: type
    TagSettings: type

    async def run(self, device: Device, settings: Any, link: Link) -> None:
        """Talk to the device until cancelled, or raise. Entering is `async with`, leaving is cancellation."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a unit's body is made: enough to make the same bytes again after a restart or an upgrade."""

    name: str
    version: int
    options: Mapping[str, Any] = field(default_factory=dict)


class SeriesInfo(NamedTuple):
    """What a series is called; the unit of measure as it was when the unit of upload was cut."""

    device: str
    tag: str
    unit: str


@dataclass(frozen=True, slots=True)
class Unit:
    """Samples and gaps of a seq range, on their way to one target under one key."""

    key: str
    """gateway id, store epoch, upload id, seq range: the same for every retry."""
    gateway_id: str
    upload: str
    lane: str
    """"live" or "backlog"."""
    from_seq: int
    to_seq: int
    encoding: Encoding
    samples: Batch
    series: Mapping[int, SeriesInfo]
    gaps: Sequence[Gap] = ()
    repeat: bool = False
    """It may have been sent before. No part of the body."""


class Refusal(NamedTuple):
    """One sample that a target refused for good: its place in `unit.samples` and the target's words."""

    place: int
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One sample that a target refused for good, in the target's words, kept until replayed or discarded."""

    id: int
    device: str
    tag: str
    sample: Sample
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A file on its way to one target."""

    name: str
    content: BinaryIO
    """Its bytes, read by threads; the same ones however often the path gets new ones meanwhile."""
    size: int
    md5: str
    """Of the content, in hex."""
    gateway_id: str
    about: Mapping[str, Any]
    """What the target may list it with: attributes and metadata, no pictures."""
    ours: bool
    """An earlier attempt claimed the name: what the target has under it is ours."""
    claim: Callable[[], Awaitable[None]]
    """Awaited before anything is sent, once it is clear that nothing of others is in the way."""
    replaces: Collection[str]
    """Files at the target (their ids) that it may take the place of."""
    pace: Callable[[], Awaitable[None]]
    """Awaited before each piece: what is live goes first."""


class StoredFile(NamedTuple):
    """A file as the target has it."""

    remote_id: str
    etag: str


@dataclass(frozen=True, slots=True)
class Outlet:
    """What an open uploader yields.

    `send(unit)` returns: all accepted but the refused. It raises: all kept and retried later;
    UnitRefused: retried at once in parts, each a unit of its own under the key `KEY/first-end`.
    `put(file)` stores a file under its name and verifies it; however often it is called, there is one file
    of the name. None where the target takes no files. `controls` are offered to the API (RemoteFiles).
    """

    send: Callable[[Unit], Awaitable[Sequence[Refusal]]]
    put: Callable[[OutgoingFile], Awaitable[StoredFile]] | None = None
    controls: Sequence[object] = ()


class UploaderModule(Protocol):
    """What a module under uploaders/ has."""

    Settings: type
    TAKES_FILES: bool
    """Its outlets have `put`."""

    def encoding(self, settings: Any) -> Encoding:
        """Return the encoding that new units get."""

    def insecure(self, settings: Any) -> str:
        """Say in a sentence what is insecure about the way to the target, or return ""."""

    def open(self, upload: str, settings: Any, clock: Clock) -> AbstractAsyncContextManager[Outlet]:
        """Enter the target; connecting may wait for the first send."""


BatchListener: TypeAlias = Callable[[str, Batch], None]
"""Called with (device, batch) at intake, before COMMIT."""
