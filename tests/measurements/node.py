"""A sensor node that streams numbered frames through the contracts of a session, faster than any radio."""

import asyncio
import random
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.controls.sensor_nodes import (
    AdcConfiguration,
    ConnectedNode,
    FoundNode,
    NodeBusy,
    NodeLost,
    SensorMap,
    StreamFrames,
    UnitInformation,
)

NODE = ConnectedNode("Test-STH", "08-6B-D7-01-DE-81")
START_US = 1_795_000_000_123_456
DEVICE = "tools"


def count_of(n: int) -> int:
    """Return the n-th value of a stream: all 65536 counts come."""
    return n * 40_503 % 65_536


def frame_us(n: int, rate_hz: float) -> int:
    """Return when the n-th frame is said to have come: not quite evenly."""
    return START_US + round(n * 1e6 / rate_hz) + n * 7 % 50


@dataclass
class Streaming:
    """One stream; `frames` of them, `batch` at a time, then silence until it is left."""

    node: ConnectedNode
    channels: tuple[bool, bool, bool]
    adc: AdcConfiguration
    frames: int
    batch: int
    loss: float
    fails: Exception | None
    pause_s: float = 0.0
    received: int = 0
    lost: int = 0
    clock_set_us: int = 0
    following: int = 0
    """The number after the last frame that came."""
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def active(self) -> int:
        return sum(self.channels)

    @property
    def values_per_frame(self) -> int:
        return 2 if self.active == 2 else 3

    @property
    def samples_per_frame(self) -> int:
        return 3 if self.active == 1 else 1

    @property
    def channel_rate_hz(self) -> float:
        return self.adc.sample_rate_hz / self.active

    @property
    def frame_rate_hz(self) -> float:
        return self.adc.sample_rate_hz / self.values_per_frame

    def numbered(self, numbers: Sequence[int]) -> StreamFrames:
        """Return frames by their numbers."""
        values = self.values_per_frame
        counts = (count_of(n * values + place) for n in numbers for place in range(values))
        ts = [frame_us(n, self.frame_rate_hz) for n in numbers]
        lost, self.following = numbers[-1] + 1 - self.following - len(numbers), numbers[-1] + 1
        return StreamFrames(ts, bytes(n % 256 for n in numbers), array("H", counts), lost)

    async def __aiter__(self) -> AsyncIterator[StreamFrames]:
        rng = random.Random(self.frames)
        for first in range(0, self.frames, self.batch):
            numbers = range(first, min(first + self.batch, self.frames))
            there = [n for n in numbers if self.loss == 0 or rng.random() >= self.loss]
            if there:
                self.received += len(there)
                yield self.numbered(there)
            await asyncio.sleep(self.pause_s)
        self.drained.set()
        if self.fails is not None:
            raise self.fails
        await asyncio.Event().wait()


@dataclass
class Node:
    """Offers Recording and SensorNodes."""

    configuration: AdcConfiguration = field(default_factory=AdcConfiguration)
    frames: int = 3000
    batch: int = 100
    loss: float = 0.0
    fails: Exception | None = None
    refuses: Exception | None = None
    pause_s: float = 0.0
    """Between batches."""
    makes: type[Streaming] = Streaming
    connected: ConnectedNode | None = NODE
    map: SensorMap = (1, 2, 3)
    streaming: Streaming | None = None
    left: int = 0
    """Streams that were ended at the node."""
    asked: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def stream(self, channels: tuple[bool, bool, bool]) -> AsyncIterator[Streaming]:
        if self.streaming is not None:
            raise NodeBusy("it streams already")
        if self.refuses is not None:
            raise self.refuses
        mine = self.streaming = self.makes(
            NODE, channels, self.configuration, self.frames, self.batch, self.loss, self.fails, self.pause_s
        )
        try:
            yield mine
        finally:
            self.streaming = None
            self.left += 1

    async def adc(self) -> AdcConfiguration:
        return self.configuration

    async def set_adc(self, configuration: AdcConfiguration) -> None:
        self.configuration = configuration
        self.asked.append("adc")

    async def set_sensor_map(self, sensors: SensorMap) -> None:
        first, second, third = (new or old for new, old in zip(sensors, self.map, strict=True))
        self.map = first, second, third
        self.asked.append("map")

    async def disconnect(self) -> None:
        self.connected = None
        self.asked.append("disconnect")

    async def sensor_map(self) -> SensorMap:
        return self.map

    async def search(self) -> Sequence[FoundNode]:
        return []

    async def connect(self, node: str | int) -> ConnectedNode:
        return NODE

    async def rename(self, name: str, node: str | int | None = None) -> ConnectedNode:
        return NODE

    async def rssi_dbm(self) -> int:
        return -40

    async def supply_voltage_v(self) -> float:
        return 3.9

    async def node_information(self) -> UnitInformation:
        return UnitInformation(NODE.name, NODE.mac, "", "", "", "")

    async def stu_information(self) -> UnitInformation:
        return UnitInformation("STU 1", "", "", "", "", "")

    async def reset_node(self) -> None:
        self.connected = None

    async def reset_stu(self) -> None:
        self.connected = None


LOST = NodeLost("the node Test-STH was not heard for 6 s: is it switched on, and near enough?")
