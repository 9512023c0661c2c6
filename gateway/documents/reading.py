"""YAML bytes -> a document's root, what is wrong with it, and under which names that stands.

The machinery is that of gateway.yaml: YAML 1.2 without anchors and tags, 1 MiB, 32 levels, 100 000 values.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from gateway.config.problems import Place, Problems, quoted
from gateway.config.quantities import scalar_type
from gateway.config.reading import INVALID, At, Reader
from gateway.config.shapes import Group, ListOf, MapOf, Shape, Text, group_of
from gateway.config.yaml_source import Entry, ListNode, MapNode, Node, ScalarNode, parse_bytes
from gateway.controls.documents import DocumentHeader, DocumentRefused, Fault
from gateway.settings import Settings, setting

MOST_FAULTS: Final = 100
_LONGEST: Final = 200
"""Characters of a text of the header, which lists and logs show."""
_EMPTY: Final = 'the file says nothing; it wants "info:" and what belongs to it'


def filled(value: str) -> None:
    if not value.strip():
        raise ValueError("it is empty")


def _short(value: str) -> None:
    filled(value)
    if len(value) > _LONGEST:
        raise ValueError(f"it is longer than {_LONGEST} characters")


def _date(value: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("it is no time in ISO 8601, such as 2025-10-07T13:52:40+02:00") from None


@dataclass(frozen=True, kw_only=True)
class Header(Settings):
    """The `info` block that every document begins with."""

    schema_name: str = setting(help="name of the schema", check=_short, example="sensors_schema")
    schema_version: str = setting(help="version of the schema", check=_short, example="0.0.1")
    config_name: str = setting(help="what people call this file", check=_short)
    config_date: str = setting(
        help="when it was written, ISO 8601", check=_date, example="'2025-10-07T13:52:40+0200'"
    )
    config_version: str = setting(help="version of this file", check=_short, example="0.0.1")

    def shown(self) -> DocumentHeader:
        return DocumentHeader(
            self.schema_name, self.schema_version, self.config_name, self.config_date, self.config_version
        )


@dataclass(frozen=True, kw_only=True)
class _Beginning(Settings):
    info: Header = setting(help="what this file is")


@dataclass(slots=True)
class Source:
    """A document's root as parsed, with the problems found so far."""

    root: MapNode
    problems: Problems
    name: str
    """Of the file, in sentences."""
    warnings: list[str] = field(default_factory=list)
    """What does not count: a sentence each."""

    def read(self, cls: type[Settings], root: MapNode | None = None) -> Any:
        """Return the settings that the root (or what is given in its place) holds, or INVALID.

        Names beyond them are left out with a warning: other programs write some; but not misspelt ones.
        """
        shape = group_of(cls)
        known = self._known(shape, root or self.root)
        return self._reader.read(shape, known, At(self.name, Place(self.name, 1, 1)))

    def warn(self, place: Place, sentence: str) -> None:
        if len(self.warnings) < MOST_FAULTS:
            self.warnings.append(f"{self.name}:{place.line}: {sentence}")

    def _known(self, shape: Shape, node: Node) -> Node:
        match shape, node:
            case Group(), MapNode():
                kept = {}
                missing = shape.members.keys() - node.entries.keys()
                for name, entry in node.entries.items():
                    if name in shape.members:
                        below = self._known(shape.members[name].shape, entry.node)
                        kept[name] = Entry(entry.key_place, below)
                    elif self.problems.hint(name, missing):
                        kept[name] = entry  # misspelt, which is refused
                    else:
                        self.warn(entry.key_place, f"{quoted(name)} is not known, and not used")
                return MapNode(node.place, kept)
            case ListOf(), ListNode():
                return ListNode(node.place, [self._known(shape.item, item) for item in node.items])
            case MapOf(), MapNode():
                entries = {
                    name: Entry(entry.key_place, self._known(shape.item, entry.node))
                    for name, entry in node.entries.items()
                }
                return MapNode(node.place, entries)
        return node

    def header(self) -> Header | None:
        """Return the `info` block, whatever else stands there; None after its problems were noted."""
        info = {name: entry for name, entry in self.root.entries.items() if name == "info"}
        whole = self.read(_Beginning, MapNode(self.root.place, info))
        return None if whole is INVALID else whole.info

    def text(self, node: Node, name: str, place: Place) -> str | None:
        """Return a text that must not be empty, or None after its problem was noted."""
        shape: Shape = Text()
        value = self._reader.read(shape, node, At(name, place))
        if value is INVALID:
            return None
        if not value.strip():
            self.add(node.place, f"{quoted(name)} is empty")
            return None
        return str(value)

    def add(self, place: Place, sentence: str) -> None:
        self.problems.add(place, sentence)

    def check(self) -> None:
        """Raise DocumentRefused where anything is wrong."""
        if self.problems.found:
            raise DocumentRefused(self.name, _faults(self.problems, _fields(self.root)))

    @property
    def _reader(self) -> Reader:
        return Reader(self.problems, {}, Path())


def parse(data: bytes, name: str) -> Source:
    """Return a document's source. DocumentRefused: it is no YAML, or no group of names."""
    problems = Problems()
    root = parse_bytes(data, name, problems)
    if root is None or is_null(root):
        if not problems.found:
            problems.add(Place(name, 1, 1), _EMPTY)
        raise DocumentRefused(name, _faults(problems, {}), unreadable=True)
    if not isinstance(root, MapNode):
        problems.add(root.place, 'names and their values are wanted here, as in "info:"')
        raise DocumentRefused(name, _faults(problems, {}), unreadable=True)
    return Source(root, problems, name)


def is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.plain and scalar_type(node.text) == "null"


def within(node: Node, *path: str | int) -> Node:
    """Return what stands below a node, as far down as there is something."""
    for step in path:
        if isinstance(node, MapNode) and str(step) in node.entries:
            node = node.entries[str(step)].node
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
    return node


def _faults(problems: Problems, fields: dict[tuple[int, int], str]) -> list[Fault]:
    ordered = sorted(problems.found, key=lambda each: each.place)[:MOST_FAULTS]
    return [
        Fault(fields.get((line, column), ""), line, column, each.sentence)
        for each in ordered
        for _, line, column in (each.place,)
    ]


def _fields(root: Node) -> dict[tuple[int, int], str]:
    """Return the names down to each place. Of two at one place a list's item comes before its first name,
    and a group's first name before the group.
    """
    named: dict[tuple[int, int], str] = {}
    for place, path in _below(root, ""):
        named.setdefault((place.line, place.column), path)
    return named


def _below(node: Node, path: str) -> Iterator[tuple[Place, str]]:
    dot = "." if path else ""
    if isinstance(node, MapNode):
        for name, entry in node.entries.items():
            below = f"{path}{dot}{name}"
            yield entry.key_place, below
            yield from _below(entry.node, below)
            yield entry.node.place, below
    elif isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield item.place, f"{path}{dot}{index}"
            yield from _below(item, f"{path}{dot}{index}")
