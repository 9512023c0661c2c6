"""The command line: run, check, reload, status, backup, restore, export, settings, trust, browse..."""

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import control_socket, places
from gateway.clock import SystemClock
from gateway.commands import browse, icoapi_env, scan, service, store, trust, watch
from gateway.commands.arguments import Command, with_state
from gateway.commands.foreign_text import printable
from gateway.model import GatewayError

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: no valid configuration ever existed; systemd does not restart it."""
_READER_GONE = 141
"""What a shell reports of a program that wrote into a pipe nobody reads any more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal's encoding lacks comes as an escape
            stream.reconfigure(errors="backslashreplace")
    arguments = command_line().parse_args(argv)
    if arguments.command is _run:
        return _told(arguments)
    try:
        code = _told(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at the end
        return _READER_GONE
    except PermissionError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"edge-gateway: {where}{error.strerror or error}; try it as root (sudo)", file=sys.stderr)
        return 1


def _told(arguments: argparse.Namespace) -> int:
    command: Command = arguments.command
    try:
        return command(arguments)
    except GatewayError as error:
        print("edge-gateway:", "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge-gateway", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the gateway until SIGTERM")
    run.add_argument("--config", type=Path, default=places.CONFIG, metavar="FILE")
    run.add_argument("--log-level", default="", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    with_state(run, _run)

    check = commands.add_parser("check", help="name every problem of a configuration file")
    check.add_argument("file", type=Path)
    with_state(check, _check)

    reload = commands.add_parser("reload", help="let the running gateway take its edited file")
    reload.add_argument("--wait", action="store_true", help="return when it is applied; 1 if it is refused")
    with_state(reload, _reload)

    with_state(commands.add_parser("status", help="say how the running gateway is"), _status)

    health = commands.add_parser("health", help="0 where the running gateway is alive; for a container")
    with_state(health, _health)

    store.add(commands)

    settings = commands.add_parser("settings", help="print the reference of all settings")
    settings.add_argument("--schema", action="store_true", help="as JSON Schema, for editors")
    settings.set_defaults(command=_settings)

    token = commands.add_parser("token", help="make, list and revoke tokens of the API")
    token.add_argument("action", choices=["make", "list", "revoke"])
    token.add_argument("name", nargs="?", default="", help="who it is for (make), or its id (revoke)")
    token.add_argument("--role", choices=["read", "operate", "admin"], default="read")
    with_state(token, _token)

    for group in (service, trust, browse, scan, watch, icoapi_env):
        group.add(commands)

    demo = commands.add_parser("demo", help="a simulated plant, the gateway and a simulated dataspace")
    demo.add_argument("--folder", type=Path, default=Path(".demo"))
    demo.add_argument("--seconds", type=float, default=None, help="stop by itself after that long")
    demo.set_defaults(command=_demo)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    # Until the daemon takes it: the kernel keeps it from a PID 1 (as in a container) that has no handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from gateway import logs
    from gateway.config import ConfigProblems
    from gateway.daemon import Daemon
    from gateway.event_loop import EventLoop

    started = logs.start(arguments.log_level)
    arguments.state.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> None:
        await Daemon(arguments.config.absolute(), arguments.state, os.environ, SystemClock(), started).run()

    try:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(run())
    except ConfigProblems as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        if error.ever_valid:  # the kept file cannot be read: what is mended may be found at a restart
            print("edge-gateway: the last valid configuration cannot be used either", file=sys.stderr)
            return 1
        print(f"edge-gateway: no valid configuration ever existed for {arguments.config}", file=sys.stderr)
        return EXIT_CONFIG
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from gateway.config.check import check

    checked = check(arguments.file, service.with_secrets(arguments.file))
    print(*checked.lines, sep="\n")
    with contextlib.suppress(control_socket.NotRunning):
        status = _ask(arguments, "status")
        if status.get("file") == str(arguments.file.absolute()):
            print(f"{arguments.file}: {status['flash']}")
    return checked.code


def _ask(arguments: argparse.Namespace, command: str) -> dict[str, object]:
    return asyncio.run(control_socket.ask(arguments.state, {"command": command}))


def _reload(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, "reload" if arguments.wait else "reload-soon")
    for key in ("problems", "warnings"):
        lines = answer.get(key)
        if isinstance(lines, list):
            print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
    changed = answer.get("changed")
    if isinstance(changed, list):
        print("restarted:", ", ".join(changed) or "nothing, the configuration is the same")
    return 0 if answer.get("ok") else 1


def _status(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, "status")
    print(json.dumps(answer, indent=2))
    return 0 if answer.get("ok") else 1


def _health(arguments: argparse.Namespace) -> int:
    answer = asyncio.run(control_socket.ask(arguments.state, {"command": "health"}, timeout_s=8))
    problems = answer.get("problems")
    lines = problems if isinstance(problems, list) and problems else ["alive"]
    print(*(printable(str(line)) for line in lines), sep="\n")
    return 0 if answer.get("ok") else 1


def _settings(arguments: argparse.Namespace) -> int:
    from gateway.config.json_schema import json_schema
    from gateway.config.reference import reference

    print(json.dumps(json_schema(), indent=2) + "\n" if arguments.schema else reference(), end="")
    return 0


def _token(arguments: argparse.Namespace) -> int:
    from gateway.api.tokens import Role, Tokens

    if not arguments.state.is_dir():
        raise GatewayError(f"there is no state folder {arguments.state}: say which one with --state")
    tokens = Tokens(arguments.state, SystemClock())
    match arguments.action:
        case "make":
            text, token = tokens.make(arguments.name or "unnamed", Role[arguments.role.upper()])
            print(text)
            print(f"token {token.id} ({token.role}, {token.name}); it is shown this once", file=sys.stderr)
        case "list":
            for token in tokens.list():
                print(token.id, token.role, token.name, sep="\t")
        case "revoke":
            if not tokens.revoke(arguments.name):
                print(f"edge-gateway: no token has the id {arguments.name!r}", file=sys.stderr)
                return 1
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from gateway.demo.plant import run

    return run(arguments.folder, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
