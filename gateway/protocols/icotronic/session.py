"""The session with an STU: frames in, samples out, an eye on the link, and what is asked of it."""

import asyncio
import contextlib

from gateway import canbus
from gateway.controls import ConnectedNode, NoAnswer, NodeLost, NodeProblem
from gateway.model import Batch, Device, DeviceProblem, Link, Run
from gateway.protocols.icotronic import Settings
from gateway.protocols.icotronic.asking import Asking
from gateway.protocols.icotronic.messages import DATA_ID, FILTERS
from gateway.protocols.icotronic.radio import LINK_BROKE, Radio
from gateway.protocols.icotronic.requests import Requester
from gateway.protocols.icotronic.stream import NodeStream
from gateway.protocols.icotronic.tags import Decimator, Readings, is_node, streamed_channels

_BATCH_MS = 20
"""Requests are many and follow each other, so that they wait for their answers."""
_LOOK_S = 0.5
_ASK_NS = 1_500_000_000
"""So often a connected node that does not stream is asked whether it is there."""
_ASK_IDLE_NS = 5_000_000_000
"""So often the STU is, while no node is connected."""
_SILENT_NS = 2_000_000_000
_LOST_NS = 4_500_000_000
"""A stream is doubted, and given up, after such a silence, or three frames' time if that is more."""
_CONNECT_S = 8.0
"""For the node that is to stay connected; whoever asks for another one waits so long."""
_PATIENCE_NS = 3_000_000_000
_AGAIN_S = 5.0
"""Before a node that is to be connected is tried again."""


