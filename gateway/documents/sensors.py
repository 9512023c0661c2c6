"""sensors.yaml: the sensors, and the configurations of them that a user chooses from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.config.problems import quoted
from gateway.config.reading import INVALID
from gateway.config.yaml_source import MapNode, ScalarNode
from gateway.documents.reading import Header, Source, filled, within
from gateway.sensors import Sensor, SensorConfiguration, SensorLibrary
from gateway.settings import Settings, setting

_CHANNEL: Final = re.compile(r"[1-9][0-9]{0,2}")


@dataclass(frozen=True, kw_only=True)
class SensorEntry(Settings):
    """A sensor; the line through its two points is what converts volts."""

    name: str = setting(help="what people call it", check=filled)
    sensor_id: str = setting(help="what names it in measurements and configurations", check=filled)
    sensor_type: str | None = setting(None, help="its type, as its maker calls it")
    unit: str = setting(help="unit of the physical value", check=filled, example="g")
    dimension: str = setting(help="what is measured", check=filled, example="Acceleration")
    phys_min: float = setting(help="physical value at volt_min", example="-100")
    phys_max: float = setting(help="physical value at volt_max", example="100")
    volt_min: float = setting(help="volts at phys_min", example="0.33")
    volt_max: float = setting(help="volts at phys_max", example="2.97")
    scaling_factor: float | None = setting(None, help="not used: it follows from the four numbers")
    offset: float | None = setting(None, help="not used: it follows from the four numbers")

    def __post_init__(self) -> None:
        self.sensor()

    def sensor(self) -> Sensor:
        return Sensor(
            self.sensor_id, self.name, self.unit, self.dimension,
            self.phys_min, self.phys_max, self.volt_min, self.volt_max, self.sensor_type or "",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChannelEntry(Settings):
    """What a channel measures."""

    sensor_id: str = setting(help="one of the sensors", check=filled)


@dataclass(frozen=True, kw_only=True)
class ConfigurationEntry(Settings):
    """The channels of one kind of node."""

    configuration_id: str = setting(help="what names it", check=filled)
    configuration_name: str = setting(help="what people call it", check=filled)
    channels: Mapping[str, ChannelEntry] = setting({}, help="channel number to sensor")


def _some(value: tuple[SensorEntry, ...]) -> None:
    if not value:
        raise ValueError("it names no sensor")


@dataclass(frozen=True, kw_only=True)
class SensorsFile(Settings):
    """The whole sensors.yaml."""

    info: Header = setting(help="what this file is")
    sensors: tuple[SensorEntry, ...] = setting(help="the sensors", check=_some)
    sensor_configurations: tuple[ConfigurationEntry, ...] = setting((), help="what a user chooses from")
    default_configuration_id: str | None = setting(None, help="the one to begin with; empty: the first")


def read(source: Source) -> tuple[Header, SensorLibrary]:
    """Return what a sensors.yaml says. DocumentRefused: it cannot be used."""
    whole = source.read(SensorsFile)
    if whole is INVALID:
        source.check()
    assert isinstance(whole, SensorsFile)
    _check_unique(source, "sensors", "sensor_id")
    _check_unique(source, "sensor_configurations", "configuration_id")
    sensors = {each.sensor_id: each.sensor() for each in whole.sensors}
    for index, each in enumerate(whole.sensor_configurations):
        _check_channels(source, index, each, sensors)
    ids = [each.configuration_id for each in whole.sensor_configurations]
    chosen = whole.default_configuration_id or None
    if chosen is not None and chosen not in ids:
        hint = source.problems.hint(chosen, ids)
        source.warn(
            within(source.root, "default_configuration_id").place,
            f'"default_configuration_id" names {quoted(chosen)}, which is no configuration here{hint}',
        )
        chosen = None
    source.check()
    configurations = [_configuration(each, sensors) for each in whole.sensor_configurations]
    return whole.info, SensorLibrary(tuple(sensors.values()), tuple(configurations), chosen)


def _configuration(entry: ConfigurationEntry, sensors: Mapping[str, Sensor]) -> SensorConfiguration:
    channels = {int(number): sensors[each.sensor_id] for number, each in entry.channels.items()}
    return SensorConfiguration(entry.configuration_id, entry.configuration_name, channels)


def _check_unique(source: Source, group: str, name: str) -> None:
    first: dict[str, int] = {}
    for item in getattr(within(source.root, group), "items", ()):
        node = within(item, name)
        assert isinstance(node, ScalarNode)  # read as text before
        if (line := first.setdefault(node.text, node.place.line)) != node.place.line:
            source.add(
                node.place, f'"{name}" {quoted(node.text)} is given twice; the first is on line {line}'
            )


def _check_channels(
    source: Source, index: int, entry: ConfigurationEntry, sensors: Mapping[str, Sensor]
) -> None:
    channels = within(source.root, "sensor_configurations", index, "channels")
    assert isinstance(channels, MapNode) or not entry.channels
    for number, channel in entry.channels.items():
        at = channels.entries[number]  # type: ignore[union-attr]  # asserted above
        if not _CHANNEL.fullmatch(number) or int(number) > 255:
            source.add(at.key_place, f"{quoted(number)} is no channel number; it is 1 to 255")
        if channel.sensor_id not in sensors:
            hint = source.problems.hint(channel.sensor_id, sensors)
            place = within(at.node, "sensor_id").place
            source.add(place, f'"sensor_id" names {quoted(channel.sensor_id)}, which is no sensor here{hint}')
