"""The command `scan`: what is on a CAN bus, as a table, or as YAML to paste."""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.clock import SystemClock
from gateway.commands.arguments import Commands, with_state
from gateway.commands.foreign_text import printable, quoted
from gateway.model import GatewayError, Value
from gateway.places import CONFIG

if TYPE_CHECKING:
    from gateway.controls.devices import HeardId
    from gateway.protocols.can import Settings
    from gateway.protocols.can.census import Census
    from gateway.protocols.can.database import Database, Message

_ALWAYS = ("interface", "channel")
"""Settings that are written first, also where they are as by default."""
_LAST_SOURCE = 253
"""J1939: the addresses behind it are null and global."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command."""
    scan = commands.add_parser(
        "scan",
        help="listen to a CAN bus: which ids there are, how often, what a database makes of them",
        description="Sends nothing. The daemon may run; an adapter that it holds itself (slcan, pcan...) is "
        "scanned through it: GET /v1/devices/ID/scan.",
    )
    scan.add_argument("target", help="a channel (can0, /dev/ttyACM0), or a device of the configuration")
    scan.add_argument("--config", type=Path, default=CONFIG, metavar="FILE")
    scan.add_argument("--seconds", type=_seconds, default=5.0, metavar="N", help="default: 5")
    scan.add_argument("--yaml", action="store_true", help="as a device to paste below `devices:`")
    scan.add_argument("--interface", metavar="NAME", help="socketcan (default), socketcand, slcan, pcan...")
    scan.add_argument("--bitrate", type=int, metavar="N", help="where the interface takes it from us")
    scan.add_argument("--host", help="of socketcand")
    scan.add_argument("--port", type=int, help="of socketcand")
    scan.add_argument("--fd", action="store_true", default=None, help="CAN FD frames too")
    scan.add_argument(
        "--database",
        type=Path,
        action="append",
        metavar="FILE",
        help="DBC, KCD, ARXML or SYM; several times for several files",
    )
    scan.add_argument("--j1939", action="store_true", default=None, help="match ids of 29 bits by PGN")
    with_state(scan, _scan)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise ValueError(text)
    return seconds


def _scan(arguments: argparse.Namespace) -> int:
    name, settings = _target(arguments)
    database, census = asyncio.run(_heard(name, settings, arguments.seconds))
    heard = census.heard()
    for note in database.notes:
        print(f"edge-gateway: {note}", file=sys.stderr)
    if arguments.yaml:
        print(*_yaml(name, settings, database, heard), sep="\n")
    else:
        print(*_lines(heard), sep="\n")
    print(*(f"edge-gateway: {line}" for line in _summary(heard, database, census, arguments.seconds)),
          sep="\n", file=sys.stderr)  # fmt: skip
    return 0 if heard else 1


async def _heard(name: str, settings: "Settings", seconds: float) -> "tuple[Database, Census]":
    from gateway.protocols.can.loading import load
    from gateway.protocols.can.matching import Matching
    from gateway.protocols.can.scanning import listen

    database = await load(name, settings, {})
    matching = Matching(database)
    return database, await listen(settings, matching, seconds, device=name, clock=SystemClock())


def _target(arguments: argparse.Namespace) -> "tuple[str, Settings]":
    """Return a name and settings: those of the configuration, or what the options give."""
    from gateway.protocols.can import Settings

    names = ("interface", "bitrate", "host", "port", "fd", "j1939")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.database:
        given["database"] = tuple(path.absolute() for path in arguments.database)
    configured = _configured(arguments)
    try:
        if configured is not None:
            return arguments.target, replace(configured, **given)
        channel = arguments.target
        if not arguments.database:
            given["raw_frames"] = "unknown"  # what no database knows is what a scan is for
        return Path(channel).name, Settings(channel=channel, **given)
    except ValueError as error:
        raise GatewayError(str(error)) from None


def _configured(arguments: argparse.Namespace) -> "Settings | None":
    """Return the settings of the device of that name; None: there is none, it is a channel."""
    from gateway.commands.service import with_secrets
    from gateway.config import ConfigProblems, load

    if "/" in arguments.target or not arguments.config.exists():
        return None
    try:
        device = load(arguments.config, with_secrets(arguments.config)).devices.get(arguments.target)
    except (ConfigProblems, PermissionError):
        return None  # a channel can be scanned whatever the file is like
    if device is not None and device.kind != "can":
        raise GatewayError(f"{arguments.config}: device {arguments.target} is no CAN bus but {device.kind}")
    settings: Settings | None = device.settings if device is not None else None
    return settings


def _lines(heard: "Sequence[HeardId]") -> Iterator[str]:
    names = [_name(each) for each in heard]
    width = max(map(len, names), default=0)
    for each, name in zip(heard, names, strict=True):
        rate = "once" if each.rate_hz is None else f"{_rounded(each.rate_hz)}/s"
        lengths = ",".join(map(str, each.lengths))
        changed = "constant" if not each.changes else f"{100 * each.changes // max(each.frames - 1, 1)} % new"
        columns = f"{each.id:<10}  {name:<{width}}  {rate:>8}  {lengths:>5} B  {changed:<9}"
        yield f"{columns}  {_told(each)}".rstrip()


