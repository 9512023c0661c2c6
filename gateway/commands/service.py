"""The commands of the installed service: systemd-dropin, support-bundle, delivered."""

import argparse
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from gateway.commands.arguments import Commands, with_state
from gateway.model import GatewayError
from gateway.places import CONFIG


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    dropin = commands.add_parser("systemd-dropin", help="write what the configuration needs of the service")
    dropin.add_argument("--config", type=Path, default=CONFIG, metavar="FILE")
    dropin.add_argument("--print", action="store_true", dest="only_print", help="print it, write nothing")
    dropin.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NETWORK",
        help="let the service talk to nothing but such networks (192.168.0.0/24) and the hosts of FILE",
    )
    dropin.set_defaults(command=_dropin)

    bundle = commands.add_parser("support-bundle", help="collect what support needs, without secrets")
    bundle.add_argument("out", type=Path, nargs="?", help="FILE.tar.gz (default: a new one in this folder)")
    bundle.add_argument("--config", type=Path, default=CONFIG, metavar="FILE")
    with_state(bundle, _support_bundle)

    delivered = commands.add_parser(
        "delivered", help="say whether a stopped gateway's store was all delivered"
    )
    with_state(delivered, _delivered)


def with_secrets(file: Path) -> Mapping[str, str]:
    """Return the environment with the credentials that the service gets (its unit's LoadCredential)."""
    folder = file.absolute().parent / "secrets"
    if "CREDENTIALS_DIRECTORY" in os.environ or not os.access(folder, os.R_OK | os.X_OK):
        return os.environ
    return {**os.environ, "CREDENTIALS_DIRECTORY": str(folder)}


def _dropin(arguments: argparse.Namespace) -> int:
    from gateway.config import load
    from gateway.config.dropin import DROPIN, dropin, write

    config = load(arguments.config, with_secrets(arguments.config))
    text = dropin(config, arguments.config.absolute(), arguments.allow)
    if arguments.only_print:
        print(text, end="")
        return 0
    write(text)
    done = f"wrote {DROPIN}" if text else f"the unit needs no {DROPIN.name}"
    print(f"{done}; now: systemctl restart edge-gateway")
    return 0


def _support_bundle(arguments: argparse.Namespace) -> int:
    from gateway.commands.support_bundle import support_bundle

    out = arguments.out or Path(
        f"edge-gateway-{socket.gethostname()}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    )
    try:
        names = support_bundle(out, arguments.config, arguments.state, with_secrets(arguments.config))
    except FileExistsError:
        raise GatewayError(
            f"{out} is there already: a bundle overwrites nothing, name another file"
        ) from None
    except OSError as error:
        raise GatewayError(f"{out} cannot be written: {error.strerror}") from error
    print(f"wrote {out}: {', '.join(names)}")
    if os.geteuid() != 0:
        print("edge-gateway: not run by root: it lacks what only root may read", file=sys.stderr)
    return 0


def _delivered(arguments: argparse.Namespace) -> int:
    from gateway.delivered import undelivered

    sentence = undelivered(arguments.state)
    print(sentence or "everything was delivered")
    return 1 if sentence else 0
