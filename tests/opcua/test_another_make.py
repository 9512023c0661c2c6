"""Against node-opcua: a server that shares no line of code with our client."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.protocols import opcua
from gateway.protocols.opcua import opening
from gateway.protocols.opcua.learning import learn
from gateway.protocols.opcua.session import Session
from tests.opcua.recording import RecordingLink, collecting, tags
from tests.peers.opcua_peer import NODE_OPCUA, running

Port = Callable[[], int]
TWO_HUNDRED = {f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(200)}


@pytest.mark.timeout(30)
async def test_subscription_exact_and_acknowledged_after_commit_without_delay(
    tmp_path: Path, free_port: Port
) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "200") as server:
        link = RecordingLink("mill", tmp_path, commit_s=1.0)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=100, sampling_interval_ms=0)
        async with collecting(link, settings, tags(TWO_HUNDRED)):
            await link.until(lambda: len(link.emitted) >= 200)
            await server.ask("write", 60, 33, answer="done")
            await link.until(lambda: len(link.committed) >= len(server.ledger))
            # A few more publishes, that carry the last acknowledgements.
            await server.ask("write", 3, 300, answer="done")
            await link.until(lambda: len(link.committed) >= len(server.ledger))
            asked = await server.ask("requests", answer="requests")
        assert link.rows() == set(server.ledger)
        assert len(link.committed) == len(server.ledger) == 200 * 64
        _acknowledged_after_commit(link, asked["acks"])
        # 100 ms publishing against a 1 s commit: batches come every 100 ms, not every second.
        times = [at for at, _ in link.batches]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert sorted(pauses)[len(pauses) // 2] < 0.2
        assert not link.gaps


def _acknowledged_after_commit(link: RecordingLink, acks: list[list[int]]) -> None:
    assert len(acks) >= 15
    numbers = [number for number, _ in acks]
    assert len(set(numbers)) == len(numbers)
    committed_ms = [at * 1000 for at in link.commit_walls]
    for number, at_ms in acks:
        # The n-th message became the n-th batch.
        assert at_ms >= committed_ms[number - 1] - 2, f"message {number} was acknowledged before its commit"


async def test_polling_exact(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "200") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, mode="poll", poll_interval_ms=50)
        async with collecting(link, settings, tags(TWO_HUNDRED)):
            await link.until(lambda: len(link.emitted) >= 200)
            await server.ask("write", 8, 250, answer="done")
            await link.until(lambda: len(link.committed) >= len(server.ledger))
        assert link.rows() == set(server.ledger)
        assert len(link.committed) == len(server.ledger)


EXPECTED: dict[str, Any] = {
    "Boolean": True,
    "SByte": -128,
    "Byte": 255,
    "Int16": -32768,
    "UInt16": 65535,
    "Int32": -(2**31),
    "UInt32": 2**32 - 1,
    "Int64": -(2**63),
    "UInt64": 2**64 - 1,
    "Float": 1.5,
    "Double": -0.1,
    "String": "Größe\0\U0001f527",
    "DateTime": "2001-02-03T04:05:06.789000Z",
    "Guid": "72962b91-fa75-4ae6-8d28-b404dc7daf63",
    "ByteString": b"\0\1\xff",
    "XmlElement": "<a>1</a>",
    "NodeId": "ns=1;s=Line1",
    "StatusCode": 0x80340000,
    "QualifiedName": "1:Q",
    "LocalizedText": "Wärme",
    "Array": [1, 2, 3],
    "Matrix": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    "Infinity": math.inf,
}


@pytest.mark.seed_row("L6")
async def test_every_type(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--types", "yes") as server:
        for mode in ("subscribe", "poll"):
            link = RecordingLink("mill", tmp_path)
            settings = opcua.Settings(
                url=server.url, root="Types", mode=mode, publishing_interval_ms=50, poll_interval_ms=50
            )
            async with collecting(link, settings):
                await link.until(lambda link=link: len(link.emitted) >= len(EXPECTED) + 3)
            got = {name: sample.value for name, sample in link.newest().items()}
            assert {name: got[name] for name in EXPECTED} == EXPECTED
            assert {name: type(got[name]) for name in EXPECTED} == {n: type(v) for n, v in EXPECTED.items()}
            assert math.isnan(got["NaN"])
            assert math.copysign(1, got["NegativeZero"]) == -1
            assert got["Range"] == '{"Low":1.0,"High":2.0}'


async def test_bad_status_is_a_sample(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        for mode in ("subscribe", "poll"):
            link = RecordingLink("mill", tmp_path)
            settings = opcua.Settings(
                url=server.url, mode=mode, publishing_interval_ms=50, poll_interval_ms=50
            )
            async with collecting(link, settings, tags({"Tag0": "Line1/Tag0"})):
                await link.until(lambda link=link: len(link.emitted) >= 1)
                server.say("bad", "Tag0", "BadSensorFailure")
                await link.until(lambda link=link: len(link.emitted) >= 2)
                await server.ask("write", 1, 10, answer="done")
                await link.until(lambda link=link: len(link.emitted) >= 3)
            assert [(s.value is None, s.status) for s in link.emitted][1:3] == [
                (True, 0x808C0000),
                (False, 0),
            ]


@pytest.mark.seed_row("L1")
async def test_a_server_without_subscriptions_is_polled(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--refuse", "subscriptions") as server:
        link = RecordingLink("mill", tmp_path)
        async with collecting(link, opcua.Settings(url=server.url, poll_interval_ms=50)):
            await link.until(lambda: len(link.emitted) >= 5)
            await server.ask("write", 5, 200, answer="done")
            await link.until(lambda: len(link.committed) >= len(server.ledger))
            assert (await server.ask("sessions", answer="sessions"))["count"] == 1
        written = {(f"Line1/{tag}", ts, value) for tag, ts, value in server.ledger}
        assert written <= link.rows()
        assert link.report_now[0] == "running"
        assert "tags are read cyclically, not subscribed" in link.report_now[1]


@pytest.mark.seed_row("L1")
async def test_what_cannot_be_subscribed_is_polled(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "30", "--max-subscribed", "20") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=50, sampling_interval_ms=0, poll_interval_ms=50
        )
        async with collecting(link, settings, tags({f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(30)})):
            await link.until(lambda: len(link.emitted) >= 30)
            await server.ask("write", 5, 200, answer="done")
            await link.until(lambda: len(link.committed) >= len(server.ledger))
            assert (await server.ask("sessions", answer="sessions"))["count"] == 1
        assert link.rows() == set(server.ledger)
        assert {run.kind for run in link.runs} == {"subscription", "cycle"}
        assert "10 of 30 tags are read cyclically, not subscribed" in link.report_now[1]


async def test_the_limits_of_the_server_are_kept(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "100", "--per-call", "7") as server:
        for mode in ("subscribe", "poll"):
            link = RecordingLink("mill", tmp_path)
            settings = opcua.Settings(
                url=server.url, mode=mode, publishing_interval_ms=50, poll_interval_ms=100
            )
            async with collecting(link, settings):
                await link.until(lambda link=link: len(link.emitted) >= 100)
            assert link.report_now[0] == "running"


async def test_limits_that_the_server_does_not_tell(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def untold(live: Session) -> None:
        await learn(live)
        live.limits = dict.fromkeys(live.limits, 500)

    monkeypatch.setattr(opening, "learn", untold)
    async with running(NODE_OPCUA, free_port(), "--tags", "60", "--per-call", "9") as server:
        for mode in ("subscribe", "poll"):
            link = RecordingLink("mill", tmp_path)
            settings = opcua.Settings(
                url=server.url, mode=mode, publishing_interval_ms=50, poll_interval_ms=100
            )
            async with collecting(link, settings):
                await link.until(lambda link=link: len(link.emitted) >= 60)
            listed = RecordingLink("mill", tmp_path)
            async with collecting(listed, settings, tags({f"Tag{n}": f"Line1/Tag{n}" for n in range(60)})):
                await listed.until(lambda link=listed: len(link.emitted) >= 60)
            assert listed.report_now[0] == "running"
