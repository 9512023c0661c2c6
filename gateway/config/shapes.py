"""What a setting may be, taken from the annotations of the Settings classes: the one source for the reader,
the environment, the reference and the JSON Schema.
"""

import dataclasses
import functools
import importlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeAlias, Union

from gateway.settings import Declared, Secret, Settings

REQUIRED: Final = object()
"""In place of a default: there is none."""
UNITS: Final = {"_s": "s", "_ms": "ms", "_bytes": "bytes"}


@dataclass(frozen=True)
class Flag:
    """true or false."""


@dataclass(frozen=True)
class Number:
    """A number; with a unit it is written as a duration ("500ms") or a size ("64MiB")."""

    whole: bool
    unit: str = ""
    """Of "", "s", "ms", "bytes": what the field counts."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Text:
    """Text; `path`: a pathlib.Path, relative to the folder of the configuration file."""

    path: bool = False


@dataclass(frozen=True)
class Words:
    """One of a few words."""

    words: tuple[Any, ...]


@dataclass(frozen=True)
class Reference:
    """A secret by reference."""

    FORMS: ClassVar[Mapping[str, str]] = {"env": "NAME", "file": "PATH", "credential": "NAME"}


@dataclass(frozen=True)
class ListOf:
    item: "Shape"


@dataclass(frozen=True)
class MapOf:
    item: "Shape"
    noun: str = ""
    """Of "device", "upload", "tag": what the names must be good for; "" takes any name."""


@dataclass(frozen=True)
class Choice:
    """Any one of several shapes, or null."""

    options: tuple["Shape", ...]
    null: bool


@dataclass(frozen=True)
class Member:
    """One setting of a group."""

    field: str
    shape: "Shape"
    declared: Declared
    default: Any
    """REQUIRED where it has none."""


@dataclass(frozen=True)
class Group:
    """A mapping read into a Settings class (or the root, a dataclass beside it)."""

    cls: type[Any]
    members: Mapping[str, Member] = field(compare=False)
    """By the name in the YAML."""

    @property
    def short(self) -> str | None:
        """The name in the YAML that a bare scalar stands for."""
        name = getattr(self.cls, "SHORT", None)
        return next((yaml for yaml, member in self.members.items() if member.field == name), None)


@dataclass(frozen=True)
class Kinds:
    """A device or an upload: a mapping with exactly one kind as key (for a device, `tags` beside it)."""

    noun: str
    """"device" or "upload"."""
    modules: Mapping[str, str] = field(compare=False)
    """Kind to module path; a module is imported when its kind is first needed."""

    @property
    def tagged(self) -> bool:
        return self.noun == "device"

    def group(self, kind: str) -> Group:
        """Return the kind's settings. ImportError: something that it needs is not installed."""
        return group_of(importlib.import_module(self.modules[kind]).Settings)

    def tag(self, kind: str) -> Group:
        """Return the settings of a tag of a device of this kind."""
        return group_of(importlib.import_module(self.modules[kind]).TagSettings)


Shape: TypeAlias = Flag | Number | Text | Words | Reference | ListOf | MapOf | Choice | Group | Kinds


def group_of(cls: Any) -> Group:
    """Return the members of a Settings class in the order of their declaration."""
    return _group_of(cls)


@functools.cache
def _group_of(cls: Any) -> Group:
    hints = typing.get_type_hints(cls)
    members: dict[str, Member] = {}
    for each in dataclasses.fields(cls):
        declared = each.metadata.get("declared")
        if declared is None:
            raise TypeError(f"{cls.__qualname__}.{each.name} is not declared with setting()")
        unit = _unit(each.name, hints[each.name])
        shape = shape_of(hints[each.name], unit, declared)
        name = declared.yaml or (each.name.removesuffix(unit) if unit else each.name)
        if name in members:
            other = members[name].field
            raise TypeError(
                f"{cls.__qualname__}: {each.name} and {other} are both {name} in the YAML; give yaml="
            )
        members[name] = Member(each.name, shape, declared, _default(each))
    return Group(cls, members)


def shape_of(hint: Any, unit: str, declared: Declared) -> Shape:
    """Return the shape of an annotation; `unit` is the field's suffix. TypeError: it is none of ours."""
    simple: dict[Any, Shape] = {
        bool: Flag(),
        int: Number(whole=True, unit=UNITS.get(unit, ""), low=declared.low, high=declared.high),
        float: Number(whole=False, unit=UNITS.get(unit, ""), low=declared.low, high=declared.high),
        str: Text(),
        Path: Text(path=True),
        Secret: Reference(),
    }
    if (known := simple.get(hint)) is not None:
        return known
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return Words(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return ListOf(shape_of(arguments[0], unit, declared))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return MapOf(shape_of(arguments[1], unit, declared))
    if origin in (Union, types.UnionType):
        options = tuple(shape_of(each, unit, declared) for each in arguments if each is not types.NoneType)
        null = types.NoneType in arguments
        return Choice(options, null)
    if isinstance(hint, type) and issubclass(hint, Settings):
        return group_of(hint)
    raise TypeError(f"a setting cannot be declared as {hint}")


def _unit(name: str, hint: Any) -> str:
    """Return the suffix that is a unit; that of a rate ("updates_per_s") is none."""
    suffix = next((each for each in UNITS if name.endswith(each)), "")
    return suffix if suffix and not name.endswith(f"_per{suffix}") and _has_number(hint) else ""


def _has_number(hint: Any) -> bool:
    return hint in (int, float) or any(_has_number(each) for each in typing.get_args(hint))


def _default(each: "dataclasses.Field[Any]") -> Any:
    if each.default_factory is not dataclasses.MISSING:
        return each.default_factory()
    return REQUIRED if each.default is dataclasses.MISSING else each.default
