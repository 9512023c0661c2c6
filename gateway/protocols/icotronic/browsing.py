"""The control Browse: the sensor nodes that are in range, and below each what the YAML may take of it."""

from typing import get_args

from gateway.controls.devices import Node, NodePage
from gateway.controls.sensor_nodes import FoundNode
from gateway.protocols.icotronic import Signal
from gateway.protocols.icotronic.messages import as_mac
from gateway.protocols.icotronic.radio import Radio
from gateway.protocols.icotronic.tags import UNITS


class Browser:
    """Looks for nodes each time it is asked for them (controls.Browse)."""

    def __init__(self, radio: Radio) -> None:
        self._radio = radio

    async def browse(self, node: str | None, limit: int, cursor: str | None) -> NodePage:
        """List the sensor nodes, or the signals of one. KeyError: no MAC. ValueError: no such cursor."""
        start = int(cursor or 0)
        if start < 0:
            raise ValueError(f"there is no cursor {cursor!r}: begin again without it")
        if node is None:
            nodes = await self._nodes()
        elif node in get_args(Signal):
            nodes = []
        elif as_mac(node) is None:
            raise KeyError(f"{node!r} is no MAC of a sensor node")
        else:
            signals = get_args(Signal)
            nodes = [Node(each, each, "variable", access="r", unit=UNITS.get(each, "V")) for each in signals]
        end = start + limit
        return NodePage(nodes[start:end], str(end) if end < len(nodes) else None)

    async def _nodes(self) -> list[Node]:
        nodes = [_node(found) for found in await self._radio.search()]
        connected = self._radio.connected
        if connected is not None:
            nodes.insert(
                0, Node(connected.mac, connected.name, "object", type="connected", has_children=True)
            )
        return nodes


def _node(found: FoundNode) -> Node:
    return Node(
        found.mac,
        found.name,
        "object",
        type="sensor node",
        value=found.rssi_dbm,
        unit="dBm",
        has_children=True,
    )
