"""Sensors of a sensor node: what turns volts into a value, and which one a channel measures; pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_LAYOUT = range(1, 11)
"""Channel numbers that stand for the sensors of the list in their order, where no sensor is named."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """What turns volts into a physical value: a line through two points. ValueError: there is none."""

    id: str
    name: str
    unit: str
    dimension: str
    phys_min: float
    phys_max: float
    volt_min: float
    volt_max: float
    type: str = ""

    def __post_init__(self) -> None:
        ends = self.phys_min, self.phys_max, self.volt_min, self.volt_max
        if not all(map(math.isfinite, ends)) or self.volt_min == self.volt_max:
            raise ValueError(
                f"the sensor {self.id} has no range of volts: volt_min is {self.volt_min}, volt_max "
                f"{self.volt_max}"
            )

    @property
    def scaling(self) -> float:
        """k2, physical units per volt."""
        return (self.phys_max - self.phys_min) / (self.volt_max - self.volt_min)

    @property
    def offset(self) -> float:
        """d2, in physical units."""
        return self.phys_max - self.scaling * self.volt_max


RAW = Sensor("raw_default_01", "Raw", "-", "Raw", -100, 100, 0, 3.3)
"""For a channel of which no sensor is known: percent."""


@dataclass(frozen=True, slots=True)
class SensorConfiguration:
    """What the channels of one kind of node measure: channel number (1 to 255) to sensor."""

    id: str
    name: str
    channels: Mapping[int, Sensor]


@dataclass(frozen=True, slots=True)
class SensorLibrary:
    """The sensors that are known, and the configurations of them that a user chooses from."""

    sensors: tuple[Sensor, ...]
    configurations: tuple[SensorConfiguration, ...] = ()
    chosen: str | None = None
    """The configuration to begin with, by its id."""

    @property
    def default_configuration(self) -> str | None:
        """The id of the configuration to begin with: the chosen one, else the first."""
        return self.chosen or next((each.id for each in self.configurations), None)

    def of_channel(self, number: int, sensor_id: str | None = None) -> Sensor:
        """Return what a channel measures: the sensor named, else the one of its number, else RAW.

        LookupError, with a sentence: no sensor has this id.
        """
        if sensor_id:
            for sensor in self.sensors:
                if sensor.id == sensor_id:
                    return sensor
            raise LookupError(f'there is no sensor "{sensor_id}" in sensors.yaml')
        if number in _LAYOUT and number <= len(self.sensors):
            return self.sensors[number - 1]
        return RAW
