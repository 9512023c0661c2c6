"""Stands between the socket and asyncua: what a server says of sizes is held against what was agreed.

The limits are those of the Hello and the Acknowledge (Part 6, 7.1.2). A frame that breaks one cuts the
connection at once, with a sentence. A server that sends more than can be worked on gets its turns, and the
others theirs.
"""

import asyncio
import struct
import time
from typing import Any

from asyncua import Client, ua
from asyncua.client.ua_client import UaClient, UASocketProtocol
from asyncua.common.connection import MessageChunk, SecureConnection, TransportLimits
from asyncua.common.utils import Buffer
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.ua.ua_binary import (
    header_from_binary,
    nodeid_from_binary,
    nodeid_to_binary,
    struct_from_binary,
    uatcp_to_binary,
)

from gateway.protocols.opcua.bounded import BROKEN, Bounded, bound_decoders, understood, why
from gateway.protocols.opcua.encoded import Encoded, may_be_fault

_MOST_FRAME = 65_535
"""Our receive buffer, as the Hello says it."""
_MOST_MESSAGE = 16 * 1024 * 1024
_MOST_CHUNKS = 4096
_LEAST_BUFFER = 1024
"""A server may not take smaller frames; it is 8192 but for the smallest devices (Part 6, 7.1.2.4)."""
_SERVICE_FAULT = ua.FourByteNodeId(ua.ObjectIds.ServiceFault_Encoding_DefaultBinary)
_TURN_S = 0.01
_HEADER = struct.Struct("<3scI")
_LEAST_FRAME = {b"ACK": 28, b"ERR": 16, b"OPN": 32, b"MSG": 24}
"""What a server may send, and how short it can be (Part 6, 6.7.2 and 7.1.2)."""
_PLAIN = struct.Struct("<IIII")
"""Channel, token, sequence number and request id of a MSG without security (Part 6, 6.7.2)."""
_PLAIN_BYTES = _HEADER.size + _PLAIN.size
_LAST_SEQUENCE = 2**32 - 1
_CHUNKED = b"MSG"
_FINAL, _CHUNK_TYPES = b"F", (b"F", b"C", b"A")


class BadFrame(ua.UaError):  # type: ignore[misc]
    """The server sent what no server may send; the connection is cut."""


def guard(client: Client) -> None:
    """Put the guard into a client, before its socket is opened."""
    bound_decoders()
    client.max_messagesize = _MOST_MESSAGE
    client.max_chunkcount = _MOST_CHUNKS
    inner: UaClient = client.uaclient
    make = inner._make_protocol

    def guarded() -> object:
        plain = make()
        protocol = GuardedProtocol(plain.timeout, inner.security_policy)
        for hook in ("pre_request_hook", "on_connection_lost", "is_session_closing"):
            setattr(protocol, hook, getattr(plain, hook))
        inner.protocol = protocol
        return protocol

    inner._make_protocol = guarded


