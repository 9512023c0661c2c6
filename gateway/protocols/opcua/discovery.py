"""Finds everything readable below a node, breadth first, in batches."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from asyncua import ua

from gateway.model import DeviceProblem, Link
from gateway.protocols.opcua import Settings, TagSettings
from gateway.protocols.opcua.browsing import children, local
from gateway.protocols.opcua.items import Item, Newest, item
from gateway.protocols.opcua.nodes import BadNode, find, spelled
from gateway.protocols.opcua.reads import access_levels
from gateway.protocols.opcua.session import Session

_PARENTS_A_CALL = 50
_MOST_NODES = 200_000
_NAME_LENGTH = 200
_SERVER = ua.NodeId(ua.ObjectIds.Server)
_CURRENT_READ = 1
_LOOKS_QUALIFIED = re.compile(r"^(\d+):")


@dataclass(slots=True)
class Found:
    """What a search found: the first variables, and how many there are."""

    variables: list[tuple[str, ua.NodeId]] = field(default_factory=list)
    """Path below the root, and node."""
    total: int = 0
    complete: bool = True


async def discovered(session: Session, settings: Settings, link: Link) -> tuple[list[Item], str]:
    """Return an item for each readable variable, and what to say where they are more than `max_tags`."""
    try:
        root = await find(session, settings.root)
    except BadNode as error:
        raise DeviceProblem(f"device {session.device}: root {settings.root!r}: {error}") from None
    found = await search(session, root, settings.max_tags)
    plain = TagSettings(node="-")
    items = []
    newest: Newest = {}
    for name, node in _named(found.variables, session.namespaces):
        new = item(name, spelled(node, session.namespaces), plain, settings, link, newest)
        new.node = node
        items.append(new)
    if found.total <= len(items) and found.complete:
        return items, ""
    more = "" if found.complete else "more than "
    return items, f"{len(items)} of {more}{found.total}, list your tags"


async def search(session: Session, root: ua.NodeId, most: int) -> Found:
    """Walk everything below `root` but the Server object."""
    found = Found()
    seen = {root, _SERVER}
    level: list[tuple[str, ua.NodeId]] = [("", root)]
    while level:
        below: list[tuple[str, ua.NodeId]] = []
        for start in range(0, len(level), _PARENTS_A_CALL):
            parents = level[start : start + _PARENTS_A_CALL]
            variables = []
            references = await children(session, [node for _, node in parents])
            for (parent, _), reference in _pairs(parents, references):
                node = local(reference.NodeId)
                if node is None or node in seen:
                    continue
                if len(seen) >= _MOST_NODES:
                    found.complete = False
                    break
                seen.add(node)
                name = _join(parent, reference.BrowseName.Name or "")
                below.append((name, node))
                if reference.NodeClass == ua.NodeClass.Variable:
                    variables.append((name, node))
            readable = await _readable(session, variables)
            found.total += len(readable)
            found.variables.extend(readable[: most - len(found.variables)])
        level = below
    return found


async def _readable(session: Session, variables: list[tuple[str, ua.NodeId]]) -> list[tuple[str, ua.NodeId]]:
    nodes = [node for _, node in variables]
    levels = await session.chunked("read", nodes, lambda asked: access_levels(session, asked))
    kept = []
    for variable, value in zip(variables, levels, strict=True):
        # A server that does not tell is tried.
        if not isinstance(value, int) or value & _CURRENT_READ:
            kept.append(variable)
    return kept


def _pairs(
    parents: Sequence[tuple[str, ua.NodeId]], references: Sequence[Sequence[ua.ReferenceDescription]]
) -> Iterator[tuple[tuple[str, ua.NodeId], ua.ReferenceDescription]]:
    for parent, below in zip(parents, references, strict=True):
        for reference in below:
            yield parent, reference


def _join(parent: str, name: str) -> str:
    clean = "".join("_" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name) or "_"
    for special in "&/":
        clean = clean.replace(special, f"&{special}")
    clean = _LOOKS_QUALIFIED.sub(r"\1&:", clean)
    return f"{parent}/{clean}" if parent else clean


def _named(
    variables: Sequence[tuple[str, ua.NodeId]], namespaces: Sequence[str]
) -> list[tuple[str, ua.NodeId]]:
    """Make the names unique and short, so that each stays the same whatever else the server has."""
    counts: dict[str, int] = {}
    for name, _ in variables:
        counts[name] = counts.get(name, 0) + 1
    named = []
    for name, node in variables:
        unique = name if counts[name] == 1 else f"{name} [{spelled(node, namespaces)}]"
        if len(unique) > _NAME_LENGTH:
            mark = hashlib.sha256(f"{name} {spelled(node, namespaces)}".encode()).hexdigest()[:12]
            unique = f"{unique[: _NAME_LENGTH - 13]}~{mark}"
        named.append((unique, node))
    return named
