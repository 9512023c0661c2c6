"""Servers that die, hang, forget, refuse; and tags that are wrong."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from asyncua import Client, ua
from asyncua.client.ua_session import UaSession

from gateway.model import Batch, Device
from gateway.protocols import opcua
from gateway.protocols.opcua import collect, opening, reads, selftest, session, subscriptions
from gateway.protocols.opcua.items import item, take
from gateway.protocols.opcua.subscription import Subscription
from gateway.protocols.opcua.values import Reading
from tests.opcua.recording import RecordingLink, collecting, failure, supervised, tags
from tests.peers.opcua_peer import NODE_OPCUA, PLC, Peer, running

Port = Callable[[], int]
FIVE = {f"Tag{n}": f"Line1/Tag{n}" for n in range(5)}


async def sessions(server: Peer) -> int:
    return int((await server.ask("sessions", answer="sessions"))["count"])


@pytest.mark.timeout(30)
async def test_a_server_killed_and_back(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, sampling_interval_ms=0)
        async with supervised(link, settings, tags(FIVE)) as keeper:
            for _ in range(2):
                await link.until(lambda: set(server.ledger) == link.rows())
                await server.ask("write", 5, 20, answer="done")
                await link.until(lambda: set(server.ledger) == link.rows())
                await server.kill()
                await link.until(lambda: keeper.health.state == "failed")
                assert "mill" in keeper.health.detail
                await server.start()
                await link.until(lambda: keeper.health.state == "running")
            await server.ask("write", 5, 20, answer="done")
            await link.until(lambda: set(server.ledger) == link.rows())
            assert await sessions(server) == 1
        assert await sessions(server) == 0


async def test_absent_server_is_named(tmp_path: Path, free_port: Port) -> None:
    link = RecordingLink("mill", tmp_path)
    problem = await failure(link, opcua.Settings(url=f"opc.tcp://127.0.0.1:{free_port()}"))
    assert "nothing listens there" in str(problem)


async def test_a_hanging_server_is_noticed_and_left_at_once(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_PROBE_S", 1.0)
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, request_timeout_s=1)
        task = asyncio.create_task(opcua.run(Device("mill", tags(FIVE)), settings, link))
        await link.until(lambda: len(link.emitted) >= 5)
        server.pause()
        await asyncio.wait([task], timeout=9)
        assert task.done()
        assert "not answered" in str(task.exception()) or "silent" in str(task.exception())
        server.resume()


async def test_leaving_a_hanging_server_takes_two_seconds(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        task = asyncio.create_task(opcua.run(Device("mill"), opcua.Settings(url=server.url), link))
        await link.until(lambda: len(link.emitted) >= 5)
        server.pause()
        await asyncio.sleep(0.2)
        began = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        assert time.monotonic() - began < 2.2
        assert task.cancelled()
        server.resume()


async def test_cancelled_at_any_moment_no_session_is_left(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--max-sessions", "3") as server:
        for attempt in range(25):
            link = RecordingLink("mill", tmp_path)
            settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
            task = asyncio.create_task(opcua.run(Device("mill"), settings, link))
            await asyncio.sleep(0.004 * attempt)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        await asyncio.sleep(0.1)
        assert await sessions(server) == 0


async def test_a_cancellation_that_comes_with_the_connection_is_not_lost() -> None:
    class Connecting:
        async def connect_socket(self) -> None:
            with contextlib.suppress(asyncio.CancelledError):  # as asyncio.wait_for does before Python 3.12
                await asyncio.sleep(5)

        async def send_hello(self) -> None:
            raise AssertionError("it went on")

    task = asyncio.create_task(opening._open_socket(cast(Client, Connecting())))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_all_sessions_taken(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--max-sessions", "1") as server:
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        first = RecordingLink("first", tmp_path)
        async with collecting(first, settings):
            await first.until(lambda: len(first.emitted) >= 5)
            problem = await failure(RecordingLink("second", tmp_path), settings)
        assert "all sessions of the server are taken" in str(problem)


async def test_a_subscription_that_the_server_ends(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        task = asyncio.create_task(opcua.run(Device("mill"), settings, link))
        await link.until(lambda: len(link.emitted) >= 5)
        await server.ask("drop", answer="dropped")
        await asyncio.wait([task], timeout=5)
        assert "subscription" in str(task.exception())
        assert await sessions(server) == 0


async def test_one_bad_tag_of_many_is_named_and_the_others_flow(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port(), "--tags", "50") as plc:
        for mode in ("auto", "poll"):
            link = RecordingLink("press", tmp_path)
            listed = tags({f"Tag{n}": f"ns=2;s=Line1.Tag{n}" for n in range(50)})
            listed |= tags({"ghost": "ns=2;s=Ghost", "lost": "Line1/Lost", "alien": "nsu=urn:no;s=A"})
            settings = opcua.Settings(url=plc.url, mode=mode, publishing_interval_ms=50, poll_interval_ms=50)
            async with collecting(link, settings, listed):
                await link.until(lambda link=link: len(link.emitted) >= 50 and link.reports)
            state, detail = link.report_now
            assert state == "degraded"
            assert detail.startswith("3 of 53 tags are bad: ")
            assert "ghost (gateway.yaml:60): node ns=2;s=Ghost: the server has no such node" in detail
            assert "lost (gateway.yaml:61): node Line1/Lost: the path has no 'Lost'" in detail
            assert (
                "alien (gateway.yaml:62): node nsu=urn:no;s=A: the server has no namespace 'urn:no'" in detail
            )
            assert len(link.newest()) == 50


async def test_a_tag_that_appears_later_is_found(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "_RETRY_S", 0.2)
    async with running(PLC, free_port()) as plc:
        for mode, name in (("auto", "Late1"), ("poll", "Late2")):
            link = RecordingLink("press", tmp_path)
            settings = opcua.Settings(url=plc.url, mode=mode, publishing_interval_ms=50, poll_interval_ms=50)
            listed = tags({"Tag0": "Line1/Tag0", "late": f"Line1/{name}"})
            async with collecting(link, settings, listed):
                await link.until(lambda link=link: link.report_now[0] == "degraded")
                await plc.ask("add", name, answer="added")
                await link.until(lambda link=link: "late" in link.newest())
                await link.until(lambda link=link: link.report_now[0] == "running")


async def test_too_many_variables_are_said_not_cut(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "30") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, max_tags=10, publishing_interval_ms=50, root="Line1")
        async with collecting(link, settings):
            await link.until(lambda: len(link.emitted) >= 10 and link.reports)
        assert link.report_now[0] == "degraded"
        assert link.report_now[1].startswith("10 of 30, list your tags")
        assert len(link.names) == 10


async def test_namespaces_may_be_permuted_by_a_restart(tmp_path: Path, free_port: Port) -> None:
    listed = tags({"speed": "nsu=urn:edge-gateway:plc;s=Line1.Tag1", "level": "Line1/Tag2"})
    port = free_port()
    for before in ((), ("--before", "urn:a", "urn:b")):
        async with running(PLC, port, *before) as plc:
            link = RecordingLink("press", tmp_path)
            async with collecting(link, opcua.Settings(url=plc.url, publishing_interval_ms=50), listed):
                await link.until(lambda link=link: len(link.emitted) >= 2)
            assert {name: sample.value for name, sample in link.newest().items()} == {"speed": 2, "level": 3}


class Swallow:
    """Loses answers to PublishRequests that carry data, as a broken middle box would."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._send = UaSession._send_request

    async def __call__(self, session: Any, request: Any, timeout: Any = None, *rest: Any) -> Any:
        data = await self._send(session, request, timeout, *rest)
        if type(request).__name__ == "PublishRequest" and len(data) > 200 and self.left:
            self.left -= 1
            raise ua.UaStatusCodeError(ua.StatusCodes.BadTimeout)
        return data


