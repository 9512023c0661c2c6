"""Makes certificates as authorities and careless device makers do."""

import functools
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

URI = "urn:plc-07:press"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@functools.cache
def key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the key of that name, made once."""
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True)
class Pair:
    """A certificate and the key it belongs to."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def made(
    name: str = "plc",
    issuer: Pair | None = None,
    *,
    authority: bool = False,
    uri: str | None = URI,
    host: str = "127.0.0.1",
    start: datetime = NOW - 300 * DAY,
    end: datetime = NOW + 300 * DAY,
    usage: Any = ExtendedKeyUsageOID.SERVER_AUTH,
    own_key: Any = None,
) -> Pair:
    """Make a certificate, signed by `issuer` or by itself."""
    own = own_key or key(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        extended = usage if isinstance(usage, x509.ExtensionType) else x509.ExtendedKeyUsage([usage])
        builder = builder.add_extension(extended, critical=False)
    return Pair(builder.sign(issuer.key if issuer else own, hashes.SHA256()), own)


UNREADABLE_USAGE = x509.UnrecognizedExtension(x509.ExtensionOID.EXTENDED_KEY_USAGE, b"\xff\xff\xff")


def unreadable(pair: Pair, part: str) -> x509.Certificate:
    """Return the certificate with the bytes of its "name" or of its "key" broken; its signature is too."""
    if part == "key":
        broken = pair.der.replace(bytes.fromhex("3082010a0282"), bytes.fromhex("3082010a0482"))
    else:
        name = x509.load_der_x509_certificate(pair.der).subject.rfc4514_string().removeprefix("CN=").encode()
        broken = pair.der.replace(name, b"\xff" * len(name))
    assert broken != pair.der
    return x509.load_der_x509_certificate(broken)


def revocations(authority: Pair, *revoked: Pair) -> x509.CertificateRevocationList:
    """Make the list in which an authority revokes certificates."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + 30 * DAY)
    )
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(NOW).build())
    return builder.sign(authority.key, hashes.SHA256())
