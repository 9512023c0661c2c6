"""Requests with flipped, lost and added bytes, from a seed: never a 5xx, never a traceback in the log."""

import asyncio
import logging
import random
from collections import Counter

import pytest

from gateway.api.tokens import Role
from tests.api.plant import Plant

PUSH = b'[{"tag":"a","ts":1763690000000000,"value":1.5},{"tag":"b","value":"NaN","type":"float"}]'
HOST = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
UPGRADE = (
    b"/v1/stream?devices=box HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def seeds(token: bytes) -> list[bytes]:
    bearer = b"Authorization: Bearer " + token + b"\r\n"
    json = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    window = b"/v1/devices/box/samples?from=1&to=2026-01-01T00:00:00Z&tags=a&limit=5&format=csv"
    return [
        b"GET " + window + HOST + bearer + b"\r\n",
        b"POST /v1/devices/box/samples" + HOST + bearer + json % len(PUSH) + PUSH,
        b"POST /v1/session" + HOST + json % 15 + b'{"token":"abc"}',
        b"GET " + UPGRADE + bearer + b'\r\n\x81\x8a\x00\x00\x00\x00{"tags":[]',
        b"GET /v1/runs?cursor=5" + HOST + b"Cookie: edge_gateway_session=x\r\nAccept: text/csv;q=1\r\n\r\n",
    ]


def mutated(seed: bytes, chance: random.Random) -> bytes:
    made = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at, way = chance.randrange(len(made)), chance.random()
        if way < 0.5:
            made[at] = chance.randrange(256)
        elif way < 0.7:
            del made[at : at + chance.randrange(1, 9)]
        else:
            made[at:at] = chance.randbytes(chance.randrange(1, 6))
    return bytes(made)


async def status(url: str, sent: bytes) -> str:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(2000), 0.3)
    except (TimeoutError, ConnectionError):
        return "none"  # it waits for more, as it should
    finally:
        writer.transport.abort()
    return answer[9:12].decode("latin-1") or "none"


@pytest.mark.timeout(60)
async def test_mutated_requests(url: str, gateway: Plant, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    originals = seeds(gateway.texts[Role.ADMIN].encode())
    assert [await status(url, seed) for seed in originals] == ["404", "200", "401", "101", "401"]
    # What this once found: a handshake that is not ASCII.
    for part in (b"Key: ", b"Version: ", b"Upgrade: "):
        assert await status(url, originals[3].replace(part, part + b"\xff\xfe")) == "400"
    seen: Counter[str] = Counter()
    for _ in range(60):
        batch = [mutated(chance.choice(originals), chance) for _ in range(8)]
        for sent, code in zip(
            batch, await asyncio.gather(*(status(url, sent) for sent in batch)), strict=True
        ):
            assert not code.startswith("5"), (code, sent)
            seen[code] += 1
    assert {"200", "400", "401", "404", "422"} <= set(seen), seen
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
