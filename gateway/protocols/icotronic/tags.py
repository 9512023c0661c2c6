"""From the YAML's tags, or all signals where none is listed, to samples of the connected node."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.controls.sensor_nodes import ConnectedNode, Stream, StreamFrames
from gateway.model import Batch, Device, Link
from gateway.protocols.icotronic import CHANNELS, Settings, TagSettings
from gateway.protocols.icotronic.messages import as_mac
from gateway.protocols.icotronic.units import FULL_SCALE
from gateway.scaling import Scaling

_SIGNALS: Sequence[TagSettings] = [
    TagSettings(signal=signal)  # type: ignore[arg-type]
    for signal in (*CHANNELS, "rssi", "supply_voltage", "data_loss")
]
UNITS = {"rssi": "dBm", "data_loss": "%"}


def is_node(wanted: str, node: ConnectedNode) -> bool:
    """Say whether a node is meant by a name or MAC."""
    return wanted == node.name or as_mac(wanted) == node.mac


def tags_of(device: Device, node: ConnectedNode) -> Mapping[str, TagSettings]:
    """Return the tags of a node by their names: the listed ones, or a tag of each signal."""
    if not device.tags:
        return {f"{node.name}.{tag.signal}": tag for tag in _SIGNALS}
    tags: Mapping[str, TagSettings] = device.tags
    return {name: tag for name, tag in tags.items() if tag.node is None or is_node(tag.node, node)}


def streamed_channels(device: Device, node: ConnectedNode) -> tuple[bool, bool, bool]:
    """Return which channels have tags."""
    wanted = {tag.signal for tag in tags_of(device, node).values()}
    first, second, third = (channel in wanted for channel in CHANNELS)
    return first, second, third


def series_of(link: Link, name: str, tag: TagSettings) -> int:
    """Return the series of a tag; its unit is that of the signal unless given or scaled."""
    own = "" if (tag.scale, tag.offset) != (1.0, 0.0) else UNITS.get(tag.signal, "V")
    return link.tag(name, unit=tag.unit or own)


class Readings:
    """Tags of the node's condition, taken at an interval."""

    def __init__(self, device: Device, link: Link, node: ConnectedNode) -> None:
        self._tags = [
            (tag.signal, series_of(link, name, tag), Scaling(tag.scale, tag.offset))
            for name, tag in tags_of(device, node).items()
            if tag.signal not in CHANNELS
        ]
        self.signals = {signal for signal, _, _ in self._tags}

    def batch(self, values: Mapping[str, float], ts: int, flags: int) -> Batch:
        """Return samples of what was read, by signal."""
        batch = Batch()
        for signal, series, scaling in self._tags:
            if signal in values:
                batch.add(series, ts, scaling(values[signal]), flags=flags)
        return batch


@dataclass(slots=True)
class _Interval:
    """What came of a channel in the interval that is running."""

    number: int
    ts: int
    newest: int
    low: int
    high: int
    count: int = 0
    sum: int = 0
    squares: int = 0

    def add(self, ts: int, counts: Sequence[int], aggregate: str) -> None:
        self.ts, self.newest = ts, counts[-1]
        if aggregate == "newest":
            return
        self.low, self.high = min(self.low, *counts), max(self.high, *counts)
        self.count += len(counts)
        self.sum += sum(counts)
        if aggregate == "rms":
            self.squares += sum(count * count for count in counts)


@dataclass(slots=True)
class _ChannelTag:
    """A tag of a channel; physical = count * scale + offset."""

    series: int
    aggregate: str
    interval_us: int
    start: int
    """Place of the channel's sample in a frame of one sample a channel."""
    scale: float
    offset: float
    running: _Interval | None = None

    def flush(self, batch: Batch, flags: int) -> None:
        """Add the sample of the interval that was running."""
        running, self.running = self.running, None
        if running is not None:
            batch.add(self.series, running.ts, self._value(running), flags=flags)

    def _value(self, interval: _Interval) -> float:
        if self.aggregate == "rms":
            mean, square = interval.sum / interval.count, interval.squares / interval.count
            scaled = self.scale**2 * square + 2 * self.scale * self.offset * mean + self.offset**2
            return math.sqrt(max(0.0, scaled))
        low, high = (interval.low, interval.high) if self.scale >= 0 else (interval.high, interval.low)
        raw: Mapping[str, float] = {
            "newest": interval.newest,
            "min": low,
            "max": high,
            "mean": interval.sum / max(1, interval.count),
        }
        return raw[self.aggregate] * self.scale + self.offset


