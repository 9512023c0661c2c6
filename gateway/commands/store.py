"""The commands on a store: backup, restore, verify, export."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from gateway import control_socket
from gateway.clock import SystemClock
from gateway.commands.arguments import Command, Commands, with_state
from gateway.state_files import store_folder


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add backup, restore, verify and export."""

    def with_store(parser: argparse.ArgumentParser, command: Command) -> None:
        parser.add_argument(
            "--store", type=Path, metavar="DIR", help="folder of the store (default: that of this box)"
        )
        with_state(parser, command)

    backup = commands.add_parser(
        "backup",
        help="copy the store and what a box needs to take this one's place; the daemon may run",
        description="Copies store, gateway id, last valid configurations and OPC UA trust into a new folder. "
        "All that was acknowledged before is in it. It never holds keys, tokens or other secrets.",
    )
    backup.add_argument("target", type=Path, help="folder to make; it must not be there yet")
    with_store(backup, _backup)

    restore = commands.add_parser(
        "restore",
        help="make a backup the store of this box; no daemon may run",
        description="Verifies a backup and puts it in place. The store gets a new epoch: what the original "
        "box had not delivered when the backup was made is delivered again under new keys.",
    )
    restore.add_argument("source", type=Path, help="a folder made by `edge-gateway backup`")
    restore.add_argument("--force", action="store_true", help="move a store that is there aside")
    restore.add_argument("--damaged", action="store_true", help="also what `verify` finds fault with")
    with_store(restore, _restore)

    verify = commands.add_parser(
        "verify",
        help="read all of a store or a backup and name every fault; the daemon may run",
        description="Prints a line for each fault: the file, and what it means. Ends with 1 where there is "
        "one that the gateway does not know of yet.",
    )
    verify.add_argument(
        "folder", type=Path, nargs="?", help="a store or a backup (default: this box's store)"
    )
    with_store(verify, _verify)

    export = commands.add_parser(
        "export",
        help="write samples as CSV, NDJSON or Parquet; the daemon may run",
        description="Writes samples in order of time. Times are ISO 8601 in UTC. In CSV a text that could be "
        "taken for a formula has one ' before it; NDJSON and Parquet are exact. Ends with 1 where something "
        "could not be read.",
    )
    export.add_argument("--format", choices=["csv", "ndjson", "parquet"], default="csv")
    export.add_argument("--device", help="of this device only")
    export.add_argument("--tag", action="append", default=[], help="of this tag only; may be given again")
    times = "ISO 8601 with offset, or microseconds since 1970"
    export.add_argument(
        "--from", dest="from_us", type=_instant, metavar="TIME", help=f"from then on: {times}"
    )
    export.add_argument("--to", dest="to_us", type=_instant, metavar="TIME", help="up to and including then")
    export.add_argument("--output", type=Path, metavar="FILE", help="a new file (default: stdout)")
    with_store(export, _export)


def _instant(text: str) -> int:
    from gateway.api.windows import instant

    try:
        return instant(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


def _store_of(arguments: argparse.Namespace) -> Path:
    """Return the folder of the store: as given, as the daemon says, else where the last one left it."""
    if arguments.store is not None:
        return Path(arguments.store)
    try:
        status = asyncio.run(control_socket.ask(arguments.state, {"command": "status"}))
    except control_socket.NotRunning:
        return store_folder(arguments.state)
    return Path(str(status.get("store") or arguments.state))


def _backup(arguments: argparse.Namespace) -> int:
    from gateway.commands.backup import back_up

    store = _store_of(arguments)
    os.nice(10)  # the daemon goes first
    made, notes = back_up(arguments.state, store, arguments.target, SystemClock().wall_us())
    print(*(f"edge-gateway: {note}" for note in notes), sep="\n", end="\n" if notes else "", file=sys.stderr)
    print(f"{arguments.target}: {len(made.files)} files, everything up to commit {made.newest_seq}")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from gateway.commands.restore import Damaged, restore

    store = arguments.store or store_folder(arguments.state)
    try:
        made, aside = restore(
            arguments.source, arguments.state, store, SystemClock().wall_us(),
            force=arguments.force, damaged=arguments.damaged,
        )  # fmt: skip
    except Damaged as error:
        print(*error.findings, sep="\n")
        raise
    print(*(f"moved aside: {path}" for path in aside), sep="\n", end="\n" if aside else "")
    print(f"{store}: the store of {made.gateway or 'a gateway'} as of {made.made}, under a new epoch")
    print("keys and tokens are in no backup: the first start makes new ones; trust its certificates again")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from gateway.commands.backup import verify
    from gateway.store.verify import Counted

    folder, counted, faults = arguments.folder or _store_of(arguments), Counted(), 0
    for finding in verify(folder, counted):
        print(f"{finding}{' (known, a gap is recorded)' if finding.known else ''}", flush=True)
        faults += not finding.known
    print(
        f"{folder}: {f'{faults} faults' if faults else 'OK'}; {counted.samples} samples read, in "
        f"{counted.blocks} blocks and {counted.chunks} chunks of {counted.segments} segments"
    )
    return 1 if faults else 0


def _export(arguments: argparse.Namespace) -> int:
    from gateway.export import Wanted, export

    given = {name: getattr(arguments, name) for name in ("from_us", "to_us")}
    wanted = Wanted(arguments.device, arguments.tag, **{k: v for k, v in given.items() if v is not None})
    count, problems = export(_store_of(arguments), wanted, arguments.format, arguments.output)
    print(*(f"edge-gateway: {problem}" for problem in problems), sep="\n", end="", file=sys.stderr)
    if arguments.output is not None:
        print(f"{arguments.output}: {count} samples")
    return 1 if problems else 0