async def test_a_lost_message_is_sent_again(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, sampling_interval_ms=0)
        async with collecting(link, settings, tags(FIVE)):
            await link.until(lambda: len(link.emitted) >= 5)
            swallow = Swallow(2)
            monkeypatch.setattr(UaSession, "_send_request", lambda self, *a, **k: swallow(self, *a, **k))
            await server.ask("write", 20, 30, answer="done")
            await link.until(lambda: set(server.ledger) == link.rows())
            assert swallow.left == 0
            counts = (await server.ask("requests", answer="requests"))["counts"]
        assert counts["RepublishRequest"] == 2
        assert not link.gaps
        order = [sample.ts for sample in link.emitted if sample.series == 1]
        assert order == sorted(order)


async def test_a_message_lost_for_good_is_a_gap(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgotten(_self: Subscription, _number: int) -> Any:
        raise ua.UaStatusCodeError(ua.StatusCodes.BadMessageNotAvailable)

    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, sampling_interval_ms=0)
        async with collecting(link, settings, tags(FIVE)):
            await link.until(lambda: len(link.emitted) >= 5)
            swallow = Swallow(1)
            monkeypatch.setattr(UaSession, "_send_request", lambda self, *a, **k: swallow(self, *a, **k))
            monkeypatch.setattr(Subscription, "_again", forgotten)
            await server.ask("write", 20, 30, answer="done")
            await link.until(lambda: server.ledger[-1] in link.rows())
        from_us, to_us, reason, _ = link.gaps[0]
        assert "1 messages of the subscription did not arrive" in reason
        missing = set(server.ledger) - link.rows()
        assert missing and all(from_us <= ts <= to_us for _, ts, _ in missing)


