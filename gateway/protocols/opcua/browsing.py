"""Batched Browse: as much at once as the server takes, and nothing left out."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from asyncua import ua

from gateway.model import DeviceProblem
from gateway.protocols.opcua.encoded import browse_request
from gateway.protocols.opcua.faults import TOO_MUCH
from gateway.protocols.opcua.selftest import fast_path_works
from gateway.protocols.opcua.session import Session

Question: TypeAlias = Callable[[ua.NodeId], ua.BrowseDescription]

_REFERENCES_A_PAGE = 1000
MOST_READS = 2_000_000
"""Of an answer (bounded.py): a page of references for each of some dozen nodes."""


async def children(
    session: Session,
    parents: Sequence[ua.NodeId],
    question: "Question | None" = None,
    *,
    one_will_do: bool = False,
) -> list[list[ua.ReferenceDescription]]:
    """Return the references to objects and variables below each node, or those of another question.

    `one_will_do`: no more than the first of each; it tells whether there are any.
    """
    found: list[list[ua.ReferenceDescription]] = [[] for _ in parents]
    places = list(range(len(parents)))
    while places:
        chunk = places[: session.limits["browse"]]
        most = 1 if one_will_do else _REFERENCES_A_PAGE
        try:
            response = await _browse(session, [parents[place] for place in chunk], most, question)
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


async def _browse(
    session: Session, nodes: Sequence[ua.NodeId], most: int, question: Question | None
) -> ua.BrowseResponse:
    if question is None and fast_path_works():
        return await session.call(browse_request(nodes, most), ua.BrowseResponse, MOST_READS)
    parameters = ua.BrowseParameters()
    parameters.RequestedMaxReferencesPerNode = most
    parameters.NodesToBrowse = [(question or description)(node) for node in nodes]
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


async def read_each(session: Session, nodes: list[ua.ReadValueId]) -> list[ua.DataValue]:
    """Read attributes in one call; what cannot be decoded is bad, and leaves the others alone."""
    try:
        return await session.read(nodes)
    except ua.UaStatusCodeError:
        raise
    except ua.UaError:
        if len(nodes) == 1:
            return [ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadDecodingError))]
        half = len(nodes) // 2
        return await read_each(session, nodes[:half]) + await read_each(session, nodes[half:])


def related(kind: int, *, inverse: bool = False) -> Question:
    """Return the question for what a node is related to in that way."""

    def question(node: ua.NodeId) -> ua.BrowseDescription:
        asked = description(node)
        asked.ReferenceTypeId = ua.NodeId(kind)
        asked.NodeClassMask = 0
        if inverse:
            asked.BrowseDirection = ua.BrowseDirection.Inverse
        return asked

    return question


async def properties(
    session: Session, nodes: Sequence[ua.NodeId], wanted: Collection[str]
) -> list[dict[str, Any]]:
    """Return the properties of those names that the standard gives each node, as asyncua decodes them."""
    below = await children(session, nodes, related(ua.ObjectIds.HasProperty))
    found: list[tuple[int, str, ua.NodeId]] = []
    for place, references in enumerate(below):
        for reference in references:
            node, name = local(reference.NodeId), reference.BrowseName
            if node is not None and name.NamespaceIndex == 0 and name.Name in wanted:
                found.append((place, name.Name, node))
    asked = [ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value) for _, _, node in found]
    told: list[dict[str, Any]] = [{} for _ in nodes]
    data = await session.chunked("read", asked, lambda chunk: read_each(session, chunk))
    for (place, name, _), value in zip(found, data, strict=True):
        if value.Value is not None:
            told[place][name] = value.Value.Value
    return told


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
