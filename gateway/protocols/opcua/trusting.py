"""Between an offered endpoint and a session: whether the certificates will do. Blocking: files."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from asyncua.crypto import uacrypto
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.clock import Clock
from gateway.model import Device, DeviceProblem, Surroundings, WaitingForTrust
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.pki import Pki
from gateway.protocols.opcua.security import Choice
from gateway.protocols.opcua.trust import thumbprint, told
from gateway.protocols.opcua.validation import Fault, Peer, fault
from gateway.settings import Secret

_UNTRUSTED: Final = ("BadCertificateUntrusted", "BadCertificateChainIncomplete")
_OUT_OF_DATE: Final = ("BadCertificateTimeInvalid", "BadCertificateIssuerTimeInvalid")
_WARN_DAYS: Final = (60, 30, 7)
_LONGEST_CHAIN: Final = 10


@dataclass(frozen=True, slots=True)
class Vetted:
    """A server's certificate that was accepted, and the state of the folders then."""

    certificate: x509.Certificate
    version: Hashable
    passed_over: Sequence[str]
    """Files in the folders that are of no use, each as a sentence."""


def vet(device: Device, settings: Settings, link: Surroundings, pki: Pki, choice: Choice) -> Vetted | None:
    """Return the server's certificate if it may be trusted now; None where the endpoint has none.

    WaitingForTrust: a person has to trust it first; DeviceProblem: it will not do.
    """
    if not choice.secured:
        return None
    version = pki.version()
    try:
        chain = _chain(choice.certificate)
    except ValueError as error:
        raise DeviceProblem(
            f"device {device.id}: the server's certificate cannot be read: {error}"
        ) from error
    host = urlsplit(settings.url).hostname or ""
    lists = pki.lists()
    found = fault(chain, lists, Peer(choice.policy, host, choice.application_uri), _now(link.clock))
    if found is not None:
        raise _problem(device.id, chain[0], found, pki)
    pki.clear_rejected(chain[0], device.id)
    return Vetted(chain[0], version, lists.passed_over)


class Warned(NamedTuple):
    """What is to be seen to in time."""

    subject: str
    days: int
    """The threshold that was passed: it is told once for each."""
    sentence: str


def expiring(certificates: dict[str, x509.Certificate], now: datetime) -> list[Warned]:
    """Return what expires soon."""
    found = []
    for whose, certificate in certificates.items():
        until = certificate.not_valid_after_utc.date()
        left = certificate.not_valid_after_utc - now
        passed = [days for days in _WARN_DAYS if left < timedelta(days=days)]
        if left < timedelta():
            found.append(Warned(whose, 0, f"{whose} certificate expired on {until}"))
        elif passed:
            sentence = f"{whose} certificate expires in {left.days} days, on {until}: renew it"
            found.append(Warned(whose, passed[-1], sentence))
    return found


def user_login(device: str, pem: Secret) -> tuple[x509.Certificate, Any]:
    """Return the certificate and the key of a login from their PEM text. DeviceProblem: they will not do."""
    data = pem.text.encode()
    try:
        certificate = x509.load_pem_x509_certificate(data)
        begin = data.rindex(b"-----BEGIN", 0, data.index(b"PRIVATE KEY-----"))
        key = load_pem_private_key(data[begin:], password=None)
    except (ValueError, TypeError) as error:
        raise DeviceProblem(
            f"device {device}: `user_certificate` ({pem.reference}) is no PEM text with a certificate "
            "and its private key, unencrypted"
        ) from error
    if certificate.public_key() != key.public_key():
        raise DeviceProblem(f"device {device}: the key in `user_certificate` belongs to another certificate")
    return certificate, key


def _chain(data: bytes) -> list[x509.Certificate]:
    """Take apart what a server sent: its certificate, perhaps with those of its issuers (Part 6, 6.2.3)."""
    chain: list[x509.Certificate] = []
    while data and len(chain) < _LONGEST_CHAIN:
        chain.append(uacrypto.x509_from_der(data))
        data = data[len(uacrypto.der_from_x509(chain[-1])) :]
    if not chain:
        raise ValueError("it is empty")
    return chain


def _now(clock: Clock) -> datetime | None:
    return datetime.fromtimestamp(clock.wall_us() / 1e6, UTC) if clock.synchronised() else None


def _problem(device: str, certificate: x509.Certificate, found: Fault, pki: Pki) -> DeviceProblem:
    subject = told(lambda: certificate.subject) or "no readable subject"
    said = f"device {device}: the server's certificate {thumbprint(certificate)} ({subject}) {found.clause}"
    if found.symbol in _UNTRUSTED:
        file = pki.reject(certificate, device)
        return WaitingForTrust(
            f"{said}: compare the thumbprint at the server and say `edge-gateway trust {device}` "
            f"(or move {file} to {pki.trusted}), or write `security: none` on a network that you trust"
        )
    if found.symbol in _OUT_OF_DATE:
        pki.reject(certificate, device)
        return WaitingForTrust(
            f"{said}: renew it at the server, or, if it must be used as it is, "
            f"say `edge-gateway trust --expired {device}`"
        )
    return DeviceProblem(f"{said} ({found.symbol}): the server needs another certificate")
