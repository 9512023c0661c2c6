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
from gateway.places import STATE, unit_installed
from gateway.protocols import device_nodes

DROPIN: Final = Path("/etc/systemd/system/edge-gateway.service.d/50-from-yaml.conf")
_RESTART: Final = "sudo systemctl restart edge-gateway"
COMMANDS: Final = f"sudo edge-gateway systemd-dropin && {_RESTART}"
_HOST: Final = "# allowed: "
_USB_SERIAL: Final = re.compile(r"/dev/(ttyACM|ttyUSB)[0-9]+")
_MODULES: Final = {"ttyACM": "cdc_acm", "ttyUSB": "usbserial"}
"""The kinds of USB serial ports as /proc/devices calls them, and the kernel modules that bring them."""
_RESOLV: Final = Path("/etc/resolv.conf")


def needed(config: Config) -> list[str]:
    """Return the directives that this configuration needs of the unit; [] where it will do as it is."""
    lines = []
    nodes = sorted(
        {node for each in config.devices.values() for node in device_nodes(each.kind, each.settings)}
    )
    if nodes:
        kinds = sorted({kind for node in nodes for kind in _plugged(node)})
        for module in sorted({_MODULES[kind] for kind in kinds}):
            lines += [f"Wants=modprobe@{module}.service", f"After=modprobe@{module}.service"]
        lines += ["PrivateDevices=no", *_allowed(nodes)]
        if groups := sorted({*filter(None, (_group(node.partition(" ")[0]) for node in nodes))}):
            lines.append(f"SupplementaryGroups={' '.join(groups)}")
    for folder in (config.store.path, config.measurements.path):
        if folder is not None and not folder.is_relative_to(STATE):
            lines.append(f"ReadWritePaths={_quoted(f'-{folder}')}")
    if any(0 < split_address(listen)[1] < 1024 for listen in config.http.listens().values()):
        # A capability counts for the host's network only outside a user namespace.
        lines += ["AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"]
        lines.append("PrivateUsers=no")
    return lines


def _allowed(nodes: Sequence[str]) -> list[str]:
    """Return the DeviceAllow lines of device nodes.

    A path is looked up when the unit starts and stands for one node: what is plugged in later, or again
    under another number, is let in by the kind of its driver (systemd.resource-control(5), DeviceAllow=).
    That wants the driver's module at the start: hence modprobe@.service.
    """
    specifiers = {each for node in nodes for each in map("char-{}".format, _plugged(node))}
    specifiers |= {node for node in nodes if not _plugged(node)}
    return [f"DeviceAllow={each if ' ' in each else f'{each} rw'}" for each in sorted(specifiers)]


def _plugged(node: str) -> list[str]:
    """Return the kinds of USB serial ports that a path may stand for, by its name alone; [] where of none."""
    if found := _USB_SERIAL.fullmatch(node):
        return [found[1]]
    return sorted(_MODULES) if node.startswith("/dev/serial/") else []


def _quoted(path: str) -> str:
    """Write a path as systemd.syntax(7) reads it back: blanks end a word, % begins a specifier."""
    text = path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return text if text == path and not re.search(r"[\s']", text) else f'"{text}"'


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
    of_unit = [line for line in lines if line.startswith(("Wants=", "After="))]
    of_service = [line for line in lines if line not in of_unit]
    return "\n".join([head, *(["[Unit]", *of_unit] if of_unit else []), "[Service]", *of_service]) + "\n"


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
    if path == DROPIN and not unit_installed():
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
        # Not plugged in now; Debian's rule for serial ports.
        return "dialout" if "/tty" in node or _plugged(node) else ""
    if found.st_gid == 0 or not found.st_mode & stat.S_IRGRP or found.st_mode & stat.S_IWOTH:
        return ""
    return grp.getgrgid(found.st_gid).gr_name


def refused_by_sandbox(error: BaseException, kind: str, settings: Any, path: Path = DROPIN) -> str:
    """Return what to do where the unit's sandbox may be what refused a device node, or "". Blocks."""
    nodes = device_nodes(kind, settings)
    if not nodes or "INVOCATION_ID" not in os.environ:
        return ""
    at: BaseException | None = error
    while at is not None and not isinstance(at, PermissionError | FileNotFoundError):
        at = at.__cause__ or at.__context__
    if at is None:
        return ""
    verb = "may not open" if isinstance(at, PermissionError) else "does not see"
    there = f"if {', '.join(nodes)} is there, the service {verb} it until"
    if {*_allowed(nodes)} <= {*_written(path)}:
        return f"{there} it is started again, as its drop-in allows it: {_RESTART}"
    return f"{there} its drop-in says so: {COMMANDS}"


def _written(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