def _name(each: "HeardId") -> str:
    source = "" if each.source is None else f" from 0x{each.source:02X}"
    return f"{printable(each.message)}{source}" if each.message else "-"


def _told(each: "HeardId") -> str:
    values = [f"{printable(name)}={_text(value)}" for name, value in each.values.items()]
    return "; ".join([*map(printable, each.hints), *values] or [f"[{each.payload.hex(' ')}]"]) + (
        f"  [{each.payload.hex(' ')}]" if each.hints and not each.message else ""
    )


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"0x{value.hex()}" if isinstance(value, bytes) else "none" if value is None else str(value)


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _summary(
    heard: "Sequence[HeardId]", database: "Database", census: "Census", seconds: float
) -> Iterator[str]:
    if not heard:
        yield f"nothing came in {seconds:g} s: bit rate, wiring, and is anything switched on?"
        return
    unknown = sum(not each.message and each.kind == "data" for each in heard)
    yield f"{len(heard)} ids, {census.frames} frames in {seconds:g} s; {unknown} ids that no database knows"
    matched = census.matched()
    silent = [message.name for message in database.messages if message.name not in matched]
    if silent:
        more = ", ..." if len(silent) > 10 else ""
        yield f"{len(silent)} messages of the databases did not come: {', '.join(silent[:10])}{more}"
    if census.not_counted:
        yield f"{census.not_counted} frames of still more ids were not counted"


def _yaml(name: str, settings: "Settings", database: "Database", heard: "Sequence[HeardId]") -> Iterator[str]:
    """Return a device with what was heard as tags."""
    yield f"  {quoted(name)}:"
    yield f"    can: {_flow(settings)}"
    yield "    tags:"
    messages = {message.name: message for message in database.messages}
    senders: dict[str, list[int | None]] = {}
    for each in heard:
        known = senders.setdefault(each.message, [])
        if each.source not in known:
            known.append(each.source)
    seen: set[tuple[str, int | None]] = set()
    for each in heard:
        if not each.message:
            yield _raw(each)
        elif (each.message, each.source) not in seen:  # once, whatever its priority and destination
            seen.add((each.message, each.source))
            yield from _tags(each, messages[each.message], senders[each.message])


def _raw(each: "HeardId") -> str:
    rate = "once" if each.rate_hz is None else f"{_rounded(each.rate_hz)}/s"
    what = "; ".join((rate, *map(printable, each.hints)))
    if each.kind != "data":
        return f"      # {each.id}: {what}"
    return f"      {quoted(f'{each.id}.raw')}: {quoted(f'{each.id}.raw')}  # {what}"


def _tags(each: "HeardId", message: "Message", senders: "Sequence[int | None]") -> Iterator[str]:
    """Yield the signals of a message; where it has several senders each tag says whose it is."""
    if len(senders) > 1 and each.source is not None and each.source > _LAST_SOURCE:
        yield f"      # {message.name} of source address 0x{each.source:02X}, which is that of no device"
        return
    for signal in message.signals:
        wanted = quoted(f"{message.name}.{signal.name}")
        tag = wanted
        if len(senders) > 1:
            sender = "" if each.source == senders[0] else f"@0x{each.source:02X}"
            tag = quoted(f"{message.name}{sender}.{signal.name}")
            wanted = f"{{signal: {wanted}, source: {each.source}}}"
        value = each.values.get(signal.name)
        shown = _text(value) if signal.name in each.values else "did not come"
        text = signal.texts.get(value) if isinstance(value, int) and signal.scale == 1 else None
        what = " ".join(filter(None, (shown, printable(signal.unit), f"({printable(text)})" if text else "")))
        yield f"      {tag}: {wanted}  # {what}"


def _flow(value: Any, unit: str = "") -> str:
    """Return a setting's value, or a group of settings without what is as by default, in YAML on one line."""
    from gateway.config.shapes import UNITS, group_of
    from gateway.settings import Settings as Group

    if isinstance(value, Group):
        members = sorted(group_of(type(value)).members.items(), key=lambda each: each[0] not in _ALWAYS)
        units = {member.field: next((u for end, u in UNITS.items() if member.field.endswith(end)), "")
                 for _, member in members}  # fmt: skip
        found = {
            name: _flow(getattr(value, member.field), units[member.field])
            for name, member in members
            if name in _ALWAYS or getattr(value, member.field) != member.default
        }
        return f"{{{', '.join(f'{name}: {text}' for name, text in found.items())}}}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{quoted(name)}: {_flow(each)}' for name, each in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value}{unit}" if isinstance(value, int | float) else quoted(str(value))
