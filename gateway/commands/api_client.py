"""How a command reaches a gateway's API: address, token, and whose certificate it takes."""

import argparse
import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from gateway import control_socket
from gateway.model import GatewayError

TOKEN: Final = "EDGE_GATEWAY_TOKEN"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_FINGERPRINT: Final = re.compile(r"(?:[0-9A-F]{2}:?){31}[0-9A-F]{2}")


class NotReached(GatewayError):
    """Nobody answers there now: it may be tried again."""


class Refused(GatewayError):
    """The answer was a failure: the same again would fail too."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and how to get in."""

    url: str
    token: str = field(default="", repr=False)
    fingerprint: str = ""
    """SHA-256 in hex of the one certificate that is taken; "": any that this machine trusts."""

    @property
    def tls(self) -> "aiohttp.Fingerprint | bool":
        return aiohttp.Fingerprint(bytes.fromhex(self.fingerprint)) if self.fingerprint else True


def access(arguments: argparse.Namespace) -> Access:
    """Return the API that the command line names; without --url, that of the gateway on this machine."""
    if arguments.url is None:
        status = asyncio.run(control_socket.ask(arguments.state, {"command": "status"}))
        url, fingerprint = str(status.get("url") or ""), str(status.get("fingerprint") or "")
        if not url:
            raise GatewayError("the gateway's API does not listen now: `edge-gateway status` says why")
        token = _token(arguments.token_file) or _read(arguments.state / "admin-token", may_be_missing=True)
        return Access(url, token, fingerprint)
    parts = urlsplit(arguments.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise GatewayError("--url is written https://HOST:PORT, without user name or query")
    if arguments.fingerprint and parts.scheme == "http":
        raise GatewayError("--fingerprint goes with https: plain HTTP shows no certificate")
    return Access(arguments.url.rstrip("/"), _token(arguments.token_file), _digits(arguments.fingerprint))


def _token(file: Path | None) -> str:
    token = _read(file) if file is not None else os.environ.get(TOKEN, "").strip()
    if not token.isascii() or not token.isprintable():
        raise GatewayError("the token has characters that no token has: is it the right file?")
    return token


def _read(file: Path, *, may_be_missing: bool = False) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        if may_be_missing and isinstance(error, FileNotFoundError):
            return ""
        raise GatewayError(
            f"{file} cannot be read: {error.strerror}; try it as root, or name a token with --token-file or "
            f"${TOKEN}"
        ) from None


def _digits(fingerprint: str) -> str:
    if fingerprint and not _FINGERPRINT.fullmatch(fingerprint.upper()):
        raise GatewayError("--fingerprint is a SHA-256 fingerprint: 64 hex digits, with colons or without")
    return fingerprint.replace(":", "").lower()


@contextlib.asynccontextmanager
async def connected(to: Access) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session that sends the token, if any, to nobody but that host; failures are GatewayError."""
    headers = {"Authorization": f"Bearer {to.token}"} if to.token else {}
    connector = aiohttp.TCPConnector(ssl=to.tls)
    try:
        async with aiohttp.ClientSession(
            headers=headers, connector=connector, timeout=_TIMEOUT, trust_env=False
        ) as session:
            yield session
    except aiohttp.ServerFingerprintMismatch as error:
        raise Refused(
            f"{to.url} shows another certificate, {_colons(error.got.hex())}: it was renewed, or somebody "
            "stands in between"
        ) from None
    except aiohttp.ClientConnectorCertificateError:
        raise Refused(
            f"this machine does not trust the certificate of {to.url}, {await _shown(to.url)}; where the "
            "gateway's log has the same fingerprint, give it with --fingerprint"
        ) from None
    except aiohttp.WSServerHandshakeError as error:
        raise refused(to, error.status) from None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NotReached(f"{to.url} does not answer: {_reason(error)}") from None


async def get(
    session: aiohttp.ClientSession, to: Access, path: str, query: Mapping[str, str] | None = None
) -> Any:
    """GET a path and return its JSON. Refused: it answers with a failure, or not with JSON."""
    async with session.get(to.url + path, params=query, allow_redirects=False) as answer:
        try:
            document = await answer.json(content_type=None)
        except ValueError:
            document = None
        if answer.status != 200:
            raise refused(to, answer.status, _sentence(document))
        if document is None:
            raise Refused(f"{to.url}{path} does not answer with JSON: is it a gateway?")
        return document


def _sentence(document: Any) -> str:
    """Return the failure's own words: ours, or timeseries-api's."""
    error = document.get("error", document) if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return printable(message) if isinstance(message, str) else ""


def refused(to: Access, status: int, message: str = "") -> Refused:
    """Return what an answer with a status of failure means."""
    if status == 401:
        what = "does not take the token" if to.token else "wants a token"
        return Refused(f"{to.url} {what}: name one with --token-file FILE or ${TOKEN}")
    return Refused(f"{to.url}: {message or f'the answer has status {status}'}")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or type(error).__name__


async def _shown(url: str) -> str:
    """Return the fingerprint of the certificate that is shown there; nothing is sent to it."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
    except (OSError, TimeoutError):
        return "which could not be fetched again"
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return "SHA-256 " + _colons(fingerprint_of(shown))


def fingerprint_of(certificate: bytes) -> str:
    """Return the SHA-256 of a DER certificate in hex."""
    import hashlib

    return hashlib.sha256(certificate).hexdigest()


def _colons(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()


def printable(text: str) -> str:
    """Leave out what a terminal would obey: the words are others'."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
