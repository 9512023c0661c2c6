"""YAML text -> a tree of nodes with places; what is not plain YAML 1.2 data is a problem with its place.

libyaml's events are taken one by one, without recursion, so that depth and number of nodes are bounded before
they cost anything. Anchors, aliases, tags and duplicate keys are refused: a technician's file needs none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from gateway.config.problems import Place, Problems, quoted
from gateway.config.yaml_sentences import syntax_problems

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_NODES: Final = 100_000

_BREAK: Final = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_UNPRINTABLE: Final = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_MOST_CHARACTERS: Final = 20


@dataclass(slots=True)
class ScalarNode:
    """Text as written; `plain` where without quotes, so that it may mean a number, a bool or null."""

    text: str
    plain: bool
    place: Place
    loose: bool = False
    """From the environment, where quotes are a nuisance: it is text wherever text is wanted."""


@dataclass(slots=True)
class MapNode:
    place: Place
    entries: dict[str, "Entry"] = field(default_factory=dict)


@dataclass(slots=True)
class ListNode:
    place: Place
    items: list["Node"] = field(default_factory=list)


@dataclass(slots=True)
class RefusedNode:
    """What was a problem already: nothing more is said of it."""

    place: Place


Node: TypeAlias = ScalarNode | MapNode | ListNode | RefusedNode


@dataclass(slots=True)
class Entry:
    key_place: Place
    node: Node


def parse_bytes(data: bytes, source: str, problems: Problems) -> Node | None:
    """Return the tree of a file's bytes, or None where problems made one impossible or it holds nothing."""
    if len(data) > MAX_BYTES:
        problems.add(Place(source, 1, 1), f"the file is larger than {MAX_BYTES} bytes")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        byte = data[error.start]
        problems.add(
            _place_after(before, source), f"the byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        )
        return None
    return parse_text(text, source, problems)


def parse_text(text: str, source: str, problems: Problems) -> Node | None:
    """Return the tree of YAML text, or None as `parse_bytes` does."""
    strange = [match for _, match in zip(range(_MOST_CHARACTERS), _UNPRINTABLE.finditer(text), strict=False)]
    for match in strange:
        place = _place_after(text[: match.start()], source)
        name = "NUL" if match[0] == "\0" else "control"
        problems.add(
            place, f"the {name} character U+{ord(match[0]):04X} cannot stand in a YAML file; remove it"
        )
    if strange:
        return None
    builder = _Builder(source, problems)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if not builder.take(event):
                return None
    except yaml.YAMLError as error:
        for line, column, sentence in syntax_problems(error, text):
            problems.add(Place(source, line, column), sentence)
        return None
    return builder.root


def _place_after(before: str, source: str) -> Place:
    line, start = 1, 0
    for match in _BREAK.finditer(before):
        line, start = line + 1, match.end()
    return Place(source, line, len(before) - start + 1)


@dataclass(slots=True)
class _Key:
    text: str
    place: Place
    kept: bool


@dataclass(slots=True)
class _Frame:
    node: MapNode | ListNode
    key: _Key | None = None


class _Builder:
    """Makes nodes of events."""

    def __init__(self, source: str, problems: Problems) -> None:
        self.root: Node | None = None
        self._source = source
        self._problems = problems
        self._frames: list[_Frame] = []
        self._nodes = 0
        self._documents = 0

    def take(self, event: Any) -> bool:
        """Take one event; False: the file goes beyond a bound and the rest is not worth reading."""
        match event:
            case yaml.ScalarEvent():
                self._refuse_extras(event)
                self._attach(self._scalar(event))
            case yaml.MappingStartEvent():
                self._open(MapNode(self._place(event)), event)
            case yaml.SequenceStartEvent():
                self._open(ListNode(self._place(event)), event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._frames.pop()
                return True
            case yaml.AliasEvent():
                place = self._place(event)
                self._problems.add(place, f'the alias "*{event.anchor}" is not taken; write the value out')
                self._attach(RefusedNode(place))
            case yaml.DocumentStartEvent():
                return self._document(event)
            case _:
                return True
        return self._within_bounds(event)

    def _document(self, event: Any) -> bool:
        self._documents += 1
        if self._documents > 1:
            self._problems.add(self._place(event), 'a second document ("---") begins here; keep one')
        return self._documents == 1

    def _within_bounds(self, event: Any) -> bool:
        self._nodes += 1
        if len(self._frames) > MAX_DEPTH:
            self._problems.add(self._place(event), f"the nesting is deeper than {MAX_DEPTH} levels")
            return False
        if self._nodes > MAX_NODES:
            self._problems.add(self._place(event), f"the file has more than {MAX_NODES} values")
            return False
        return True

    def _scalar(self, event: Any) -> Node:
        place = self._place(event)
        if event.tag is not None:
            return RefusedNode(place)
        return ScalarNode(event.value, event.style in (None, ""), place)

    def _open(self, node: MapNode | ListNode, event: Any) -> None:
        self._refuse_extras(event)
        self._attach(node)
        self._frames.append(_Frame(node))

    def _refuse_extras(self, event: Any) -> None:
        if event.anchor is not None:
            sentence = f'the anchor "&{event.anchor}" is not taken; write the value out where it is needed'
            self._problems.add(self._place(event), sentence)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._problems.add(self._place(event), f"the YAML tag {quoted(tag)} is not taken; remove it")

    def _attach(self, node: Node) -> None:
        if not self._frames:
            self.root = node
            return
        frame = self._frames[-1]
        if isinstance(frame.node, ListNode):
            frame.node.items.append(node)
        elif frame.key is None:
            frame.key = self._key(node, frame.node)
        else:
            if frame.key.kept:
                frame.node.entries[frame.key.text] = Entry(frame.key.place, node)
            frame.key = None

    def _key(self, node: Node, parent: MapNode) -> _Key:
        if not isinstance(node, ScalarNode):
            if not isinstance(node, RefusedNode):
                self._problems.add(node.place, "a list or a group cannot be a key; write a name")
            return _Key("", node.place, kept=False)
        if first := parent.entries.get(node.text):
            sentence = f"{quoted(node.text)} is given twice; the first is on line {first.key_place.line}."
            self._problems.add(node.place, f"{sentence} Keep one of them.")
            return _Key(node.text, node.place, kept=False)
        return _Key(node.text, node.place, kept=True)

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._source, mark.line + 1, mark.column + 1)


def moved(node: Node, place: Place) -> Node:
    """Return the tree with every place replaced by one (a variable has no lines)."""
    for part in _parts(node):
        part.place = place
        if isinstance(part, MapNode):
            for entry in part.entries.values():
                entry.key_place = place
        if isinstance(part, ScalarNode):
            part.loose = True
    return node


def _parts(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, MapNode):
        for entry in node.entries.values():
            yield from _parts(entry.node)
    if isinstance(node, ListNode):
        for item in node.items:
            yield from _parts(item)
