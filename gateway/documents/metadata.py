"""metadata.yaml: what is asked of a person before and after a measurement, by profiles.

Profiles hold sections, nested as one likes, and fields: a group with id, label, datatype and type. What
else a field says is the page's own and is not judged.
"""

from typing import Final

from gateway.config.problems import Place, either, quoted
from gateway.config.wording import found
from gateway.config.yaml_source import ListNode, MapNode, Node, RefusedNode, ScalarNode
from gateway.documents.reading import Header, Source, is_null

DATATYPES: Final = (
    "text",
    "text_box",
    "text_suggestions",
    "dropdown",
    "int",
    "float",
    "int_qty",
    "float_qty",
    "boolean",
    "image",
)
_FIELD: Final = ("id", "label", "datatype", "type")


def read(source: Source) -> tuple[Header, None]:
    """Return the header of a metadata.yaml that can be used. DocumentRefused: it cannot."""
    header = source.header()
    names = _profiles(source)
    _default(source, names)
    source.check()
    assert header is not None
    return header, None


def _profiles(source: Source) -> list[str]:
    """Judge the profiles; return the names that they go by: their keys and their ids."""
    entry = source.root.entries.get("profiles")
    if entry is None or is_null(entry.node):
        place = source.root.place if entry is None else entry.key_place
        source.add(place, 'the group "profiles" is missing: it wants one profile at least')
        return []
    if not isinstance(entry.node, MapNode):
        _wants_group(source, entry.node, "profiles")
        return []
    names = []
    for key, profile in entry.node.entries.items():
        names.append(key)
        if isinstance(profile.node, MapNode):
            names += _profile(source, key, profile.node, profile.key_place)
        else:
            _wants_group(source, profile.node, key)
    return names


def _profile(source: Source, key: str, profile: MapNode, place: Place) -> list[str]:
    texts = {name: _needed(source, profile, name, key, place) for name in ("id", "name")}
    for stage in ("pre", "post"):
        if (entry := profile.entries.get(stage)) is not None:
            _section(source, entry.node, stage)
    return [texts["id"]] if texts["id"] else []


def _section(source: Source, node: Node, name: str) -> None:
    if not isinstance(node, MapNode):
        _wants_group(source, node, name)
        return
    for key, entry in node.entries.items():
        if isinstance(entry.node, MapNode) and _is_field(entry.node):
            _field(source, key, entry.node, entry.key_place)
        else:
            _section(source, entry.node, key)


def _is_field(node: MapNode) -> bool:
    """Say whether a group is meant as a field: a section holds groups, and no texts."""
    return any(name in node.entries and isinstance(node.entries[name].node, ScalarNode) for name in _FIELD)


def _field(source: Source, key: str, field: MapNode, place: Place) -> None:
    texts = {name: _needed(source, field, name, key, place) for name in _FIELD}
    datatype = texts["datatype"]
    if datatype and datatype not in DATATYPES:
        hint = source.problems.hint(datatype, DATATYPES)
        sentence = f'"datatype" must be {either(DATATYPES)}, found {quoted(datatype)}{hint}'
        source.add(field.entries["datatype"].node.place, sentence)
    options = field.entries.get("options")
    if options is None or is_null(options.node) or isinstance(options.node, ListNode | RefusedNode):
        return
    source.add(options.node.place, f'"options" wants a list, found {found(options.node)}')


def _needed(source: Source, group: MapNode, name: str, of: str, place: Place) -> str | None:
    entry = group.entries.get(name)
    if entry is None:
        source.add(place, f'{quoted(of)} needs the setting "{name}"')
        return None
    return source.text(entry.node, name, entry.key_place)


def _default(source: Source, names: list[str]) -> None:
    entry = source.root.entries.get("default_profile_id")
    if entry is None:
        source.add(source.root.place, 'the setting "default_profile_id" is missing: one of the profiles')
        return
    chosen = source.text(entry.node, "default_profile_id", entry.key_place)
    if chosen and names and chosen not in names:
        hint = source.problems.hint(chosen, names)
        sentence = f'"default_profile_id" names {quoted(chosen)}, which is no profile here{hint}'
        source.warn(entry.node.place, sentence)


def _wants_group(source: Source, node: Node, name: str) -> None:
    if not isinstance(node, RefusedNode):
        source.add(node.place, f"{quoted(name)} wants a group, found {found(node)}")
