"""A server that answers with what a real one answered: `python -m tests.peers.replay PORT --capture FILE`.

Answers come from a capture (tests/opcua/capture.py) with the numbers of the live connection. Notifications
and reads of many values carry new values and times: in round n value k is 1000 * n + k, n counting from 1.
Unacknowledged messages are kept and listed, as a server does. A command on its input:

    write ROUNDS INTERVAL_MS    a notification of all items each interval; "done" follows, and what came of it
"""

import argparse
import asyncio
import json
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary

from tests.opcua.capture import HEAD_BYTES, Capture, Frames, request

READ, BROWSE, PUBLISH, REPUBLISH, CREATE_ITEMS = 631, 527, 826, 832, 751
CLOSE_CHANNEL = 452
_HANDLE_AT = 12
"""Of the request handle in an answer: after type and time."""
_HEADER_BYTES = 28
_MOST_BEHIND = 100
"""Messages that wait for a PublishRequest; what comes then is lost, as in a server's queues."""
_KEEP_ALIVE_S = 1.0
_DOUBLE = b"\x0b"
MOST_FRAME = 65_535
MANY = 100
"""Values in an answer that is made anew each time."""
PEERS: "list[Replay]" = []


def say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Values:
    """DataValues of doubles with both times in captured bytes, given new values and times in place."""

    def __init__(self, body: bytes, at: int, count: int, end: int, lead: int) -> None:
        size = (end - at) // count
        assert (end - at) % count == 0, "the values differ in size"
        mask = body[at + lead]
        assert mask & 0x0D == 0x0D, f"no value with both times: {mask:#x}"
        value = at + lead + 2
        self._value_at = value - at
        self._time_at = self._value_at + 8 + (4 if mask & 2 else 0)
        for place in range(count):
            assert body[at + place * size + lead : at + place * size + lead + 2] == bytes([mask]) + _DOUBLE
        self._places = [(at + place * size, place) for place in range(count)]
        self._lead = lead
        self.count = count

    def renew(self, body: bytearray, number: int, filetime: int) -> None:
        value_at, time_at = self._value_at, self._time_at
        base = number * 1000.0
        pack_value, pack_time = struct.Struct("<d").pack_into, struct.Struct("<q").pack_into
        for at, place in self._places:
            pack_value(body, at + value_at, base + place)
            pack_time(body, at + time_at, filetime)

    def name(self, body: bytearray, handles: list[int]) -> None:
        for (at, _), handle in zip(self._places, handles, strict=False):
            struct.pack_into("<I", body, at, handle)


def filetime_ms() -> int:
    """Return now, cut to the milliseconds that node-opcua gives, as FILETIME."""
    return time.time_ns() // 1_000_000 * 10_000 + 116_444_736_000_000_000


class Notification:
    """The largest PublishResponse of a capture, as a form."""

    def __init__(self, captured: bytes) -> None:
        data = Buffer(captured, _HEADER_BYTES)
        self.subscription = int.from_bytes(data.read(4), "little")
        data.skip(4 * max(0, int.from_bytes(data.read(4), "little", signed=True)))
        data.skip(1)
        self._message_at = data.cur_pos
        data.skip(4 + 8)
        assert int.from_bytes(data.read(4), "little") == 1
        nodeid_from_binary(data)
        data.skip(1)
        length = int.from_bytes(data.read(4), "little")
        end = data.cur_pos + length
        count = int.from_bytes(data.read(4), "little")
        # Bytes after the items: the diagnostics, none.
        self._head = captured[:_HEADER_BYTES]
        self._message = bytearray(captured[self._message_at : end])
        at = data.cur_pos - self._message_at
        self.values = Values(self._message, at, count, len(self._message) - 4, 4)

    def name(self, handles: list[int]) -> None:
        self.values.name(self._message, handles)

    def message(self, sequence: int, number: int) -> bytes:
        struct.pack_into("<I", self._message, 0, sequence)
        self.values.renew(self._message, number, filetime_ms())
        return bytes(self._message)

    def answer(self, message: bytes, available: list[int], results: list[int]) -> bytes:
        return b"".join((
            self._head, struct.pack("<Ii", self.subscription, len(available)),
            struct.pack(f"<{len(available)}I", *available), b"\0", message,
            struct.pack("<i", len(results)), struct.pack(f"<{len(results)}I", *results), b"\xff\xff\xff\xff",
        ))  # fmt: skip

    def again(self, message: bytes) -> bytes:
        return struct.pack("<BBH", 1, 0, REPUBLISH + 3) + self._head[4:] + message