async def hold(device: Device, settings: Settings, link: Link) -> None:
    """Hold the session until cancelled, or raise a DeviceProblem."""
    async with canbus.opened(
        settings, device=device.id, clock=link.clock, filters=FILTERS, batch_ms=20
    ) as bus:
        try:
            await _Session(device, settings, link, bus).run()
        except BaseExceptionGroup as group:
            raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Session:
    """An open bus and what goes on there."""

    def __init__(self, device: Device, settings: Settings, link: Link, bus: canbus.Bus) -> None:
        self._device = device
        self._settings = settings
        self._link = link
        self._bus = bus
        self._requester = Requester(device.id, bus.send)
        self._radio = Radio(
            device.id, link.clock, self._requester, began=self._stream_began, ended=self._stream_ended
        )
        self._wanted = settings.node
        """The node that is to be connected whenever it can be."""
        self._decimator: Decimator | None = None
        self._run: Run | None = None
        self._problem = ""
        """Why it is not connected or does not stream, though it is to."""
        self._bus_state = bus.health.state
        self._asked_ns = 0
        self._counted: tuple[NodeStream | None, int, int] = (None, 0, 0)
        """The stream, and its frames received and lost, when data loss was last taken."""
        self._full: tuple[int, int] | None = None
        """Since when the memory budget is full, and how many samples that cost."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(self._receive())
            try:
                await self._begin(group)
                async with self._link.run("subscription") as self._run:
                    await self._live(self._run)
            finally:
                self._radio.end(NodeLost(f"device {self._device.id}: the session with the STU has ended"))
                self._close_hole()
                if not receiving.done():
                    await self._hang_up()
                    receiving.cancel()

    async def _hang_up(self) -> None:
        """Leave no stream and no link behind, also for who cancels again and again."""
        cancelled = False
        until_ns = self._link.clock.mono_ns() + _PATIENCE_NS
        while self._link.clock.mono_ns() < until_ns:
            try:
                await self._radio.hang_up()
                break
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        try:
            await self._radio.begin(self._wanted, group)
        except NoAnswer as silent:
            raise self._no_stu(silent) from silent

    async def _live(self, run: Run) -> None:
        radio = self._radio
        asking = Asking(self._device.id, self._link.clock, radio, self._want)
        with self._link.offer(asking):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep())
                group.create_task(self._watch(run))
                group.create_task(self._read_cyclically(run))
                group.create_task(self._on_request())

    def _no_stu(self, silent: NoAnswer) -> DeviceProblem:
        return DeviceProblem(
            f"{silent}: is it powered, at this bus ({self._settings.interface} {self._settings.channel}), "
            "and the bit rate 1 Mbit/s?"
        )

    # -- frames from the bus -------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            frames = await self._bus.receive()
            stream = self._radio.stream
            ids = frames.ids
            if stream is None or ids.count(DATA_ID) != len(ids) or self._requester.waits_for == DATA_ID:
                ts, data = self._sort(frames)
            else:
                ts, data = frames.ts, frames.data
            stream = self._radio.stream
            if stream is None or not ts:
                continue
            taken = stream.take(ts, data)
            if taken and self._decimator is not None:
                self._give(self._decimator.take(taken, frames.flags))

    def _sort(self, frames: canbus.Frames) -> tuple[list[int], list[bytes]]:
        """Hand answers to who waits for them, and return what may be frames of the stream."""
        ts, data = [], []
        for at_us, can_id, payload in zip(frames.ts, frames.ids, frames.data, strict=True):
            self._requester.take(can_id, payload)
            if can_id == DATA_ID:
                ts.append(at_us)
                data.append(payload)
        return ts, data

    def _give(self, batch: Batch) -> None:
        """Emit without waiting: what comes from the bus does not wait either."""
        if not len(batch):
            return
        if self._link.try_emit(batch) is None:
            since_us, count = self._full or (batch.ts[0], 0)
            self._full = since_us, count + len(batch)
            return
        if self._run is not None:
            self._run.add(len(batch))
        if self._full is not None:
            since_us, count = self._full
            self._full = None
            self._link.gap(since_us, batch.ts[0], "the memory budget was full: samples were dropped", count)

    # -- the link ----------------------------------------------------------------------------------

    def _want(self, node: ConnectedNode | None) -> None:
        """Take what the API connects, or disconnects, for what is wanted until it says otherwise."""
        configured = self._settings.node
        self._wanted = configured if configured and node is not None and is_node(configured, node) else None

    async def _keep(self) -> None:
        """Connect the wanted node and stream for the tags, whenever that can be."""
        news = self._radio.news
        while True:
            news.clear()
            try:
                await self._tend()
                self._problem = ""
            except NodeProblem as problem:
                self._problem = str(problem)
            self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S if self._problem else None):
                    await news.wait()

    async def _tend(self) -> None:
        radio = self._radio
        await radio.end_stray_link()
        if radio.connected is None and self._wanted is not None:
            self._tell()
            await radio.connect(self._wanted, within_s=_CONNECT_S)
        if radio.connected is not None:
            self._close_hole()
            if self._settings.stream and radio.stream is None:
                channels = streamed_channels(self._device, radio.connected)
                if any(channels):
                    await radio.stream_for_tags(channels)

    def _tell(self) -> None:
        self._bus_state = self._bus.health.state
        troubles = [self._problem or self._radio.problem]
        if self._bus_state not in ("up", "error-active"):
            troubles.append(f"the CAN bus is {self._bus_state}: look at its cable, termination and bit rate")
        if detail := "; ".join(trouble for trouble in troubles if trouble):
            self._link.report("degraded", detail)
        else:
            self._link.report("running", self._activity())

    def _activity(self) -> str:
        radio = self._radio
        if radio.connected is None:
            return f"looking for {self._wanted}" if self._wanted else "no sensor node is connected"
        if radio.stream is None:
            return f"{radio.connected.name} is connected"
        channels = ", ".join(str(n) for n, active in enumerate(radio.stream.channels, 1) if active)
        return f"{radio.connected.name} streams channel {channels}"

    def _close_hole(self) -> None:
        """Record the hole that the loss of a node left in its tags."""
        lost = self._radio.lost
        if lost is None:
            return
        since_us, reason, node = lost
        self._radio.lost = None
        if any(streamed_channels(self._device, node)) or Readings(self._device, self._link, node).signals:
            self._link.gap(since_us, self._link.clock.wall_us(), reason)

    def _stream_began(self, stream: NodeStream) -> None:
        self._decimator = Decimator.of(self._device, self._settings, self._link, stream)

    def _stream_ended(self, stream: NodeStream) -> None:
        decimator, self._decimator = self._decimator, None
        if decimator is not None:
            self._give(decimator.rest())
            self._record_missed(decimator)

    def _record_missed(self, decimator: Decimator) -> None:
        missed = decimator.take_missed()
        if missed.to_us:
            reason = f"frames of the stream of {decimator.stream.node.name} were lost on the radio"
            self._link.gap(missed.from_us, missed.to_us, reason, missed.count or None)

    # -- whether all is well -------------------------------------------------------------------------

    async def _watch(self, run: Run) -> None:
        while True:
            await self._link.clock.sleep(_LOOK_S)
            try:
                if await self._well():
                    run.add(0)
            except NoAnswer as silent:
                raise self._no_stu(silent) from silent
            except NodeProblem:
                continue  # an error is an answer
            if self._bus.health.state != self._bus_state:
                self._radio.news.set()

    async def _well(self) -> bool:
        """Ask what has not been heard for long; a node that is gone is lost."""
        radio, now_ns = self._radio, self._link.clock.mono_ns()
        stream = radio.stream
        if stream is not None:
            silent_ns = now_ns - stream.heard_ns
            if silent_ns < _SILENT_NS:
                self._asked_ns = now_ns
                return True
            if not await radio.stu.connected():
                radio.lose(LINK_BROKE)
            elif stream is radio.stream and silent_ns > max(_LOST_NS, int(3e9 / stream.frame_rate_hz)):
                radio.lose(f"it has sent nothing for {silent_ns / 1e9:.1f} s, though the STU holds the link")
            return False
        connected = radio.connected
        if now_ns - self._asked_ns < (_ASK_NS if connected else _ASK_IDLE_NS):
            return False
        self._asked_ns = now_ns
        if connected is None:
            await radio.stu.state()
        elif await radio.stu.connected():
            with contextlib.suppress(NoAnswer):  # the radio has taken note of the loss
                await radio.node.state()
        elif radio.connected is connected:
            radio.lose(LINK_BROKE)
        return True

    # -- the node's condition ------------------------------------------------------------------------

    async def _read_cyclically(self, run: Run) -> None:
        """Read at once when a node is connected, and then at the interval."""
        radio, read = self._radio, None
        while True:
            read = radio.connected
            await self._read(run)
            until = asyncio.get_running_loop().time() + self._settings.poll_interval_s
            while radio.connected in (None, read) and asyncio.get_running_loop().time() < until:
                await self._link.clock.sleep(_LOOK_S)

    async def _on_request(self) -> None:
        while True:
            run_id = await self._link.polls.next()
            async with self._link.run("poll", run_id) as run:
                if self._radio.connected is None:
                    run.problem("no sensor node is connected")
                await self._read(run)

    async def _read(self, run: Run) -> None:
        """Take what the tags want of the node's condition."""
        radio = self._radio
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
        if (loss := self._data_loss_percent()) is not None:
            values["data_loss"] = loss
        batch = readings.batch(values, *self._link.stamp())
        if len(batch):
            await self._link.emit(batch)
            run.add(len(batch))

    def _data_loss_percent(self) -> float | None:
        """Return the share of frames lost since the last call, or since the stream began."""
        stream, (before, received, lost) = self._radio.stream, self._counted
        if stream is None:
            return None
        if stream is not before:
            received = lost = 0
        self._counted = stream, stream.received, stream.lost
        new, gone = stream.received - received, stream.lost - lost
        return 100 * gone / (new + gone) if new + gone else None
