"""The drop-in of the systemd unit: what a configuration needs beyond the unit's sandbox, and no more."""

import grp
import ipaddress
import os
import re
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.api.settings import split_address
from gateway.config.load import Config
from gateway.model import GatewayError
from gateway.places import STATE
from gateway.protocols import device_nodes

DROPIN: Final = Path("/etc/systemd/system/edge-gateway.service.d/50-from-yaml.conf")
COMMANDS: Final = "sudo edge-gateway systemd-dropin && sudo systemctl restart edge-gateway"
_UNITS: Final = tuple(
    Path(folder) / "edge-gateway.service"
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
)
_HOST: Final = "# allowed: "
_RESOLV: Final = Path("/etc/resolv.conf")


def needed(config: Config) -> list[str]:
    """Return the directives that this configuration needs of the sandbox; [] where the unit will do."""
    lines = []
    nodes = sorted(
        {node for each in config.devices.values() for node in device_nodes(each.kind, each.settings)}
    )
    if nodes:
        lines += [
            "PrivateDevices=no",
            *(f"DeviceAllow={node if ' ' in node else f'{node} rw'}" for node in nodes),
        ]
        if groups := sorted({*filter(None, (_group(node.partition(" ")[0]) for node in nodes))}):
            lines.append(f"SupplementaryGroups={' '.join(groups)}")
    for folder in (config.store.path, config.measurements.path):
        if folder and not Path(folder).is_relative_to(STATE):
            lines.append(f"ReadWritePaths=-{folder}")
    listeners = [config.http.listen, *config.http.compat.listens().values()]
    if any(0 < split_address(listen)[1] < 1024 for listen in listeners):
        # A capability counts for the host's network only outside a user namespace.
        lines += ["AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"]
        lines.append("PrivateUsers=no")
    return lines


def dropin(config: Config, file: Path, networks: Sequence[str] = ()) -> str:
    """Return the text of the drop-in, "" where none is needed. Blocks: names are looked up.

    With `networks` (of clients, as 192.168.0.0/24) nothing but these, this machine, and the hosts that the
    configuration names may be talked to. GatewayError: a network is none, or a host has no address.
    """
    lines = needed(config)
    if networks:
        lines += _allow_list(config, networks)
    if not lines:
        return ""
    head = f"# Written by `edge-gateway systemd-dropin` from {file}; after an edit there, write it again."
    return "\n".join([head, "[Service]", *lines]) + "\n"


def write(text: str, path: Path = DROPIN) -> None:
    """Put the drop-in in its place, or remove it where it is "", and let systemd read it."""
    try:
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".new")
            draft.write_text(text, encoding="utf-8")
            draft.chmod(0o644)
            draft.replace(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise GatewayError(f"{path} cannot be written: {error.strerror}; run it with sudo") from error
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "daemon-reload"], check=False)


def stale(config: Config, path: Path = DROPIN) -> str:
    """Return a sentence where the drop-in is not what this configuration needs, or ""."""
    if path == DROPIN and not any(unit.exists() for unit in _UNITS):
        return ""  # not installed as a service: nothing to be stale
    try:
        written = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        written = []
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    wanted = needed(config)
    missing = [line for line in wanted if line not in written]
    own = {line for line in written if re.match(r"[A-Z]", line) and not line.startswith("IPAddress")}
    extra = sorted(own.difference(wanted))
    allowed = {line.removeprefix(_HOST).split(" = ")[0] for line in written if line.startswith(_HOST)}
    if allowed:
        missing += [f"the address of {host}" for host in hosts(config) if host not in allowed]
    if not missing and not extra:
        return ""
    what = [f"lacks {', '.join(missing)}"] if missing else []
    if extra:
        what.append(f"has {', '.join(extra)} too much")
    return f"{path} is stale: it {' and '.join(what)}; run: {COMMANDS}"


def hosts(config: Config) -> list[str]:
    """Return the hosts that the configuration names: of devices and uploads, sorted."""
    devices = (each.settings for each in config.devices.values())
    uploads = (each.settings for each in config.uploads.values())
    return sorted({host for each in (*devices, *uploads) for host in _hosts(each)} - {""})


def _hosts(settings: Any) -> list[str]:
    urls = [str(getattr(settings, "url", "") or ""), *getattr(settings, "urls", ())]
    named = [urlsplit(url).hostname or "" for url in urls if "://" in url]
    return named or [str(getattr(settings, "host", "") or "")]


def _allow_list(config: Config, networks: Sequence[str]) -> Iterator[str]:
    yield "IPAddressDeny=any"
    yield "IPAddressAllow=localhost"
    for network in networks:
        try:
            yield f"IPAddressAllow={ipaddress.ip_network(network)}"
        except ValueError as error:
            raise GatewayError(f"--allow {network}: {error}") from None
    for server in _name_servers():
        yield f"IPAddressAllow={server}"
    for host in hosts(config):
        addresses = _addresses(host)
        yield f"{_HOST}{host} = {' '.join(addresses)}"
        yield f"IPAddressAllow={' '.join(addresses)}"


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise GatewayError(
            f"{host} has no address now ({error.strerror}), so it cannot be allowed"
        ) from error
    return sorted({str(address[0]).partition("%")[0] for *_, address in found})


def _name_servers() -> list[str]:
    try:
        text = _RESOLV.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return re.findall(r"^nameserver\s+([0-9A-Fa-f:.]+)", text, re.MULTILINE)


def _group(node: str) -> str:
    """Return the group that may open a device node, "" where everybody may or root alone."""
    try:
        found = Path(node).stat()
    except OSError:
        return "dialout" if "/tty" in node else ""  # not plugged in now; Debian's rule for serial ports
    if found.st_gid == 0 or not found.st_mode & stat.S_IRGRP or found.st_mode & stat.S_IWOTH:
        return ""
    return grp.getgrgid(found.st_gid).gr_name


def refused_by_sandbox(error: BaseException, kind: str, settings: Any) -> str:
    """Return what to do where the unit's sandbox may be what refused a device node, or ""."""
    nodes = device_nodes(kind, settings)
    if not nodes or "INVOCATION_ID" not in os.environ:
        return ""
    at: BaseException | None = error
    while at is not None and not isinstance(at, PermissionError | FileNotFoundError):
        at = at.__cause__ or at.__context__
    if at is None:
        return ""
    verb = "may not open" if isinstance(at, PermissionError) else "does not see"
    return f"if {', '.join(nodes)} is there, the service {verb} it until its drop-in says so: {COMMANDS}"
