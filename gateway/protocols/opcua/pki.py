"""The OPC UA client's own certificate, and which devices were reached securely. Blocking: files and keys."""

import contextlib
import socket
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.controls.certificates import CertificateEntry
from gateway.durable import write
from gateway.model import DeviceProblem
from gateway.protocols.opcua.trust import TrustLists, entry, thumbprint

# A box may boot in 1970: the certificate is valid from before the first of them was sold, so that neither
# a clock that is not set yet nor a server that is late makes it "not yet valid".
_VALID_FROM = datetime(2024, 1, 1, tzinfo=UTC)
_VALID_YEARS = 25
_CERTIFICATE = "certificate.der"

# Devices connect side by side: only one of them makes the pair that all of them share.
_MAKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Identity:
    """The gateway's application certificate and its key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    path: Path

    @property
    def application_uri(self) -> str:
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])

    @property
    def thumbprint(self) -> str:
        return thumbprint(self.certificate)


class Pki(TrustLists):
    """The folder `pki` of the state directory: whom we trust, who we are, who was reached securely."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self._own = folder / "own"
        self._secured = folder / "secured"

    def own(self) -> bytes | None:
        """Return our application certificate, DER; None where none was needed yet."""
        try:
            return (self._own / _CERTIFICATE).read_bytes()
        except FileNotFoundError:
            return None

    def entries(self) -> list[CertificateEntry]:
        """List our own certificate and those in the folders."""
        listed = super().entries()
        if own := self.own():
            with contextlib.suppress(ValueError):  # `identity` says what is wrong with it
                listed.insert(0, entry(x509.load_der_x509_certificate(own), "own", self._own / _CERTIFICATE))
        return listed

    def identity(self, gateway_id: str) -> Identity:
        """Return our certificate and key; they are made at first start and kept. DeviceProblem if not."""
        try:
            with _MAKING:
                return self._identity(gateway_id)
        except (OSError, ValueError) as error:
            raise DeviceProblem(f"the certificates in {self.folder} cannot be used: {error}") from error

    def _identity(self, gateway_id: str) -> Identity:
        for folder in (self._own, self._secured, *self.folders):
            folder.mkdir(parents=True, exist_ok=True)
        certificate_file, key_file = self._own / _CERTIFICATE, self._own / "key.pem"
        if key_file.exists():
            key = load_pem_private_key(key_file.read_bytes(), password=None)
            if not isinstance(key, rsa.RSAPrivateKey):
                raise ValueError(f"{key_file} holds no RSA key: remove it and {certificate_file}")
        else:
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write(key_file, pem, mode=0o600)
        if not certificate_file.exists():
            made = _certificate(key, gateway_id)
            write(certificate_file, made.public_bytes(Encoding.DER), mode=0o644)
        certificate = x509.load_der_x509_certificate(certificate_file.read_bytes())
        if certificate.public_key() != key.public_key():
            raise ValueError(
                f"{certificate_file} does not belong to {key_file}: remove both to have new ones made"
            )
        return Identity(certificate, key, certificate_file)

    def secured_file(self, device: str) -> Path:
        """Return the file that remembers that a device was once reached securely."""
        return self._secured / quote(device, safe="")

    def remember_secured(self, device: str, security: str) -> None:
        """Note that the device was reached securely. DeviceProblem: it cannot be noted, so it was not."""
        file = self.secured_file(device)
        try:
            if not file.exists():
                write(file, security.encode(), mode=0o644)
        except OSError as error:
            raise DeviceProblem(f"device {device}: {file} cannot be written: {error}") from error


def _certificate(key: rsa.RSAPrivateKey, gateway_id: str) -> x509.Certificate:
    host = socket.gethostname() or "localhost"
    uri = f"urn:{quote(host, safe='.-')}:edge-gateway:{quote(gateway_id, safe='.-_')}"
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"edge-gateway {gateway_id}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "edge-gateway"),
        ]
    )
    public = key.public_key()
    end = max(datetime.now(UTC), _VALID_FROM) + timedelta(days=365 * _VALID_YEARS)
    usages = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_cert_sign"),
        True,
    ) | dict.fromkeys(("key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(host)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)  # Part 6, 6.2.2: self-signed ones sign
        .add_extension(both, critical=False)
        .sign(key, hashes.SHA256())
    )
