"""Typed contracts of what may be asked of a live session; the API looks them up by type."""

from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from gateway.model import GatewayError, Receipt, Value
from gateway.sensors import SensorLibrary


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
class CertificateEntry:
    """A certificate in one of the folders of the gateway."""

    place: str
    """"own", "trusted", "issuers", "trusted_expired" or "rejected"."""
    thumbprint: str
    """SHA-1 in hex, as OPC UA tools show it."""
    sha256: str
    subject: str
    issuer: str
    application_uri: str
    valid_from_us: int
    valid_until_us: int
    device: str
    """Which device showed it, where it was rejected; else ""."""
    file: str


class Certificates(Protocol):
    """Whom the gateway trusts. Blocking: files."""

    def own(self) -> bytes | None:
        """Return the gateway's application certificate, DER; None where it was never needed."""

    def entries(self) -> Sequence[CertificateEntry]:
        """List all certificates, the gateway's own first."""

    def trust(self, name: str, *, expired: bool = False) -> object:
        """Trust a rejected one, by thumbprint or device. KeyError: there is none; ValueError: several."""

    def distrust(self, name: str) -> int:
        """Remove one by its thumbprint; return how many files went."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a document, and where: line and column from 1."""

    field: str
    """The names down to it, as in "sensors.3.volt_min"; "" for the whole."""
    line: int
    column: int
    message: str


class DocumentRefused(GatewayError):
    """A document cannot be used, and all the reasons. `unreadable`: it is not even YAML."""

    def __init__(self, name: str, faults: Sequence[Fault], *, unreadable: bool = False) -> None:
        first, rest = faults[0], len(faults) - 1
        more = f" (and {rest} more)" if rest else ""
        super().__init__(f"{name}:{first.line}:{first.column}: {first.message}{more}")
        self.faults, self.unreadable = tuple(faults), unreadable


@dataclass(frozen=True, slots=True)
class DocumentHeader:
    """The `info` block of a document, as ICOapi's clients show it."""

    schema_name: str
    schema_version: str
    config_name: str
    config_date: str
    """ISO 8601."""
    config_version: str


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """An earlier version of a document, kept when another took its place."""

    filename: str
    timestamp: str
    """When it was replaced, ISO 8601 in UTC."""
    info_header: DocumentHeader | None
    """None: it cannot be read."""


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document as it is kept, in ICOapi's words."""

    endpoint: str
    """Its name in `/v1/config`: "sensors", "metadata" or "dataspace"."""
    name: str
    """A title."""
    filename: str
    description: str
    timestamp: str | None
    """When it was stored, ISO 8601 in UTC; None: nothing was stored, the built-in one is in force."""
    info_header: DocumentHeader | None
    problems: Sequence[Fault]
    """Why it is not used, where it is broken on the disk."""
    backup: Sequence[DocumentVersion]
    """Newest first."""


@dataclass(frozen=True, slots=True)
class DocumentStored:
    """What came of storing a document."""

    info_header: DocumentHeader
    backup: str | None
    """The file name that the version before it has now; None: it was the same already."""
    changed: Sequence[str]
    """What was restarted because of it, such as "upload dataspace"."""
    warnings: Sequence[str]


class Documents(Protocol):
    """sensors.yaml, metadata.yaml and dataspace.yaml; what has no `async` blocks, but for `sensors`."""

    def listed(self) -> Sequence[DocumentInfo]: ...

    def text(self, name: str) -> bytes:
        """Return the YAML of a document; no secret is in it. KeyError: there is no such document.

        DocumentRefused: somebody put there what may hold one.
        """

    async def store(self, name: str, data: bytes) -> DocumentStored:
        """Put YAML in a document's place. DocumentRefused: it will not do. KeyError: no such document."""

    async def restore(self, name: str, filename: str) -> DocumentStored:
        """Put an earlier version in its place. KeyError: there is none. DocumentRefused: as for `store`."""

    def sensors(self) -> SensorLibrary:
        """Return the sensors in force. DocumentRefused: what was stored is broken."""


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


