"""What is to be measured: channels with their sensors, how long, and what belongs to it."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.controls.sensor_nodes import AdcConfiguration, SensorMap, StreamFrames
from gateway.measurements.ift import IftRequest
from gateway.model import GatewayError
from gateway.sensors import RAW, Sensor

FULL_SCALE = 65535
"""The raw count of the reference voltage: the largest of the 16-bit ADC."""


class MeasurementRefused(GatewayError):
    """A measurement cannot be started, changed or stopped, and why."""


@dataclass(frozen=True, slots=True)
class Channel:
    """An active channel: the number of the sensor at the node (1 to 255), and what its volts mean."""

    number: int
    sensor: Sensor = RAW


Channels = tuple[Channel | None, Channel | None, Channel | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A measurement as asked for. ValueError, with a sentence: it cannot be."""

    channels: Channels
    name: str = ""
    """Part of the file's name; empty: the device's."""
    duration_s: float | None = None
    """None: until it is stopped."""
    adc: AdcConfiguration | None = None
    """To be written to the node first; None: the node stays as it is."""
    ift: IftRequest | None = None
    metadata: Mapping[str, Any] | None = None
    """Known before (`pre_metadata` in the file): version, profile, parameters."""
    wait_for_post_metadata: bool = False
    disconnect_afterwards: bool = False

    def __post_init__(self) -> None:
        if not any(self.channels):
            raise ValueError("no channel is active: a measurement needs at least one of the three")
        for channel in filter(None, self.channels):
            if not 1 <= channel.number <= 255:
                raise ValueError(f"the sensor number {channel.number} is out of range: it is 1 to 255")
        if self.duration_s is not None and not 0 < self.duration_s < 10**8:
            raise ValueError(f"a measurement cannot last {self.duration_s} s: give more than 0, or none")
        if self.ift is not None and self.channels[self.ift.channel] is None:
            raise ValueError(f"the IFT value is asked of channel {self.ift.channel + 1}, which is not active")

    @property
    def mask(self) -> tuple[bool, bool, bool]:
        first, second, third = map(bool, self.channels)
        return first, second, third

    @property
    def values_per_frame(self) -> int:
        """Two channels have one value each in a frame, else there are three."""
        return 2 if sum(self.mask) == 2 else 3

    @property
    def sensor_map(self) -> SensorMap:
        """Return which sensor each channel has to measure; 0 where it is not active."""
        first, second, third = (channel.number if channel else 0 for channel in self.channels)
        return first, second, third

    @property
    def own_sensors(self) -> bool:
        """Each channel measures the sensor of its own number, as firmware does that knows no map."""
        return all(number in (0, place) for place, number in enumerate(self.sensor_map, 1))


@dataclass(frozen=True, slots=True)
class Conversion:
    """Raw counts of one channel to its physical value: volts = raw * k1, value = volts * k2 + d2."""

    k1: float
    k2: float
    d2: float

    @classmethod
    def of(cls, sensor: Sensor, reference_voltage_v: float) -> "Conversion":
        return cls(reference_voltage_v / FULL_SCALE, sensor.scaling, sensor.offset)

    def values(self, counts: Sequence[int]) -> list[float]:
        k1, k2, d2 = self.k1, self.k2, self.d2
        return [count * k1 * k2 + d2 for count in counts]

    @property
    def gain(self) -> float:
        """What a count is, in physical units."""
        return self.k1 * self.k2


def conversions(channels: Channels, adc: AdcConfiguration) -> list[Conversion]:
    """Return those of the active channels, in the order of their values in a frame."""
    return [Conversion.of(each.sensor, adc.reference_voltage_v) for each in channels if each]


def columns(counts: "array[int]", active: int) -> "list[array[int]]":
    """Return the counts of each active channel: the values of one alone follow each other in a frame."""
    return [counts[place::active] for place in range(active)]


def to_json(channels: Channels) -> list[Any]:
    return [channel and asdict(channel) for channel in channels]


def from_json(rows: Sequence[Any]) -> Channels:
    first, second, third = (row and Channel(row["number"], Sensor(**row["sensor"])) for row in rows)
    return first, second, third


@dataclass(slots=True)
class FrameCount:
    """Frames received, and lost by what their counters say."""

    received: int = 0
    lost: int = 0

    def take(self, frames: StreamFrames) -> None:
        self.received += len(frames)
        self.lost += frames.lost

    @property
    def loss(self) -> float:
        """Share of the frames that are missing, 0 to 1."""
        return loss(self.received, self.lost)


def loss(received: int, lost: int) -> float:
    return lost / (received + lost) if lost else 0.0
