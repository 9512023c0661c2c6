"""Whether asyncua is still the one that the fast path was made for: asked once, before the first session."""

import functools
import importlib
import inspect
import logging
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncua
from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary, uatcp_to_binary, variant_from_binary

from gateway.protocols.opcua.bounded import BROKEN, Bounded, Spent, bound_decoders, why
from gateway.protocols.opcua.datavalues import decode_at_once
from gateway.protocols.opcua.values import reading

_log = logging.getLogger(__name__)

_MOMENT = datetime(2026, 11, 21, 12, 0, 0, 123_456, tzinfo=UTC)
_VALUES: dict[str, Any] = {
    "Boolean": True, "SByte": -1, "Byte": 255, "Int16": -2, "UInt16": 65_535, "Int32": -3,
    "UInt32": 2**32 - 1, "Int64": -(2**63), "UInt64": 2**64 - 1, "Float": 0.5, "Double": -0.1,
    "String": "Größe", "DateTime": _MOMENT, "Guid": UUID(int=7), "ByteString": b"\0\xff",
    "NodeId": ua.NodeId("a", 2), "StatusCode": ua.StatusCode(0x80340000),
    "QualifiedName": ua.QualifiedName("q", 1), "LocalizedText": ua.LocalizedText("Wärme", "de"),
}  # fmt: skip


@functools.cache
def fast_path_works() -> bool:
    """Say whether our own decoding, frame guard and publish loop may be used; if not, that is logged once."""
    try:
        for check in (_names, _bounds, _limits, _decoding):
            check()
    except (ImportError, *BROKEN) as error:
        _log.warning(
            "asyncua %s is not the one that the fast path was made for (%s): values are decoded by asyncua "
            "itself, which takes more CPU, and a broken server may hold up the others",
            getattr(asyncua, "__version__", "?"), why(error),
        )  # fmt: skip
        return False
    return True


def guard(client: Client) -> None:
    """Put the frame guard into a client, before its socket is opened, where the fast path works."""
    if fast_path_works():
        importlib.import_module("gateway.protocols.opcua.frames").guard(client)


def _names() -> None:
    """Look at the private names that frames.py and subscription.py stand on."""
    inner = importlib.import_module("asyncua.client.ua_client")
    session = importlib.import_module("asyncua.client.ua_session").UaSession
    connection = importlib.import_module("asyncua.common.connection").SecureConnection
    protocol = inner.UASocketProtocol
    expected: tuple[tuple[Callable[..., Any], list[str]], ...] = (
        (session._send_request, ["self", "request", "timeout"]),
        (inner.UaClient._make_protocol, ["self"]),
        (protocol._send_request, ["self", "request", "timeout", "message_type"]),
        (protocol._setup_request_header, ["self", "hdr", "timeout"]),
        (protocol._call_callback, ["self", "request_id", "body"]),
        (protocol._fail_all_pending, ["self", "exc"]),
        (protocol.check_answer, ["self", "data", "context"]),
        (connection.receive_from_header_and_body, ["self", "header", "body"]),
        (connection.message_to_binary, ["self", "message", "message_type", "request_id"]),
        (connection.set_channel, ["self", "params", "request_type", "client_nonce"]),
    )
    for name, parameters in expected:
        found = list(inspect.signature(name).parameters)
        if found[: len(parameters)] != parameters:
            raise ValueError(f"{name.__qualname__} takes {', '.join(found)}")
    if not inspect.iscoroutinefunction(session._send_request):
        raise ValueError("UaSession._send_request does not wait")


def _bounds() -> None:
    """See an array that takes no bytes come to an end."""
    bound_decoders()
    try:
        variant_from_binary(Bounded(b"\x80" + struct.pack("<i", 100_000), left=[1000]))
    except Spent:
        return
    raise ValueError("an array without bytes is not counted")


def _limits() -> None:
    """See our own limits kept when the server tells its."""
    frames = importlib.import_module("gateway.protocols.opcua.frames")
    client = Client("opc.tcp://self-test")
    frames.guard(client)
    protocol = client.uaclient._make_protocol()
    protocol._callbackmap[0] = _Nobody()
    acknowledge = ua.Acknowledge(
        ReceiveBufferSize=8192, SendBufferSize=8192, MaxMessageSize=0, MaxChunkCount=0
    )
    protocol.data_received(uatcp_to_binary(ua.MessageType.Acknowledge, acknowledge))
    limits = protocol._connection._limits
    if limits.max_send_buffer != 8192 or not limits.max_message_size or not limits.max_chunk_count:
        raise ValueError("the limits of a connection are not where they were")


class _Nobody:
    """Waits for the Acknowledge."""

    def set_result(self, _: object) -> None:
        pass


def _decoding() -> None:
    """See values decoded as asyncua decodes them."""
    encoded = [struct_to_binary(value) for value in _samples()]
    data = b"".join(encoded)
    ours = decode_at_once(data, 0, len(data), len(encoded), keyed=False)
    theirs = [reading(struct_from_binary(ua.DataValue, Bounded(one))) for one in encoded]
    if ours.broken or [found for part in ours.slices for _, found in part] != theirs:
        raise ValueError("values are not decoded as asyncua decodes them")


def _samples() -> Iterator[ua.DataValue]:
    for name, value in _VALUES.items():
        kind = ua.VariantType[name]
        yield ua.DataValue(ua.Variant(value, kind), SourceTimestamp=_MOMENT, ServerTimestamp=_MOMENT)
        yield ua.DataValue(ua.Variant([value, value], kind), StatusCode=ua.StatusCode(0x40000000))
        yield ua.DataValue(ua.Variant(value, kind), ServerTimestamp=_MOMENT)
    yield ua.DataValue(StatusCode=ua.StatusCode(0x80310000), SourceTimestamp=_MOMENT)
