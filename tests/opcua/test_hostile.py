"""Servers that send what nobody should: endless frames, undecodable values, channels that expire."""

import asyncio
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_to_binary

from gateway.protocols import opcua
from gateway.protocols.opcua import notifications, opening, session
from tests.opcua.recording import RecordingLink, collecting, failure, tags
from tests.opcua.test_security import trust_the_server
from tests.peers.opcua_peer import NODE_OPCUA, PLC, running

Port = Callable[[], int]


async def test_an_endless_frame_is_cut_at_once(tmp_path: Path, free_port: Port) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.read(1000)
        writer.write(struct.pack("<4sI5I", b"ACKF", 28, 0, 65535, 65535, 0, 0))
        await reader.read(1000)
        writer.write(struct.pack("<4sII", b"MSGF", 0xFFFFFFF0, 1))
        try:
            while sent < 2**28:
                writer.write(bytes(2**16))
                sent += 2**16
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        began = time.monotonic()
        problem = await failure(
            RecordingLink("evil", tmp_path), opcua.Settings(url=f"opc.tcp://127.0.0.1:{port}")
        )
        assert time.monotonic() - began < 2
    assert "sent a frame of 4294967280 bytes, where 24 to 65535 were agreed" in str(problem)
    assert sent < 2**25


def message(*values: ua.Variant) -> bytes:
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 7
    response.Parameters.AvailableSequenceNumbers = [3]
    response.Parameters.NotificationMessage.SequenceNumber = 3
    change = ua.DataChangeNotification()
    change.MonitoredItems = [
        ua.MonitoredItemNotification(ClientHandle=place, Value=ua.DataValue(value))
        for place, value in enumerate(values)
    ]
    response.Parameters.NotificationMessage.NotificationData = [change]
    return bytes(struct_to_binary(response))


async def test_what_cannot_be_decoded_costs_the_rest_of_its_notification_and_is_counted() -> None:
    good, marked = ua.Variant(1.0, ua.VariantType.Double), ua.Variant("MARK", ua.VariantType.String)
    whole = message(good, marked, good, good)
    published = await notifications.decode(Buffer(whole))
    assert (published.subscription, published.sequence, published.empty) == (7, 3, False)
    assert [key for columns in published.changes for key in columns.keys] == [0, 1, 2, 3]

    broken = whole.replace(struct.pack("<i", 4) + b"MARK", struct.pack("<i", 2**30) + b"MARK")
    published = await notifications.decode(Buffer(broken))
    assert [key for columns in published.changes for key in columns.keys] == [0]
    assert [(handle, lost) for handle, lost, _ in published.undecoded] == [(1, 3)]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_tag_that_is_never_decoded_leaves_the_others_alone(
    tmp_path: Path, free_port: Port, mode: Any
) -> None:
    nodes = {"Texts": "Line1/Texts"} | {f"Tag{n}": f"Line1/Tag{n}" for n in range(5)}
    async with running(PLC, free_port()) as plc:
        await plc.ask("texts", "Texts", 26_000, answer="added")
        link = RecordingLink("press", tmp_path)
        settings = opcua.Settings(url=plc.url, mode=mode, poll_interval_ms=50, publishing_interval_ms=50)
        async with collecting(link, settings, tags(nodes)):
            await link.until(lambda: link.newest().keys() == nodes.keys() - {"Texts"}, 20)
            await link.until(lambda: any(run.problems for run in link.runs), 20)
        assert "Texts" in next(run for run in link.runs if run.problems).problems[0]
        if mode == "subscribe":
            ((_, _, reason, count),) = link.gaps
            assert count == 1
            assert reason.startswith("a value of Texts (gateway.yaml:10) cannot be decoded (Spent: ")


async def test_a_keep_alive_tells_the_next_number() -> None:
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 7
    response.Parameters.NotificationMessage.SequenceNumber = 9
    published = await notifications.decode(Buffer(struct_to_binary(response)))
    assert published.empty and published.sequence == 9


@pytest.mark.timeout(30)
async def test_the_secure_channel_is_renewed(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_CHANNEL_LIFETIME_MS", 2500)
    async with running(NODE_OPCUA, free_port(), "--security", "secure", "--accept", "yes") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, sampling_interval_ms=0)
        await failure(link, settings)
        trust_the_server(tmp_path)
        listed = tags({f"Tag{n}": f"Line1/Tag{n}" for n in range(5)})
        async with collecting(link, settings, listed):
            await link.until(lambda: len(link.emitted) >= 5)
            await server.ask("write", 100, 50, answer="done")
            await link.until(lambda: set(server.ledger) == link.rows())
        assert len({run.id for run in link.runs}) == 1


async def test_a_channel_without_a_lifetime_is_not_renewed_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Awaited(Exception):
        pass

    async def sleep(seconds: float) -> None:
        raise Awaited(seconds)

    client = Client("opc.tcp://x")
    client.secure_channel_timeout = 0  # as the server revised it
    settings = opcua.Settings(url="opc.tcp://x")
    held = session.Session(client, "mill", settings, None, "")  # type: ignore[arg-type]
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(Awaited) as awaited:
        await held.renew()
    assert awaited.value.args[0] >= 1
