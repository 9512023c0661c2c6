"""The folders of certificates that a person trusts, or has yet to. Blocking: files."""

from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.controls.certificates import CertificateEntry
from gateway.durable import write
from gateway.model import DeviceProblem
from gateway.protocols.opcua.trust_files import held, parsed, state
from gateway.protocols.opcua.validation import Lists, application_uris

_MOST_REJECTED: Final = 100
"""Files; a server that shows another certificate at each attempt must not fill the disk."""


class TrustLists:
    """The folders `trusted`, `issuers`, `trusted_expired` and `rejected` below `pki`.

    Any file in them that holds a certificate, a chain (PEM) or a revocation list counts, whatever its name.
    """

    def __init__(self, folder: Path) -> None:
        self.trusted = folder / "trusted"
        self.issuers = folder / "issuers"
        self.expired = folder / "trusted_expired"
        self.rejected = folder / "rejected"

    @property
    def folders(self) -> Sequence[Path]:
        return self.trusted, self.issuers, self.expired, self.rejected

    def lists(self) -> Lists:
        """Read what is trusted now."""
        places = trusted, issuers, expired = held(self.trusted), held(self.issuers), held(self.expired)
        return Lists(
            [each for each, _ in trusted.certificates],
            [each for each, _ in issuers.certificates],
            [each for each, _ in expired.certificates],
            [*trusted.revocations, *issuers.revocations],
            [sentence for place in places for sentence in place.passed_over],
        )

    def version(self) -> Hashable:
        """Return what changes when a person adds, removes or overwrites a file."""
        return tuple(state(place) for place in (self.trusted, self.issuers, self.expired))

    def entries(self) -> list[CertificateEntry]:
        """List every certificate in the folders."""
        return self._listed()

    def _listed(self) -> list[CertificateEntry]:
        return [
            _entry(certificate, file)
            for place in self.folders
            for certificate, file in held(place).certificates
        ]

    def reject(self, certificate: x509.Certificate, device: str) -> Path:
        """Put a certificate where a person finds it to trust it; return its file."""
        file = self._rejected_file(certificate, device)
        try:
            if not file.exists():
                self._forget_oldest()
                write(file, certificate.public_bytes(Encoding.DER), mode=0o644)
        except OSError as error:
            raise DeviceProblem(f"device {device}: {file} cannot be written: {error}") from error
        return file

    def clear_rejected(self, certificate: x509.Certificate, device: str) -> None:
        """Take a certificate off the rejected ones: it is trusted now."""
        self._rejected_file(certificate, device).unlink(missing_ok=True)

    def trust(self, name: str, *, expired: bool = False) -> Path:
        """Trust a rejected certificate, named by its thumbprint; return its file. KeyError: there is none.

        `expired`: as it is, though it has expired or will; it may be trusted already.
        """
        for place in (self.rejected, self.trusted) if expired else (self.rejected,):
            for certificate, _ in held(place).certificates:
                if thumbprint(certificate) == name:
                    return self._keep(certificate, self.expired if expired else self.trusted)
        raise KeyError(name)

    def shown_by(self, device: str) -> list[str]:
        """Return the thumbprints of what a device showed and nobody trusts yet."""
        found = (entry.thumbprint for entry in self._listed() if device and entry.device == device)
        return list(dict.fromkeys(found))

    def add(self, data: bytes, *, issuer: bool = False) -> list[Path]:
        """Trust the certificates of a file, DER or PEM; ValueError: it holds none."""
        found = parsed(data)
        if not found:
            raise ValueError("it holds no certificate, neither DER nor PEM")
        return [self._keep(certificate, self.issuers if issuer else self.trusted) for certificate in found]

    def distrust(self, name: str) -> int:
        """Remove a certificate, named by its thumbprint, from all folders; return how many files went."""
        files = [Path(entry.file) for entry in self._listed() if entry.thumbprint == name]
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def _keep(self, certificate: x509.Certificate, place: Path) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        name = thumbprint(certificate)
        file = place / f"{name}.der"
        write(file, certificate.public_bytes(Encoding.DER), mode=0o644)
        for entry in self._listed():
            if entry.thumbprint == name and entry.place == "rejected":
                Path(entry.file).unlink(missing_ok=True)
        return file

    def _rejected_file(self, certificate: x509.Certificate, device: str) -> Path:
        return self.rejected / f"{quote(device, safe='')}-{thumbprint(certificate)}.der"

    def _forget_oldest(self) -> None:
        files = sorted(self.rejected.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        for file in files[: max(0, len(files) - _MOST_REJECTED + 1)]:
            file.unlink()


def thumbprint(certificate: x509.Certificate) -> str:
    """Return the SHA-1 of a certificate in hex, which is what OPC UA tools show."""
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  # a name, not a proof


def told(part: Callable[[], x509.Name | str]) -> str:
    """Return a part of a certificate as text; "" where it cannot be read: anybody can show a broken one."""
    try:
        found = part()
        return found if isinstance(found, str) else found.rfc4514_string()
    except ValueError:
        return ""


def entry(certificate: x509.Certificate, place: str, file: Path, device: str = "") -> CertificateEntry:
    """Return what people are shown of a certificate."""
    return CertificateEntry(
        place=place,
        thumbprint=thumbprint(certificate),
        sha256=certificate.fingerprint(hashes.SHA256()).hex().upper(),
        subject=told(lambda: certificate.subject),
        issuer=told(lambda: certificate.issuer),
        application_uri=told(lambda: next(iter(application_uris(certificate)), "")),
        valid_from_us=_us(certificate.not_valid_before_utc),
        valid_until_us=_us(certificate.not_valid_after_utc),
        device=device,
        file=str(file),
    )


def _entry(certificate: x509.Certificate, file: Path) -> CertificateEntry:
    place = file.parent.name
    device, _, name = file.stem.rpartition("-")
    ours = place == "rejected" and name == thumbprint(certificate)
    return entry(certificate, place, file, unquote(device) if ours else "")


def _us(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000
