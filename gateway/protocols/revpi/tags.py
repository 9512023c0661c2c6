"""From the YAML's tags, or from all that PiCtory names, to places in the image."""

import dataclasses
import difflib

from gateway.model import Device, Link
from gateway.protocols.revpi import Settings, TagSettings
from gateway.protocols.revpi.layout import Layout, Point
from gateway.protocols.revpi.watch import Tag
from gateway.scaling import Scaling

_MOST_HINTS = 5
"""Each costs milliseconds of the event loop, and after a new configuration every tag may be missing."""


def found(device: Device, settings: Settings, layout: Layout, link: Link) -> tuple[list[Tag], list[str]]:
    """Return the tags that the layout has, and a sentence for each listed one that it has not."""
    if not device.tags:
        points = layout.points.values()
        taken = [point for point in points if point.exported or not settings.only_exported]
        return [_tag(p.name, p, TagSettings(io=p.name), settings, link) for p in taken], []
    tags: list[Tag] = []
    problems: list[str] = []
    for name, tag in device.tags.items():
        try:
            point = _point(tag, layout, hinted=len(problems) < _MOST_HINTS)
        except ValueError as error:
            where = device.where.get(name)
            problems.append(f"{name} ({where}): {error}" if where else f"{name}: {error}")
            continue
        tags.append(_tag(name, point, tag, settings, link))
    return tags, problems


def _point(tag: TagSettings, layout: Layout, *, hinted: bool) -> Point:
    point = layout.points.get(tag.io)
    if point is None:
        near = difflib.get_close_matches(tag.io, layout.points, 1) if hinted else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{layout.path} has no input or output {tag.io!r}{hint}")
    if point.bit is not None and (tag.bit is not None or tag.signed is not None):
        raise ValueError(f"{tag.io} is one bit already: remove `bit` and `signed`")
    if tag.signed is not None:
        return dataclasses.replace(point, signed=tag.signed)
    if tag.bit is None:
        return point
    if tag.bit >= 8 * point.length:
        raise ValueError(f"{tag.io} has bits 0 to {8 * point.length - 1}, so no {tag.bit}")
    return dataclasses.replace(point, offset=point.offset + tag.bit // 8, length=1, bit=tag.bit % 8)


def _tag(name: str, point: Point, tag: TagSettings, settings: Settings, link: Link) -> Tag:
    keep_ms = settings.keep_interval_ms if tag.keep_interval_ms is None else tag.keep_interval_ms
    return Tag(
        series=link.tag(name, unit=tag.unit),
        point=point,
        scaling=Scaling(tag.scale, tag.offset),
        deadband=tag.deadband,
        keep_interval_ns=keep_ms * 1_000_000,
    )