@runtime_checkable
class Scan(Protocol):
    """Say what is on a bus, also what is not collected."""

    async def scan(self, seconds: float) -> Sequence[HeardId]:
        """Listen for so long; return what was heard, by id. DeviceProblem: it cannot be listened."""


@runtime_checkable
class Push(Protocol):
    """Take samples from a client."""

    async def push(self, samples: Sequence[PushedSample]) -> Receipt:
        """Store them; returns after COMMIT. TimeoutError: no room or no commit in 10 s, try again.

        ValueError with a sentence: one of them is refused, and then nothing is stored.
        """

    def stamp(self) -> tuple[int, int]:
        """Return our own (ts, flags), for samples that are of one moment and brought no time."""


@runtime_checkable
class RemoteFiles(Protocol):
    """The files at a target that takes files. All raise UploadProblem, with a sentence."""

    async def list(self) -> "Sequence[RemoteFile]":
        """List what is there."""

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
class FileState:
    """How one measurement file is with one upload."""

    state: str
    """not_uploaded, updating (being sent), up_to_date, outdated (the target has it as it was before) or error
    (it could not be sent, which is tried again)."""
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


class NodeProblem(GatewayError):
    """A sensor node or its transceiver unit (STU) did not do what it was asked."""


class NodeNotFound(NodeProblem):
    """No such node is advertised, or it could not be connected in time."""


class NotConnected(NodeProblem):
    """No sensor node is connected."""


class NodeBusy(NodeProblem):
    """The node streams, or another request keeps it busy: not now."""


class Unsupported(NodeProblem):
    """The node's firmware does not have what was asked for."""


class Refused(NodeProblem):
    """The node answered with an error acknowledgement."""


class NoAnswer(NodeProblem):
    """Nothing came back, however often it was asked."""


class NodeLost(NodeProblem):
    """The node was connected and is not any more."""


@dataclass(frozen=True, slots=True)
class AdcConfiguration:
    """How a sensor node samples. ValueError: out of range, with a sentence.

    Source: MyTooliT protocol, block Configuration, command ADC configuration.
    """

    prescaler: int = 2
    acquisition_time: int = 8
    """In cycles of the ADC's clock."""
    oversampling_rate: int = 64
    reference_voltage_v: float = 3.3

    CLOCK_HZ: ClassVar[int] = 38_400_000
    ACQUISITION_TIMES: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256)
    OVERSAMPLING_RATES: ClassVar[tuple[int, ...]] = tuple(2**n for n in range(13))
    REFERENCE_VOLTAGES_V: ClassVar[tuple[float, ...]] = (1.25, 1.65, 1.8, 2.1, 2.2, 2.5, 2.7, 3.3, 5.0, 6.6)

    def __post_init__(self) -> None:
        if not 1 <= self.prescaler <= 127:
            raise ValueError(f"the prescaler {self.prescaler} is out of range: it is 1 to 127")
        for what, value, known in (
            ("acquisition time", self.acquisition_time, self.ACQUISITION_TIMES),
            ("oversampling rate", self.oversampling_rate, self.OVERSAMPLING_RATES),
            ("reference voltage", self.reference_voltage_v, self.REFERENCE_VOLTAGES_V),
        ):
            if value not in known:
                raise ValueError(
                    f"the {what} {value} is out of range: it is one of {', '.join(map(str, known))}"
                )

    @property
    def sample_rate_hz(self) -> float:
        """Values a second over all channels; a channel of two or three has a half or a third of it."""
        cycles = (self.prescaler + 1) * (self.acquisition_time + 13) * self.oversampling_rate
        return self.CLOCK_HZ / cycles


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A sensor node that advertises itself to the STU."""

    number: int
    """At the STU, 0 the first; it may change from one search to the next."""
    name: str
    mac: str
    """As 08-6B-D7-01-DE-81."""
    rssi_dbm: int


@dataclass(frozen=True, slots=True)
class ConnectedNode:
    """The sensor node that is connected."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class UnitInformation:
    """What an STU or a sensor node says of itself."""

    name: str
    mac: str
    hardware_version: str
    firmware_version: str
    release_name: str
    serial_number: str


