"""What may be asked of the certificates that devices showed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """A certificate in one of the folders of the gateway."""

    place: str
    """"own", "trusted", "issuers", "trusted_expired" or "rejected"."""
    thumbprint: str
    """SHA-1 in hex, as OPC UA tools show it."""
    sha256: str
    subject: str
    issuer: str
    application_uri: str
    valid_from_us: int
    valid_until_us: int
    device: str
    """Which device showed it, where it was rejected; else ""."""
    file: str


class Certificates(Protocol):
    """Whom the gateway trusts. Blocking: files."""

    def own(self) -> bytes | None:
        """Return the gateway's application certificate, DER; None where it was never needed."""

    def entries(self) -> Sequence[CertificateEntry]:
        """List all certificates, the gateway's own first."""

    def trust(self, name: str, *, expired: bool = False) -> object:
        """Trust a rejected one, by its thumbprint. KeyError: there is none."""

    def distrust(self, name: str) -> int:
        """Remove one by its thumbprint; return how many files went."""
