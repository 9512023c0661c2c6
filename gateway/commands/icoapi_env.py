"""The command `icoapi-env`: the settings that ICOapi's `.env` stands for, as YAML to paste."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.commands.arguments import Commands
from gateway.commands.foreign_text import printable, quoted
from gateway.model import GatewayError

_WHY = {
    "anonymous": "as ICOapi: whoever reaches the port may do everything",
    "tls": "as the .env has it; self-signed where its clients take that",
}


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command."""
    convert = commands.add_parser(
        "icoapi-env",
        help="print the settings that a .env of ICOapi stands for, to paste into the configuration",
        description="Changes nothing. Values of names that have no setting here are not shown.",
    )
    convert.add_argument("file", type=Path, help="ICOapi's .env")
    convert.set_defaults(command=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from gateway.api.compat.icoapi.environment import settings, unused, variables

    try:
        said = variables(arguments.file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise GatewayError(f"{arguments.file} is no UTF-8 text") from None
    except OSError as error:
        raise GatewayError(f"{arguments.file} cannot be read: {error.strerror}") from None
    if not said:
        raise GatewayError(f"{arguments.file} has no line of NAME=VALUE: is it the .env of ICOapi?")
    print(*_lines(settings(said), ""), sep="\n")
    for name in unused(said):
        print(f"edge-gateway: {printable(name)} has no setting here", file=sys.stderr)
    return 0


def _lines(section: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
            continue
        if isinstance(value, list):
            shown = f"[{', '.join(map(quoted, value))}]"
        else:
            shown = str(value) if str(value).isalnum() else quoted(str(value))
        yield f"{indent}{name}: {shown}" + (f"  # {_WHY[name]}" if name in _WHY else "")
