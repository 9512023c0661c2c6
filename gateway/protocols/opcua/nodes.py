"""From what the YAML says to the node ids of this session."""

from collections.abc import Iterable, Sequence

from asyncua import ua

from gateway.protocols.opcua.faults import status_text
from gateway.protocols.opcua.items import Item
from gateway.protocols.opcua.patterns import NODE_ID, plain, split
from gateway.protocols.opcua.session import Session

_ROOT = ua.NodeId(ua.ObjectIds.RootFolder)
_OBJECTS = ua.NodeId(ua.ObjectIds.ObjectsFolder)


class BadNode(ValueError):
    """What names a node cannot be turned into a node id."""


def node_id(spec: str, namespaces: Sequence[str]) -> ua.NodeId | None:
    """Return the node id that `spec` spells, or None where it is a browse path. BadNode: it cannot be."""
    match = NODE_ID.fullmatch(spec.strip())
    if match is None:
        return None
    index = int(match["index"] or 0)
    if match["uri"] is not None:
        index = _namespace(match["uri"], namespaces)
    try:
        found = ua.NodeId.from_string(f"ns={index};{match['id']}")
    except (ua.UaError, ValueError) as error:
        raise BadNode(f"this is no node id: {' '.join(str(error).split())}") from None
    if isinstance(found.Identifier, int) and not 0 <= found.Identifier < 2**32:
        raise BadNode(f"a numeric identifier lies between 0 and {2**32 - 1}")
    if index >= len(namespaces):
        raise BadNode(f"the server has no namespace {index}, only 0 to {len(namespaces) - 1}")
    return found


def spelled(node: ua.NodeId, namespaces: Sequence[str]) -> str:
    """Return a node id as the YAML takes it, with the namespace's URI: indexes change between sessions."""
    if isinstance(node.Identifier, str):
        identifier = f"s={node.Identifier}"
    else:
        identifier = ua.NodeId(node.Identifier, 0, node.NodeIdType).to_string()
    index = node.NamespaceIndex
    if not index:
        return identifier
    if index >= len(namespaces):
        return f"ns={index};{identifier}"
    return f"nsu={namespaces[index]};{identifier}"


async def resolve(session: Session, items: Iterable[Item]) -> None:
    """Set each item's node, or its problem."""
    paths: list[tuple[Item, list[list[ua.QualifiedName]]]] = []
    for item in items:
        item.node, item.problem = None, ""
        try:
            item.node = node_id(item.spec, session.namespaces)
            if item.node is None:
                paths.append((item, path(item.spec, session.namespaces)))
        except BadNode as error:
            item.problem = f"node {item.spec}: {error}"
    walks = [_Walk(names) for _, names in paths]
    while going := [walk for walk in walks if walk.rest]:
        await _step(session, going)
    for (item, _), walk in zip(paths, walks, strict=True):
        if walk.problem:
            item.problem = f"node {item.spec}: {walk.problem}"
        else:
            item.node = walk.at


async def find(session: Session, spec: str) -> ua.NodeId:
    """Return the node that `spec` names. BadNode: there is none."""
    found = node_id(spec, session.namespaces)
    if found is not None:
        return found
    walk = _Walk(path(spec, session.namespaces))
    while walk.rest and not walk.problem:
        await _step(session, [walk])
    if walk.problem:
        raise BadNode(walk.problem)
    return walk.at


def path(spec: str, namespaces: Sequence[str]) -> list[list[ua.QualifiedName]]:
    """Split a browse path; each element is given as the qualified names that it may mean.

    `/` separates, `&` takes the next character as it is; `2:Name` names the namespace, else any
    will do. Wildcards are wildcards.py's.
    A path from the root begins with `/`, and is given with an empty first element; any other one begins at
    Objects.
    """
    elements = split(spec)
    from_root: list[list[ua.QualifiedName]] = []
    if elements[0] == "":
        elements.pop(0)
        if elements and elements[0] in ("Objects", "0:Objects"):
            elements.pop(0)
        else:
            from_root = [[]]
    if not elements:
        return []
    if "" in elements:
        raise BadNode("the path has an empty element")
    return from_root + [_names(element, namespaces) for element in elements]


