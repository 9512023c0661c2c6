"""The `http:` part of the YAML: where the API listens, how it is secured, what it allows."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from gateway.settings import Settings, setting

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

    certificate: str = setting(help="PEM file: the certificate and its chain", example="/etc/ssl/gateway.pem")
    key: str = setting(help="PEM file: the private key, unencrypted, readable by the service's user")


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
    max_connections: int = setting(256, help="open connections at a time", low=8, high=4096)
    max_connections_per_address: int = setting(
        32, help="open connections at a time from one address", low=2, high=4096
    )
    max_body_bytes: int = setting(
        8 * 1024 * 1024, help="largest request body, after decompression", low=1024, high=256 * 1024 * 1024
    )

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
        return sentences
