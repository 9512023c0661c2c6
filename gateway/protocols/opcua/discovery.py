"""Finds everything readable below a node, breadth first, in batches."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua

from gateway.model import DeviceProblem, Link
from gateway.protocols.opcua import Settings, TagSettings
from gateway.protocols.opcua.items import Item, Newest, item
from gateway.protocols.opcua.nodes import BadNode, find, spelled
from gateway.protocols.opcua.patterns import escaped
from gateway.protocols.opcua.reads import access_levels
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.walking import Place, Walk

_NAME_LENGTH = 200
SERVER = ua.NodeId(ua.ObjectIds.Server)
CURRENT_READ = 1
"""Bit of an AccessLevel (Part 3, 8.57)."""
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
    ids = [spelled(node, session.namespaces) for _, node in found.variables]
    names = unique_names([(path, node) for (path, _), node in zip(found.variables, ids, strict=True)])
    for name, spec, (_, node) in zip(names, ids, found.variables, strict=True):
        new = item(name, spec, plain, settings, link, newest)
        new.node = node
        items.append(new)
    if found.total <= len(items) and found.complete:
        return items, ""
    more = "" if found.complete else "more than "
    return items, f"{len(items)} of {more}{found.total}, list your tags"


async def search(session: Session, root: ua.NodeId, most: int) -> Found:
    """Walk everything below `root` but the Server object."""
    found = Found()
    walk = Walk(session, Place(root, state=True), lambda _, place: None if place.node == SERVER else True)
    async for part in walk.parts():
        variables = await readable(session, [place for place in part if place.variable])
        found.total += len(variables)
        found.variables += [
            (path_of(place), place.node) for place in variables[: most - len(found.variables)]
        ]
    found.complete = walk.complete
    return found


async def readable(session: Session, variables: Sequence[Place]) -> list[Place]:
    """Return those whose value the user may read."""
    nodes = [variable.node for variable in variables]
    levels = await session.chunked("read", nodes, lambda asked: access_levels(session, asked))
    kept = []
    for variable, value in zip(variables, levels, strict=True):
        # A server that does not tell is tried.
        if not isinstance(value, int) or value & CURRENT_READ:
            kept.append(variable)
    return kept


def path_of(place: Place) -> str:
    """Return the path from where the walk began, as the YAML takes it."""
    return "/".join(_element(each.name) for each in place.line())


def _element(name: str) -> str:
    clean = "".join("_" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name) or "_"
    return _LOOKS_QUALIFIED.sub(r"\1&:", escaped(clean))


def unique_names(found: Sequence[tuple[str, str]]) -> list[str]:
    """Make names of (path, node id) that are short, and stay the same whatever else the server has."""
    counts = Counter(name for name, _ in found)
    names = []
    for name, node in found:
        unique = name if counts[name] == 1 else f"{name} [{node}]"
        if len(unique) > _NAME_LENGTH:
            mark = hashlib.sha256(f"{name} {node}".encode()).hexdigest()[:12]
            unique = f"{unique[: _NAME_LENGTH - 13]}~{mark}"
        names.append(unique)
    return names
