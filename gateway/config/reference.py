"""The reference of all settings in Markdown, for `edge-gateway settings` and docs/settings.md."""

from collections.abc import Iterator
from typing import Any, Final

from gateway.config.layout import layout
from gateway.config.overrides import PREFIX
from gateway.config.problems import fold
from gateway.config.quantities import written
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
    group_of,
)
from gateway.settings import Secret, Settings

_HEAD: Final = """\
# All settings

Written by `edge-gateway settings` from the declarations in the code; a test holds this page equal to it.

`gateway.yaml` has the parts `gateway`, `http`, `store`, `logs`, `measurements`, `devices` and `uploads`, none
of them needed.
Durations are written `500ms`, `1s`, `2m`, `1h`, `1d`; sizes `64kB`, `64MB`, `4GB`, `64KiB`, `64MiB`, `4GiB`.
A secret never stands in the file: write `{env: NAME}`, `{file: PATH}` (not readable by everybody) or
`{credential: NAME}` (`LoadCredential=` of systemd). A relative PATH starts at the folder of the file.

The file is YAML 1.2 (`yes`, `no`, `on` and `off` are text) without anchors, aliases and tags, 1 MiB at most.

Every setting can come from the environment too, under the name in the last column; `ID` and `TAG` stand for
the name of a device, upload or tag in upper case, with `_` for everything but letters and digits. The value
is written as in the YAML, and goes before it.
"""
_TABLE: Final = "| setting | type | default | range | meaning | environment |\n|---|---|---|---|---|---|\n"


def reference(root: Group | None = None) -> str:
    """Return the page; it imports every protocol and uploader."""
    root = root or layout()
    return _HEAD + "".join(f"\n{section}" for section in _sections(root))


def _sections(root: Group) -> Iterator[str]:
    for name, member in root.members.items():
        if isinstance(member.shape, Group):
            yield f"## {name}\n\n" + _group(member.shape, name, (name,))
        elif isinstance(member.shape, MapOf) and isinstance(member.shape.item, Kinds):
            ids = "letters, digits, `-`, `_`, `.`"
            yield f"## {name}\n\nEach under its id ({ids}), with its kind as the key.\n"
            yield from _kinds(member.shape.item, name)


def _kinds(kinds: Kinds, part: str) -> Iterator[str]:
    for kind in kinds.modules:
        path = (part, "ID", kind)
        yield f"### {kind}\n\n" + _group(kinds.group(kind), f"{part}.ID.{kind}", path)
        if kinds.tagged and kinds.tag(kind).members:
            tags = (part, "ID", "tags", "TAG")
            yield f"### {kind}: tags\n\n" + _group(kinds.tag(kind), f"{part}.ID.tags.TAG", tags)


def _group(group: Group, place: str, path: tuple[str, ...]) -> str:
    about = " ".join((group.cls.__doc__ or "").split())
    short = (
        f" `{path[-1]}: VALUE` is short for `{path[-1]}: {{{group.short}: VALUE}}`." if group.short else ""
    )
    rows = "".join(_rows(group, "", path))
    table = _TABLE + rows if rows else "It has no settings.\n"
    return f"`{place}`: {about}{short}\n\n{table}"


def _rows(group: Group, prefix: str, path: tuple[str, ...]) -> Iterator[str]:
    for name, member in group.members.items():
        here = (*path, name)
        cells = (
            f"`{prefix}{name}`",
            kind_of(member.shape),
            _default(member),
            range_of(member.shape),
            _meaning(member),
            f"`{PREFIX}{'__'.join(fold(part).upper() for part in here)}`",
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        for inner in _inner(member.shape):
            yield from _rows(inner, f"{prefix}{name}.", here)


def _inner(shape: Shape) -> Iterator[Group]:
    match shape:
        case Group():
            yield shape
        case Choice():
            for option in shape.options:
                yield from _inner(option)


def _meaning(member: Member) -> str:
    text = " ".join(member.declared.help.split())
    example = member.declared.example
    return f"{text.rstrip('.')}, for example `{example}`" if example else text


def kind_of(shape: Shape) -> str:
    """Return the type with its unit, for a table."""
    match shape:
        case Flag():
            return "true or false"
        case Number(unit="bytes"):
            return "size"
        case Number(unit=""):
            return "whole number" if shape.whole else "number"
        case Number():
            return "duration"
        case Text():
            return "path" if shape.path else "text"
        case Words():
            return ", ".join(f"`{word}`" for word in shape.words)
        case Reference():
            return "secret"
        case ListOf():
            return f"list of {kind_of(shape.item)}"
        case MapOf():
            return f"names with {kind_of(shape.item)}"
        case Choice():
            options = [kind_of(option) for option in shape.options]
            return " or ".join([*options, "nothing"] if shape.null else options)
        case Group() | Kinds():
            return "group"


def range_of(shape: Shape) -> str:
    """Return the range of a number in the words of a table, "" where there is none."""
    match shape:
        case Number():
            low = "" if shape.low is None else f"from {written(shape.low, shape.unit)}"
            high = "" if shape.high is None else f"to {written(shape.high, shape.unit)}"
            return f"{low} {high}".strip()
        case ListOf() | MapOf():
            return range_of(shape.item)
        case Choice():
            return next(filter(None, map(range_of, shape.options)), "")
        case _:
            return ""


def _default(member: Member) -> str:
    if member.default is REQUIRED:
        return "**must be given**"
    text = yaml_of(member.default, member.shape)
    return f"`{text}`" if text else ""


def yaml_of(value: Any, shape: Shape) -> str:
    """Return a default as it would be written; "" for none."""
    if value is None or value in ("", (), {}) or isinstance(value, Secret):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Settings):
        return _changed(value)
    if isinstance(value, int | float):
        return written(value, _unit(shape))
    if isinstance(value, tuple):
        return f"[{', '.join(yaml_of(each, shape) for each in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {yaml_of(each, shape)}' for name, each in value.items())}}}"
    return str(value)


def _changed(value: Settings) -> str:
    parts = [
        f"{name}: {yaml_of(getattr(value, member.field), member.shape)}"
        for name, member in group_of(type(value)).members.items()
        if getattr(value, member.field) != member.default
    ]
    return f"{{{', '.join(parts)}}}" if parts else ""


def _unit(shape: Shape) -> str:
    match shape:
        case Number():
            return shape.unit
        case ListOf() | MapOf():
            return _unit(shape.item)
        case Choice():
            return next(filter(None, map(_unit, shape.options)), "")
        case _:
            return ""
