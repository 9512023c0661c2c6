"""Requests that are sent again and again, encoded without asyncua; only where the frame guard is."""

import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

_READ, _PUBLISH = 631, 826
"""ReadRequest and PublishRequest in their binary encoding (Part 6, A.3)."""
_SERVICE_FAULT = struct.pack("<BBH", 1, 0, 397)
_FOUR_BYTES = b"\1\0"
"""A NodeId of namespace 0 in four bytes (Part 6, 5.2.2.9)."""
# Part 4, 7.32: time, handle, no diagnostics, no audit entry, time-out in ms, no additional header.
_HEADER = struct.Struct("<qIIiI3x")
_ACKNOWLEDGEMENT = struct.Struct("<II")


class Encoded(NamedTuple):
    """A request whose parameters were encoded before."""

    kind: int
    parameters: bytes

    def with_header(self, token: bytes, handle: int, timeout_s: float) -> bytes:
        """Return the request; `token`: the session's authentication token, encoded."""
        filetime = time.time_ns() // 100 + 116_444_736_000_000_000
        header = _HEADER.pack(filetime, handle, 0, -1, int(timeout_s * 1000))
        return b"".join((struct.pack("<BBH", 1, 0, self.kind), token, header, self.parameters))


def read_request(parameters: bytes) -> Encoded:
    """Return a ReadRequest with parameters that asyncua encoded."""
    return Encoded(_READ, parameters)


def publish_request(acknowledgements: Sequence[tuple[int, int]]) -> Encoded:
    """Return a PublishRequest that acknowledges (subscription, sequence number)s."""
    packed = b"".join(_ACKNOWLEDGEMENT.pack(*one) for one in acknowledgements)
    return Encoded(_PUBLISH, struct.pack("<i", len(acknowledgements)) + packed)


def may_be_fault(answer: bytes) -> bool:
    """Say whether an answer may be a ServiceFault; a closer look tells."""
    return answer[:2] != _FOUR_BYTES or answer[:4] == _SERVICE_FAULT
