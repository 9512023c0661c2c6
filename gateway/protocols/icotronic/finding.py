"""Finds sensor nodes and connects one."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from gateway.clock import Clock
from gateway.controls.sensor_nodes import ConnectedNode, FoundNode, NodeNotFound, NodeProblem
from gateway.protocols.icotronic.messages import as_mac
from gateway.protocols.icotronic.tags import is_node
from gateway.protocols.icotronic.units import Node, Stu

_SEARCH_S = 5.0
"""For the first node to be found."""
_LONGEST_S = 10.0
"""For the nodes that are found to stay the same."""
_ROUND_S = 0.5
_LINK_S = 3.0
"""For a link that the STU begins."""
_LOOK_S = 0.1


class GaveWay(NodeProblem):
    """Somebody else wants the STU: look for the node later."""


class Finder:
    """Looks for nodes; whoever calls it holds the turn."""

    def __init__(self, device: str, clock: Clock, stu: Stu, node: Node) -> None:
        self._device = device
        self._clock = clock
        self._stu = stu
        self._node = node

    async def search(self) -> Sequence[FoundNode]:
        """Return the nodes that are found until two looks in a row find no more, in their order.

        Where nodes come and go all the time, those that are there after a while.
        """
        found: dict[str, FoundNode] = {}
        start_ns = self._clock.mono_ns()
        while True:
            await self._stu.activate()
            seen = {node.mac: node for node in await self._stu.nodes()}
            settled = seen.keys() == found.keys()
            found = seen
            took_s = (self._clock.mono_ns() - start_ns) / 1e9
            if (settled and (found or took_s > _SEARCH_S)) or took_s > _LONGEST_S:
                return sorted(found.values(), key=lambda node: node.number)
            await self._clock.sleep(_ROUND_S)

    async def connect(self, wanted: str | int, within_s: float, go_on: Callable[[], bool]) -> ConnectedNode:
        """Connect a node by its name, MAC or number. NodeNotFound: not in time; GaveWay: not `go_on`."""
        seen: dict[str, bool] = {}
        try:
            async with asyncio.timeout(within_s):
                while go_on():
                    await self._stu.activate()
                    number = await self._number(wanted, seen)
                    if number is not None and (node := await self._connected(number, wanted)) is not None:
                        return node
                    await self._clock.sleep(_LOOK_S)
        except TimeoutError:
            raise NodeNotFound(self._not_found(wanted, seen, within_s)) from None
        raise GaveWay(f"device {self._device}: somebody else asks the STU")

    async def _number(self, wanted: str | int, seen: dict[str, bool]) -> int | None:
        """Return the number that the STU has for a node now; `seen` is told who is there and meant."""
        mac = as_mac(wanted) if isinstance(wanted, str) else None
        for number in range(await self._stu.count()):
            if isinstance(wanted, int):
                label, meant = f"number {number}", number == wanted
            elif mac is not None:
                label = await self._stu.mac(number)
                meant = label == mac
            else:
                label = await self._stu.name(number)
                meant = label == wanted
            seen[label] = meant
            if meant:
                return number
        return None

    async def _connected(self, number: int, wanted: str | int) -> ConnectedNode | None:
        """Connect the node of a number; return None where that fails, or it is not the one wanted."""
        if not await self._stu.connect(number) or not await self._linked():
            return None
        with contextlib.suppress(NodeProblem):  # the link broke again
            node = ConnectedNode(await self._node.name(), await self._node.mac())
            if isinstance(wanted, int) or is_node(wanted, node):
                return node
        # The numbers have moved between the question and the connection, or it was too short.
        await self._stu.deactivate()
        return None

    async def _linked(self) -> bool:
        until_ns = self._clock.mono_ns() + int(_LINK_S * 1e9)
        while not await self._stu.connected():
            if self._clock.mono_ns() > until_ns:
                return False
            await self._clock.sleep(_LOOK_S)
        return True

    def _not_found(self, wanted: str | int, seen: dict[str, bool], within_s: float) -> str:
        which = f"number {wanted}" if isinstance(wanted, int) else wanted
        if any(seen.values()):
            return (
                f"device {self._device}: the sensor node {which} is found but could not be connected within "
                f"{within_s:.0f} s: is it in range, and its battery charged?"
            )
        return (
            f"device {self._device}: no sensor node {which} was found within {within_s:.0f} s "
            f"(found: {', '.join(seen) or 'none'}): is it awake, charged, in range, "
            "and not connected to another STU?"
        )
