"""What becomes of frames and of the node's condition: samples, and gaps where some are missing."""

from collections.abc import Mapping

from gateway.canbus.losses import SAMPLES_LOST, Loss
from gateway.clock import wall_us_of
from gateway.controls.devices import TagState
from gateway.controls.sensor_nodes import ConnectedNode, NodeProblem
from gateway.model import Batch, Device, Link, Run
from gateway.protocols.icotronic import CHANNELS, Settings, TagSettings
from gateway.protocols.icotronic.radio import Radio
from gateway.protocols.icotronic.stream import NodeStream
from gateway.protocols.icotronic.tags import (
    Decimator,
    Readings,
    is_node,
    series_of,
    streamed_channels,
    tags_of,
)


class Samples:
    """Hands over the samples of a device's tags."""

    def __init__(self, device: Device, settings: Settings, link: Link) -> None:
        self.run: Run | None = None
        self._device = device
        self._settings = settings
        self._link = link
        self._decimator: Decimator | None = None
        self._counted: tuple[NodeStream | None, int, int] = (None, 0, 0)
        """The stream, and its frames received and lost, when data loss was last taken."""
        self._came: set[int] = set()
        """Series of which samples came."""
        self._lost = Loss(link, SAMPLES_LOST)
        """Samples for which the memory budget had no room."""

    # -- of a stream -------------------------------------------------------------------------------

    def stream_began(self, stream: NodeStream) -> None:
        self._decimator = Decimator.of(self._device, self._settings, self._link, stream)

    def take(self, stream: NodeStream, ts: list[int], data: list[bytes], flags: int) -> None:
        """Take frames of the stream that runs; `flags` are those of their times."""
        self._lost.settle()
        frames = stream.take(ts, data)
        if frames and self._decimator is not None:
            self._give(self._decimator.take(frames, flags))

    def stream_ended(self, _stream: NodeStream) -> None:
        decimator, self._decimator = self._decimator, None
        if decimator is not None:
            self._give(decimator.rest())
            self._record_missed(decimator)
        self._lost.settle(at_once=True)

    def _give(self, batch: Batch) -> None:
        """Emit without waiting: what comes from the bus does not wait either."""
        if not len(batch):
            return
        self._came.update(batch.series)
        if self._link.try_emit(batch) is None:
            self._lost.add_samples(batch)
        elif self.run is not None:
            self.run.add(len(batch))

    def _record_missed(self, decimator: Decimator) -> None:
        missed = decimator.take_missed()
        if missed.to_us:
            reason = f"frames of the stream of {decimator.stream.node.name} were lost on the radio"
            self._link.gap(missed.from_us, missed.to_us, reason, missed.count or None)

    # -- of the node -------------------------------------------------------------------------------

    async def read(self, radio: Radio, run: Run) -> None:
        """Take what the tags want of the connected node's condition."""
        if self._decimator is not None:
            self._record_missed(self._decimator)
        if radio.connected is None:
            return
        readings = Readings(self._device, self._link, radio.connected)
        values: dict[str, float] = {}
        try:
            if "rssi" in readings.signals:
                values["rssi"] = await radio.node.rssi_dbm()
            if "supply_voltage" in readings.signals:
                values["supply_voltage"] = await radio.node.supply_voltage_v()
        except NodeProblem as problem:
            run.problem(str(problem))
        if (loss := self._data_loss_percent(radio.stream)) is not None:
            values["data_loss"] = loss
        batch = readings.batch(values, *self._link.stamp())
        if len(batch):
            self._came.update(batch.series)
            await self._link.emit(batch)
            run.add(len(batch))

    def node_returned(self, lost: tuple[int, str, ConnectedNode]) -> None:
        """Record the hole that the loss of a node (since when, why, which) left in its tags."""
        since_ns, reason, node = lost
        if any(streamed_channels(self._device, node)) or Readings(self._device, self._link, node).signals:
            clock = self._link.clock
            self._link.gap(wall_us_of(clock, since_ns), clock.wall_us(), reason)

    def _data_loss_percent(self, stream: NodeStream | None) -> float | None:
        """Return the share of frames lost since the last call, or since the stream began."""
        if stream is None:
            return None
        before, received, lost = self._counted
        if stream is not before:
            received = lost = 0
        self._counted = stream, stream.received, stream.lost
        new, gone = stream.received - received, stream.lost - lost
        # What is dropped now may have been received before.
        return 100 * min(gone / (new + gone), 1.0) if new + gone else None

    # -- how the tags are ----------------------------------------------------------------------------

    def tag_states(self, node: ConnectedNode | None, stream: NodeStream | None) -> Mapping[str, TagState]:
        """Return how each tag is; it gives values only while its node is connected, or streams."""
        tags: Mapping[str, TagSettings] = self._device.tags
        if not tags and node is not None:
            tags = tags_of(self._device, node)
        return {name: self._state(name, tag, node, stream) for name, tag in tags.items()}

    def _state(
        self, name: str, tag: TagSettings, node: ConnectedNode | None, stream: NodeStream | None
    ) -> TagState:
        way = "subscribed" if tag.signal in CHANNELS else "polled"
        detail = ""
        if node is None:
            detail = f"{tag.node or 'no sensor node'} is {'not ' if tag.node else ''}connected"
        elif tag.node is not None and not is_node(tag.node, node):
            detail = f"{tag.node} is not connected, {node.name} is"
        elif stream is None and tag.signal in (*CHANNELS, "data_loss"):
            detail = (
                f"{node.name} does not stream: it does while something is recorded, or with `stream: true`"
            )
        elif stream is not None and not dict(zip(CHANNELS, stream.channels, strict=True)).get(
            tag.signal, True
        ):
            detail = f"{node.name} streams other channels now"
        alive = series_of(self._link, name, tag) in self._came
        return TagState(way, f"{tag.node or (node.name if node else '')} {tag.signal}".strip(), detail, alive)
