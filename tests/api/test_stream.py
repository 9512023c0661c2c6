"""The WebSocket: the state first, then the changes; nobody waits for a slow reader."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api import sockets
from gateway.api.app import build_app
from gateway.api.keys import STREAMS
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.stream import QUEUE_BYTES
from gateway.api.tokens import Role
from gateway.intake import DeviceSession
from gateway.model import Batch
from tests.api.plant import Plant, plant


async def emit(device: DeviceSession, tag: str, value: Any, ts: int | None = None) -> None:
    batch = Batch()
    batch.add(device.tag(tag, unit="rpm"), time.time_ns() // 1000 if ts is None else ts, value)
    await device.emit(batch)


async def next_of(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = await socket.receive_json(timeout=5)
        if message["type"] == kind:
            return message


async def test_the_state_then_the_changes(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    box = gateway.devices["box"]
    await emit(box, "speed", 1.5, 1000)
    await gateway.store.flush()
    async with admin.ws_connect("/v1/stream") as socket:
        state = await socket.receive_json(timeout=5)
        assert (state["type"], state["id"], state["skipped"]) == ("state", "plant", 0)
        shown = {device["id"]: device for device in state["devices"]}
        assert shown["box"]["state"] == "running"
        assert shown["box"]["tags"] == [
            {"tag": "speed", "ts": 1000, "value": 1.5, "status": 0, "unit": "rpm"}
        ]
        await emit(box, "speed", float("nan"), 2000)
        assert await next_of(socket, "samples") == {
            "type": "samples",
            "device": "box",
            "committed": False,
            "samples": [{"tag": "speed", "ts": 2000, "type": "float", "value": "NaN", "status": 0}],
        }


async def test_what_is_not_committed_yet_is_in_the_state(tmp_path: Path) -> None:
    """A value that came before the client and is not in the store yet must not stay unseen."""
    settings = HttpSettings(listen="127.0.0.1:0", tls="off")
    async with plant(tmp_path, commit_interval_s=30) as gateway:
        app = build_app(gateway, settings)
        async with (
            serve(app, settings, gateway.state) as (host, port),
            aiohttp.ClientSession(f"http://{host}:{port}", headers=gateway.bearer(Role.READ)) as client,
        ):
            await emit(gateway.devices["box"], "door", True)
            assert gateway.store.last(gateway.devices["box"].tags["door"]) is None
            async with client.ws_connect("/v1/stream?devices=box") as socket:
                [device] = (await socket.receive_json(timeout=5))["devices"]
                assert device["tags"][0]["value"] is True


async def test_a_late_sample_does_not_hide_the_newest(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    box = gateway.devices["box"]
    for ts, value in ((5000, "new"), (1000, "late"), (2**60, "from a device with a mad clock")):
        await emit(box, "text", value, ts)
    async with admin.ws_connect("/v1/stream?devices=box") as socket:
        [device] = (await socket.receive_json(timeout=5))["devices"]
    assert device["tags"][0]["value"] == "new"


async def test_a_flood_becomes_one_state(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    box = gateway.devices["box"]
    async with admin.ws_connect("/v1/stream?devices=box") as socket:
        await socket.receive_json(timeout=5)
        batch = Batch()
        for n in range(6000):
            batch.add(box.tag("flood"), n, n)
        await box.emit(batch)
        state = await next_of(socket, "state")
    assert state["skipped"] == 6000
    assert state["devices"][0]["tags"][0]["value"] == 5999


async def test_many_floods_are_one_state_a_second(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    """A state holds every tag: one for each of many bulk pushes would leave time for nothing else."""
    box, began, states, skipped = gateway.devices["box"], time.monotonic(), 0, 0
    async with admin.ws_connect("/v1/stream?devices=box") as socket:
        await socket.receive_json(timeout=5)
        for first in range(0, 10 * 5001, 5001):
            batch = Batch()
            for n in range(first, first + 5001):
                batch.add(box.tag("flood"), n, n)
            await box.emit(batch)
            await asyncio.sleep(0.05)  # more than is gathered for one message
        while skipped < 10 * 5001:
            state = await next_of(socket, "state")
            states, skipped = states + 1, skipped + state["skipped"]
    assert state["devices"][0]["tags"][0]["value"] == 10 * 5001 - 1
    assert states <= 1 + (time.monotonic() - began)


async def test_filters_by_query_and_by_message(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    box, counter = gateway.devices["box"], gateway.devices["counter"]
    async with admin.ws_connect("/v1/stream?devices=box&tags=a") as socket:
        assert [device["id"] for device in (await socket.receive_json())["devices"]] == ["box"]
        for device, tag in ((counter, "a"), (box, "b"), (box, "a")):
            await emit(device, tag, 1)
        message = await next_of(socket, "samples")
        assert (message["device"], [row["tag"] for row in message["samples"]]) == ("box", ["a"])
        await socket.send_json({"devices": ["counter"]})
        assert [device["id"] for device in (await next_of(socket, "state"))["devices"]] == ["counter"]
        for device, tag in ((box, "a"), (counter, "x")):
            await emit(device, tag, 1)
        message = await next_of(socket, "samples")
        assert (message["device"], [row["tag"] for row in message["samples"]]) == ("counter", ["x"])


async def test_each_client_gets_what_it_wants(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    queries = {"": ["a", "b"], "?tags=a": ["a"], "?tags=b": ["b"], "?tags=a,b": ["a", "b"]}
    sockets = {query: await admin.ws_connect(f"/v1/stream{query}") for query in queries}
    for socket in sockets.values():
        await socket.receive_json()
    batch = Batch()
    for tag in ("a", "b"):
        batch.add(gateway.devices["box"].tag(tag), 1, 1)
    await gateway.devices["box"].emit(batch)
    for query, socket in sockets.items():
        message = await next_of(socket, "samples")
        assert [row["tag"] for row in message["samples"]] == queries[query], query
        await socket.close()


async def test_a_change_of_a_device_is_told(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    async with admin.ws_connect("/v1/stream") as socket:
        await socket.receive_json()
        gateway.devices["box"].report("degraded", "1 of 2 tags")
        message = await next_of(socket, "devices")
    shown = {device["id"]: (device["state"], device["detail"]) for device in message["devices"]}
    assert shown["box"] == ("degraded", "1 of 2 tags")


async def test_login_by_first_message(gateway: Plant, anybody: aiohttp.ClientSession) -> None:
    async with anybody.ws_connect("/v1/stream") as socket:
        await socket.send_json({"token": gateway.texts[Role.READ], "devices": ["box"]})
        assert [device["id"] for device in (await socket.receive_json())["devices"]] == ["box"]


async def test_another_unit_is_told_before_the_first_value_in_it(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    """A reload may change it under clients who are connected for a month."""
    box, told = gateway.devices["box"], []
    async with admin.ws_connect("/v1/stream?tags=pressure") as socket:
        await socket.receive_json(timeout=5)
        for unit in ("bar", "bar", "kPa"):
            batch = Batch()
            for tag in ("pressure", "not wanted"):
                batch.add(box.tag(tag, unit=unit), time.time_ns() // 1000, 1)
            await box.emit(batch)
            while not told or told[-1]["type"] != "samples":
                told.append(await socket.receive_json(timeout=5))
            told.append({"type": "end of the batch"})
    of_unit = [message["tags"] if message["type"] == "tags" else message["type"] for message in told]
    assert of_unit == [
        *([{"tag": "pressure", "unit": "bar"}], "samples", "end of the batch"),
        *("samples", "end of the batch"),
        *([{"tag": "pressure", "unit": "kPa"}], "samples", "end of the batch"),
    ]


@pytest.mark.parametrize("first", ['{"token": "egw_wrong"}', "{}", "[]", "{", "", '{"token": 1}', b"\x00"])
async def test_a_wrong_first_message_is_closed(anybody: aiohttp.ClientSession, first: str | bytes) -> None:
    async with anybody.ws_connect("/v1/stream") as socket:
        await (socket.send_bytes(first) if isinstance(first, bytes) else socket.send_str(first))
        message = await socket.receive(timeout=3)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code in (sockets.LOGIN_FAILED, sockets.BAD_MESSAGE)
        assert message.extra  # says why


async def test_no_first_message_is_closed_in_time(
    anybody: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "LOGIN_S", 0.3)
    async with anybody.ws_connect("/v1/stream") as socket:
        message = await socket.receive(timeout=3)
        assert (socket.close_code, message.type) == (sockets.LOGIN_FAILED, aiohttp.WSMsgType.CLOSE)


@pytest.mark.parametrize("text", ["{", "[]", '{"devices": "box"}', '{"tags": [1]}', '{"x": []}'])
async def test_a_wrong_later_message_is_closed(admin: aiohttp.ClientSession, text: str) -> None:
    async with admin.ws_connect("/v1/stream") as socket:
        await socket.receive_json()
        await socket.send_str(text)
        message = await socket.receive(timeout=3)
        while message.type is aiohttp.WSMsgType.TEXT:
            message = await socket.receive(timeout=3)
        assert socket.close_code == sockets.BAD_MESSAGE


@pytest.mark.alone
@pytest.mark.timeout(60)
async def test_from_receipt_to_socket_p99_is_below_100_ms(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    """Twenty clients, 1000 samples/s in, while windows of 5000 samples are read; best of three.

    Server, clients and reader share this one event loop, and the machine may be busy with others.
    """
    measured = []
    for _ in range(3):
        delays = await _delays(gateway.devices["box"], admin)
        measured.append(delays[int(len(delays) * 0.99)] * 1000)
        if measured[-1] <= 100:
            return
    pytest.fail(f"p99 of three runs: {measured} ms")


async def _delays(box: DeviceSession, client: aiohttp.ClientSession) -> list[float]:
    """Return the sorted seconds from emit to receipt, of 200 samples at twenty clients."""
    seen: list[float] = []

    async def listen(socket: aiohttp.ClientWebSocketResponse) -> None:
        count = 0
        while count < 200:
            message = json.loads((await socket.receive(timeout=10)).data)
            if message["type"] == "samples":
                now = time.monotonic()
                seen.extend(now - row["value"] for row in message["samples"])
                count += len(message["samples"])

    async def load() -> None:
        while True:
            async with client.get("/v1/devices/box/samples?limit=5000") as answer:
                await answer.read()
            await asyncio.sleep(0.1)

    sockets = [await client.ws_connect("/v1/stream?tags=sent") for _ in range(20)]
    loading = asyncio.create_task(load())
    listening = [asyncio.create_task(listen(socket)) for socket in sockets]
    for _ in range(200):
        batch = Batch()
        for n in range(10):
            batch.add(box.tag(f"t{n}"), time.time_ns() // 1000, n)
        batch.add(box.tag("sent"), time.time_ns() // 1000, time.monotonic())
        await box.emit(batch)
        await asyncio.sleep(0.01)
    await asyncio.wait_for(asyncio.gather(*listening), 10)
    loading.cancel()
    for socket in sockets:
        await socket.close()
    return sorted(seen)


@pytest.mark.timeout(30)
async def test_a_client_that_does_not_read_holds_up_nobody(gateway: Plant, settings: HttpSettings) -> None:
    box = gateway.devices["box"]
    app = build_app(gateway, settings)
    async with serve(app, settings, gateway.state) as (host, port):
        reader, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(_handshake(gateway))
        await reader.readuntil(b"\r\n\r\n")
        headers = gateway.bearer(Role.READ)
        async with (
            aiohttp.ClientSession(f"http://{host}:{port}", headers=headers) as client,
            client.ws_connect("/v1/stream?tags=number", max_msg_size=0) as good,
        ):
            await good.receive_json()
            slowest = 0.0
            for n in range(200):
                batch = Batch()
                batch.add(box.tag("ballast"), n, "x" * 100_000)
                batch.add(box.tag("number"), n, n)
                began = time.monotonic()
                await box.emit(batch)
                while True:
                    message = await next_of(good, "samples")
                    if message["samples"][-1]["value"] == n:
                        break
                slowest = max(slowest, time.monotonic() - began)
            held = [client.bytes for client in app[STREAMS]._clients]
            assert len(held) == 2
            assert max(held) <= QUEUE_BYTES
            assert slowest < 0.5
            # Now it reads: what was dropped is said, and the newest value is there.
            text = await _drain(reader, b'"skipped":')
            assert b'"number"' in text
        writer.close()


async def test_a_client_that_never_reads_is_cut_off(
    gateway: Plant, settings: HttpSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "WRITE_S", 0.3)
    box, app = gateway.devices["box"], build_app(gateway, settings)
    async with serve(app, settings, gateway.state) as (host, port):
        reader, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(_handshake(gateway))
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(8):
            while not app[STREAMS].clients:
                await asyncio.sleep(0.01)
            n = 0
            while app[STREAMS].clients:
                n += 1
                await emit(box, "ballast", "x" * 500_000, n)
                await asyncio.sleep(0.03)
        writer.close()


def _handshake(gateway: Plant) -> bytes:
    return (
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Authorization: Bearer " + gateway.texts[Role.READ].encode() + b"\r\n\r\n"
    )


async def _drain(reader: asyncio.StreamReader, until: bytes) -> bytes:
    """Read on until a state tells of skipped samples; return what followed."""
    text = b""
    async with asyncio.timeout(10):
        while True:
            text = (text + await reader.read(65_536))[-400_000:]
            at = text.rfind(until)
            if at >= 0 and text[at + len(until) : at + len(until) + 1] in b"123456789":
                return text + await reader.read(65_536)


async def test_stopping_closes_streams_with_1001_within_two_seconds(
    gateway: Plant, settings: HttpSettings
) -> None:
    async with aiohttp.ClientSession(headers=gateway.bearer(Role.READ)) as client:
        async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
            sockets = [await client.ws_connect(f"http://{host}:{port}/v1/stream") for _ in range(3)]
            for socket in sockets:
                await socket.receive_json()

            async def close_code(socket: aiohttp.ClientWebSocketResponse) -> int | None:
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
                return socket.close_code

            closing = asyncio.gather(*map(close_code, sockets))
            began = time.monotonic()
        assert time.monotonic() - began < 2
        assert await closing == [1001, 1001, 1001]