class Replay(asyncio.Protocol):
    """One connection."""

    def __init__(self, capture: Capture, *, renewing: bool = True) -> None:
        """`renewing`: notifications and large reads get new values."""
        self._capture = capture
        self._frames = Frames()
        self._sequence = 0
        self._exact: dict[tuple[int, bytes], deque[bytes]] = {}
        for one in capture.exchanges:
            self._exact.setdefault((one.kind, _key(one.kind, one.asked)), deque()).append(one.answer)
        self._by_kind: dict[int, list[bytes]] = {}
        for one in capture.exchanges:
            self._by_kind.setdefault(one.kind, []).append(one.answer)
        published = self._by_kind.get(PUBLISH, []) if renewing else []
        self._form = Notification(max(published, key=len)) if published else None
        self._read = Reads(self._by_kind.get(READ, []) if renewing else [])
        self._waiting: deque[tuple[int, int]] = deque()
        self._behind: deque[bytes] = deque()
        self._kept: dict[int, bytes] = {}
        self._results: list[int] = []
        self._handles: list[int] = []
        self._number = 0
        self._message_number = 1
        self._asked_before = False
        self.counts = {"sent": 0, "lost": 0, "refused acknowledgements": 0, "reads": 0}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        PEERS.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        PEERS.remove(self)

    def data_received(self, data: bytes) -> None:
        for kind, number, body in self._frames.take(data):
            if kind == b"HEL":
                self._transport.write(self._capture.acknowledge)
            elif kind == b"OPN":
                self._transport.write(self._open(body))
            elif kind == b"MSG":
                self._asked(number, body)

    def _open(self, frame: bytes) -> bytes:
        """Return the captured answer with the numbers of this request; the policy's URI comes before them."""
        asked, answer = _after_policy(frame), _after_policy(self._capture.opened)
        body = bytearray(self._capture.opened)
        self._sequence = 1
        struct.pack_into("<II", body, answer, 1, int.from_bytes(frame[asked + 4 : asked + 8], "little"))
        return bytes(body)

    def _asked(self, number: int, body: bytes) -> None:
        kind, handle, parameters = request(body)
        if kind == PUBLISH:
            self._publish(number, handle, body)
        elif kind == REPUBLISH and self._form is not None:
            wanted = int.from_bytes(parameters[4:8], "little")
            self._send(number, handle, self._form.again(self._kept[wanted]))
        elif kind == READ and (answer := self._read.answer(parameters, self._exact)) is not None:
            self.counts["reads"] += 1
            self._send(number, handle, answer)
        elif kind != CLOSE_CHANNEL:
            if kind == CREATE_ITEMS:
                self._take_handles(body)
            answers = self._by_kind[kind]
            same = [
                one for one in answers if kind != CREATE_ITEMS or _results(one) == _results(parameters, 8)
            ]
            exact = self._exact.get((kind, _key(kind, parameters)))
            if exact:
                exact.rotate(-1)  # the same question again: a further page
            self._send(number, handle, exact[-1] if exact else (same or answers)[0])

    def _take_handles(self, body: bytes) -> None:
        asked = struct_from_binary(ua.CreateMonitoredItemsRequest, Buffer(body))
        self._handles += [item.RequestedParameters.ClientHandle for item in asked.Parameters.ItemsToCreate]
        if self._form is not None and len(self._handles) == self._form.values.count:
            self._form.name(self._handles)

    def _publish(self, number: int, handle: int, body: bytes) -> None:
        if not self._asked_before:
            self._asked_before = True
            say(event="subscribed")
        asked = struct_from_binary(ua.PublishRequest, Buffer(body))
        for acknowledged in asked.Parameters.SubscriptionAcknowledgements:
            known = self._kept.pop(acknowledged.SequenceNumber, None) is not None
            self._results.append(0 if known else ua.StatusCodes.BadSequenceNumberUnknown)
            self.counts["refused acknowledgements"] += not known
        self._waiting.append((number, handle))
        self._flush()

    def tick(self) -> None:
        """Make a notification of all items."""
        assert self._form is not None
        self._number += 1
        if len(self._behind) >= _MOST_BEHIND:
            self.counts["lost"] += 1
            return
        self._behind.append(self._form.message(self._message_number, self._number))
        self._message_number += 1
        self._flush()

    def keep_alive(self) -> None:
        """Answer one request with the number that comes next."""
        if self._form is not None and self._waiting and not self._behind:
            self._give(struct.pack("<Iqi", self._message_number, filetime_ms(), 0))

    def _flush(self) -> None:
        while self._waiting and self._behind:
            message = self._behind.popleft()
            self._kept[int.from_bytes(message[:4], "little")] = message
            self._give(message)
            self.counts["sent"] += 1

    def _give(self, message: bytes) -> None:
        number, handle = self._waiting.popleft()
        results, self._results = self._results, []
        assert self._form is not None
        self._send(number, handle, self._form.answer(message, list(self._kept), results))

    def _send(self, number: int, handle: int, answer: bytes) -> None:
        body = bytearray(answer)
        struct.pack_into("<qI", body, 4, filetime_ms(), handle)
        channel = self._capture.opened[8:12]
        token = _token(self._capture.opened)
        room = MOST_FRAME - HEAD_BYTES
        for start in range(0, len(body), room):
            part = body[start : start + room]
            last = start + room >= len(body)
            self._sequence += 1
            head = struct.pack("<3scI", b"MSG", b"F" if last else b"C", HEAD_BYTES + len(part))
            numbers = struct.pack("<III", token, self._sequence, number)
            self._transport.write(b"".join((head, channel, numbers, part)))

    @property
    def report(self) -> dict[str, int]:
        return self.counts | {"behind": len(self._behind), "unacknowledged": len(self._kept)}


