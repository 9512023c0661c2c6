"""The command `browse`: the address space of an OPC UA server as a tree, or as YAML to paste."""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.commands.arguments import Commands, with_state
from gateway.commands.foreign_text import printable, quoted
from gateway.durable import give_to_owner_of
from gateway.identity import gateway_id
from gateway.model import Device, GatewayError, Value
from gateway.places import CONFIG

if TYPE_CHECKING:
    from gateway.protocols.opcua import Settings
    from gateway.protocols.opcua.tree import Branch, Tree


_WIDEST_NAME = 60
_LONGEST_VALUE = 60


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command."""
    browse = commands.add_parser(
        "browse",
        help="print what an OPC UA server has, as a tree or as YAML to paste; the daemon may run",
        description="Opens a session of its own, with the certificates and the trust of the gateway (so "
        "mostly as root). The Server object is shown only where --root names it.",
    )
    browse.add_argument("target", help="opc.tcp://host:4840, or a device of the configuration")
    browse.add_argument("--config", type=Path, default=CONFIG, metavar="FILE")
    browse.add_argument("--root", default="/Objects", metavar="NODE", help="a node id or a path from Objects")
    browse.add_argument("--depth", type=int, metavar="N", help="no more than so many levels")
    browse.add_argument(
        "--match",
        action="append",
        default=[],
        metavar="GLOB",
        help="only what matches: 'Line*/Temp?' from the root on, '**' for any depth; a name without a slash "
        "is met anywhere",
    )
    browse.add_argument("--yaml", action="store_true", help="the readable variables as `tags:` to paste")
    with_state(browse, _browse)


def _browse(arguments: argparse.Namespace) -> int:
    from gateway.protocols.opcua.visit import Visitor, visit

    device, settings = _target(arguments.target, arguments.config)
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what it warns of is told in our words
    try:
        visitor = Visitor(device.id, gateway_id(arguments.state), arguments.state)
        found, insecure = asyncio.run(
            visit(device, settings, visitor, arguments.root, depth=arguments.depth, globs=arguments.match)
        )
    except OSError as error:
        raise GatewayError(f"{error.filename}: {error.strerror}; try it as root") from error
    finally:
        _belongs_to_the_service(arguments.state)
    if insecure:
        print(f"edge-gateway: {printable(insecure)}", file=sys.stderr)
    lines = list(_yaml(found) if arguments.yaml else _lines(found))
    print(*lines, sep="\n")
    if not found.complete:
        print("edge-gateway: the server has more: use --root, --depth or --match", file=sys.stderr)
    if not found.top:
        print("edge-gateway: nothing is there" + " that matches" * bool(arguments.match), file=sys.stderr)
    return 0 if found.top else 1


def _target(target: str, config: Path) -> "tuple[Device, Settings]":
    """Return the device and its settings: those of the configuration, or what an address alone gives."""
    from gateway.protocols.opcua import Settings, check_url

    if "://" in target:
        try:
            check_url(target)
        except ValueError as error:
            raise GatewayError(str(error)) from None
        return Device(urlsplit(target).netloc), Settings(url=target)
    from gateway.commands.service import with_secrets
    from gateway.config import ConfigProblems, load

    try:
        devices = load(config, with_secrets(config)).devices
    except ConfigProblems as error:
        raise GatewayError("; ".join(error.problems)) from None
    found = devices.get(target)
    if found is None or found.kind != "opcua":
        names = ", ".join(name for name, each in devices.items() if each.kind == "opcua") or "none"
        raise GatewayError(f"{config} has no OPC UA device {target!r} (it has: {names}); an address does too")
    return found.device, found.settings


def _belongs_to_the_service(state: Path) -> None:
    """Give what root made here (the first certificate, a rejected one) to whom the folder belongs."""
    for path in (state / "pki", *(state / "pki").rglob("*")):
        if path.exists():
            give_to_owner_of(state, path)


def _lines(found: "Tree") -> Iterator[str]:
    from gateway.protocols.opcua.tree import all_of

    everything = all_of(found.top)
    name_width = min(max((_indented(each) for each in everything), default=0), _WIDEST_NAME)
    type_width = max((len(each.about.type) for each in everything), default=0)
    for branch in _in_order(found.top):
        name = "  " * (branch.depth - 1) + printable(branch.name)
        if not branch.variable:
            yield name
            continue
        columns = (
            f"{name:<{name_width}}  {printable(branch.about.type):<{type_width}}  {branch.access or '-':<2}"
        )
        yield f"{columns}  {_shown(branch)}".rstrip()


def _indented(branch: "Branch") -> int:
    return 2 * (branch.depth - 1) + len(branch.name) if branch.variable else 0


def _in_order(branches: "list[Branch]") -> "Iterator[Branch]":
    for branch in branches:
        yield branch
        yield from _in_order(branch.below)


def _shown(branch: "Branch") -> str:
    from gateway.protocols.opcua.faults import status_text

    if branch.status >> 30:  # uncertain or bad
        return f"[{status_text(branch.status)}]"
    text = _text(branch.value)
    enum, unit = branch.about.meaning(branch.value), branch.about.unit
    text += f" ({printable(enum)})" if enum else f" {printable(unit)}" if unit else ""
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _text(value: Value) -> str:
    if isinstance(value, bytes):
        return f"0x{value[:_LONGEST_VALUE].hex()}"
    if isinstance(value, list):
        some = ", ".join(_text(each) for each in value[:10])
        return f"[{some}{', ...' if len(value) > 10 else ''}]"
    if isinstance(value, str):
        return printable(json.dumps(value, ensure_ascii=False))
    return "" if value is None else json.dumps(value)


def _yaml(found: "Tree") -> Iterator[str]:
    """Return the readable variables that match as `tags:`, indented for below a device."""
    from gateway.protocols.opcua.discovery import unique_names

    variables = [
        branch
        for branch in _in_order(found.top)
        if branch.variable and branch.matched and "r" in branch.access
    ]
    yield "    tags:"
    names = unique_names([(branch.path.strip(), branch.id) for branch in variables])
    for name, branch in zip(names, variables, strict=True):
        what = ", ".join(filter(None, (printable(branch.about.type), _shown(branch))))
        yield f"      {quoted(name)}: {quoted(branch.id)}" + (f"  # {what}" if what else "")
