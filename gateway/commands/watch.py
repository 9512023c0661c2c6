"""The commands that show values as they come and as they were: tail, plot."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.arguments import Commands, with_state
from gateway.model import GatewayError

if TYPE_CHECKING:
    from gateway.commands.api_client import Access


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    tail = commands.add_parser(
        "tail",
        help="print samples as they come, until Ctrl-C",
        description="Prints the newest sample of each tag, then all that come, before they are committed.",
    )
    tail.add_argument("devices", nargs="*", metavar="DEVICE", help="only these; all without it")
    tail.add_argument("--json", action="store_true", help="a JSON object for each sample, a line each")
    _reaching(tail)
    tail.add_argument("--series", metavar="ID", help="this series of a timeseries-api at --url")
    tail.add_argument("--every", type=float, default=5.0, metavar="S", help="ask for a --series so often")
    with_state(tail, _tail)

    plot = commands.add_parser(
        "plot",
        help="draw tags of a device over time; without a device, list what there is",
        description="Draws in the terminal, or with --svg into a file.",
    )
    plot.add_argument("device", nargs="?", metavar="DEVICE")
    plot.add_argument("--last", metavar="TIME", help="the window up to now: 10m, 1h (default), 7d")
    plot.add_argument("--from", dest="begin", metavar="TIME", help="its start: ISO 8601 or microseconds")
    plot.add_argument("--to", dest="end", metavar="TIME", help="its end")
    plot.add_argument("--svg", type=Path, metavar="FILE", help="write an SVG file instead")
    _reaching(plot)
    plot.add_argument(
        "--series", nargs="?", const="", metavar="ID", help="a series of a timeseries-api at --url, or a list"
    )
    with_state(plot, _plot)


def _reaching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help="only this one; repeatable")
    parser.add_argument("--url", metavar="URL", help="https://HOST:8443; without it, the gateway here")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="else $EDGE_GATEWAY_TOKEN is taken")
    parser.add_argument(
        "--fingerprint", default="", metavar="HEX", help="SHA-256 of the one certificate to trust at --url"
    )


def _tail(arguments: argparse.Namespace) -> int:
    from gateway.commands.tail import tail

    if arguments.every <= 0:
        raise GatewayError("--every is a number of seconds above 0")
    return tail(_access(arguments), arguments)


def _plot(arguments: argparse.Namespace) -> int:
    from gateway.commands.plot import plot

    return plot(_access(arguments), arguments)


def _access(arguments: argparse.Namespace) -> "Access":
    from gateway.commands.api_client import access

    if arguments.series is None:
        return access(arguments)
    if arguments.url is None or getattr(arguments, "device", None) or getattr(arguments, "devices", None):
        raise GatewayError("--series goes with the --url of a timeseries-api, and with no device")
    # The gateway's token is none of its business: whoever may read there, may without one.
    return dataclasses.replace(access(arguments), token="")
