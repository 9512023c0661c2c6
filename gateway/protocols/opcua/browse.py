"""The control Browse: the address space, page by page."""

import base64
import binascii
from collections.abc import Sequence

from asyncua import ua

from gateway.controls.devices import Node, NodePage
from gateway.protocols.opcua.browsing import MOST_READS, children, description, local
from gateway.protocols.opcua.datatypes import DataTypes
from gateway.protocols.opcua.faults import problem
from gateway.protocols.opcua.metadata import Look, looked_at
from gateway.protocols.opcua.nodes import BadNode, find, spelled
from gateway.protocols.opcua.session import Session

_ROOT = "/Objects"
_NO_NODE = (ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid)


class Browser:
    """Walks the address space over the live session (controls.Browse)."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._types = DataTypes()

    async def browse(self, node: str | None, limit: int, cursor: str | None) -> NodePage:
        """List the children of `node`. KeyError: no such node. ValueError: no such cursor."""
        try:
            return await self._page(node, limit, _point(cursor))
        except (ua.UaError, OSError, TimeoutError) as error:
            raise problem(self._session.device, self._session.settings.url, error) from error

    async def _page(self, node: str | None, limit: int, point: bytes | None) -> NodePage:
        result = await (self._first(node, limit) if point is None else self._next(point))
        references = [r for r in result.References or () if local(r.NodeId) is not None]
        nodes = await self._described(references)
        following = (
            base64.urlsafe_b64encode(result.ContinuationPoint).decode() if result.ContinuationPoint else None
        )
        return NodePage(nodes, following)

    async def _first(self, node: str | None, limit: int) -> ua.BrowseResult:
        try:
            parent = await find(self._session, node or _ROOT)
        except BadNode as error:
            raise KeyError(f"{node}: {error}") from None
        parameters = ua.BrowseParameters()
        parameters.RequestedMaxReferencesPerNode = limit
        parameters.NodesToBrowse = [description(parent)]
        response = await self._session.ask(ua.BrowseRequest, parameters, ua.BrowseResponse, MOST_READS)
        (result,) = response.Results
        if result.StatusCode.value in _NO_NODE:
            raise KeyError(f"the server has no node {node!r}")
        result.StatusCode.check()
        return result

    async def _next(self, point: bytes) -> ua.BrowseResult:
        parameters = ua.BrowseNextParameters()
        parameters.ReleaseContinuationPoints = False
        parameters.ContinuationPoints = [point]
        response = await self._session.ask(
            ua.BrowseNextRequest, parameters, ua.BrowseNextResponse, MOST_READS
        )
        (result,) = response.Parameters.Results
        if not result.StatusCode.is_good():
            raise ValueError("the server has forgotten this cursor: begin again without it")
        return result

    async def _described(self, references: Sequence[ua.ReferenceDescription]) -> list[Node]:
        found = [(local(reference.NodeId), reference) for reference in references]
        variables = [node for node, r in found if r.NodeClass == ua.NodeClass.Variable]
        looks = dict(zip(variables, await looked_at(self._session, variables, self._types), strict=True))
        parents = await self._parents([node for node, _ in found])
        return [self._node(node, reference, looks.get(node), parents) for node, reference in found]

    async def _parents(self, nodes: Sequence[ua.NodeId]) -> set[ua.NodeId]:
        below = await children(self._session, nodes, one_will_do=True)
        return {node for node, references in zip(nodes, below, strict=True) if references}

    def _node(
        self, node: ua.NodeId, reference: ua.ReferenceDescription, look: Look | None, parents: set[ua.NodeId]
    ) -> Node:
        identifier, name = spelled(node, self._session.namespaces), reference.BrowseName.Name or ""
        if look is None:
            return Node(identifier, name, "object", has_children=node in parents)
        return Node(
            identifier,
            name,
            "variable",
            type=look.about.type,
            access=look.access,
            value=look.value,
            unit=look.about.unit,
            meaning=look.about.meaning(look.value),
            has_children=node in parents,
        )


def _point(cursor: str | None) -> bytes | None:
    if not cursor:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode())
    except (binascii.Error, ValueError):
        raise ValueError(f"{cursor!r} is no cursor of ours") from None
