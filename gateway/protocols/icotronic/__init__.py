"""The ICOtronic radio sensor system: sensor nodes (STH, SMH) behind a transceiver unit (STU) on a CAN bus.

Only the settings live here, so that a configuration is checked without importing python-can.
"""

import asyncio
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from gateway.canbus.settings import Settings as BusSettings
from gateway.canbus.settings import device_nodes
from gateway.model import Device, Link
from gateway.settings import Settings as Group
from gateway.settings import setting

__all__ = ["Settings", "TagSettings", "device_nodes", "run"]

Signal: TypeAlias = Literal["channel_1", "channel_2", "channel_3", "rssi", "supply_voltage", "data_loss"]
Aggregate: TypeAlias = Literal["newest", "mean", "min", "max", "rms"]
CHANNELS = ("channel_1", "channel_2", "channel_3")


def _check_node(name: str) -> None:
    if not name.strip():
        raise ValueError("the node is empty: it is its name, as Test-STH, or its MAC, as 08-6B-D7-01-DE-81")


@dataclass(frozen=True, kw_only=True)
class Settings(BusSettings):
    """An STU of the ICOtronic system, on a bus of 1 Mbit/s."""

    bitrate: int | None = setting(
        1_000_000,
        help="Bits per second: that of the STU. socketcan takes it from the system.",
        low=1_000,
        high=1_000_000,
    )
    node: str | None = setting(
        None,
        help="Name or MAC of the sensor node to keep connected; unless given, one is connected on request.",
        check=_check_node,
        example="Test-STH",
    )
    stream: bool = setting(
        default=False,
        help="Whether the node streams for its tags all the time, which empties its battery, "
        "or only while something is recorded.",
    )
    keep_interval_ms: int = setting(
        1000,
        help="One sample of a channel is kept in this time while it streams; 0 keeps each.",
        low=0,
        high=86_400_000,
        example="1s",
    )
    poll_interval_s: float = setting(
        60.0,
        help="How often RSSI, supply voltage and data loss of the connected node are taken.",
        low=1,
        high=86_400,
        example="1min",
    )

    def most_samples_per_s(self, tags: Mapping[str, Any]) -> float | None:
        """Return what comes while the node streams all channels; None where a tag keeps each sample."""
        intervals_ms = [self.keep_interval_ms] * 3 + [int(1000 * self.poll_interval_s)] * 3
        if tags:
            intervals_ms = [self._interval_ms(tag) for tag in tags.values()]
        return sum(1000 / each for each in intervals_ms) if all(intervals_ms) else None

    def _interval_ms(self, tag: "TagSettings") -> int:
        if tag.signal not in CHANNELS:
            return int(1000 * self.poll_interval_s)
        return self.keep_interval_ms if tag.keep_interval_ms is None else tag.keep_interval_ms


@dataclass(frozen=True, kw_only=True)
class TagSettings(Group):
    """A value of a sensor node."""

    SHORT = "signal"

    signal: Signal = setting(help="What is measured: a channel in volts, or the node's condition.")
    node: str | None = setting(
        None,
        help="Name or MAC of the node; unless given, whichever is connected.",
        check=_check_node,
        example="Test-STH",
    )
    aggregate: Aggregate = setting(
        "newest", help="Which value of a channel stands for all samples of a `keep_interval`."
    )
    unit: str = setting("", help="Unit of measure after scaling; V, dBm and % unless given.", example="g")
    scale: float = setting(
        1.0, help="Factor from the volts of a channel, or the raw value, to the stored one."
    )
    offset: float = setting(0.0, help="Added after scaling.")
    keep_interval_ms: int | None = setting(
        None, help="As at the device, for this tag.", low=0, high=86_400_000, example="100ms"
    )

    def __post_init__(self) -> None:
        if self.signal not in CHANNELS and (self.aggregate != "newest" or self.keep_interval_ms is not None):
            raise ValueError(
                f"{self.signal} is taken every `poll_interval`: remove `aggregate` and `keep_interval`"
            )


async def run(device: Device, settings: Settings, link: Link) -> None:
    """Hold the session with the STU until cancelled, or raise."""
    module = await asyncio.to_thread(importlib.import_module, "gateway.protocols.icotronic.session")
    await module.hold(device, settings, link)
