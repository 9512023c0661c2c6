"""PublishResponses and messages sent again, step by step: one bad value costs no more than it must."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import Primitives, nodeid_from_binary, struct_from_binary, unpack_uatype_array

from gateway.protocols.opcua import datavalues
from gateway.protocols.opcua.bounded import AT_ONCE, BROKEN, Bounded, why
from gateway.protocols.opcua.columns import Columns
from gateway.protocols.opcua.events import Event, decode_events
from gateway.protocols.opcua.values import plain, reading

_DATA_CHANGE = ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary
_STATUS_CHANGE = ua.ObjectIds.StatusChangeNotification_Encoding_DefaultBinary
_EVENTS = ua.ObjectIds.EventNotificationList_Encoding_DefaultBinary
_LEAST_ITEM = 5
"""Bytes of the smallest value in a notification: its handle and an empty mask."""
# Part 4, 7.33: time, handle, result; no diagnostics, no strings, no additional header.
_PLAIN_HEADER = struct.Struct("<12xIBi3s")


@dataclass(slots=True)
class Published:
    """One answer to a PublishRequest, or one message sent again."""

    subscription: int
    sequence: int
    available: Sequence[int] = ()
    """Sequence numbers that the server can still send again."""
    changes: list[Columns] = field(default_factory=list)
    """Client handles and values, in the order sent, at most a thousand at a time."""
    events: list[Event] = field(default_factory=list)
    """Client handles and the fields of events, in the order sent."""
    ended: int | None = None
    """The StatusCode with which the server ended the subscription."""
    empty: bool = True
    """A keep-alive: `sequence` is the number that comes next."""
    undecoded: list[tuple[int, int, str]] = field(default_factory=list)
    """Client handle of a value that could not be decoded, how many values were lost with it, and why."""


async def decode(answer: Buffer) -> Published:
    """Decode a PublishResponse; ServiceFaults were raised before. UaError: it is none."""
    try:
        data = body(answer)
        subscription = Primitives.UInt32.unpack(data)
        available = unpack_uatype_array(ua.VariantType.UInt32, data) or ()
        Primitives.Boolean.unpack(data)  # MoreNotifications: there is always another request under way
        published = Published(subscription, Primitives.UInt32.unpack(data), available)
        await _message(data, published)
    except BROKEN as error:
        raise _nonsense("PublishResponse", error) from error
    return published


async def decode_again(answer: Buffer, subscription: int) -> Published:
    """Decode a RepublishResponse. UaError: it is none."""
    try:
        data = body(answer)
        published = Published(subscription, Primitives.UInt32.unpack(data))
        await _message(data, published)
    except BROKEN as error:
        raise _nonsense("RepublishResponse", error) from error
    return published


def converted(subscription: int, message: ua.NotificationMessage, available: Sequence[int] = ()) -> Published:
    """Return a message that asyncua decoded in our terms."""
    published = Published(subscription, message.SequenceNumber, available)
    for notification in message.NotificationData or ():
        published.empty = False
        if isinstance(notification, ua.DataChangeNotification):
            columns = Columns()
            for item in notification.MonitoredItems:
                columns.add(item.ClientHandle, reading(item.Value))
            published.changes.append(columns)
        elif isinstance(notification, ua.EventNotificationList):
            for event in notification.Events:
                values = [plain(each.Value) for each in event.EventFields]
                published.events.append((event.ClientHandle, values))
        elif isinstance(notification, ua.StatusChangeNotification):
            published.ended = notification.Status.value
    return published


def body(answer: Buffer) -> Bounded:
    """Return what follows type and header of an answer. UaStatusCodeError: the service failed."""
    data = answer.again(AT_ONCE) if isinstance(answer, Bounded) else Bounded(answer._data, answer._cur_pos)
    nodeid_from_binary(data)
    raw, at, end = data.rest()
    if end - at >= _PLAIN_HEADER.size:
        result, diagnostics, strings, additional = _PLAIN_HEADER.unpack_from(raw, at)
        if not (result or diagnostics or strings > 0) and additional == b"\0\0\0":
            data.skip(_PLAIN_HEADER.size)
            return data
    struct_from_binary(ua.ResponseHeader, data).ServiceResult.check()
    return data


async def _message(data: Bounded, published: Published) -> None:
    Primitives.Int64.unpack(data)  # PublishTime
    for _ in range(Primitives.Int32.unpack(data)):
        kind = nodeid_from_binary(data)
        if not ord(data.read(1)) & 1:
            continue
        length = Primitives.Int32.unpack(data)
        inner = data.copy(length)
        data.skip(length)
        published.empty = False
        if kind.Identifier == _DATA_CHANGE:
            await _changes(inner, published)
        elif kind.Identifier == _EVENTS:
            events, broken = decode_events(*inner.rest())
            published.events += events
            if broken is not None:
                published.undecoded.append(broken)
        elif kind.Identifier == _STATUS_CHANGE:
            published.ended = Primitives.UInt32.unpack(inner)


async def _changes(data: Bounded, published: Published) -> None:
    count = max(0, Primitives.Int32.unpack(data))  # -1: no array
    raw, at, end = data.rest()
    if count * _LEAST_ITEM > end - at:
        raise ValueError(f"{count} values in {end - at} bytes")
    decoded = await datavalues.decode(raw, at, end, count, keyed=True)
    published.changes += decoded.slices
    published.undecoded += decoded.broken


def _nonsense(kind: str, error: Exception) -> ua.UaError:
    if isinstance(error, ua.UaStatusCodeError):
        return error
    return ua.UaError(f"the server sent a {kind} that cannot be decoded: {why(error)}")
