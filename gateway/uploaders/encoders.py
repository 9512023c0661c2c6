"""The encoders of units by (name, version). One stays as long as a store may hold a unit cut with it."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.model import Unit, UploadProblem
from gateway.uploaders import columns


class Encoder(NamedTuple):
    """`body` gives the bytes of a unit, `order` the places of its samples as they follow in the body."""

    body: Callable[[Unit], bytes]
    order: Callable[[Unit], Sequence[int]]


ENCODERS: Mapping[tuple[str, int], Encoder] = {
    ("columns", 1): Encoder(columns.encode, columns.order),
}
_LEVEL = 6


def encoder(unit: Unit) -> Encoder:
    """Return the encoder that the unit was cut with. UploadProblem: this version of the gateway lacks it."""
    name, version = unit.encoding.name, unit.encoding.version
    try:
        return ENCODERS[name, version]
    except KeyError:
        known = ", ".join(f"{n} {v}" for n, v in ENCODERS)
        raise UploadProblem(
            f"upload {unit.upload}: unit {unit.key} was cut with the encoding {name} version {version}, and "
            f"this edge-gateway knows only {known}; install the version that cut it, or a newer one"
        ) from None


def compressed(body: bytes) -> bytes:
    return gzip.compress(body, _LEVEL, mtime=0)
