"""Every setting of the reference by its variable: the same configuration as by the file."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, ConfigProblems, load
from gateway.config.layout import layout
from gateway.config.overrides import PREFIX
from gateway.config.problems import fold
from gateway.config.quantities import written
from gateway.config.reference import reference
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

Place = tuple[str, ...]
Tree = dict[str, Any]
"""YAML: groups as dictionaries, all else as its text; None: not there."""

SOME: Mapping[str, Tree] = {
    "can": {"database": "other.dbc"}, "opcua": {"url": "opc.tcp://plc:4840"}, "opcua tag": {"node": "i=1"},
    "http": {"url": "https://a.example"}, "dataspace": {"url": "https://a.example"},
}  # fmt: skip
"""What a device, upload or tag of a kind has, so that it may have other settings."""
BESIDE: Mapping[str, Tree] = {
    "data_bitrate": {"fd": "true"},
    "host": {"interface": "socketcand"},
    "port": {"interface": "socketcand", "host": "a.example"},
    "options": {"interface": "slcan"},
    "password": {"user": "a"},
    "dialect": {"bucket": "a"},
    "events": {"node": None},
    "least_severity": {"node": None, "events": "i=2253"},
    "event_types": {"node": None, "events": "i=2253"},
}
TEXTS = ("x", "/x", "127.0.0.1:9", "https://b.example", "opc.tcp://b:4840")


@dataclass(frozen=True)
class Setting:
    place: Place
    """In the YAML, with `ID` and `TAG` for the names."""
    member: Member
    around: Tree
    """What the YAML has besides."""

    @property
    def variable(self) -> str:
        return PREFIX + "__".join(fold(part).upper() for part in self.place)


def settings(group: Group, place: Place, around: Tree) -> Iterator[Setting]:
    for name, member in group.members.items():
        kinds = getattr(member.shape, "item", None)
        if isinstance(kinds, Kinds):
            yield from of_kinds(kinds, (name, "ID"))
            continue
        if place:
            beside = around
            for other, text in BESIDE.get(name, {}).items():
                if other in group.members:
                    beside = put(beside, (*place, other), text)
            yield Setting((*place, name), member, beside)
        for inner in groups(member.shape):
            yield from settings(inner, (*place, name), put(around, (*place, name), needed(inner)))


def of_kinds(kinds: Kinds, place: Place) -> Iterator[Setting]:
    for kind in kinds.modules:
        group = kinds.group(kind)
        around = put({}, (*place, kind), needed(group) | SOME.get(kind, {}))
        yield from settings(group, (*place, kind), around)
        if kinds.tagged:
            tag = kinds.tag(kind)
            at = (*place, "tags", "TAG")
            yield from settings(tag, at, put(around, at, needed(tag) | SOME.get(f"{kind} tag", {})))


def groups(shape: Shape) -> Iterator[Group]:
    if isinstance(shape, Group):
        yield shape
    for option in shape.options if isinstance(shape, Choice) else ():
        yield from groups(option)


def needed(group: Group) -> Tree:
    """Return the settings that have to be given."""
    members = group.members.items()
    return {name: next(of_member(member)) for name, member in members if member.default is REQUIRED}


def put(tree: Tree, place: Place, value: Any) -> Tree:
    """Return a tree with this value at a place."""
    made = copy.deepcopy(tree)
    at = made
    for part in place[:-1]:
        at = at.setdefault(part, {})
    at[place[-1]] = value
    return made


def of_member(member: Member) -> Iterator[str]:
    """Yield values that a setting may have, some of which its check refuses."""
    if member.declared.example:
        yield member.declared.example
    yield from of_shape(member.shape)


def of_shape(shape: Shape) -> Iterator[str]:
    match shape:
        case Flag():
            yield from ("true", "false")
        case Number():
            yield from (written(n, shape.unit) for n in (shape.low, shape.high, 2, 3) if n is not None)
        case Text():
            yield from TEXTS
        case Words():
            yield from shape.words
        case Reference():
            yield "{env: SECRET}"
        case ListOf():
            yield from (f"[{text}]" for text in of_shape(shape.item))
        case MapOf():
            yield from (f"{{X-a: {text}}}" for text in of_shape(shape.item))
        case Choice():
            for option in shape.options:
                yield from of_shape(option)
        case Group():
            for name, member in shape.members.items():
                yield from (flow(needed(shape) | {name: text}) for text in of_member(member))


def flow(tree: Any) -> str:
    if isinstance(tree, str):
        return tree
    there = {name: flow(inner) for name, inner in tree.items() if inner is not None}
    return "{" + ", ".join(f"{name}: {text}" for name, text in there.items()) + "}"


ALL = list(settings(layout(), (), {}))


def test_these_are_all_of_the_reference() -> None:
    assert {each.variable for each in ALL} == set(re.findall(rf"`({PREFIX}\w+)`", reference()))


@pytest.mark.seed_row("L8")
@pytest.mark.timeout(60)
def test_each_setting_by_its_variable_is_as_by_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    for name in ("plant-cloud", "dataspace"):
        (tmp_path / name).write_text("hunter2")
    secrets = {"SECRET": "hunter2", "CREDENTIALS_DIRECTORY": str(tmp_path)}

    def loaded(tree: Tree, environ: Mapping[str, str]) -> Config | str:
        file.write_text(flow(tree).replace("ID:", "press-07:").replace("TAG:", "speed:"))
        try:
            return load(file, secrets | environ)
        except ConfigProblems as problems:
            return str(problems)

    for each in ALL:
        variable = each.variable.replace("__ID__", "__PRESS_07__").replace("__TAG__", "__SPEED__")
        without, refused = loaded(each.around, {}), []
        for text in of_member(each.member):
            by_file = loaded(put(each.around, each.place, text), {})
            if isinstance(by_file, str):
                refused.append(by_file)
            elif by_file != without:
                assert loaded(each.around, {variable: text}) == by_file, (variable, text)
                break
        else:
            pytest.fail(f"{each.place}: no value changes anything; {refused}")
