"""The files in a folder of trust: certificates, chains and revocation lists, DER or PEM. Blocking: files."""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

_Content = x509.Certificate | x509.CertificateRevocationList

_LARGEST_BYTES: Final = 1 << 20
_PEM: Final = re.compile(rb"(?=-----BEGIN )")
_CERTIFICATE: Final = (b"-----BEGIN CERTIFICATE", b"-----BEGIN X509 CERTIFICATE")
_REVOCATIONS: Final = b"-----BEGIN X509 CRL"


@dataclass(slots=True)
class Held:
    """What a folder, or one file, holds."""

    certificates: list[tuple[x509.Certificate, Path]] = field(default_factory=list)
    revocations: list[x509.CertificateRevocationList] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """A sentence for each file that is of no use, or a part of it."""


def held(folder: Path) -> Held:
    """Read a folder; one that is missing holds nothing."""
    found = Held()
    for file in _files(folder):
        try:
            if file.is_dir():
                continue
            if not file.is_file():
                found.passed_over.append(f"{file} is no file that can be read, and counts for nothing")
            elif file.stat().st_size > _LARGEST_BYTES:
                found.passed_over.append(f"{file} is larger than 1 MiB, and counts for nothing")
            else:
                _take(found, file, file.read_bytes())
        except FileNotFoundError:  # it went meanwhile
            continue
        except OSError as error:
            found.passed_over.append(f"{file} cannot be read ({error.strerror}), and counts for nothing")
    return found


def parsed(data: bytes) -> list[x509.Certificate]:
    """Return the certificates in the bytes of a file."""
    found = Held()
    _take(found, Path(), data)
    return [certificate for certificate, _ in found.certificates]


def state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a person adds, removes or overwrites a file."""
    found = []
    for file in _files(folder):
        with contextlib.suppress(OSError):
            seen = file.stat()
            found.append((file.name, seen.st_mtime_ns, seen.st_size))
    return tuple(found)


def _files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from (file for file in sorted(folder.iterdir()) if not file.name.startswith("."))


def _take(found: Held, file: Path, data: bytes) -> None:
    contents = list(_contents(data))
    found.certificates += [(each, file) for each in contents if isinstance(each, x509.Certificate)]
    found.revocations += [each for each in contents if isinstance(each, x509.CertificateRevocationList)]
    parts_read = sum(each is not None for each in contents)  # an empty list is false
    if not parts_read:
        what = "holds no certificate and no revocation list that can be read"
        found.passed_over.append(f"{file} {what}, and counts for nothing")
    elif parts_read < len(contents):
        found.passed_over.append(f"a part of {file} cannot be read, and counts for nothing")


def _contents(data: bytes) -> Iterator[_Content | None]:
    """Return what a file holds, part by part; None for a part that should be read and cannot."""
    blocks = _PEM.split(data)[1:]
    if not blocks:
        certificate = _loaded(x509.load_der_x509_certificate, data)
        yield _loaded(x509.load_der_x509_crl, data) if certificate is None else certificate
    for block in blocks:
        if block.startswith(_CERTIFICATE):
            yield _loaded(x509.load_pem_x509_certificate, block)
        elif block.startswith(_REVOCATIONS):
            yield _loaded(x509.load_pem_x509_crl, block)


def _loaded(load: Callable[[bytes], _Content], data: bytes) -> _Content | None:
    try:
        found = load(data)
        # The library reads names only when they are asked for: one that is broken would stop every device.
        nameless = isinstance(found, x509.CertificateRevocationList) and not found.issuer.rdns
    except ValueError:
        return None
    return None if nameless else found
