"""Requests that are sent again and again, encoded without asyncua; only where the frame guard is."""

import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from asyncua import ua
from asyncua.ua.ua_binary import nodeid_to_binary

_READ, _BROWSE, _PUBLISH = 631, 527, 826
"""ReadRequest, BrowseRequest and PublishRequest in their binary encoding (Part 6, A.3)."""
_SERVICE_FAULT = struct.pack("<BBH", 1, 0, 397)
_FOUR_BYTES = b"\1\0"
"""A NodeId of namespace 0 in four bytes (Part 6, 5.2.2.9)."""
# Part 4, 7.32: time, handle, no diagnostics, no audit entry, time-out in ms, no additional header.
_HEADER = struct.Struct("<qIIiI3x")
_ACKNOWLEDGEMENT = struct.Struct("<II")
_READ_HEAD = struct.Struct("<dIi")
"""MaxAge, both timestamps, number of nodes (Part 4, 5.10.2)."""
_BOTH = 2
_READ_TAIL = struct.Struct("<IiHi")
"""Of a ReadValueId: attribute, no range, no encoding."""
_BROWSE_HEAD = struct.Struct("<2xqIIi")
"""No view, its time and version, most references, number of nodes (Part 4, 5.8.2)."""
_FORWARD, _HIERARCHICAL, _OBJECTS_AND_VARIABLES = 0, 33, 3
_NAME_AND_CLASS = 12
_BROWSE_TAIL = struct.pack("<i3BII", _FORWARD, 0, _HIERARCHICAL, 1, _OBJECTS_AND_VARIABLES, _NAME_AND_CLASS)
"""Of a BrowseDescription: which references, subtypes included, of which nodes, and what is told of them."""


class Encoded(NamedTuple):
    """A request whose parameters were encoded before."""

    kind: int
    parameters: bytes

    def with_header(self, token: bytes, handle: int, timeout_s: float) -> bytes:
        """Return the request; `token`: the session's authentication token, encoded."""
        filetime = time.time_ns() // 100 + 116_444_736_000_000_000
        header = _HEADER.pack(filetime, handle, 0, -1, int(timeout_s * 1000))
        return b"".join((struct.pack("<BBH", 1, 0, self.kind), token, header, self.parameters))


class PublishRequest(Encoded):
    """A request that waits at the server until there is something to tell."""


def read_request(nodes: Sequence[ua.NodeId], attribute: int) -> Encoded:
    """Return a ReadRequest for an attribute of nodes, with both timestamps."""
    tail = _READ_TAIL.pack(attribute, -1, 0, -1)
    asked = b"".join(nodeid_to_binary(node) + tail for node in nodes)
    return Encoded(_READ, _READ_HEAD.pack(0.0, _BOTH, len(nodes)) + asked)


def browse_request(nodes: Sequence[ua.NodeId], most: int) -> Encoded:
    """Return a BrowseRequest for the objects and variables below nodes, at most so many for each."""
    asked = b"".join(nodeid_to_binary(node) + _BROWSE_TAIL for node in nodes)
    return Encoded(_BROWSE, _BROWSE_HEAD.pack(0, 0, most, len(nodes)) + asked)


def publish_request(acknowledgements: Sequence[tuple[int, int]]) -> PublishRequest:
    """Return a PublishRequest that acknowledges (subscription, sequence number)s."""
    packed = b"".join(_ACKNOWLEDGEMENT.pack(*one) for one in acknowledgements)
    return PublishRequest(_PUBLISH, struct.pack("<i", len(acknowledgements)) + packed)


def may_be_fault(answer: bytes) -> bool:
    """Say whether an answer may be a ServiceFault; a closer look tells."""
    return answer[:2] != _FOUR_BYTES or answer[:4] == _SERVICE_FAULT
