"""Tags that a wildcard stands for: each readable variable whose path it matches."""

from collections.abc import Mapping

from asyncua import ua

from gateway.model import Device, Link
from gateway.protocols.opcua import Settings, TagSettings
from gateway.protocols.opcua.discovery import SERVER, path_of, readable, unique_names
from gateway.protocols.opcua.items import Item, Newest, item
from gateway.protocols.opcua.nodes import spelled
from gateway.protocols.opcua.patterns import Pattern, Places, is_pattern
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.walking import Place, Walk

_ROOT = ua.NodeId(ua.ObjectIds.RootFolder)
_OBJECTS = ua.NodeId(ua.ObjectIds.ObjectsFolder)


def wildcards(device: Device) -> dict[str, TagSettings]:
    """Return the tags of the YAML that have a wildcard in their path."""
    return {name: tag for name, tag in device.tags.items() if is_pattern(tag.node)}


async def matched(
    session: Session,
    device: Device,
    settings: Settings,
    link: Link,
    newest: Newest,
    wanted: Mapping[str, TagSettings],
) -> tuple[list[Item], list[str]]:
    """Return a resolved item, called `tag/path`, for each match, and one that is bad for a tag without any.

    A node that several paths of one tag lead to is met once. The sentences say where there are more matches
    than `max_tags`.
    """
    items: list[Item] = []
    notes: list[str] = []
    room = settings.max_tags
    for name, tag in wanted.items():
        pattern = Pattern(tag.node)
        nodes, total, complete = await _nodes(session, pattern, room)
        room -= len(nodes)
        where = device.where.get(name, "")
        ids = [spelled(node, session.namespaces) for node in nodes]
        paths = [(f"{name}/{path}", node) for path, node in zip(nodes.values(), ids, strict=True)]
        for unique, spec, node in zip(unique_names(paths), ids, nodes, strict=True):
            new = item(unique, spec, tag, settings, link, newest, where=where)
            new.node = node
            items.append(new)
        if not total:
            bad = item(name, tag.node, tag, settings, link, newest, where=where)
            bad.problem = f"node {tag.node}: no readable variable matches"
            items.append(bad)
        if total > len(nodes) or not complete:
            more = "" if complete else "more than "
            notes.append(f"{len(nodes)} of {more}{total} matches of {name}, narrow it or raise `max_tags`")
    return items, notes


async def _nodes(session: Session, pattern: Pattern, most: int) -> tuple[dict[ua.NodeId, str], int, bool]:
    """Return the first matches with their paths, how many there are, and whether all was walked."""

    def step(parent: Place, place: Place) -> Places | None:
        if place.node == SERVER and not pattern.spells_out(parent.state, place.name):
            return None
        return pattern.step(parent.state, place.name, place.namespace) or None

    found: dict[ua.NodeId, str] = {}
    total = 0
    walk = Walk(session, Place(_ROOT if pattern.from_root else _OBJECTS, state=pattern.start), step)
    met: set[ua.NodeId] = set()
    async for part in walk.parts():
        matches = [
            place
            for place in part
            if place.variable and pattern.complete(place.state) and place.node not in met
        ]
        for place in await readable(session, matches):
            if place.node not in met:
                met.add(place.node)
                total += 1
                if len(found) < most:
                    found[place.node] = path_of(place)
    return found, total, walk.complete
