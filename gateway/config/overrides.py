"""Settings from the environment: EDGE_GATEWAY__HTTP__LISTEN=... laid over the tree of the YAML."""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.config.problems import Place, Problems, either, fold, quoted
from gateway.config.shapes import Choice, Group, Kinds, MapOf, Reference, Shape, Text
from gateway.config.yaml_source import Entry, MapNode, Node, RefusedNode, ScalarNode, moved, parse_text

PREFIX: Final = "EDGE_GATEWAY__"


def overrides_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that mean settings."""
    return {name: value for name, value in sorted(environ.items()) if name.startswith(PREFIX)}


def lay_over(root: MapNode, shape: Shape, overrides: Mapping[str, str], problems: Problems) -> None:
    """Put each variable's value where its name points; case and the kind of dash do not matter there."""
    for variable, value in overrides.items():
        place = Place(variable)
        path = [fold(part) for part in variable.removeprefix(PREFIX).split("__")]
        _set(root, shape, path, value, place, problems)


def _set(node: MapNode, shape: Shape, path: list[str], value: str, place: Place, problems: Problems) -> None:
    known = _names(shape, node)
    names, rest = _match(path, known)
    if len(names) != 1:
        remedy = (
            f"; it could be {either(names)}" if names else problems.hint(path[0], known) or _listed(known)
        )
        problems.add(place, f'no setting is meant by "{path[0].upper()}" here{remedy}')
        return
    name = names[0]
    inner = _inner(shape, name, node)
    entry = node.entries.get(name)
    if not rest:
        node.entries[name] = Entry(place, _value(inner, value, place, problems))
        return
    group = _group(inner)
    if group is None:
        problems.add(place, f'{quoted(name)} has no settings within it, "{rest[0].upper()}" cannot be set')
        return
    below = _as_map(entry, group, place)
    node.entries[name] = Entry(entry.key_place if entry else place, below)
    _set(below, group, rest, value, place, problems)


def _match(path: list[str], known: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names that the path begins with (more than one: it is not clear which), and its rest."""
    folded: dict[str, list[str]] = {}
    for name in known:
        folded.setdefault(fold(name), []).append(name)
    for parts in range(1, len(path) + 1):
        joined = "__".join(path[:parts])  # a name may itself hold "__"
        if joined in folded:
            return folded[joined], path[parts:]
    return [], path


def _names(shape: Shape, node: MapNode) -> list[str]:
    match shape:
        case Group():
            return list(shape.members)
        case Kinds():
            # What the YAML names comes first: a device has one kind.
            here = [name for name in node.entries if name in shape.modules]
            return (here or list(shape.modules)) + (["tags"] if shape.tagged else [])
        case Reference():
            return list(Reference.FORMS)
        case _:
            return list(node.entries)


def _inner(shape: Shape, name: str, node: MapNode) -> Shape:
    try:
        return _within(shape, name, node)
    except ImportError:
        return MapOf(Text())  # the kind cannot be used here: reading says so


def _within(shape: Shape, name: str, node: MapNode) -> Shape:
    match shape:
        case Group():
            return shape.members[name].shape
        case Kinds() if name == "tags":
            kind = next((each for each in node.entries if each in shape.modules), None)
            return MapOf(shape.tag(kind), "tag") if kind else MapOf(Text(), "tag")
        case Kinds():
            return shape.group(name)
        case MapOf():
            return shape.item
        case _:
            return Text()


def _group(shape: Shape) -> Shape | None:
    """Return the shape that has names within it."""
    match shape:
        case Choice():
            groups = [each for option in shape.options if (each := _group(option)) is not None]
            return groups[0] if groups else None
        case Group() | Kinds() | MapOf() | Reference():
            return shape
        case _:
            return None


def _as_map(entry: Entry | None, shape: Shape, place: Place) -> MapNode:
    if entry is not None and isinstance(entry.node, MapNode):
        return entry.node
    made = MapNode(place)
    short = shape.short if isinstance(shape, Group) else None
    if entry is not None and isinstance(entry.node, ScalarNode) and entry.node.text and short:
        made.entries[short] = Entry(entry.key_place, entry.node)
    return made


def _value(shape: Shape, text: str, place: Place, problems: Problems) -> Node:
    attempt = Problems()
    node = parse_text(text, place.source, attempt)
    if _takes_text(shape) and text.isprintable() and (attempt.found or not isinstance(node, ScalarNode)):
        return ScalarNode(text, plain=False, place=place, loose=True)
    for each in attempt.found:
        problems.add(place, each.sentence)
    if attempt.found:
        return RefusedNode(place)
    return moved(node, place) if node is not None else ScalarNode("", plain=True, place=place)


def _takes_text(shape: Shape) -> bool:
    if isinstance(shape, Choice):
        return any(_takes_text(option) for option in shape.options)
    return isinstance(shape, Text)


def _listed(known: list[str]) -> str:
    shown = ", ".join(name.upper() for name in known[:6])
    return f"; there is {shown}{', ...' if len(known) > 6 else ''}" if known else "; there is none here"