SensorMap: TypeAlias = tuple[int, int, int]
"""Which sensor (1 to 255) each of the three channels measures; 0 where it is to stay as it is."""


@runtime_checkable
class SensorNodes(Protocol):
    """Ask an ICOtronic STU and its sensor nodes; one node is connected at a time.

    Requests wait for each other. What needs a connected node raises NotConnected; any other NodeProblem may
    be raised by all of them.
    """

    @property
    def connected(self) -> ConnectedNode | None:
        """The node that is connected now."""

    async def search(self) -> Sequence[FoundNode]:
        """Return the nodes that advertise themselves, by number; takes seconds where there are none."""

    async def connect(self, node: str | int) -> ConnectedNode:
        """Connect a node by its MAC, name or number, in place of none. NodeBusy: another one is connected."""

    async def disconnect(self) -> None:
        """Let the connected node go; a stream ends with it."""

    async def rename(self, name: str, node: str | int | None = None) -> ConnectedNode:
        """Give the connected node, or one connected for this, another name; return it as it was before.

        ValueError: the name has no or more than 8 bytes. NodeBusy: another one than `node` is connected.
        """

    async def rssi_dbm(self) -> int:
        """Return how strongly the connected node is received."""

    async def supply_voltage_v(self) -> float:
        """Return the voltage of the connected node's battery."""

    async def adc(self) -> AdcConfiguration:
        """Return how the connected node samples."""

    async def set_adc(self, configuration: AdcConfiguration) -> None:
        """Change how the connected node samples. NodeBusy: it streams."""

    async def sensor_map(self) -> SensorMap:
        """Return which sensors the channels measure. Unsupported: the firmware knows no sensors."""

    async def set_sensor_map(self, sensors: SensorMap) -> None:
        """Change which sensors the channels measure. Unsupported: as above. NodeBusy: it streams."""

    async def node_information(self) -> UnitInformation:
        """Ask the connected node for its versions and serial number."""

    async def stu_information(self) -> UnitInformation:
        """Ask the STU for its versions and serial number."""

    async def reset_node(self) -> None:
        """Restart the connected node, which ends its connection."""

    async def reset_stu(self) -> None:
        """Restart the STU, which ends any connection."""


@dataclass(slots=True)
class StreamFrames:
    """Frames of a stream in the order of their arrival, as parallel sequences."""

    ts: list[int]
    """When each frame arrived, in microseconds UTC."""
    counters: bytes
    """The counter of each frame, 0 to 255."""
    counts: "array[int]"
    """Raw ADC counts, `values_per_frame` for each frame: three consecutive samples of one channel,
    or a sample of each active channel, the lowest first."""
    lost: int = 0
    """Frames that are missing before or among these, by their counters."""

    def __len__(self) -> int:
        return len(self.ts)


class Stream(Protocol):
    """Frames of the connected node as they come. Iterating raises NodeLost within 6 s of its silence."""

    node: ConnectedNode
    channels: tuple[bool, bool, bool]
    adc: AdcConfiguration
    """In force while it streams."""
    values_per_frame: int
    """3 for one or three channels, 2 for two."""
    samples_per_frame: int
    """Consecutive samples of each active channel in a frame: 3 for one channel, else 1."""
    received: int
    """Frames so far."""
    lost: int
    """Frames that did not arrive, so far, and those dropped because they were not taken in time."""

    @property
    def channel_rate_hz(self) -> float:
        """Samples a second of each active channel."""

    def __aiter__(self) -> AsyncIterator[StreamFrames]:
        """Return the frames, never an empty batch."""


@runtime_checkable
class Recording(Protocol):
    """Stream from the connected sensor node; leaving the stream ends it at the node."""

    def stream(self, channels: tuple[bool, bool, bool]) -> AbstractAsyncContextManager[Stream]:
        """Stream the channels that are true. ValueError: none is. NodeBusy: a recording streams already."""
