"""What may be asked of a live session with an STU: its sensor nodes, and what they stream."""

from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

from gateway.model import GatewayError

SensorMap: TypeAlias = tuple[int, int, int]
"""Which sensor (1 to 255) each of the three channels measures; 0 where it is to stay as it is."""


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
    """When each frame arrived, in microseconds UTC; in a stream by the clock as it was at its first frame."""
    counters: bytes
    """The counter of each frame, 0 to 255."""
    counts: "array[int]"
    """Raw ADC counts, `values_per_frame` for each frame: three consecutive samples of one channel,
    or a sample of each active channel, the lowest first."""
    lost: int = 0
    """Frames that are missing before or among these: by their counters, or as nobody took them in time."""

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
    def clock_set_us(self) -> int:
        """By how much the clock was set since the first frame, which the times of the frames leave out."""

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
