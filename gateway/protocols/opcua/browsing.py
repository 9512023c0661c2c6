"""Batched Browse: as much at once as the server takes, and nothing left out."""

from collections.abc import Sequence

from asyncua import ua

from gateway.model import DeviceProblem
from gateway.protocols.opcua.encoded import browse_request
from gateway.protocols.opcua.faults import TOO_MUCH
from gateway.protocols.opcua.selftest import fast_path_works
from gateway.protocols.opcua.session import Session

_REFERENCES_A_PAGE = 1000
MOST_READS = 2_000_000
"""Of an answer (bounded.py): a page of references for each of some dozen nodes."""


async def children(
    session: Session, parents: Sequence[ua.NodeId], *, one_will_do: bool = False
) -> list[list[ua.ReferenceDescription]]:
    """Return the references to objects and variables below each node.

    `one_will_do`: no more than the first of each; it tells whether there are any.
    """
    found: list[list[ua.ReferenceDescription]] = [[] for _ in parents]
    places = list(range(len(parents)))
    while places:
        chunk = places[: session.limits["browse"]]
        most = 1 if one_will_do else _REFERENCES_A_PAGE
        try:
            response = await _browse(session, [parents[place] for place in chunk], most)
        except ua.UaStatusCodeError as error:
            if error.code not in TOO_MUCH or len(chunk) == 1:
                raise
            session.limits["browse"] = len(chunk) // 2
            continue
        again = await _follow(session, chunk, response.Results or [], found, one_will_do=one_will_do)
        places = again + places[len(chunk) :]
        if again:
            session.limits["browse"] = max(1, len(chunk) // 2)
    return found


async def _browse(session: Session, nodes: Sequence[ua.NodeId], most: int) -> ua.BrowseResponse:
    if fast_path_works():
        return await session.call(browse_request(nodes, most), ua.BrowseResponse, MOST_READS)
    parameters = ua.BrowseParameters()
    parameters.RequestedMaxReferencesPerNode = most
    parameters.NodesToBrowse = [description(node) for node in nodes]
    return await session.ask(ua.BrowseRequest, parameters, ua.BrowseResponse, MOST_READS)


async def _follow(
    session: Session,
    chunk: Sequence[int],
    results: Sequence[ua.BrowseResult],
    found: list[list[ua.ReferenceDescription]],
    *,
    one_will_do: bool,
) -> list[int]:
    """Take results and what continues them; return the places that the server could not continue."""
    again: list[int] = []
    pending = _paired(session, chunk, results)
    while pending:
        going: list[tuple[int, bytes]] = []
        for place, result in pending:
            if result.StatusCode.value == ua.StatusCodes.BadNoContinuationPoints and len(chunk) > 1:
                found[place].clear()
                again.append(place)
                continue
            found[place].extend(result.References or ())
            if result.ContinuationPoint:
                going.append((place, result.ContinuationPoint))
        if not going:
            break
        further = ua.BrowseNextParameters()
        further.ReleaseContinuationPoints = one_will_do
        further.ContinuationPoints = [point for _, point in going]
        response = await session.ask(ua.BrowseNextRequest, further, ua.BrowseNextResponse, MOST_READS)
        results = response.Parameters.Results or []
        if one_will_do:
            break
        pending = _paired(session, [place for place, _ in going], results)
    return again


def _paired(
    session: Session, places: Sequence[int], results: Sequence[ua.BrowseResult]
) -> list[tuple[int, ua.BrowseResult]]:
    if len(results) != len(places):
        raise DeviceProblem(
            f"device {session.device}: the server gave {len(results)} answers "
            f"to {len(places)} questions (browse)"
        )
    return list(zip(places, results, strict=True))


def description(node: ua.NodeId) -> ua.BrowseDescription:
    """Return the question for the objects and variables below a node."""
    asked = ua.BrowseDescription()
    asked.NodeId = node
    asked.BrowseDirection = ua.BrowseDirection.Forward
    asked.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    asked.IncludeSubtypes = True
    asked.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
    asked.ResultMask = ua.BrowseResultMask.All
    return asked


def local(node: ua.NodeId) -> ua.NodeId | None:
    """Return an expanded node id as a plain one; None where it lies in another server."""
    if type(node) is ua.NodeId:
        return node
    if getattr(node, "ServerIndex", 0) or getattr(node, "NamespaceUri", None):
        return None
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