async def test_back_pressure_loses_nothing(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=50, sampling_interval_ms=0, queue_size=200
        )
        async with collecting(link, settings, tags(FIVE)):
            await link.until(lambda: len(link.emitted) >= 5)
            link.full.clear()
            asked = (await server.ask("requests", answer="requests"))["counts"]["PublishRequest"]
            await server.ask("write", 60, 20, answer="done")
            after = (await server.ask("requests", answer="requests"))["counts"]["PublishRequest"]
            assert after - asked <= 2
            link.full.set()
            await link.until(lambda: set(server.ledger) == link.rows())
        assert not link.gaps


async def test_an_overflow_at_the_server_is_a_gap(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=500, sampling_interval_ms=0, queue_size=2
        )
        async with collecting(link, settings, tags(FIVE)):
            await link.until(lambda: len(link.emitted) >= 5)
            await server.ask("write", 20, 20, answer="done")
            await link.until(lambda: bool(link.gaps))
        assert "queue overflowed for Tag0 (gateway.yaml:10), Tag1" in link.gaps[0][2]
        assert "queue_size" in link.gaps[0][2]


async def test_the_public_path_brings_the_same(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert selftest.fast_path_works()
    for module in (subscriptions, reads, selftest):
        monkeypatch.setattr(module, "fast_path_works", lambda: False)
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path, commit_s=0.3)
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=50, sampling_interval_ms=0, queue_size=100
        )
        async with collecting(link, settings, tags(FIVE)):
            await link.until(lambda: len(link.emitted) >= 5)
            await server.ask("write", 30, 20, answer="done")
            await link.until(lambda: set(server.ledger) == link.rows())
            await server.ask("write", 1, 500, answer="done")
            asked = await server.ask("requests", answer="requests")
        for number, at_ms in asked["acks"]:
            assert at_ms >= link.commit_walls[number - 1] * 1000 - 2
        assert await sessions(server) == 0


async def test_a_poll_on_request_while_subscribed(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        # Published so slowly that only the poll can have brought it.
        settings = opcua.Settings(url=server.url, publishing_interval_ms=60_000, sampling_interval_ms=0)
        async with collecting(link, settings, tags(FIVE)):
            await link.until(lambda: len(link.emitted) == 5)
            await server.ask("write", 1, 10, answer="done")
            link.polls.asked.put_nowait(77)
            await link.until(lambda: any(run.id == 77 and run.ended for run in link.runs))
            assert len(link.emitted) == 10
            link.polls.asked.put_nowait(78)
            await link.until(lambda: any(run.id == 78 and run.ended for run in link.runs))
            # Nothing changed at the server: nothing is kept again.
            assert len(link.emitted) == 10
        (run,) = [run for run in link.runs if run.id == 77]
        assert (run.kind, run.samples) == ("poll", 5)


@pytest.mark.parametrize("mode", ["auto", "poll"])
async def test_deadband_in_the_unit_of_the_tag(tmp_path: Path, free_port: Port, mode: Any) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "1") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(
            url=server.url,
            mode=mode,
            publishing_interval_ms=50,
            sampling_interval_ms=0,
            poll_interval_ms=20,
        )
        # Each round adds 1000 raw, 10 in the unit; a deadband of 25 keeps every third.
        listed = tags({"Tag0": "Line1/Tag0"}, scale=0.01, deadband=25.0, unit="bar")
        async with collecting(link, settings, listed):
            await link.until(lambda: len(link.emitted) >= 1)
            await server.ask("write", 9, 100, answer="done")
            await link.until(lambda: len(link.emitted) >= 4)
        assert [sample.value for sample in link.emitted] == [0.0, 30.0, 60.0, 90.0]
        assert link.units == {"Tag0": "bar"}


