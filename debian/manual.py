#!/usr/bin/env python3
"""The man page and the bash completion, from the command line's own parser. manual.py man|bash"""

import argparse
import datetime
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.__main__ import command_line

_FILES = {
    "/etc/edge-gateway/gateway.yaml": "the configuration; after an edit: systemctl reload edge-gateway",
    "/etc/edge-gateway/secrets/": "a file for each secret: {credential: NAME} in the configuration",
    "/var/lib/edge-gateway/": "the state directory: store, tokens, certificates",
    "/var/lib/edge-gateway/admin-token": "the first token, made at first start",
    "/var/log/edge-gateway/": "rotating logs, beside those of the journal",
}


def man(parser: argparse.ArgumentParser) -> str:
    date = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    lines = [
        f'.TH EDGE-GATEWAY 1 "{date:%Y-%m-%d}"',
        ".SH NAME",
        f"edge\\-gateway \\- {_roff('local devices to SQLite, a LAN API and the cloud')}",
        ".SH SYNOPSIS",
        ".B edge\\-gateway",
        ".I COMMAND",
        "[options]",
        ".SH COMMANDS",
    ]
    for name, help_text, command in _commands(parser):
        lines += [".TP", f".B {_roff(_usage(name, command))}", _roff(help_text)]
        for action in command._actions:
            if action.dest != "help" and action.help is not argparse.SUPPRESS:
                lines += [".RS", ".TP", f".B {_roff(_named(action))}", _roff(_help(command, action)), ".RE"]
    lines.append(".SH FILES")
    for path, text in _FILES.items():
        lines += [".TP", f".I {_roff(path)}", _roff(text)]
    lines += [
        ".SH EXIT STATUS",
        "0 where all went well, 1 where it did not, 2 for a wrong command line, 78 where no",
        "valid configuration ever existed.",
        ".SH SEE ALSO",
        ".BR systemctl (1),",
        ".BR journalctl (1)",
    ]
    return "\n".join(lines) + "\n"


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    (group,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    helps = {each.dest: each.help or "" for each in group._choices_actions}
    for name, command in group.choices.items():
        yield name, helps.get(name, ""), command


def _usage(name: str, command: argparse.ArgumentParser) -> str:
    placed = [_named(each) for each in command._actions if not each.option_strings]
    return " ".join([name, *placed])


def _named(action: argparse.Action) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    if not action.option_strings:
        return str(value)
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _help(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = command._get_formatter()._expand_help(action) if action.help else ""
    default = action.default
    shown = default not in (None, False, "", argparse.SUPPRESS) and "default" not in text
    return f"{text} (default: {default})".strip() if shown else text


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def bash(parser: argparse.ArgumentParser) -> str:
    import shtab

    for _name, _text, command in _commands(parser):
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, "bash"))


if __name__ == "__main__":
    os.environ.pop("STATE_DIRECTORY", None)
    print({"man": man, "bash": bash}[sys.argv[1]](command_line()), end="")
