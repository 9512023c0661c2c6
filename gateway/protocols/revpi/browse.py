"""The control Browse: the modules, and below each its inputs and outputs as they are now."""

from collections.abc import Callable

from gateway.controls.devices import Node, NodePage
from gateway.model import Value
from gateway.protocols.revpi.decoding import Decoder
from gateway.protocols.revpi.layout import Layout, Point

_MODULE = "module:"


class Browser:
    """Walks what PiCtory configured (controls.Browse)."""

    def __init__(self, current: Callable[[], tuple[Layout, bytes]]) -> None:
        self._current = current

    async def browse(self, node: str | None, limit: int, cursor: str | None) -> NodePage:
        """List the modules, or what a module has. KeyError: no such node. ValueError: no such cursor."""
        layout, image = self._current()
        start = int(cursor or 0)
        if start < 0:
            raise ValueError(f"there is no cursor {cursor!r}: begin again without it")
        if node is None:
            nodes = _modules(layout)
        elif node in layout.points:
            nodes = []
        else:
            nodes = _points(layout, image, node)
        end = start + limit
        return NodePage(nodes[start:end], str(end) if end < len(nodes) else None)


def _modules(layout: Layout) -> list[Node]:
    used = {point.position for point in layout.points.values()}
    return [
        Node(f"{_MODULE}{m.position}", m.name, "object", type=m.kind, has_children=m.position in used)
        for m in layout.modules.values()
    ]


def _points(layout: Layout, image: bytes, node: str) -> list[Node]:
    position = node.removeprefix(_MODULE)
    if position not in map(str, layout.modules) or not node.startswith(_MODULE):
        raise KeyError(f"{layout.path} has no module, input or output {node!r}")
    points = [point for point in layout.points.values() if point.position == int(position)]
    values = Decoder(points)(image)
    return [_node(point, value) for point, value in zip(points, values, strict=True)]


def _node(point: Point, value: Value) -> Node:
    return Node(point.name, point.name, "variable", type=point.type, access="r", value=value)
