"""A server gone mad: `python -m tests.peers.hostile PORT --capture FILE [--seed N] [--only NAME]`.

The handshake is sound. Then each request is answered with what a real server answered to one of its kind,
changed: lengths, types and whole values put in, bits turned, parts cut out or doubled, headers of frames
broken. `--only` answers each PublishRequest with one value of HOSTILE, or with `each` of them in turn.
"""

import argparse
import asyncio
import itertools
import logging
import random
import struct
import sys
from pathlib import Path

from tests.opcua.capture import HEAD_BYTES, Capture, request
from tests.peers.replay import BROWSE, CLOSE_CHANNEL, MOST_FRAME, READ, Replay, say

_LENGTHS = (-(2**31), -1000, -8, -5, -4, -2, -1, 0, 1, 5, 1000, 65_536, 10_000_000, 2**29, 2**30, 2**31 - 1)
_ENCODINGS = bytes.fromhex("0080818B8C949596979899C6CB1718193F40")
"""Of Variants: scalars, arrays and matrices that are hard to decode, and types that are none."""
_COUNT_AT, _RESULTS_AT = {READ: 12, BROWSE: 18}, 28
"""Where requests and answers of these kinds hold the number of nodes."""
HOSTILE = {
    "nulls": b"\x80" + struct.pack("<i", 2**31 - 1),
    "nested nulls": b"\x98" + struct.pack("<i", 1) + b"\x80" + struct.pack("<i", 2**31 - 1),
    "texts that go back": b"\x8c" + struct.pack("<ii", 2**31 - 1, -4),
    "names that go back": b"\x94" + struct.pack("<iHi", 2**31 - 1, 0, -6),
    "data values that go back": b"\x97" + struct.pack("<iBBi", 2**31 - 1, 1, 12, -6),
    "a large matrix": b"\xc6" + struct.pack("<iiii", 1, 0, 1, 1_000_000),
    "many dimensions": b"\xc6" + struct.pack("<iii", 1, 0, 5000) + struct.pack("<i", 1) * 5000,
    "variants in variants": b"\x18" * 2000,
    "small variants": b"\x98" + struct.pack("<i", 60_000) + bytes(60_000),
    "small texts": b"\x8c" + struct.pack("<i", 15_000) + struct.pack("<i", 0) * 15_000,
    "diagnostics": b"\x99" + struct.pack("<i", 60_000) + bytes(60_000),
}  # fmt: skip


def published(value: bytes) -> bytes:
    """Return a PublishResponse with one value of any kind."""
    item = struct.pack("<IB", 0, 1) + value
    change = struct.pack("<i", 1) + item + struct.pack("<i", -1)
    return b"".join((
        struct.pack("<BBH", 1, 0, 829), bytes(16), b"\0", struct.pack("<i", -1), b"\0\0\0",
        struct.pack("<Ii?IqiBBHBi", 1, 0, False, 1, 0, 1, 1, 0, 811, 1, len(change)), change,
        struct.pack("<ii", -1, -1),
    ))  # fmt: skip


class Hostile(Replay):
    """One connection."""

    def __init__(self, capture: Capture, seed: int, only: str | None) -> None:
        super().__init__(capture, renewing=False)
        self._random = random.Random(seed)
        self._only = itertools.cycle(HOSTILE if only == "each" else [only]) if only else None
        self._all = [answer for answers in self._by_kind.values() for answer in answers]

    def _asked(self, number: int, body: bytes) -> None:
        kind, handle, parameters = request(body)
        if kind == CLOSE_CHANNEL:
            return
        if self._only is not None:
            self._send(number, handle, published(HOSTILE[next(self._only)]))
            return
        answer = bytearray(self._random.choice(self._by_kind.get(kind, self._all)))
        if kind in _COUNT_AT and len(answer) > _RESULTS_AT + 4:
            # As many results as were asked for: else nobody would look at them.
            at = _COUNT_AT[kind]
            answer[_RESULTS_AT : _RESULTS_AT + 4] = parameters[at : at + 4]
        for _ in range(self._random.randint(1, 3)):
            self._change(answer)
        if self._random.random() < 0.99:
            self._send(number, handle, bytes(answer))
        else:
            self._broken_frame(number, bytes(answer[: MOST_FRAME - HEAD_BYTES]))

    def _change(self, body: bytearray) -> None:
        any_of, at = self._random, self._random.randrange(4, len(body))
        match any_of.randrange(8):
            case 0 | 1:
                body[at : at + 4] = struct.pack("<i", any_of.choice(_LENGTHS))
            case 2:
                body[at] = any_of.choice(_ENCODINGS)
            case 3:
                body[at] ^= 1 << any_of.randrange(8)
            case 4:
                body[at : at + any_of.randrange(1, 40)] = b""
            case 5:
                body[at:at] = body[at : at + any_of.randrange(1, 200)]
            case 6:
                body[at : at + 1] = any_of.choice(list(HOSTILE.values()))
            case 7:
                # Of a value: whole arrays of a type that is decoded by asyncua.
                size = any_of.randrange(1, 30_000)
                body[at : at + 1] = bytes([any_of.choice(_ENCODINGS)]) + struct.pack("<i", size) + bytes(size)
        body.extend(bytes(max(0, 40 - len(body))))
        del body[200_000:]

    def _broken_frame(self, number: int, body: bytes) -> None:
        self._sequence += 1
        head = bytearray(struct.pack("<3scI", b"MSG", b"F", HEAD_BYTES + len(body)))
        head += self._capture.opened[8:12] + struct.pack("<III", 1, self._sequence, number)
        at = self._random.randrange(len(head))
        match self._random.randrange(3):
            case 0:
                head[at] = self._random.randrange(256)
            case 1:
                head[3:4] = self._random.choice((b"C", b"A", b"X"))
            case 2:
                size = self._random.choice((0, 7, 23, 65_536, 2**31, 2**32 - 16))
                struct.pack_into("<I", head, 4, size)
        self._transport.write(bytes(head) + body)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--capture", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["each", *HOSTILE])
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # asyncio tells of each connection that is cut
    capture, seeds = Capture.load(options.capture), iter(range(options.seed << 32, 2**63))
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Hostile(capture, next(seeds), options.only), "127.0.0.1", options.port)
    say(event="ready", url=f"opc.tcp://127.0.0.1:{options.port}/node")
    await loop.run_in_executor(None, sys.stdin.read)  # whoever started it is gone


if __name__ == "__main__":
    asyncio.run(main())
