"""The session with an STU: frames in, samples out, an eye on the link, and what is asked of it."""

import asyncio
import contextlib
import sys

from gateway import canbus
from gateway.controls.sensor_nodes import ConnectedNode, NoAnswer, NodeLost, NodeProblem
from gateway.model import Device, DeviceProblem, GatewayError, Link, Run
from gateway.protocols.icotronic import Settings
from gateway.protocols.icotronic.asking import Asking
from gateway.protocols.icotronic.browsing import Browser
from gateway.protocols.icotronic.finding import GaveWay
from gateway.protocols.icotronic.messages import DATA_ID, FILTERS
from gateway.protocols.icotronic.radio import Radio
from gateway.protocols.icotronic.requests import Requester
from gateway.protocols.icotronic.samples import Samples
from gateway.protocols.icotronic.tags import is_node, streamed_channels
from gateway.protocols.icotronic.watching import LOOK_S, Watch

_BATCH_MS = 20
"""Requests are many and follow each other, so that they wait for their answers."""
_CONNECT_S = 20.0
"""For the node that is to stay connected."""
_PATIENCE_NS = 3_000_000_000
_AGAIN_S = 5.0
"""Before a node that is to be connected is tried again."""


async def hold(device: Device, settings: Settings, link: Link) -> None:
    """Hold the session until cancelled, or raise a DeviceProblem."""
    opening = canbus.opened(
        settings, device=device.id, clock=link.clock, filters=FILTERS, batch_ms=_BATCH_MS, stamp=link.stamp
    )
    async with opening as bus:
        try:
            await _Session(device, settings, link, bus).run()
        except BaseExceptionGroup as group:
            first = _first(group)
            raise first from first.__cause__


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
        self._samples = Samples(device, settings, link)
        self._radio = Radio(
            device.id,
            link.clock,
            self._requester,
            began=self._samples.stream_began,
            ended=self._samples.stream_ended,
        )
        self._wanted = settings.node
        """The node that is to be connected whenever it can be."""
        self._problem = ""
        """Why it is not connected or does not stream, though it is to."""
        self._bus_state = bus.health.state

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(self._receive())
            try:
                await self._begin(group)
                async with self._link.run("subscription") as self._samples.run:
                    await self._live(self._samples.run)
            finally:
                self._radio.end(self._end_of_session(receiving))
                self._close_hole()
                if not receiving.done():
                    await self._hang_up()
                    receiving.cancel()

    def _end_of_session(self, receiving: "asyncio.Task[None]") -> NodeLost:
        """Return what is told to who records: the cause, where something failed."""
        cause = sys.exception()
        if receiving.done() and not receiving.cancelled():
            cause = receiving.exception()
        why = "the session with the STU has ended"
        if cause is not None and isinstance(first := _first(cause), GatewayError):
            why += f": {str(first).removeprefix(f'device {self._device.id}: ')}"
        return NodeLost(f"device {self._device.id}: {why}")

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
        asking = Asking(
            self._device.id, self._link.clock, radio, self._samples, took=self._took, let_go=self._let_go
        )
        with self._link.offer(asking, Browser(radio)):
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
            if stream is not None and ts:
                self._samples.take(stream, ts, data, frames.flags)

    def _sort(self, frames: canbus.Frames) -> tuple[list[int], list[bytes]]:
        """Hand answers to who waits for them, and return what may be frames of the stream."""
        ts, data = [], []
        for at_us, can_id, payload in zip(frames.ts, frames.ids, frames.data, strict=True):
            self._requester.take(can_id, payload)
            if can_id == DATA_ID:
                ts.append(at_us)
                data.append(payload)
        return ts, data

    # -- the link ----------------------------------------------------------------------------------

    def _took(self, node: ConnectedNode) -> None:
        self._wanted = self._settings.node if self._is_configured(node) else None

    def _let_go(self, node: ConnectedNode) -> None:
        """Leave the configured node as the API wants it, disconnected; after another one it returns."""
        self._wanted = None if self._is_configured(node) else self._settings.node

    def _is_configured(self, node: ConnectedNode) -> bool:
        return self._settings.node is not None and is_node(self._settings.node, node)

    async def _keep(self) -> None:
        """Connect the wanted node and stream for the tags, whenever that can be."""
        radio = self._radio
        while True:
            radio.news.clear()
            try:
                await self._tend()
                self._problem = ""
            except GaveWay:
                pass
            except NodeProblem as problem:
                self._problem = str(problem)
            self._tell()
            missing = self._wanted is not None and radio.connected is None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S if self._problem or missing else None):
                    await radio.news.wait()

    async def _tend(self) -> None:
        radio = self._radio
        await radio.end_stray_link()
        if radio.connected is None and self._wanted is not None:
            self._tell()
            await radio.keep_connected(self._wanted, within_s=_CONNECT_S)
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
        lost, self._radio.lost = self._radio.lost, None
        if lost is not None:
            self._samples.node_returned(lost)

    async def _watch(self, run: Run) -> None:
        def heard(ago_us: int) -> None:
            run.add(0, ago_us)
            if self._bus.health.state != self._bus_state:
                self._radio.news.set()

        try:
            await Watch(self._radio, self._link.clock).run(heard)
        except NoAnswer as silent:
            raise self._no_stu(silent) from silent

    # -- the node's condition ------------------------------------------------------------------------

    async def _read_cyclically(self, run: Run) -> None:
        """Read at once when a node is connected, and then at the interval."""
        radio, loop = self._radio, asyncio.get_running_loop()
        while True:
            read = radio.connected
            await self._samples.read(radio, run)
            until = loop.time() + self._settings.poll_interval_s
            while radio.connected in (None, read) and loop.time() < until:
                await self._link.clock.sleep(LOOK_S)

    async def _on_request(self) -> None:
        while True:
            run_id = await self._link.polls.next()
            async with self._link.run("poll", run_id) as run:
                if self._radio.connected is None:
                    run.problem("no sensor node is connected")
                await self._samples.read(self._radio, run)