@dataclass(slots=True)
class Missed:
    """What the tags missed since the last look."""

    from_us: int = 0
    to_us: int = 0
    count: int = 0
    """Samples; 0 where nobody can tell."""


@dataclass(slots=True)
class Decimator:
    """Makes of a stream one sample a tag and interval, or every sample where the interval is 0."""

    stream: Stream
    tags: Sequence[_ChannelTag]
    flags: int = 0
    missed: Missed = field(default_factory=Missed)
    _ts: int = 0

    @classmethod
    def of(cls, device: Device, settings: Settings, link: Link, stream: Stream) -> "Decimator":
        """Return one for the tags of the channels that stream."""
        volts = stream.adc.reference_voltage_v / FULL_SCALE
        active = [channel for channel, yes in zip(CHANNELS, stream.channels, strict=True) if yes]
        tags = []
        for name, tag in tags_of(device, stream.node).items():
            if tag.signal in active:
                keep_ms = settings.keep_interval_ms if tag.keep_interval_ms is None else tag.keep_interval_ms
                series = series_of(link, name, tag)
                start = active.index(tag.signal)
                scale = volts * tag.scale
                tags.append(_ChannelTag(series, tag.aggregate, keep_ms * 1000, start, scale, tag.offset))
        return cls(stream, tags)

    def take(self, frames: StreamFrames, flags: int) -> Batch:
        """Return the samples of the intervals that have ended."""
        batch = Batch()
        self.flags = flags
        if not self.tags:
            return batch
        self._look_for_holes(frames)
        single = self.stream.samples_per_frame > 1
        for tag in self.tags:
            counts = frames.counts if single else frames.counts[tag.start :: self.stream.values_per_frame]
            if tag.interval_us:
                self._thin(tag, frames.ts, counts, batch)
            else:
                self._every(tag, frames.ts, counts, batch)
        self._ts = frames.ts[-1]
        return batch

    def rest(self) -> Batch:
        """Return the samples of the intervals that were running when the stream ended."""
        batch = Batch()
        for tag in self.tags:
            tag.flush(batch, self.flags)
        return batch

    def take_missed(self) -> Missed:
        """Return what was missed since the last call."""
        missed, self.missed = self.missed, Missed()
        return missed

    def _thin(self, tag: _ChannelTag, ts: list[int], counts: Sequence[int], batch: Batch) -> None:
        each = self.stream.samples_per_frame
        at = 0
        while at < len(ts):
            number = ts[at] // tag.interval_us
            end = _first_from(ts, (number + 1) * tag.interval_us, at)
            if tag.running is None or tag.running.number != number:
                tag.flush(batch, self.flags)
                first = counts[at * each]
                tag.running = _Interval(number, ts[at], first, first, first)
            tag.running.add(ts[end - 1], counts[at * each : end * each], tag.aggregate)
            at = end

    def _every(self, tag: _ChannelTag, ts: list[int], counts: Sequence[int], batch: Batch) -> None:
        """Add every sample; those of one frame lie a sample period apart, the last at the frame's time."""
        each, period_us = self.stream.samples_per_frame, 1e6 / self.stream.channel_rate_hz
        before_us = [round(period_us * (each - 1 - place)) for place in range(each)]
        batch.series.extend([tag.series] * len(counts))
        batch.ts.extend([at_us - before for at_us in ts for before in before_us])
        batch.values.extend([count * tag.scale + tag.offset for count in counts])
        batch.statuses.extend([0] * len(counts))
        batch.flags.extend([self.flags] * len(counts))

    def _look_for_holes(self, frames: StreamFrames) -> None:
        if not frames.lost or not self._ts:
            return
        every = sum(tag.interval_us == 0 for tag in self.tags)
        shortest_us = min((tag.interval_us for tag in self.tags if tag.interval_us), default=0)
        silence_us = max(now - before for before, now in zip([self._ts, *frames.ts], frames.ts, strict=False))
        if every or silence_us > 2 * shortest_us:
            self.missed.from_us = self.missed.from_us or self._ts
            self.missed.to_us = frames.ts[-1]
            self.missed.count += frames.lost * self.stream.samples_per_frame * every


def _first_from(ts: Sequence[int], limit_us: int, at: int) -> int:
    """Return the place behind `at` where the times reach a limit, or go back, for the clock was set."""
    if ts[-1] >= ts[at]:
        return bisect_left(ts, limit_us, at + 1)
    behind = range(at + 1, len(ts))
    return next((n for n in behind if ts[n] >= limit_us or ts[n] < ts[n - 1]), len(ts))
