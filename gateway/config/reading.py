"""A tree of YAML nodes and a shape -> frozen Settings, and every problem on the way."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gateway.config.problems import Place, Problems, either, names_secret, quoted, without_userinfo
from gateway.config.quantities import scalar_type
from gateway.config.scalars import scalar
from gateway.config.secret_reference import HOW, resolve
from gateway.config.shapes import (
    REQUIRED,
    Choice,
    Flag,
    Group,
    Kinds,
    ListOf,
    MapOf,
    Member,
    Number,
    Reference,
    Shape,
    Text,
    Words,
)
from gateway.config.wording import check_name, found, wanted
from gateway.config.yaml_source import Entry, ListNode, MapNode, Node, RefusedNode, ScalarNode
from gateway.settings import Secret

INVALID: Final = object()
"""What stands in for a value that has a problem."""

_REFUSALS: Final = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
"""What a setting's own check may raise over a value that it did not think of."""


@dataclass(frozen=True, slots=True)
class Kinded:
    """A device or an upload as read: its kind, its settings, its tags and where they were written."""

    kind: str
    settings: Any
    tags: Mapping[str, Any]
    places: Mapping[str, Place]
    """Tag, or "" for the device itself."""
    lacking: str = ""
    """The secrets that it needs and that cannot be had; their texts in `settings` are empty."""


@dataclass(frozen=True, slots=True)
class At:
    """What is being read: the word for it in sentences, and the place to name where the value has none."""

    name: str
    place: Place
    default: Any = REQUIRED
    beside: Collection[str] = ()
    """What may stand at the same level: found within, it was indented too far."""


