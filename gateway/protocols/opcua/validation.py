"""Whether a server's certificate may be trusted: the steps of OPC UA Part 4, 6.1.3, table 100.

A certificate that itself lies among the trusted ones was compared by a person: its host name, URI and usage
are not held against it (many PLCs have them wrong), its age is. One that is trusted for its issuer's sake is
checked in full.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

E = TypeVar("E", bound=x509.ExtensionType)

_OUTDATED: Final = ("Basic256", "Basic128Rsa15")
"""Their profiles (Part 7) ask for keys of 1024 bits, the others of 2048."""

_UNREADABLE: Final = (ValueError, UnsupportedAlgorithm)
"""What the library raises, part by part, on bytes that are no name, key or extension."""

_SIGNING = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Lists:
    """What a person has put into the folders."""

    trusted: Sequence[x509.Certificate] = ()
    issuers: Sequence[x509.Certificate] = ()
    """They complete a chain, and are not trusted for themselves."""
    expired: Sequence[x509.Certificate] = ()
    """Trusted as they are though they have expired."""
    revocations: Sequence[x509.CertificateRevocationList] = ()
    passed_over: Sequence[str] = ()
    """A sentence for each file that is of no use."""


class Peer(NamedTuple):
    """Who is expected to show the certificate."""

    policy: str
    host: str
    """Of the address that was dialled."""
    application_uri: str


class Fault(NamedTuple):
    """Why a certificate is not accepted: the symbol of Part 4, 7.39, and a clause for a sentence."""

    symbol: str
    clause: str


def fault(chain: Sequence[x509.Certificate], lists: Lists, peer: Peer, now: datetime | None) -> Fault | None:
    """Return why a certificate (first of the chain that the server sent) is not accepted, or None.

    `now` is None where nothing sets the clock: then no certificate is too old or too new.
    """
    try:
        return _fault(chain, lists, peer, now)
    except _UNREADABLE as error:
        return Fault("BadCertificateInvalid", f"cannot be read: {error}")


def _fault(chain: Sequence[x509.Certificate], lists: Lists, peer: Peer, now: datetime | None) -> Fault | None:
    leaf = chain[0]
    if found := _too_weak(leaf, peer.policy):
        return found
    pinned = leaf in lists.trusted or leaf in lists.expired
    path = [leaf] if pinned else _path(chain, lists, now)
    if not path:
        return _untrusted(leaf)
    if found := _revoked(path, lists):
        return found
    if now is not None and leaf not in lists.expired and (found := _out_of_date(path, now)):
        return found
    return None if pinned else _not_the_peer(leaf, peer)


def common_name(name: x509.Name) -> str:
    """Return what people call the owner of a name."""
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def application_uris(certificate: x509.Certificate) -> list[str]:
    """Return the URIs that a certificate is made out to; there should be one."""
    names = _alternative_names(certificate)
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names else []


def _path(
    chain: Sequence[x509.Certificate], lists: Lists, now: datetime | None
) -> Sequence[x509.Certificate]:
    """Return the chain from the certificate to one that is trusted, or nothing.

    One that is valid now comes first. Else any will do that was valid at some time, which is when one of its
    certificates began: its age is looked at afterwards, for a sentence of its own. The library takes no
    signature for a link that can be forged (MD5, SHA-1).
    """
    if not lists.trusted:
        return ()
    candidates = (*chain, *lists.issuers, *lists.trusted)
    moments = dict.fromkeys(certificate.not_valid_before_utc for certificate in candidates)
    for moment in moments if now is None else {now: None, **moments}:
        if path := _path_at(moment, chain, lists):
            return path
    return ()


def _path_at(moment: datetime, chain: Sequence[x509.Certificate], lists: Lists) -> Sequence[x509.Certificate]:
    authority = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.AGNOSTIC, None
    )
    builder = PolicyBuilder().store(Store(list(lists.trusted))).time(moment.replace(tzinfo=None))
    builder = builder.extension_policies(ca_policy=authority, ee_policy=ExtensionPolicy.permit_all())
    try:
        verified = builder.build_client_verifier().verify(chain[0], [*chain[1:], *lists.issuers])
    except VerificationError:
        return ()
    return verified.chain


def _untrusted(leaf: x509.Certificate) -> Fault:
    if leaf.issuer == leaf.subject:
        return Fault("BadCertificateUntrusted", "is not trusted")
    return Fault(
        "BadCertificateChainIncomplete",
        f"is not trusted, and neither is a chain to its issuer {common_name(leaf.issuer)!r} "
        "(trust the certificate itself, or put its authority into the trusted ones)",
    )


def _revoked(path: Sequence[x509.Certificate], lists: Lists) -> Fault | None:
    for certificate in path:
        for revocations in lists.revocations:
            if revocations.issuer != certificate.issuer:
                continue
            if not any(_signed(revocations, each) for each in (*path, *lists.trusted, *lists.issuers)):
                continue
            entry = revocations.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                when = entry.revocation_date_utc.date()
                return Fault(
                    "BadCertificateRevoked", f"was revoked by {_whose(certificate.issuer)} on {when}"
                )
    return None


def _signed(revocations: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        key, named = issuer.public_key(), issuer.subject == revocations.issuer
    except _UNREADABLE:  # a certificate in a folder that is broken itself signs nothing
        return False
    return named and isinstance(key, _SIGNING) and revocations.is_signature_valid(key)


def _too_weak(leaf: x509.Certificate, policy: str) -> Fault | None:
    key = leaf.public_key()
    least_bits = 1024 if policy in _OUTDATED else 2048
    if not isinstance(key, rsa.RSAPublicKey):
        return Fault("BadCertificatePolicyCheckFailed", f"has no RSA key, which {policy} asks for")
    if key.key_size < least_bits:
        clause = f"has a key of {key.key_size} bits where {policy} asks for {least_bits}"
        return Fault("BadCertificatePolicyCheckFailed", clause)
    return None


def _out_of_date(path: Sequence[x509.Certificate], now: datetime) -> Fault | None:
    for place, certificate in enumerate(path):
        issuer = f"; it is that of its issuer {_whose(certificate.subject)}" if place else ""
        symbol = "BadCertificateIssuerTimeInvalid" if place else "BadCertificateTimeInvalid"
        if now > certificate.not_valid_after_utc:
            return Fault(symbol, f"expired on {certificate.not_valid_after_utc.date()}{issuer}")
        if now < certificate.not_valid_before_utc:
            clause = f"is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on{issuer}"
            return Fault(symbol, clause)
    return None


def _not_the_peer(leaf: x509.Certificate, peer: Peer) -> Fault | None:
    """Compare a certificate that no person has seen with who was dialled."""
    names = _alternative_names(leaf)
    uris = application_uris(leaf)
    if peer.application_uri not in uris:
        theirs = ", ".join(uris) or "no application"
        clause = f"is made out to {theirs}, and the server calls itself {peer.application_uri}"
        return Fault("BadCertificateUriInvalid", clause)
    hosts = _hosts(names) if names else []
    if peer.host.lower() not in hosts:
        clause = f"is made out to the host {' or '.join(hosts) or '(none)'}, and {peer.host} was dialled"
        return Fault("BadCertificateHostNameInvalid", clause)
    if not _may_serve(leaf):
        return Fault("BadCertificateUseNotAllowed", "is not made for a server (its key usage)")
    return None


def _may_serve(leaf: x509.Certificate) -> bool:
    """Part 6, 6.2.2: both key usages are there; an authority that leaves one away restricts nothing."""
    usage = _extension(leaf, x509.KeyUsage)
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    signs = usage is None or (usage.digital_signature and usage.key_encipherment)
    return signs and (extended is None or ExtendedKeyUsageOID.SERVER_AUTH in extended)


def _hosts(names: x509.SubjectAlternativeName) -> list[str]:
    addresses: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address] = (
        address
        for address in names.get_values_for_type(x509.IPAddress)
        if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    )
    return [*(name.lower() for name in names.get_values_for_type(x509.DNSName)), *map(str, addresses)]


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    return _extension(certificate, x509.SubjectAlternativeName)


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _whose(name: x509.Name) -> str:
    return repr(common_name(name))