class _Connection(SecureConnection):  # type: ignore[misc]
    """Sends no request that is larger than the server takes: refused here, it can be halved."""

    _sequence_number: int
    _peer_sequence_number: int | None
    most_request = most_chunks = 0

    def message_to_binary(
        self, message: bytes, message_type: ua.MessageType = ua.MessageType.SecureMessage, request_id: int = 0
    ) -> bytes:
        if message_type == ua.MessageType.SecureMessage and self._exceeds(len(message)):
            raise ua.UaStatusCodeError(ua.StatusCodes.BadRequestTooLarge)
        if not self._plain(message_type) or len(message) + _PLAIN_BYTES > self._limits.max_send_buffer:
            return super().message_to_binary(message, message_type, request_id)  # type: ignore[no-any-return]
        self._sequence_number = number = self._sequence_number % _LAST_SEQUENCE + 1
        token = self.security_token
        head = _HEADER.pack(message_type, _FINAL, _PLAIN_BYTES + len(message))
        return head + _PLAIN.pack(token.ChannelId, token.TokenId, number, request_id) + message

    def plain_answer(self, frame: bytes) -> int | None:
        """Return the request id where a frame is a whole message without security, as expected next.

        All else is asyncua's to judge (Part 6, 6.7.2).
        """
        if not self._plain(frame[:3]) or frame[3:4] != _FINAL or self._incoming_parts:
            return None
        channel, token, number, request_id = _PLAIN.unpack_from(frame, _HEADER.size)
        expected = self.security_token.ChannelId, self.security_token.TokenId, self._peer_sequence_number
        if (channel, token, number - 1) != expected:
            return None
        self._peer_sequence_number = number
        return int(request_id)

    def _plain(self, message_type: bytes) -> bool:
        return (
            message_type == ua.MessageType.SecureMessage and type(self.security_policy) is SecurityPolicyNone
        )

    def _exceeds(self, size: int) -> bool:
        if 0 < self.most_request < size:
            return True
        cryptography = self.security_policy.symmetric_cryptography
        chunk = MessageChunk.max_body_size(cryptography, self._limits.max_send_buffer)
        return bool(0 < self.most_chunks < -(-size // chunk))


class GuardedProtocol(UASocketProtocol):  # type: ignore[misc]
    """asyncua's protocol with a reception of its own."""

    def __init__(self, timeout: float, security_policy: Any) -> None:
        super().__init__(timeout, security_policy)
        self._limits = TransportLimits(_MOST_FRAME, _MOST_FRAME, _MOST_CHUNKS, _MOST_MESSAGE)
        self._connection = _Connection(security_policy, self._limits)
        self._open_secure_channel_exchange: Any = None
        self._waiting = bytearray()
        self._resting = False
        self._token: tuple[Any, bytes] = (None, b"")

    async def send_hello(self, url: str, max_messagesize: int = 0, max_chunkcount: int = 0) -> ua.Acknowledge:
        """Say what is held against the server later; asyncua's own Hello takes frames of any size."""
        hello = ua.Hello()
        hello.ReceiveBufferSize = hello.SendBufferSize = _MOST_FRAME
        hello.MaxMessageSize, hello.MaxChunkCount = max_messagesize, max_chunkcount
        hello.EndpointUrl = url
        acknowledged: asyncio.Future[ua.Acknowledge] = asyncio.get_running_loop().create_future()
        self._callbackmap[0] = acknowledged
        if self.transport is None:
            raise ConnectionError("Connection is not open")
        self.transport.write(uatcp_to_binary(ua.MessageType.Hello, hello))
        async with asyncio.timeout(self.timeout):
            return await acknowledged

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        if not self._resting:
            self._work()

    def _work(self) -> None:
        """Take the frames that are complete, for one turn."""
        until = time.perf_counter() + _TURN_S
        at = 0
        try:
            while frame := self._frame(at):
                at += len(frame)
                self._take(frame)
                if time.perf_counter() > until:
                    self._rest()
                    break
        except ua.UaError as error:
            self._cut(error)
        except BROKEN as error:
            self._cut(BadFrame(f"the server sent a frame that cannot be decoded: {why(error)}"))
        del self._waiting[:at]

    def _rest(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._resting = True
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        if self.transport is None or self.transport.is_closing():
            return
        self._work()
        if not self._resting and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _frame(self, at: int) -> bytes | None:
        """Return the frame that begins there, None while it is not complete. BadFrame: it never will be."""
        waiting = self._waiting
        if len(waiting) - at < _HEADER.size:
            return None
        kind, chunk, size = _HEADER.unpack_from(waiting, at)
        least = _LEAST_FRAME.get(kind)
        if least is None:
            raise BadFrame(f"the server sent {bytes(waiting[at : at + 8])!r}, which begins no OPC UA message")
        if chunk not in _CHUNK_TYPES or (kind != _CHUNKED and chunk != _FINAL):
            raise BadFrame(f"the server sent a {kind.decode()} frame of the unknown chunk type {chunk!r}")
        if not least <= size <= _MOST_FRAME:
            raise BadFrame(
                f"the server sent a frame of {size} bytes, where {least} to {_MOST_FRAME} were agreed"
            )
        return bytes(waiting[at : at + size]) if len(waiting) - at >= size else None

    def _take(self, frame: bytes) -> None:
        request_id = self._connection.plain_answer(frame)
        if request_id is not None:
            self._answer(request_id, Bounded(frame, _PLAIN_BYTES))
            return
        buffer = Bounded(frame)
        header = header_from_binary(buffer)
        message = self._connection.receive_from_header_and_body(header, buffer)
        if isinstance(message, ua.Acknowledge):
            self._agree(message)
            self._answer(0, message)
        elif isinstance(message, ua.ErrorMessage):
            raise ua.UaStatusCodeError(message.Error.value)
        elif message is not None:
            body = Bounded(message.body()._data)
            if header.MessageType == ua.MessageType.SecureOpen:
                self._open(body.copy())
            self._answer(message.request_id(), body)

    def _agree(self, acknowledge: ua.Acknowledge) -> None:
        """Take the server's limits for what we send, and keep ours for what it sends."""
        takes = acknowledge.ReceiveBufferSize
        if takes < _LEAST_BUFFER:
            raise BadFrame(f"the server says that it takes frames of {takes} bytes, which is too little")
        self._connection.most_request = acknowledge.MaxMessageSize
        self._connection.most_chunks = acknowledge.MaxChunkCount
        # asyncua has overwritten all of them.
        self._limits.max_send_buffer = min(takes, _MOST_FRAME)
        self._limits.max_recv_buffer = _MOST_FRAME
        self._limits.max_message_size = _MOST_MESSAGE
        self._limits.max_chunk_count = _MOST_CHUNKS

    def _open(self, body: Buffer) -> None:
        asked: Any = self._open_secure_channel_exchange
        if not isinstance(asked, ua.OpenSecureChannelParameters):
            raise BadFrame("the server opened a secure channel that nobody asked for")
        try:
            self.check_answer(body, " in response to OpenSecureChannelRequest")
            response = struct_from_binary(ua.OpenSecureChannelResponse, body)
        except ua.UaStatusCodeError:
            raise
        except BROKEN as error:
            raise BadFrame(f"the server opened the secure channel with nonsense: {why(error)}") from error
        response.ResponseHeader.ServiceResult.check()
        self._open_secure_channel_exchange = response
        self._connection.set_channel(response.Parameters, asked.RequestType, asked.ClientNonce)

    def _answer(self, request_id: int, body: Any) -> None:
        if request_id not in self._callbackmap:
            raise BadFrame(f"the server answered the request {request_id}, which is not open")
        self._call_callback(request_id, body)

    def _cut(self, error: ua.UaError) -> None:
        self._waiting.clear()
        self._fail_all_pending(error)
        if self.transport is not None:
            self.transport.abort()

    async def send_request(
        self,
        request: Any,
        timeout: float | None = None,
        message_type: ua.MessageType = ua.MessageType.SecureMessage,
    ) -> Buffer:
        if not isinstance(request, Encoded):
            return await super().send_request(request, timeout, message_type)
        limit_s = self.timeout if timeout is None else timeout
        async with asyncio.timeout(limit_s or None):
            answer = await self._send_encoded(request, limit_s)
        if may_be_fault(answer.start(4)):
            self.check_answer(answer, " in response to a request that was encoded before")
        return answer

    def check_answer(self, data: Buffer, context: str) -> bool:
        """Raise what a ServiceFault tells; asyncua would log it besides."""
        with understood("an answer"):
            copy = data.copy()
            if nodeid_from_binary(copy) == _SERVICE_FAULT:
                struct_from_binary(ua.ResponseHeader, copy).ServiceResult.check()
                raise BadFrame(f"the server sent a ServiceFault without a fault{context}")
        return True

    def _send_encoded(self, request: Encoded, timeout_s: float) -> "asyncio.Future[Any]":
        if self.transport is None:
            raise ConnectionError("Connection is not open")
        self._request_handle += 1
        if self._token[0] is not self.authentication_token:
            self._token = self.authentication_token, nodeid_to_binary(self.authentication_token)
        self.revolve_security_token()
        body = request.with_header(self._token[1], self._request_handle, timeout_s)
        message = self._connection.message_to_binary(body, request_id=self._request_id + 1)
        self._request_id += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._callbackmap[self._request_id] = answer
        self.transport.write(message)
        return answer