@dataclass(slots=True)
class Reader:
    """Reads nodes by shapes."""

    problems: Problems
    environ: Mapping[str, str]
    folder: Path
    """What a relative path in the configuration is relative to."""
    in_part: bool = False
    """Within a device or an upload, which can be left out."""

    def read(self, shape: Shape, node: Node, at: At) -> Any:
        """Return the value, or INVALID after its problems were noted."""
        if isinstance(node, RefusedNode):
            return INVALID
        if _is_null(node):
            return self._null(shape, node, at)
        match shape:
            case Group():
                return self._group(shape, node, at)
            case Kinds():
                return self._kinds(shape, node, at)
            case ListOf():
                return self._list(shape, node, at)
            case MapOf():
                return self._map(shape, node, at)
            case Choice():
                return self._choice(shape, node, at)
            case Reference():
                return self._secret(node, at)
            case _:
                return self._scalar(shape, node, at)

    def _wrong(self, place: Place, at: At, sentence: str) -> Any:
        self.problems.add(place, f"{quoted(at.name)} {sentence}")
        return INVALID

    def _mistyped(self, shape: Shape, node: Node, at: At) -> Any:
        return self._wrong(node.place, at, f"wants {wanted(shape)}, found {_found(node, at)}")

    def _null(self, shape: Shape, node: Node, at: At) -> Any:
        if isinstance(shape, Choice) and shape.null:
            return None
        if isinstance(shape, Group | Kinds | MapOf):
            return self.read(shape, MapNode(at.place), at)
        if at.default is not REQUIRED and isinstance(shape, ListOf | Choice):
            return at.default
        remedy = "" if at.default is REQUIRED else ", or remove the line"
        return self._wrong(at.place, at, f"has no value; it wants {wanted(shape)}{remedy}")

    def _scalar(self, shape: Shape, node: Node, at: At) -> Any:
        if not isinstance(node, ScalarNode):
            return self._mistyped(shape, node, at)
        try:
            return scalar(shape, node, self.folder, self.problems.hint)
        except ValueError as error:
            if names_secret(at.name):
                return self._mistyped(shape, node, at)
            return self._wrong(node.place, at, str(error))

    def _secret(self, node: Node, at: At) -> Any:
        # What was found is not shown here: it may be the secret itself.
        entry = (
            next(iter(node.entries.items())) if isinstance(node, MapNode) and len(node.entries) == 1 else None
        )
        if entry is None or entry[0] not in Reference.FORMS:
            return self._wrong(
                node.place, at, f"is a secret, which is never written in the file itself; {HOW}"
            )
        form, value = entry[0], entry[1].node
        if not isinstance(value, ScalarNode) or not value.text:
            return self._wrong(value.place, at, f"names nothing after {form}; {HOW}")
        try:
            return resolve(form, value.text, self.environ, self.folder)
        except ValueError as error:
            sentence = f"{quoted(at.name)} cannot be had: {error}"
            self.problems.add(value.place, sentence, secret=self.in_part)
            return Secret(f"{form} {value.text}", "") if self.in_part else INVALID

    # -- collections -----------------------------------------------------------------------

    def _list(self, shape: ListOf, node: Node, at: At) -> Any:
        if not isinstance(node, ListNode):
            remedy = "; a list of one is written [...]" if isinstance(node, ScalarNode) else ""
            return self._wrong(node.place, at, f"wants {wanted(shape)}, found {_found(node, at)}{remedy}")
        items = [self.read(shape.item, item, At(at.name, item.place)) for item in node.items]
        return INVALID if any(item is INVALID for item in items) else tuple(items)

    def _map(self, shape: MapOf, node: Node, at: At) -> Any:
        if not isinstance(node, MapNode):
            return self._mistyped(shape, node, at)
        values = {}
        for name, entry in node.entries.items():
            named = self._named(shape.noun, name, entry.key_place)
            value = self.read(shape.item, entry.node, At(name, entry.key_place))
            values[name] = value if named else INVALID
        return INVALID if any(value is INVALID for value in values.values()) else values

    def _named(self, noun: str, name: str, place: Place) -> bool:
        try:
            check_name(noun, name)
        except ValueError as error:
            self.problems.add(place, str(error))
            return False
        return True

    def _choice(self, shape: Choice, node: Node, at: At) -> Any:
        if len(shape.options) == 1:
            return self.read(shape.options[0], node, at)
        fitting = [option for option in shape.options if _fits(option, node)]
        if fitting and isinstance(node, MapNode):
            return self.read(max(fitting, key=lambda option: _known(option, node)), node, at)
        if isinstance(node, ScalarNode) and node.loose:
            # A number is a number, as in the file, before it is text.
            fitting.sort(key=lambda option: isinstance(option, Text))
        for option in fitting:
            attempt = Reader(Problems(), self.environ, self.folder)
            if (value := attempt.read(option, node, at)) is not INVALID:
                return value
        if len(fitting) == 1:
            return self.read(fitting[0], node, at)
        if any(isinstance(option, Reference) for option in shape.options):
            return self._secret(node, at)
        words = [str(w) for option in shape.options if isinstance(option, Words) for w in option.words]
        hint = self.problems.hint(node.text, words) if isinstance(node, ScalarNode) else ""
        return self._wrong(node.place, at, f"wants {wanted(shape)}, found {_found(node, at)}{hint}")

    # -- groups ----------------------------------------------------------------------------

    def _group(self, shape: Group, node: Node, at: At) -> Any:
        if isinstance(node, ScalarNode) and (short := shape.short):
            node = MapNode(node.place, {short: Entry(node.place, node)})
        if not isinstance(node, MapNode):
            return self._mistyped(shape, node, at)
        self._unknown(node, {name: member.shape for name, member in shape.members.items()}, at)
        values = {
            member.field: self._member(name, member, node, replace(at, beside=shape.members))
            for name, member in shape.members.items()
        }
        if any(value is INVALID for value in values.values()):
            return INVALID
        return self._accepted(lambda: shape.cls(**values), at.place, at)

    def _member(self, name: str, member: Member, node: MapNode, at: At) -> Any:
        entry = node.entries.get(name)
        if entry is None:
            if member.default is not REQUIRED:
                return member.default
            example = f", such as {name}: {member.declared.example}" if member.declared.example else ""
            return self._wrong(at.place, at, f'needs the setting "{name}"{example}')
        within = At(name, entry.key_place, member.default, at.beside)
        value = self.read(member.shape, entry.node, within)
        check = member.declared.check
        if value is INVALID or value is None or check is None:
            return value
        place = entry.key_place if _is_null(entry.node) else entry.node.place
        accepted = self._accepted(lambda: check(value), place, within)
        return INVALID if accepted is INVALID else value

    def _accepted(self, judge: Callable[[], Any], place: Place, at: At) -> Any:
        try:
            return judge()
        except _REFUSALS as error:
            sentence = without_userinfo(" ".join(str(error).split()))
            return self._wrong(place, at, f"will not do: {sentence}")

    def _unknown(self, node: MapNode, known: Mapping[str, Shape | None], at: At) -> int:
        strangers = [(name, entry) for name, entry in node.entries.items() if name not in known]
        for name, entry in strangers:
            unused = [each for each in known if each not in node.entries]
            remedy = self._home(name, node, known, at) or self.problems.hint(name, unused)
            self.problems.add(entry.key_place, f"{quoted(name)} is not a known setting here{remedy}")
        return len(strangers)

    def _home(self, name: str, node: MapNode, known: Mapping[str, Shape | None], at: At) -> str:
        """Say where a name belongs that is right one level up or down: the usual slip of indentation."""
        if name in at.beside:
            return f'; it belongs beside "{at.name}", indent it less'
        below = next((each for each in node.entries if name in _names(known.get(each))), None)
        return f'; it belongs within "{below}", indent it more' if below is not None else ""

    def _kinds(self, shape: Kinds, node: Node, at: At) -> Any:
        if not isinstance(node, MapNode):
            return self._mistyped(shape, node, at)
        kinds = [name for name in node.entries if name in shape.modules]
        known: dict[str, Shape | None] = dict.fromkeys([*shape.modules, *(["tags"] if shape.tagged else [])])
        for kind in kinds:
            with contextlib.suppress(ImportError):
                known[kind] = shape.group(kind)
        strangers = self._unknown(node, known, at)
        what = "protocol" if shape.tagged else "target"
        if not kinds and not strangers:
            return self._wrong(at.place, at, f"names no {what}; add one of {either(sorted(shape.modules))}")
        for extra in kinds[1:]:
            place = node.entries[extra].key_place
            self.problems.add(place, f'"{at.name}" has a {what} already, "{kinds[0]}"; keep one of them')
        read = [self._kind(shape, kind, node, at) for kind in kinds]
        return read[0] if len(read) == 1 and not strangers else INVALID

    def _kind(self, shape: Kinds, kind: str, node: MapNode, at: At) -> Any:
        entry, listed = node.entries[kind], node.entries.get("tags")
        within = At(kind, entry.key_place, beside=("tags",) if shape.tagged else ())
        try:
            group = shape.group(kind)
            tag = shape.tag(kind) if shape.tagged else None
        except ImportError as error:
            return self._wrong(entry.key_place, within, f"cannot be used here: {error}")
        before, self.in_part = len(self.problems.found), True
        settings = self.read(group, entry.node, within)
        self.in_part = False
        lacking = "; ".join(str(each) for each in self.problems.found[before:] if each.secret)
        places, tags = {"": at.place}, {}
        if tag is not None and listed is not None:
            tags = self.read(MapOf(tag, "tag"), listed.node, At("tags", listed.key_place))
            if isinstance(listed.node, MapNode):
                places |= {name: each.key_place for name, each in listed.node.entries.items()}
        if settings is INVALID or tags is INVALID:
            return INVALID
        return Kinded(kind, settings, tags, places, lacking)


def _found(node: Node, at: At) -> str:
    if isinstance(node, ScalarNode) and names_secret(at.name):
        return "a text that is not shown"
    return found(node)


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.plain and scalar_type(node.text) == "null"


def _fits(shape: Shape, node: Node) -> bool:
    match node:
        case MapNode():
            return isinstance(shape, Group | MapOf | Reference | Kinds)
        case ListNode():
            return isinstance(shape, ListOf)
        case _:
            return isinstance(shape, Flag | Number | Text | Words) or (
                isinstance(shape, Group) and shape.short is not None
            )


def _names(shape: Shape | None) -> Collection[str]:
    if isinstance(shape, Choice):
        return [name for option in shape.options for name in _names(option)]
    return shape.members if isinstance(shape, Group) else ()


def _known(shape: Shape, node: MapNode) -> int:
    """Count the keys that a shape knows: where several could be meant, the one that knows most is."""
    if isinstance(shape, Group):
        return sum(name in shape.members for name in node.entries)
    return sum(name in Reference.FORMS for name in node.entries) if isinstance(shape, Reference) else 0