def _names(element: str, namespaces: Sequence[str]) -> list[ua.QualifiedName]:
    index, colon, name = element.partition(":")
    if colon and index.isdecimal():
        if int(index) >= len(namespaces):
            raise BadNode(f"the server has no namespace {int(index)}, only 0 to {len(namespaces) - 1}")
        return [ua.QualifiedName(plain(name), int(index))]
    # The server's own namespaces come last: what a technician names lies in the later ones.
    order = [*range(1, len(namespaces)), 0]
    return [ua.QualifiedName(plain(element), number) for number in order]


def _namespace(uri: str, namespaces: Sequence[str]) -> int:
    try:
        return list(namespaces).index(uri)
    except ValueError:
        known = ", ".join(namespaces[1:]) or "none but its own"
        raise BadNode(f"the server has no namespace {uri!r}; it has {known}") from None


class _Walk:
    """A browse path being followed, one element a step."""

    def __init__(self, names: list[list[ua.QualifiedName]]) -> None:
        self.problem = ""
        self.at: ua.NodeId = _OBJECTS
        self.rest = names
        if names and not names[0]:
            self.at, self.rest = _ROOT, names[1:]

    def stop(self, problem: str) -> None:
        self.problem = problem
        self.rest = []


async def _step(session: Session, walks: list[_Walk]) -> None:
    """Follow one element of each path: the same question is asked once for all that have it."""
    questions: dict[tuple[ua.NodeId, str, int], ua.BrowsePath] = {}
    for walk in walks:
        for name in walk.rest[0]:
            questions.setdefault((walk.at, name.Name, name.NamespaceIndex), _question(walk.at, name))
    results: list[ua.BrowsePathResult] = await session.chunked(
        "translate", list(questions.values()), lambda asked: _translated(session, asked)
    )
    answers = dict(zip(questions, results, strict=True))
    for walk in walks:
        _advance(walk, answers)


async def _translated(session: Session, asked: list[ua.BrowsePath]) -> list[ua.BrowsePathResult]:
    parameters = ua.TranslateBrowsePathsToNodeIdsParameters()
    parameters.BrowsePaths = asked
    kinds = ua.TranslateBrowsePathsToNodeIdsRequest, ua.TranslateBrowsePathsToNodeIdsResponse
    response = await session.ask(kinds[0], parameters, kinds[1])
    return list(response.Results or ())


def _advance(walk: _Walk, answers: dict[tuple[ua.NodeId, str, int], ua.BrowsePathResult]) -> None:
    names = walk.rest[0]
    found: dict[ua.NodeId, int] = {}
    status = 0
    for name in names:
        answer = answers[walk.at, name.Name, name.NamespaceIndex]
        if answer.StatusCode.is_good():
            for target in answer.Targets:
                node = target.TargetId
                found[ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)] = name.NamespaceIndex
        elif answer.StatusCode.value != ua.StatusCodes.BadNoMatch:
            status = answer.StatusCode.value
    label = names[0].Name
    if len(set(found.values())) > 1:
        choices = " or ".join(f"{index}:{label}" for index in sorted(set(found.values())))
        walk.stop(f"the path is ambiguous at {label!r}: write {choices}")
    elif not found:
        walk.stop(
            f"the path stops at {label!r}: {status_text(status)}" if status else f"the path has no {label!r}"
        )
    else:
        walk.at, walk.rest = next(iter(found)), walk.rest[1:]


def _question(start: ua.NodeId, name: ua.QualifiedName) -> ua.BrowsePath:
    element = ua.RelativePathElement()
    element.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    element.IsInverse = False
    element.IncludeSubtypes = True
    element.TargetName = name
    question = ua.BrowsePath()
    question.StartingNode = start
    question.RelativePath.Elements = [element]
    return question
