"""The listener's certificate: one's own, or a self-signed one made at first start."""

import datetime
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.api.settings import HttpSettings, TlsFiles
from gateway.durable import write
from gateway.model import GatewayError

_log = logging.getLogger(__name__)
# Fixed dates: a box may boot in 1970, and a certificate of its own must not expire by itself.
_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_TO = datetime.datetime(2060, 1, 1, tzinfo=datetime.UTC)


def context(settings: HttpSettings, state: Path) -> ssl.SSLContext | None:
    """Return the TLS context, or None for plain HTTP. Blocks: reads files, makes a key at first start."""
    if settings.tls == "off":
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if isinstance(settings.tls, TlsFiles):
        certificate, key = settings.tls.certificate, settings.tls.key
    else:
        certificate = key = _self_signed(_own_file(state), settings.hosts)
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise GatewayError(
            f"http.tls: {certificate} and {key} cannot be used ({error}); both are PEM files, the key "
            "unencrypted and readable by the service's user."
        ) from error
    return made


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def fingerprint(settings: HttpSettings, state: Path) -> str:
    """Return the SHA-256 of the listener's certificate in hex, "" for plain HTTP. Blocks: reads a file."""
    if settings.tls == "off":
        return ""
    file = settings.tls.certificate if isinstance(settings.tls, TlsFiles) else _own_file(state)
    return x509.load_pem_x509_certificate(file.read_bytes()).fingerprint(hashes.SHA256()).hex()


def _own_file(state: Path) -> Path:
    return state / "tls" / "self-signed.pem"


def _self_signed(file: Path, hosts: Sequence[str]) -> Path:
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(file, _make(hosts))
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    _log.info("self-signed TLS certificate, SHA-256 fingerprint %s", fingerprint)
    return file


def _make(hosts: Sequence[str]) -> bytes:
    """Return key and certificate as one PEM text, so that they are replaced together."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, own[:64] or "edge-gateway")])
    names = dict.fromkeys([own, f"{own}.local", "localhost", *hosts])
    alternatives: list[x509.GeneralName] = [x509.DNSName(text) for text in names if text.isascii()]
    alternatives += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(os.urandom(16)) | 1)
        .not_valid_before(_FROM)
        .not_valid_after(_TO)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
