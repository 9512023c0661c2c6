"""The listener's certificate: one's own, or a self-signed one made at first start."""

import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import logging
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.api.settings import HttpSettings, TlsFiles
from gateway.durable import write
from gateway.model import GatewayError

_log = logging.getLogger(__name__)
# Fixed dates: a box may boot in 1970, and a certificate of its own must not expire by itself.
_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_TO = datetime.datetime(2060, 1, 1, tzinfo=datetime.UTC)


_making: Final = threading.Lock()
"""Several listeners begin at a time, each in a thread."""
_own: Final[weakref.WeakKeyDictionary[ssl.SSLContext, tuple[TlsFiles, bytes]]] = weakref.WeakKeyDictionary()
"""What listens with a certificate of one's own, and the hash of what is in force there."""


def context(settings: HttpSettings, state: Path) -> ssl.SSLContext | None:
    """Return the TLS context, or None for plain HTTP. Blocks: reads files, makes a key at first start."""
    if settings.tls == "off":
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if isinstance(settings.tls, TlsFiles):
        content = _content(settings.tls)
        _load(made, settings.tls.certificate, settings.tls.key)
        _own[made] = settings.tls, content
    else:
        file = _self_signed(_own_file(state), settings.hosts)
        _load(made, file, file)
    return made


async def renew(files: TlsFiles) -> bool:
    """Let what listens with these files take them as they are now; False: it did already.

    Open connections go on under the certificate of before. GatewayError: they cannot be used.
    """
    now = await asyncio.to_thread(_proven, files)
    stale = [each for each in _with(files) if _own[each][1] != now]
    for each in stale:
        # In the event loop, where the handshakes are: OpenSSL wants no other thread to change a context.
        _load(each, files.certificate, files.key)
        _own[each] = files, now
    return bool(stale)


def loaded(files: TlsFiles) -> bool:
    """Say whether anything listens with what these files were."""
    return bool(_with(files))


def _with(files: TlsFiles) -> list[ssl.SSLContext]:
    contexts = filter(None, (each() for each in _own.keyrefs()))  # a list at once: threads add to it
    return [each for each in contexts if _own[each][0] == files]


def prove(settings: HttpSettings) -> None:
    """Raise GatewayError where a certificate of one's own, of any listener, cannot be used. Blocks."""
    for files in settings.tls_files():
        _proven(files)


def _proven(files: TlsFiles) -> bytes:
    content = _content(files)
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files.certificate, files.key)
    return content


def _content(files: TlsFiles) -> bytes:
    made = hashlib.sha256()
    for file in (files.certificate, files.key):
        with contextlib.suppress(OSError):  # told when it is to be used
            made.update(file.read_bytes())
    return made.digest()


def _load(made: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        how = ""
        if isinstance(error, PermissionError):
            how = f" (in a folder that it may enter: sudo chgrp edge-gateway {key} && sudo chmod 640 {key})"
        raise GatewayError(
            f"http.tls: {certificate} and {key} cannot be used ({error}); both are PEM files, the key "
            f"unencrypted and readable by the service's user{how}."
        ) from error


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
    with _making:
        kept = _kept(file)
        if kept is None or (lacking := [host for host in hosts if host not in _names(kept[1])]):
            if kept is not None:
                _log.info("the self-signed TLS certificate is made anew for %s", ", ".join(lacking))
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(file, _make(hosts, kept[0] if kept else ec.generate_private_key(ec.SECP256R1())))
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    _log.info("self-signed TLS certificate, SHA-256 fingerprint %s", fingerprint)
    return file


def _kept(file: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    """Return what was made once; None: there is nothing that can be used."""
    try:
        pem = file.read_bytes()
        key, certificate = load_pem_private_key(pem, None), x509.load_pem_x509_certificate(pem)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
            return key, certificate
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        _log.warning("%s is damaged (%s); a new certificate is made", file, " ".join(str(error).split()))
        return None
    _log.warning("%s is damaged: key and certificate do not match; a new certificate is made", file)
    return None


def _names(certificate: x509.Certificate) -> list[str]:
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return alternatives.get_values_for_type(x509.DNSName)


def _make(hosts: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return key and certificate as one PEM text, so that they are replaced together."""
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
