"""The JSON Schema (2020-12) of gateway.yaml, for editors: completion, help and first errors while typing."""

from typing import Any, Final

from gateway.config.layout import layout
from gateway.config.overrides import PREFIX
from gateway.config.reference import kind_of, range_of, yaml_of
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
from gateway.config.wording import ID, LONGEST_TAG

_DURATION: Final = r"^[0-9]+(\.[0-9]+)? *(ms|s|m|min|h|d)$"
_SIZE: Final = r"^[0-9]+(\.[0-9]+)? *([Bb]|[KkMmGgTt][Ii]?[Bb])$"


def json_schema(root: Group | None = None) -> dict[str, Any]:
    """Return the schema; it imports every protocol and uploader.

    It is a little wider than the loader where JSON Schema cannot say it (ranges of durations and sizes).
    """
    root = root or layout()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edge-gateway configuration",
        "description": f"Every setting can also come from the environment, {PREFIX}...",
        **_group(root),
    }


def _schema(shape: Shape) -> dict[str, Any]:
    match shape:
        case Flag():
            return {"type": "boolean"}
        case Number():
            return _number(shape)
        case Text():
            return {"type": "string"}
        case Words():
            return {"enum": list(shape.words)}
        case Reference():
            return _reference()
        case ListOf():
            return {"type": "array", "items": _schema(shape.item)}
        case MapOf():
            return _map(shape)
        case Choice():
            options = [_schema(option) for option in shape.options]
            return {"anyOf": [*options, {"type": "null"}] if shape.null else options}
        case Group():
            return _shortened(shape)
        case Kinds():
            return _kinds(shape)


def _number(shape: Number) -> dict[str, Any]:
    if shape.unit:
        return {
            "anyOf": [
                {"type": "string", "pattern": _SIZE if shape.unit == "bytes" else _DURATION},
                {"const": 0},
            ]
        }
    schema: dict[str, Any] = {"type": "integer" if shape.whole else "number"}
    limits = {"minimum": shape.low, "maximum": shape.high}
    return schema | {name: value for name, value in limits.items() if value is not None}


def _reference() -> dict[str, Any]:
    names = {form: {"type": "string", "minLength": 1} for form in Reference.FORMS}
    return {
        "type": "object",
        "properties": names,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }


def _map(shape: MapOf) -> dict[str, Any]:
    names: dict[str, Any] = {"minLength": 1}
    if shape.noun in ("device", "upload"):
        names = {"pattern": f"^{ID.pattern}$"}
    elif shape.noun == "tag":
        names["maxLength"] = LONGEST_TAG
    return {"type": ["object", "null"], "additionalProperties": _schema(shape.item), "propertyNames": names}


def _group(shape: Group) -> dict[str, Any]:
    required = [name for name, member in shape.members.items() if member.default is REQUIRED]
    schema: dict[str, Any] = {
        "type": "object" if required else ["object", "null"],
        "properties": {name: _member(member) for name, member in shape.members.items()},
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def _shortened(shape: Group) -> dict[str, Any]:
    group = _group(shape)
    if shape.short is None:
        return group
    return {"anyOf": [_member(shape.members[shape.short]), group]}


def _member(member: Member) -> dict[str, Any]:
    schema = _schema(member.shape)
    schema["description"] = _description(member)
    return schema


def _description(member: Member) -> str:
    text = " ".join(member.declared.help.split())
    facts = []
    if not isinstance(member.shape, Group | MapOf):
        facts.append(kind_of(member.shape).replace("`", ""))
    if limits := range_of(member.shape):
        facts.append(limits)
    if member.default is not REQUIRED and (default := yaml_of(member.default, member.shape)):
        facts.append(f"default {default}")
    if member.declared.example:
        facts.append(f"for example {member.declared.example}")
    return f"{text.rstrip('.')} ({', '.join(facts)})" if facts else text


def _kinds(kinds: Kinds) -> dict[str, Any]:
    """Return one alternative per kind: the kind decides what its tags may have."""
    return {
        "type": "object",
        "properties": dict.fromkeys([*kinds.modules, *(["tags"] if kinds.tagged else [])], True),
        "additionalProperties": False,
        "oneOf": [_kind(kinds, kind) for kind in kinds.modules],
    }


def _kind(kinds: Kinds, kind: str) -> dict[str, Any]:
    properties = {kind: _schema(kinds.group(kind))}
    if kinds.tagged:
        properties["tags"] = _map(MapOf(kinds.tag(kind), "tag"))
    return {"required": [kind], "properties": properties}
