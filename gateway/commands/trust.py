"""The command `trust`: which certificates of OPC UA servers are trusted."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from gateway.commands.arguments import Commands, with_state
from gateway.commands.foreign_text import printable
from gateway.controls.certificates import CertificateEntry
from gateway.model import GatewayError


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command."""
    trust = commands.add_parser(
        "trust",
        help="list certificates, and trust one that a server showed; the daemon may run",
        description="Without a name: lists the certificates. With one: trusts what that device showed, or "
        "the rejected certificate of that thumbprint, or those in a file. No restart is needed: the next "
        "attempt of the device, within 15 s, finds it.",
    )
    trust.add_argument("name", nargs="?", help="a device, a thumbprint, or a file (DER or PEM)")
    how = trust.add_mutually_exclusive_group()
    how.add_argument("--expired", action="store_true", help="trust it as it is, though it has expired")
    how.add_argument("--issuer", action="store_true", help="the file only completes chains of others")
    how.add_argument("--remove", action="store_true", help="trust the one of that thumbprint no more")
    with_state(trust, _trust)


def _trust(arguments: argparse.Namespace) -> int:
    from gateway.protocols.opcua.pki import Pki

    pki, name = Pki(arguments.state / "pki"), arguments.name
    try:
        if name is None:
            return _list(pki.entries())
        if arguments.remove:
            removed = pki.distrust(name.upper())
            print(f"removed {removed} files" if removed else f"nothing has the thumbprint {name}")
            return 0 if removed else 1
        if arguments.issuer or Path(name).is_file():
            files = pki.add(Path(name).read_bytes(), issuer=arguments.issuer)
        else:
            shown = pki.shown_by(name)
            if len(shown) > 1:
                raise GatewayError(f"{name} showed several certificates, say which one: {', '.join(shown)}")
            files = [pki.trust(shown[0] if shown else name.upper(), expired=arguments.expired)]
    except KeyError:
        raise GatewayError(
            f"no server showed a certificate as device or thumbprint {name!r}, and there is no such file; "
            "`edge-gateway trust` lists what there is"
        ) from None
    except ValueError as error:
        raise GatewayError(f"{name}: {error}") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise GatewayError(f"{error.filename}: {error.strerror}; try it as root") from error
    print(*(f"trusted: {file}" for file in files), sep="\n")
    return 0


def _list(entries: list[CertificateEntry]) -> int:
    for entry in entries:
        until = datetime.fromtimestamp(entry.valid_until_us / 1e6, UTC).date()
        print(
            entry.place,
            entry.thumbprint,
            printable(entry.device) or "-",
            f"until {until}",
            printable(entry.subject) or "-",
            sep="\t",
        )
    if not entries:
        print("there is no certificate yet", file=sys.stderr)
    return 0
