"""Reads of many values: the request is encoded once, the answer goes into columns."""

from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.ua.ua_binary import Primitives

from gateway.model import DeviceProblem
from gateway.protocols.opcua import datavalues
from gateway.protocols.opcua.bounded import BROKEN, why
from gateway.protocols.opcua.columns import Columns
from gateway.protocols.opcua.datavalues import Decoded
from gateway.protocols.opcua.encoded import Encoded, read_request
from gateway.protocols.opcua.items import Item
from gateway.protocols.opcua.notifications import body
from gateway.protocols.opcua.selftest import fast_path_works
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.values import reading

_MOST_REQUESTS = 256
"""Encoded requests kept; there are as many as chunks of the tags that are read."""


class Reads:
    """Reads the values of items over one session; raises as asyncua does."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._encoded: dict[tuple[int, int], tuple[list[Any], Encoded]] = {}

    async def read(self, items: Sequence[Item]) -> Decoded:
        """Read the items in one call: slices in their order, up to the first that cannot be decoded."""
        if not fast_path_works():
            return await self._as_asyncua(items)
        return await read(self._session, self._request(items), len(items))

    async def _as_asyncua(self, items: Sequence[Item]) -> Decoded:
        values = await self._session.read([_question(item.node) for item in items])
        columns = Columns()
        for place, value in enumerate(values):
            columns.add(place, reading(value))
        return Decoded([columns])

    def _request(self, items: Sequence[Item]) -> Encoded:
        nodes = [item.node for item in items]
        key = items[0].series, len(items)
        known = self._encoded.get(key)
        if known is not None and known[0] == nodes:  # the same objects: a comparison of addresses
            return known[1]
        if len(self._encoded) >= _MOST_REQUESTS:
            self._encoded.clear()
        request = read_request(nodes, ua.AttributeIds.Value)
        self._encoded[key] = nodes, request
        return request


async def read(session: Session, request: Encoded, count: int) -> Decoded:
    """Send a ReadRequest and decode the answer; raises as asyncua does."""
    answer = await session.services._send_request(request)
    session.heard()
    try:
        data = body(answer)
        if (got := Primitives.Int32.unpack(data)) != count:
            raise DeviceProblem(
                f"device {session.device}: the server answered a read of {count} nodes with {got} values"
            )
        return await datavalues.decode(*data.rest(), count, keyed=False)
    except ua.UaError:
        raise
    except BROKEN as error:
        raise ua.UaError(f"the server sent a ReadResponse that cannot be decoded: {why(error)}") from error


def _question(node: Any) -> ua.ReadValueId:
    return ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)


async def access_levels(session: Session, nodes: Sequence[Any]) -> list[Any]:
    """Read what the user may do with each node; None where the server does not tell."""
    attribute = ua.AttributeIds.UserAccessLevel
    if fast_path_works():
        decoded = await read(session, read_request(nodes, attribute), len(nodes))
        levels = [value for columns in decoded.slices for value in columns.values]
        return levels + [None] * (len(nodes) - len(levels))
    values = await session.read([ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in nodes])
    return [value.Value.Value if value.Value is not None else None for value in values]
