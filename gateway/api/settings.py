"""The `http:` part of the YAML: where the API listens, how it is secured, what it allows."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.settings import Settings, setting

POINTS_DEVICE = "timeseries"
"""The push device that takes the points of timeseries-api's users who have none of their own name."""
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HOST = re.compile(r"^(?!-)[A-Za-z0-9.-]{1,253}$")


def split_address(listen: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[v6]:port". ValueError with a sentence where it is neither."""
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{listen}" is not address:port, such as 0.0.0.0:8443')
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            raise ValueError(f'"{host}" is not an IP address of this machine, such as 0.0.0.0') from None
    return host, int(port)


def is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _check_listen(value: str) -> None:
    split_address(value)


def _check_hosts(value: tuple[str, ...]) -> None:
    for name in value:
        if not _HOST.match(name):
            raise ValueError(f'"{name}" is not a host name; give it without scheme and port')


@dataclass(frozen=True, kw_only=True)
class TlsFiles(Settings):
    """A certificate of one's own."""

    certificate: Path = setting(
        help="PEM file: the certificate and its chain; renewed under this name, a reload takes it",
        example="/etc/ssl/gateway.pem",
    )
    key: Path = setting(help="PEM file: the private key, unencrypted, readable by the service's user")


@dataclass(frozen=True, kw_only=True)
class TimeseriesSettings(Settings):
    """The contract of timeseries-api: anybody may read there, its users may write."""

    listen: str = setting("0.0.0.0:5000", help="address:port to listen on", check=_check_listen)
    tls: Literal["self-signed", "off"] | TlsFiles = setting(
        "self-signed", help="as `http.tls`; clients of timeseries-api mostly speak plain HTTP: off"
    )
    users: Path = setting(
        help='JSON file of those who may write, {"TOKEN": {"name": "NAME", "id": 1}}; read again when edited',
        example="users.json",
    )


def _check_origins(value: tuple[str, ...]) -> None:
    for origin in value:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f'"{origin}" is not an origin: scheme, host and, unless it is the usual one, port, such as '
                "http://localhost:5173"
            )


@dataclass(frozen=True, kw_only=True)
class IcoapiSettings(Settings):
    """The contract of ICOapi for its clients, such as ICOweb."""

    listen: str = setting("0.0.0.0:33215", help="address:port to listen on", check=_check_listen)
    tls: Literal["self-signed", "off"] | TlsFiles = setting(
        "self-signed", help="as `http.tls`; clients of ICOapi mostly speak plain HTTP: off"
    )
    anonymous: Literal["off", "read", "operate"] = setting(
        "off",
        help="what everybody who reaches the port may do: nothing, look on, or all of it, the upload of "
        "configurations and the deletion of files included; clients of ICOapi bring no token: operate",
    )
    cors: tuple[str, ...] = setting(
        (),
        help="origins of web pages that may use it",
        check=_check_origins,
        example="[http://localhost:5173]",
    )
    device: str = setting(
        "", help="the STU that is meant, where several are configured and the client says no `?device=`"
    )
    updates_per_s: int = setting(60, help="messages of the live stream per second, at most", low=1, high=300)


@dataclass(frozen=True, kw_only=True)
class CompatSettings(Settings):
    """The contracts of systems that the gateway replaces, each on a listener of its own."""

    timeseries: TimeseriesSettings | None = setting(
        None, help="timeseries-api's series and points; enabling it lets everybody read them"
    )
    icoapi: IcoapiSettings | None = setting(None, help="ICOapi's operations and WebSockets under `/api/v1`")

    def listens(self) -> dict[str, str]:
        """Return where each that is configured listens, by its name."""
        named = {"timeseries": self.timeseries, "icoapi": self.icoapi}
        return {name: settings.listen for name, settings in named.items() if settings is not None}