class Reads:
    """Answers to reads: the largest gets new values each time."""

    def __init__(self, answers: list[bytes]) -> None:
        largest = max(answers, key=len, default=b"")
        self._number = 0
        self._values: Values | None = None
        count = int.from_bytes(largest[_HEADER_BYTES : _HEADER_BYTES + 4], "little")
        if count >= MANY and largest[_HEADER_BYTES + 5 : _HEADER_BYTES + 6] == _DOUBLE:
            self._body = bytearray(largest)
            self._values = Values(self._body, _HEADER_BYTES + 4, count, len(largest) - 4, 0)
        self._answers = answers

    def answer(self, parameters: bytes, exact: dict[tuple[int, bytes], deque[bytes]]) -> bytes | None:
        count = int.from_bytes(parameters[12:16], "little")
        if self._values is not None and count == self._values.count:
            self._number += 1
            self._values.renew(self._body, self._number, filetime_ms())
            return bytes(self._body)
        found = exact.get((READ, parameters))
        same = (one for one in self._answers if _results(one) == count)
        return found[0] if found is not None else next(same, None)


def _key(kind: int, asked: bytes) -> bytes:
    """Return what tells one request from another; a Browse begins with the time of its view."""
    return asked[10:] if kind == BROWSE else asked


def _results(body: bytes, at: int = _HEADER_BYTES) -> int:
    return int.from_bytes(body[at : at + 4], "little")


def _after_policy(frame: bytes) -> int:
    """Return where the sequence header of an OPN frame begins: behind the policy and two certificates."""
    at = 12
    for _ in range(3):
        at += 4 + max(0, int.from_bytes(frame[at : at + 4], "little", signed=True))
    return at


def _token(frame: bytes) -> int:
    at = _after_policy(frame) + 8
    body = struct_from_binary(ua.OpenSecureChannelResponse, Buffer(frame[at:]))
    return int(body.Parameters.SecurityToken.TokenId)


async def write(rounds: int, interval_s: float) -> None:
    began = time.monotonic()
    for n in range(rounds):
        await asyncio.sleep(max(0.0, began + n * interval_s - time.monotonic()))
        for peer in PEERS:
            peer.tick()
    took_s = time.monotonic() - began
    await asyncio.sleep(0.5)
    say(event="done", took_s=took_s, cpu_s=time.process_time(), peers=[peer.report for peer in PEERS])


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--capture", type=Path, required=True)
    options = parser.parse_args()
    capture = Capture.load(options.capture)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Replay(capture), "127.0.0.1", options.port)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(event="ready", url=f"opc.tcp://127.0.0.1:{options.port}/node")
    async with asyncio.TaskGroup() as group:
        alive = group.create_task(keep_alive())
        while words := (await reader.readline()).decode().split():
            match words:
                case ["write", rounds, interval_ms]:
                    group.create_task(write(int(rounds), float(interval_ms) / 1000))
        alive.cancel()


async def keep_alive() -> None:
    while True:
        await asyncio.sleep(_KEEP_ALIVE_S)
        for peer in PEERS:
            peer.keep_alive()


if __name__ == "__main__":
    asyncio.run(main())
