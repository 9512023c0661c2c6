"""Limits of known servers, for those that do not tell them, or tell more than they bear.

Sources, read in November 2026:

- SIMATIC S7-1200 and S7-1500: Siemens Industry Support entry 109755846 (system limits of the OPC UA servers)
  for the monitored items; a hard 1000 nodes in one call: github.com/epics-modules/opcua, issues 177 and 201,
  and its wiki page on the S7-1500; that an S7-1200 slows down much beyond 100 to 200 items in one call:
  github.com/united-manufacturing-hub/benthos-umh, opcua_plugin/server_profiles.go.
- Ignition (Eclipse Milo) and Prosys: what the servers report, and what proved to work, in the same file.
- Kepware: the same file; its own limits are on the sessions (128 unless set otherwise).

What a server tells is obeyed where it is less than this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of server bears."""

    name: str
    manufacturer: str
    """In lower case, part of what the server calls its manufacturer; "" for any."""
    product: str
    """The same of its product."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Most operations in one call, by the words of Session.limits."""
    items: int = 0
    """Monitored items in all; 0 where that is not known."""


_PROFILES = (
    Profile("S7-1200", "siemens", "1200", {"read": 500, "monitor": 100, "translate": 100}, 1000),
    Profile("S7-1500", "siemens", "1500", {"monitor": 500}, 10_000),
    Profile("Ignition", "inductive automation", "", {"browse": 250, "monitor": 100}),
    Profile("Ignition", "", "ignition", {"browse": 250, "monitor": 100}),
    Profile("Kepware", "", "kepserverex", {"monitor": 1000, "read": 1000}),
    Profile("Kepware", "kepware", "", {"monitor": 1000, "read": 1000}),
    Profile("Prosys", "prosys", "", {"monitor": 800}),
)
UNKNOWN = Profile("", "", "")


def profile_of(manufacturer: str, product: str) -> Profile:
    """Return what is known of a server by what it says of itself (its BuildInfo)."""
    who, what = manufacturer.lower(), product.lower()
    return next((p for p in _PROFILES if p.manufacturer in who and p.product in what), UNKNOWN)
