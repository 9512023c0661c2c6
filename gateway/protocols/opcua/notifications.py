"""PublishResponses decoded step by step with asyncua's decoders: one bad value costs no more than it must."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import Primitives, nodeid_from_binary, struct_from_binary, unpack_uatype_array

_DATA_CHANGE = ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary
_STATUS_CHANGE = ua.ObjectIds.StatusChangeNotification_Encoding_DefaultBinary
_BROKEN = (ua.UaError, struct.error, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(slots=True)
class Published:
    """One answer to a PublishRequest, or one message sent again."""

    subscription: int
    sequence: int
    available: Sequence[int] = ()
    """Sequence numbers that the server can still send again."""
    changes: list[tuple[int, ua.DataValue]] = field(default_factory=list)
    """Client handle and value, in the order sent."""
    ended: int | None = None
    """The StatusCode with which the server ended the subscription."""
    empty: bool = True
    """A keep-alive: `sequence` is the number that comes next."""
    undecoded: list[tuple[int, int, str]] = field(default_factory=list)
    """Client handle of a value that could not be decoded, how many values were lost with it, and why."""


def decode(data: Buffer) -> Published:
    """Decode a PublishResponse; ServiceFaults were raised before."""
    nodeid_from_binary(data)
    header = struct_from_binary(ua.ResponseHeader, data)
    header.ServiceResult.check()
    subscription = Primitives.UInt32.unpack(data)
    available = unpack_uatype_array(ua.VariantType.UInt32, data) or ()
    Primitives.Boolean.unpack(data)  # MoreNotifications: there is always another request under way
    published = Published(subscription, Primitives.UInt32.unpack(data), available)
    Primitives.Int64.unpack(data)  # PublishTime
    for _ in range(Primitives.Int32.unpack(data)):
        kind = nodeid_from_binary(data)
        if not ord(data.read(1)) & 1:
            continue
        length = Primitives.Int32.unpack(data)
        body = data.copy(length)
        data.skip(length)
        published.empty = False
        if kind.Identifier == _DATA_CHANGE:
            _changes(body, published)
        elif kind.Identifier == _STATUS_CHANGE:
            published.ended = Primitives.UInt32.unpack(body)
    return published


def converted(subscription: int, message: ua.NotificationMessage, available: Sequence[int] = ()) -> Published:
    """Return a message that asyncua decoded (of its own publish loop, or sent again) in our terms."""
    published = Published(subscription, message.SequenceNumber, available)
    for notification in message.NotificationData or ():
        published.empty = False
        if isinstance(notification, ua.DataChangeNotification):
            published.changes.extend((item.ClientHandle, item.Value) for item in notification.MonitoredItems)
        elif isinstance(notification, ua.StatusChangeNotification):
            published.ended = notification.Status.value
    return published


def _changes(body: Buffer, published: Published) -> None:
    count = Primitives.Int32.unpack(body)
    for place in range(count):
        handle = Primitives.UInt32.unpack(body)
        try:
            published.changes.append((handle, struct_from_binary(ua.DataValue, body)))
        except _BROKEN as error:
            # Where the broken value ends is not known: the rest of this notification goes with it.
            published.undecoded.append((handle, count - place, f"{type(error).__name__}: {error}"))
            return
