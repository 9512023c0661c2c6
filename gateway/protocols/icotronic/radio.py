"""The radio link to one sensor node, and its stream: what is, and how it comes and goes."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from gateway.clock import Clock
from gateway.controls.sensor_nodes import (
    ConnectedNode,
    FoundNode,
    NoAnswer,
    NodeBusy,
    NodeLost,
    NodeProblem,
    NotConnected,
)
from gateway.model import GatewayError
from gateway.protocols.icotronic.finding import Finder
from gateway.protocols.icotronic.messages import STH, Request
from gateway.protocols.icotronic.requests import Requester
from gateway.protocols.icotronic.stream import NodeStream
from gateway.protocols.icotronic.tags import is_node
from gateway.protocols.icotronic.units import Node, Stu

_ALIVE_NS = 1_000_000_000
"""A stream whose last frame is younger is going on."""
_LAST_WAITS_S = (0.3, 0.4, 0.5)

LINK_BROKE = "the radio link broke; is it charged and in range?"

_log = logging.getLogger(__name__)


class Radio:
    """The STU, the node that it is connected to, and the node's stream."""

    def __init__(
        self,
        device: str,
        clock: Clock,
        requester: Requester,
        *,
        began: Callable[[NodeStream], None],
        ended: Callable[[NodeStream], None],
    ) -> None:
        self.stu = Stu(device, self.ask)
        self.node = Node(device, self.ask)
        self._finder = Finder(device, clock, self.stu, self.node)
        self.connected: ConnectedNode | None = None
        self.stream: NodeStream | None = None
        self.recorded = False
        """The stream is somebody's, not only for the tags."""
        self.problem = ""
        """Why no node is connected, where that is not as it should be."""
        self.lost: tuple[int, str, ConnectedNode] | None = None
        """Since when (monotonic, nanoseconds) a node is not heard, why, and which."""
        self.news = asyncio.Event()
        """Set with each change of the above."""
        self.turn = asyncio.Lock()
        """Held by what changes the link or the stream."""
        self._link = 0
        """Counts the links that have ended: a request belongs to the one that it was meant for."""
        self._waiting = 0
        self._heard_ns = 0
        """When the node last answered."""
        self.stray_link = False
        """The STU may hold a link that nobody wants."""
        self._device = device
        self._clock = clock
        self._requester = requester
        self._began, self._ended = began, ended
        """Called with each stream when it begins, and when it is over."""
        self._group: asyncio.TaskGroup | None = None

    @contextlib.asynccontextmanager
    async def my_turn(self) -> AsyncIterator[None]:
        """Hold the turn for somebody who asks; who looks for a node without being asked gives way."""
        self._waiting += 1
        try:
            async with self.turn:
                yield
        finally:
            self._waiting -= 1

    async def ask(self, request: Request) -> bytes:
        """Ask; a connected node that does not answer is lost, and others that wait to ask it ask no more."""
        link, requester = self._link, self._requester
        linked = request.receiver == STH and self.connected is not None
        async with requester.turn:
            if linked and link != self._link:
                raise NodeLost(f"device {self._device}: {self.problem or 'the link to the node has ended'}")
            try:
                answer = await requester.ask_in_turn(request)
            except NoAnswer as error:
                if linked and link == self._link and not self._streams():
                    # Whether the link is there is asked before all that others want.
                    held = await Stu(self._device, requester.ask_in_turn).connected()
                    if link == self._link:
                        self.lose(self._less_device(error) if held else LINK_BROKE)
                raise
        if request.receiver == STH:
            self._heard_ns = self._clock.mono_ns()
        return answer

    def _less_device(self, problem: NodeProblem) -> str:
        return str(problem).removeprefix(f"device {self._device}: ")

    def _streams(self) -> bool:
        return self.stream is not None and self._clock.mono_ns() - self.stream.heard_ns < _ALIVE_NS

    # -- the link ----------------------------------------------------------------------------------

    async def begin(self, wanted: str | None, group: asyncio.TaskGroup) -> None:
        """Ask whether the STU is there; adopt a link left over from before, or end it.

        `group` runs the ends of streams, which must not be cancelled with who took them.
        """
        self._group = group
        await self.stu.state()
        self.stray_link = await self.stu.connected()
        if not self.stray_link:
            return
        if wanted is not None:
            try:
                await self.node.stop_stream()
                left = ConnectedNode(await self.node.name(), await self.node.mac())
            except NodeProblem as problem:
                _log.info("%s: a link left over from before is ended: %s", self._device, problem)
            else:
                if is_node(wanted, left):
                    _log.info(
                        "%s: the link to %s, left over from before, is adopted", self._device, left.name
                    )
                    self._adopt(left)
                    return
        await self._end_stray_link()

    async def search(self) -> Sequence[FoundNode]:
        """Return the nodes that are found until two looks in a row find no more."""
        async with self.my_turn():
            return await self._finder.search()

    async def connect(self, wanted: str | int, *, within_s: float) -> ConnectedNode:
        """Connect a node by its name, MAC or number; `turn` is held."""
        node = self.connected
        if node is None:
            return await self._connect(wanted, within_s, lambda: True)
        if isinstance(wanted, str) and is_node(wanted, node):
            return node
        raise NodeBusy(f"device {self._device}: {node.name} ({node.mac}) is connected: disconnect it first")

    async def keep_connected(self, wanted: str, *, within_s: float) -> None:
        """Connect a node unless one is connected. GaveWay: somebody else asked for something."""
        async with self.turn:
            if self.connected is None:
                await self._connect(wanted, within_s, lambda: not self._waiting)

    async def _connect(self, wanted: str | int, within_s: float, go_on: Callable[[], bool]) -> ConnectedNode:
        try:
            await self._end_stray_link()
            node = await self._finder.connect(wanted, within_s, go_on)
        finally:
            self._link_is_stray()
        self._adopt(node)
        return node

    async def disconnect(self) -> None:
        """End the stream and the link; `turn` is held. NotConnected: nobody wants the node that was lost."""
        try:
            node = self.need()
        finally:
            self.problem = ""
            self.news.set()
        self._end(NodeLost(f"device {self._device}: {node.name} was disconnected"))
        self._link_is_stray()
        with contextlib.suppress(NodeProblem):  # ending the link ends the stream too
            await self.node.stop_stream()
        await self._end_stray_link()

    def lose(self, reason: str) -> None:
        """Take note that the connected node is gone."""
        node = self.connected
        if node is None:
            return
        self.problem = f"the sensor node {node.name} ({node.mac}) was lost: {reason}"
        heard_ns = max(self._heard_ns, self.stream.heard_ns if self.stream is not None else 0)
        self.lost = heard_ns, self.problem, node
        self._end(NodeLost(f"device {self._device}: {self.problem}"))
        self._link_is_stray()

    def need(self) -> ConnectedNode:
        """Return the connected node. NotConnected: there is none."""
        if self.connected is None:
            raise NotConnected(
                f"device {self._device}: no sensor node is connected{self.problem and ': ' + self.problem}"
            )
        return self.connected

    def forget(self, error: GatewayError) -> None:
        """Take note that the link has ended because it was to, as by a restart."""
        self.problem = ""
        self._end(error)
        self._link_is_stray()

    def _adopt(self, node: ConnectedNode) -> None:
        self.connected, self.problem, self.stray_link = node, "", False
        self.news.set()

    def _end(self, error: GatewayError) -> None:
        self.connected = None
        self._link += 1
        stream = self._forget_stream()
        if stream is not None:
            stream.fail(error)

    def _link_is_stray(self) -> None:
        self.stray_link = True
        self.news.set()

    async def end_stray_link(self) -> None:
        """End a link that nobody wants, if there may be one."""
        async with self.turn:
            if self.connected is None:
                await self._end_stray_link()

    async def _end_stray_link(self) -> None:
        if self.stray_link:
            await self.stu.deactivate()
            self.stray_link = False

    # -- the stream --------------------------------------------------------------------------------

    async def record(self, channels: tuple[bool, bool, bool]) -> NodeStream:
        """Begin a stream for somebody; one for the tags alone makes way for it."""
        if not any(channels):
            raise ValueError("none of the three channels is active: at least one has to be")
        async with self.my_turn():
            await self.pause_stream()
            return await self._open(channels, recorded=True)

    async def stream_for_tags(self, channels: tuple[bool, bool, bool]) -> None:
        """Begin a stream for the tags, unless something streams."""
        async with self.turn:
            if self.stream is None and self.connected is not None:
                await self._open(channels, recorded=False)

    async def _open(self, channels: tuple[bool, bool, bool], *, recorded: bool) -> NodeStream:
        node = self.need()
        adc = await self.node.adc()
        stream = self.stream = NodeStream(node, channels, adc, self._clock, queued=recorded)
        self.recorded = recorded
        self._began(stream)
        self.news.set()
        try:
            await self.node.start_stream(stream.form, stream.frame_rate_hz)
        except BaseException:
            self._abandon(stream)
            raise
        return stream

    def need_no_recording(self) -> None:
        """Raise NodeBusy while somebody records."""
        if self.stream is not None and self.recorded:
            raise NodeBusy(
                f"device {self._device}: {self.stream.node.name} streams for a recording: end that first"
            )

    async def pause_stream(self) -> None:
        """End a stream for the tags alone; `turn` is held. NodeBusy: somebody records."""
        self.need_no_recording()
        await self._stop_stream()

    async def close_stream(self, stream: NodeStream) -> None:
        """End a stream, also if who calls this is cancelled meanwhile."""
        stopping = self._abandon(stream)
        if stopping is not None:
            await asyncio.shield(stopping)

    def _abandon(self, stream: NodeStream) -> "asyncio.Task[None] | None":
        if self.stream is not stream:
            return None
        self._forget_stream()
        stream.fail(GatewayError(f"device {self._device}: the stream was ended"))
        return self._stopping()

    def _stopping(self) -> "asyncio.Task[None] | None":
        """Begin to end the stream at the node; a session that ends does so itself as it hangs up."""
        if self._group is None:
            return None
        ending = self._stop_in_turn()
        try:
            return self._group.create_task(ending)
        except RuntimeError:  # the group is ending already, and does not say so otherwise
            ending.close()
            return None

    async def _stop_in_turn(self) -> None:
        async with self.turn:
            # A stream that was begun in between has taken the place of the one to be ended.
            if self.connected is not None and self.stream is None:
                await self._stop_for_certain()

    async def _stop_stream(self) -> None:
        if self._forget_stream() is not None:
            await self._stop_for_certain()

    async def _stop_for_certain(self) -> None:
        try:
            await self.node.stop_stream()
        except NodeProblem as problem:
            self.lose(self._less_device(problem))  # which ends the link, and with it the stream

    def _forget_stream(self) -> NodeStream | None:
        stream, self.stream, self.recorded = self.stream, None, False
        if stream is not None:
            self._ended(stream)
            self.news.set()
        return stream

    # -- the end -----------------------------------------------------------------------------------

    def end(self, error: NodeProblem) -> None:
        """Fail what goes on; `hang_up` is to follow."""
        self._group = None
        self._requester.end(error)
        if self.connected is not None:
            self._link_is_stray()
        self._end(error)

    async def hang_up(self) -> None:
        """Leave no stream and no link behind, as far as the STU lets us; may be done again."""
        if not self.stray_link:
            return
        try:
            with contextlib.suppress(NodeProblem):  # the end of the link ends the stream too
                await Node(self._device, self._ask_last).stop_stream()
            await Stu(self._device, self._ask_last).deactivate()
            self.stray_link = False
        except GatewayError as problem:
            _log.warning("%s: the sensor node may still be connected: %s", self._device, problem)

    async def _ask_last(self, request: Request) -> bytes:
        return await self._requester.ask(request, waits_s=_LAST_WAITS_S, last=True)
