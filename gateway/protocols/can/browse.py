"""The control Browse: the messages of the databases, and below each its signals with their newest values."""

from collections.abc import Callable, Mapping

from gateway.controls.devices import Node, NodePage
from gateway.model import Link
from gateway.protocols.can.abouts import about, type_of
from gateway.protocols.can.database import Database, Message, Signal


class Browser:
    """Walks the databases of a bus (controls.Browse)."""

    def __init__(self, database: Database, collected: Callable[[], Mapping[str, int]], link: Link) -> None:
        """`collected`: the series of the signals that are stored as the database has them, by their names."""
        self._messages = {message.name: message for message in database.messages}
        self._collected = collected
        self._link = link

    async def browse(self, node: str | None, limit: int, cursor: str | None) -> NodePage:
        """List the messages, or the signals of one. KeyError: no such node. ValueError: no such cursor."""
        start = int(cursor or 0)
        if start < 0:
            raise ValueError(f"there is no cursor {cursor!r}: begin again without it")
        if node is None:
            nodes = [_message(message) for message in self._messages.values()]
        elif node in self._messages:
            nodes = self._signals(self._messages[node])
        elif any(node == f"{each.name}.{s.name}" for each in self._messages.values() for s in each.signals):
            nodes = []
        else:
            raise KeyError(f"the databases have no message or signal {node!r}")
        end = start + limit
        return NodePage(nodes[start:end], str(end) if end < len(nodes) else None)

    def _signals(self, message: Message) -> list[Node]:
        collected = self._collected()
        return [
            self._signal(f"{message.name}.{signal.name}", signal, collected) for signal in message.signals
        ]

    def _signal(self, name: str, signal: Signal, collected: Mapping[str, int]) -> Node:
        last = self._link.last(collected[name]) if name in collected else None
        value = last.value if last is not None else None
        return Node(
            name,
            signal.name,
            "variable",
            type=type_of(signal),
            access="r",
            value=value,
            unit=signal.unit,
            meaning=about(signal).enum.get(str(value), ""),
        )


def _message(message: Message) -> Node:
    kind = message.id_text if message.pgn is None else f"PGN {message.pgn}"
    return Node(message.name, message.name, "object", type=kind, has_children=bool(message.signals))
