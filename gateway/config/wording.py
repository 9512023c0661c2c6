"""What a setting wants and what was found, in words; and which names devices, uploads and tags may have."""

import re
import unicodedata
from typing import Final

from gateway.config.problems import either, quoted
from gateway.config.quantities import scalar_type, wanted_quantity, written
from gateway.config.shapes import (
    Choice,
    Flag,
    Group,
    Kinds,
    ListOf,
    MapOf,
    Number,
    Reference,
    Shape,
    Text,
    Words,
)
from gateway.config.yaml_source import ListNode, MapNode, Node, ScalarNode

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LONGEST_TAG: Final = 200


def wanted(shape: Shape) -> str:
    """Return what may be written, as in `wants ...`."""
    match shape:
        case Flag():
            return "true or false"
        case Number(unit=""):
            return "a whole number" if shape.whole else "a number"
        case Number():
            return wanted_quantity(shape)
        case Text():
            return "a path" if shape.path else "text"
        case Words():
            return either([str(word) for word in shape.words])
        case Reference():
            return "a reference to a secret"
        case ListOf():
            return "a list"
        case Choice():
            return either([wanted(option) for option in shape.options])
        case MapOf():
            return f"a group of {shape.noun or 'name'}s"
        case Group():
            return (
                f"text or a group of settings ({members(shape)})"
                if shape.short
                else f"a group ({members(shape)})"
            )
        case Kinds():
            return f"a group with {either(sorted(shape.modules))}"


def members(group: Group) -> str:
    """Return the names of a group's settings, not too many of them."""
    names = list(group.members)
    return ", ".join(f"{name}: ..." for name in names[:4]) + (", ..." if len(names) > 4 else "")


def found(node: Node) -> str:
    """Return what stands there."""
    match node:
        case MapNode():
            return "a group of settings"
        case ListNode():
            return "a list"
        case ScalarNode(plain=True):
            kind = scalar_type(node.text)
            if kind in ("int", "float"):
                return f"the number {node.text[:40]}"
            return node.text if kind == "bool" else quoted(node.text)
        case ScalarNode():
            return f"the text {quoted(node.text)}"
        case _:
            return "nothing"


def limits(shape: Number) -> str:
    """Return the range as in `must be ...`."""
    low = None if shape.low is None else written(shape.low, shape.unit)
    high = None if shape.high is None else written(shape.high, shape.unit)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def check_name(noun: str, name: str) -> None:
    """Judge the name of a "device", "upload" or "tag" (any other: not empty). ValueError: a sentence."""
    if noun in ("device", "upload", "gateway") and not ID.fullmatch(name):
        raise ValueError(
            f"{quoted(name)} cannot name {'an' if noun == 'upload' else 'a'} {noun}: "
            "letters, digits, - _ and . only, 1 to 64 of them, a letter or digit first"
        )
    if not name:
        raise ValueError("a name is missing before the colon")
    if noun == "tag":
        if len(name) > LONGEST_TAG:
            raise ValueError(
                f"{quoted(name)} has {len(name)} characters; a tag's name has {LONGEST_TAG} at most"
            )
        if name != name.strip() or any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
            raise ValueError(
                f"{quoted(name)} cannot name a tag: no control characters, no spaces at its ends"
            )
