"""The control Browse: the address space, page by page."""

import base64
import binascii
from collections.abc import Sequence

from asyncua import ua

from gateway.controls import Node, NodePage
from gateway.protocols.opcua.browsing import MOST_READS, children, description, local
from gateway.protocols.opcua.faults import problem
from gateway.protocols.opcua.nodes import BadNode, find, spelled
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.values import reading

_ROOT = "/Objects"
_ATTRIBUTES = (ua.AttributeIds.Value, ua.AttributeIds.UserAccessLevel, ua.AttributeIds.DataType)
_NO_NODE = (ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid)
_ACCESS = {0: "", 1: "r", 2: "w", 3: "rw"}


class Browser:
    """Walks the address space over the live session (controls.Browse)."""

    def __init__(self, session: Session) -> None:
        self._session = session

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
        data = await self._attributes(variables)
        parents = await self._parents([node for node, _ in found])
        return [self._node(node, reference, data, parents) for node, reference in found]

    async def _attributes(
        self, variables: Sequence[ua.NodeId]
    ) -> dict[tuple[ua.NodeId, ua.AttributeIds], ua.DataValue]:
        keys = [(node, attribute) for node in variables for attribute in _ATTRIBUTES]
        asked = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node, attribute in keys]
        values = await self._session.chunked("read", asked, self._session.read)
        return dict(zip(keys, values, strict=True))

    async def _parents(self, nodes: Sequence[ua.NodeId]) -> set[ua.NodeId]:
        below = await children(self._session, nodes, one_will_do=True)
        return {node for node, references in zip(nodes, below, strict=True) if references}

    def _node(
        self,
        node: ua.NodeId,
        reference: ua.ReferenceDescription,
        data: dict[tuple[ua.NodeId, ua.AttributeIds], ua.DataValue],
        parents: set[ua.NodeId],
    ) -> Node:
        identifier = spelled(node, self._session.namespaces)
        name = reference.BrowseName.Name or ""
        if reference.NodeClass != ua.NodeClass.Variable:
            return Node(identifier, name, "object", has_children=node in parents)
        value, level, kind = (data[node, attribute] for attribute in _ATTRIBUTES)
        access = level.Value.Value if level.Value is not None else 0
        return Node(
            identifier,
            name,
            "variable",
            type=self._type(kind.Value.Value if kind.Value is not None else None),
            access=_ACCESS[(access or 0) & 3],
            value=reading(value).value,
            has_children=node in parents,
        )

    def _type(self, node: ua.NodeId | None) -> str:
        if node is None:
            return ""
        if node.NamespaceIndex == 0 and isinstance(node.Identifier, int):
            return str(ua.ObjectIdNames.get(node.Identifier, f"i={node.Identifier}"))
        return spelled(node, self._session.namespaces)


def _point(cursor: str | None) -> bytes | None:
    if not cursor:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode())
    except (binascii.Error, ValueError):
        raise ValueError(f"{cursor!r} is no cursor of ours") from None