@dataclass(frozen=True, kw_only=True)
class HttpSettings(Settings):
    """The HTTP listener of `/v1` and of the dashboard."""

    listen: str = setting("0.0.0.0:8443", help="address:port to listen on", check=_check_listen)
    tls: Literal["self-signed", "off"] | TlsFiles = setting(
        "self-signed",
        help="self-signed makes a certificate at first start; off is plain HTTP, shown as insecure",
    )
    public_read: bool = setting(
        default=False, help="true lets everybody on the network read without a token; shown as insecure"
    )
    hosts: tuple[str, ...] = setting(
        (),
        help="further names under which clients reach the gateway; IP addresses, localhost and the "
        "machine's own name always pass",
        check=_check_hosts,
        example="[gateway.plant.example]",
    )
    max_connections: int = setting(
        256, help="open connections at a time; one with TLS takes 0.3 MiB of memory", low=8, high=1024
    )
    max_connections_per_address: int = setting(
        32, help="open connections at a time from one address", low=2, high=1024
    )
    max_body_bytes: int = setting(
        8 * 1024 * 1024, help="largest request body, after decompression", low=1024, high=256 * 1024 * 1024
    )
    compat: CompatSettings = setting(
        CompatSettings(), help="contracts of systems that the gateway replaces; off unless named"
    )

    def __post_init__(self) -> None:
        listens = {"listen": self.listen}
        for name, listen in self.compat.listens().items():
            for other, taken in listens.items():
                if _collide(taken, listen):
                    port = split_address(taken)[1]
                    raise ValueError(f"{other} and compat.{name}.listen are both on port {port}")
            listens[f"compat.{name}.listen"] = listen

    def listens(self) -> dict[str, str]:
        """Return each listener's address:port, by the name of its setting."""
        compat = {f"http.compat.{name}.listen": listen for name, listen in self.compat.listens().items()}
        return {"http.listen": self.listen, **compat}

    def tls_files(self) -> list[TlsFiles]:
        """Return the certificates of one's own, of whichever listener."""
        timeseries, icoapi = self.compat.timeseries, self.compat.icoapi
        each = [self.tls, timeseries and timeseries.tls, icoapi and icoapi.tls]
        return [tls for tls in dict.fromkeys(each) if isinstance(tls, TlsFiles)]

    def files(self) -> list[Path]:
        return list(dict.fromkeys(file for tls in self.tls_files() for file in (tls.certificate, tls.key)))

    def insecure(self) -> list[str]:
        """Return a sentence for each choice here that weakens security."""
        sentences = []
        host, port = split_address(self.listen)
        if self.tls == "off" and not is_loopback(host):
            sentences.append(
                f"The API on port {port} is plain HTTP: tokens and values can be read on the network "
                "(http.tls is off)."
            )
        if self.public_read:
            sentences.append(
                "Everybody on the network can read all values without a token (http.public_read)."
            )
        if self.compat.timeseries is not None:
            sentences += _insecure_timeseries(self.compat.timeseries)
        if self.compat.icoapi is not None:
            sentences += _insecure_icoapi(self.compat.icoapi)
        return sentences


def _insecure_timeseries(settings: TimeseriesSettings) -> list[str]:
    host, port = split_address(settings.listen)
    sentences = [
        f"Everybody who reaches port {port} can read the points there without a token "
        "(http.compat.timeseries)."
    ]
    if settings.tls == "off" and not is_loopback(host):
        sentences.append(
            f"Port {port} is plain HTTP: the tokens of {settings.users.name} can be read on the network "
            "(http.compat.timeseries.tls is off)."
        )
    return sentences


def _insecure_icoapi(settings: IcoapiSettings) -> list[str]:
    host, port = split_address(settings.listen)
    may = {"read": "see everything", "operate": "measure, configure and delete files"}.get(settings.anonymous)
    sentences = []
    if may is not None:
        sentences.append(
            f"Everybody who reaches port {port} can {may} there without a token "
            f"(http.compat.icoapi.anonymous is {settings.anonymous})."
        )
    if settings.tls == "off" and not is_loopback(host):
        sentences.append(
            f"Port {port} is plain HTTP: what is said there can be read on the network "
            "(http.compat.icoapi.tls is off)."
        )
    return sentences


def _collide(one: str, other: str) -> bool:
    (host, port), (other_host, other_port) = split_address(one), split_address(other)
    everywhere = {"0.0.0.0", "::"}
    return port == other_port != 0 and (host == other_host or bool({host, other_host} & everywhere))