def test_a_subscribed_tag_that_becomes_polled_keeps_its_deadband(tmp_path: Path) -> None:
    tag = opcua.TagSettings(node="Line1/Tag0", deadband=25.0)
    link = RecordingLink("mill", tmp_path)
    made = item("Tag0", tag.node, tag, opcua.Settings(url="opc.tcp://x"), link, {})  # type: ignore[arg-type]
    made.filtered = True  # the server applies it
    made.poll("it sends no value")
    batch = Batch()
    for ts, value in enumerate((0.0, 10.0, 30.0), 1):
        take(made, Reading(value, ts, 0, 0), link, batch)  # type: ignore[arg-type]
    assert [sample.value for sample in batch] == [0.0, 30.0]


@pytest.mark.parametrize("mode", ["auto", "poll"])
async def test_all_tags_bad_is_said(tmp_path: Path, free_port: Port, mode: Any) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, mode=mode, publishing_interval_ms=50)
        async with collecting(link, settings, tags({"ghost": "Line1/Ghost"})):
            await link.until(lambda: bool(link.reports))
        assert link.report_now[0] == "degraded"
        assert "1 of 1 tags are bad: ghost (gateway.yaml:10): node Line1/Ghost" in link.report_now[1]


async def test_a_node_that_goes_away_and_comes_back(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, sampling_interval_ms=0)
        async with collecting(link, settings, tags(FIVE)):
            await link.until(lambda: len(link.emitted) >= 5)
            server.say("bad", "Tag0", "BadNodeIdUnknown")
            await link.until(lambda: link.report_now[0] == "degraded")
            assert (
                "Tag0 (gateway.yaml:10): node Line1/Tag0: the server has no such node" in link.report_now[1]
            )
            await server.ask("write", 1, 10, answer="done")
            await link.until(lambda: link.report_now[0] == "running")


@pytest.mark.timeout(40)
async def test_a_subscribed_tag_that_is_refused_is_not_subscribed_without_end(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "_RETRY_S", 0.2)
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, sampling_interval_ms=0)

        async def counts() -> dict[str, int]:
            return cast(dict[str, int], (await server.ask("requests", answer="requests"))["counts"])

        async with collecting(link, settings, tags(FIVE | {"lost": "ns=1;s=Lost"})):
            await link.until(lambda: len(link.emitted) >= 5)
            server.say("bad", "Tag0", "BadUserAccessDenied")
            await link.until(lambda: "2 of 6 tags are bad" in link.report_now[1])
            tried = (await counts())["CreateMonitoredItemsRequest"]
            while (await counts())["CreateMonitoredItemsRequest"] < tried + 8:
                await asyncio.sleep(0.1)
            items = await server.ask("items", answer="items")
            assert items["count"] == 5
            assert items["greatest"] <= 5
            await server.ask("write", 1, 10, answer="done")
            await link.until(lambda: "1 of 6 tags are bad" in link.report_now[1])
            await link.until(lambda: set(server.ledger) <= link.rows())
        written = [sample for sample in link.emitted if (sample.series, sample.value) == (1, 1000.0)]
        assert len(written) == 1


@pytest.mark.timeout(40)
@pytest.mark.parametrize("spec", ["Line1/Tag0", "ns=1;s=Line1.Tag0"])
async def test_a_node_that_is_deleted_and_made_anew(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    """node-opcua never tells of it by the monitored item of before."""
    monkeypatch.setattr(collect, "_RETRY_S", 0.2)
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, sampling_interval_ms=0)
        async with collecting(link, settings, tags(FIVE | {"Tag0": spec})):
            await link.until(lambda: len(link.emitted) >= 5)
            await server.ask("remove", "Tag0", answer="removed")
            await link.until(lambda: "1 of 5 tags are bad" in link.report_now[1])
            await asyncio.sleep(0.5)
            await server.ask("add", "Tag0", answer="added")
            await link.until(lambda: link.report_now[0] == "running")
            await server.ask("write", 1, 10, answer="done")
            await link.until(lambda: server.ledger[-5:] and set(server.ledger[-5:]) <= link.rows())
            assert (await server.ask("items", answer="items"))["count"] == 5
