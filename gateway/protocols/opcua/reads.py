"""Reads of many values: the request is encoded once, the answer goes into columns."""

from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.ua.ua_binary import Primitives, struct_to_binary

from gateway.model import DeviceProblem
from gateway.protocols.opcua import datavalues
from gateway.protocols.opcua.bounded import BROKEN, why
from gateway.protocols.opcua.columns import Columns
from gateway.protocols.opcua.datavalues import Decoded
from gateway.protocols.opcua.encoded import read_request
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
        self._encoded: dict[tuple[int, int], tuple[list[Any], bytes]] = {}

    async def read(self, items: Sequence[Item]) -> Decoded:
        """Read the items in one call: slices in their order, up to the first that cannot be decoded."""
        if not fast_path_works():
            return await self._as_asyncua(items)
        answer = await self._session.services._send_request(read_request(self._parameters(items)))
        self._session.heard()
        try:
            data = body(answer)
            self._check(items, Primitives.Int32.unpack(data))
            return await datavalues.decode(*data.rest(), len(items), keyed=False)
        except ua.UaError:
            raise
        except BROKEN as error:
            raise ua.UaError(
                f"the server sent a ReadResponse that cannot be decoded: {why(error)}"
            ) from error

    async def _as_asyncua(self, items: Sequence[Item]) -> Decoded:
        values = await self._session.read([_question(item.node) for item in items])
        columns = Columns()
        for place, value in enumerate(values):
            columns.add(place, reading(value))
        return Decoded([columns])

    def _parameters(self, items: Sequence[Item]) -> bytes:
        nodes = [item.node for item in items]
        key = items[0].series, len(items)
        known = self._encoded.get(key)
        if known is not None and known[0] == nodes:  # the same objects: a comparison of addresses
            return known[1]
        parameters = ua.ReadParameters()
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        parameters.NodesToRead = [_question(node) for node in nodes]
        if len(self._encoded) >= _MOST_REQUESTS:
            self._encoded.clear()
        encoded: bytes = struct_to_binary(parameters)
        self._encoded[key] = nodes, encoded
        return encoded

    def _check(self, items: Sequence[Item], count: int) -> None:
        if count != len(items):
            raise DeviceProblem(
                f"device {self._session.device}: the server answered a read of {len(items)} nodes "
                f"with {count} values"
            )


def _question(node: Any) -> ua.ReadValueId:
    return ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)
