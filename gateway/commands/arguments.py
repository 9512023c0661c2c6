"""What the arguments of the commands have in common."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from gateway import places

Command = Callable[[argparse.Namespace], int]
"""Carries a command out; gives its exit code."""
Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers() gives


def with_state(parser: argparse.ArgumentParser, command: Command) -> None:
    """Have the parser run the command, and give it its --state."""
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("STATE_DIRECTORY", str(places.STATE)).split(":")[0]),
        metavar="DIR",
        help="state directory (default: $STATE_DIRECTORY, else %(default)s)",
    )
    parser.set_defaults(command=command)
