"""Servers with hard limits: everything arrives all the same, and what is done about it is told per tag."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.controls.devices import TagStates
from gateway.protocols import opcua
from gateway.protocols.opcua import opening, subscription
from gateway.protocols.opcua.profiles import profile_of
from tests.opcua.plant import plant
from tests.opcua.recording import RecordingLink, collecting, supervised, tags
from tests.peers.opcua_peer import NODE_OPCUA, running

Port = Callable[[], int]
RATE_S = float(os.environ.get("OPCUA_RATE_S", "3"))
"""60 for the Show."""


def ways(link: RecordingLink) -> Counter[str]:
    (states,) = [control for control in link.controls if isinstance(control, TagStates)]
    return Counter(state.way for state in states.tag_states().values())


def some(count: int) -> dict[str, str]:
    return {f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(count)}


SMALL = ("--tags", "2500", "--per-call", "100", "--max-sessions", "2", "--publish-queue", "1")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("limit", "expected", "made"),
    [
        (("--max-subscribed", "1000"), {"subscribed": 1000, "polled": 1500}, 2),
        (("--per-subscription", "1000"), {"subscribed": 2500}, 3),
        (("--per-subscription", "1000", "--max-subscriptions", "2"), {"subscribed": 2000, "polled": 500}, 2),
    ],
)
async def test_more_tags_than_a_small_server_takes_at_once(
    tmp_path: Path, free_port: Port, limit: tuple[str, ...], expected: dict[str, int], made: int
) -> None:
    async with running(NODE_OPCUA, free_port(), *SMALL, *limit) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=100, sampling_interval_ms=0, poll_interval_ms=200
        )
        async with collecting(link, settings, tags(some(2500))):
            await link.until(lambda: len(link.newest()) == 2500, timeout=40)
            for _ in range(3):
                await server.ask("write", 1, 1000, answer="done")
                await link.until(lambda: len(link.committed) >= len(server.ledger), timeout=20)
            assert ways(link) == expected
            (states,) = [control for control in link.controls if isinstance(control, TagStates)]
            assert all(state.alive for state in states.tag_states().values())
            assert {s.detail for s in states.tag_states().values() if s.way == "polled"} <= {
                "the server subscribes no more tags",
                "the server subscribes 1000 tags at most",
                "BadTooManySubscriptions: The server has reached its maximum number of subscriptions.",
            }
            counts = (await server.ask("requests", answer="requests"))["counts"]
        assert link.rows() == set(server.ledger)
        assert not link.gaps
        assert counts["CreateSubscriptionRequest"] <= made + 1
        # A server that takes one PublishRequest at a time is soon asked by no more than one.
        assert 1 <= counts["BadTooManyPublishRequests"] <= 6


async def test_three_bad_tags_of_a_thousand(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "997", "--per-call", "100") as server:
        link = RecordingLink("mill", tmp_path)
        listed = tags(some(997) | {"lost": "ns=1;s=Lost", "gone": "Line1/Gone", "odd": "nsu=urn:odd;s=A"})
        settings = opcua.Settings(url=server.url, publishing_interval_ms=100, sampling_interval_ms=0)
        async with collecting(link, settings, listed):
            await link.until(lambda: len(link.newest()) == 997 and link.reports)
            await server.ask("write", 3, 200, answer="done")
            await link.until(lambda: len(link.committed) >= len(server.ledger))
            assert ways(link) == {"subscribed": 997, "bad": 3}
        assert link.rows() == set(server.ledger)
        state, detail = link.report_now
        assert state == "degraded"
        assert detail.startswith("3 of 1000 tags are bad: ")
        for words in (
            "lost (gateway.yaml:1007): node ns=1;s=Lost: the server has no such node",
            "gone (gateway.yaml:1008): node Line1/Gone: the path has no 'Gone'",
            "odd (gateway.yaml:1009): node nsu=urn:odd;s=A: the server has no namespace 'urn:odd'",
        ):
            assert words in detail


@pytest.mark.timeout(60 + 3 * RATE_S)
@pytest.mark.parametrize(("count", "interval_ms"), [(1000, 200), (100, 50)])
async def test_nothing_is_missing_at_the_rates_where_others_lose(
    tmp_path: Path, free_port: Port, count: int, interval_ms: int
) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", str(count), "--per-call", "100") as server:
        settings = opcua.Settings(url=server.url, publishing_interval_ms=250, sampling_interval_ms=0)
        async with plant(tmp_path, settings, tags(some(count))) as run:
            await run.until(run.running)
            server.say("write", round(RATE_S * 1000 / interval_ms), interval_ms)
            await server.event("done", timeout=30 + 2 * RATE_S)
            await run.has(server)
            assert await run.judged(server) == (0, 0)
            assert await run.gaps() == []
            assert sum((await run.rows()).values()) == len(server.ledger)


async def test_a_lost_session_is_waited_out(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed gateway leaves its session behind on a server that has one."""
    async with running(NODE_OPCUA, free_port(), "--max-sessions", "1") as server:
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, session_timeout_s=10)
        killed = RecordingLink("mill", tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(opening, "_leave", _vanish)
            async with collecting(killed, settings, tags(some(5))):
                await killed.until(lambda: len(killed.emitted) >= 5)
        began = time.monotonic()
        link = RecordingLink("mill", tmp_path)
        async with supervised(link, settings, tags(some(5))) as keeper:
            await link.until(lambda: "all sessions of the server are taken" in keeper.health.detail)
            await link.until(lambda: keeper.health.state == "running", timeout=20)
        assert time.monotonic() - began < 15


async def _vanish(client: object) -> None:
    opening._abort(client)


async def test_a_subscription_that_goes_silent_is_made_anew(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers reads, and no subscription ever says a word again."""
    monkeypatch.setattr(subscription, "_KEEP_ALIVE_S", 0.5)
    async with running(NODE_OPCUA, free_port()) as server:
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=50, sampling_interval_ms=0, request_timeout_s=1
        )
        async with plant(tmp_path, settings, tags(some(5))) as run:
            await run.until(run.running)
            server.say("mute", "yes")

            async def noticed() -> bool:
                return "silent" in run.keeper.health.detail

            await run.until(noticed)
            server.say("mute", "no")
            await server.ask("write", 20, 50, answer="done")
            await run.has(server)
            missing, unreported = await run.judged(server)
            assert unreported == 0
            assert missing == 0 or await run.gaps()


@pytest.mark.timeout(60)
async def test_a_server_that_refuses_every_publish_request_is_silent(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_KEEP_ALIVE_S", 0.5)
    async with running(NODE_OPCUA, free_port()) as server:
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=50, sampling_interval_ms=0, request_timeout_s=1
        )
        async with plant(tmp_path, settings, tags(some(5))) as run:
            await run.until(run.running)
            server.say("deny", "yes")
            await server.ask("write", 1, 50, answer="done")

            async def noticed() -> bool:
                return "silent" in run.keeper.health.detail

            await run.until(noticed)
            server.say("deny", "no")
            counts = (await server.ask("requests", answer="requests"))["counts"]
            # Refused every 50 ms for the 3.5 s that it may be silent: however slow this machine is.
            assert 5 <= counts["BadTooManyPublishRequests"] <= 150
            await run.has(server)


@pytest.mark.timeout(60)
async def test_one_of_two_subscriptions_that_goes_silent_is_a_hole(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is heard all the time, and tells nothing of it."""
    monkeypatch.setattr(subscription, "_KEEP_ALIVE_S", 0.5)
    async with running(NODE_OPCUA, free_port(), "--per-subscription", "3") as server:
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=50, sampling_interval_ms=0, request_timeout_s=1
        )
        async with plant(tmp_path, settings, tags(some(5))) as run:
            await run.until(run.running)
            server.say("write", 1_000_000, 50)
            await asyncio.sleep(0.5)
            server.say("hush", "yes")

            async def noticed() -> bool:
                return "silent" in run.keeper.health.detail

            await run.until(noticed)
            server.say("hush", "no")
            await run.whole()
            await server.ask("stop", answer="done")
            await run.has(server)
            missing, unreported = await run.judged(server)
            assert missing >= 2 * 20
            assert unreported == 0


@pytest.mark.timeout(30)
async def test_what_sends_no_first_value_is_read(tmp_path: Path, free_port: Port) -> None:
    """Keep-alives come, values do not: subscribed is not heard."""
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(
            url=server.url, publishing_interval_ms=50, poll_interval_ms=50, request_timeout_s=3
        )
        server.say("hollow", "yes")
        async with collecting(link, settings, tags(some(5))):
            await link.until(lambda: len(link.newest()) == 5, timeout=20)
            assert ways(link) == {"polled": 5}
            assert "subscribed, it sends no value" in link.report_now[1]


@pytest.mark.parametrize(
    ("manufacturer", "product", "name", "items"),
    [
        ("Siemens AG", "S7-1200 OPC UA Server", "S7-1200", 1000),
        ("SIEMENS AG", "SIMATIC S7-1500 OPC UA", "S7-1500", 10_000),
        ("Inductive Automation", "Ignition OPC UA Server", "Ignition", 0),
        ("Kepware", "KEPServerEX", "Kepware", 0),
        ("Prosys OPC Ltd.", "SimulationServer", "Prosys", 0),
        ("Somebody", "S7-1200 look-alike", "", 0),
        ("", "", "", 0),
    ],
)
def test_known_servers_are_known(manufacturer: str, product: str, name: str, items: int) -> None:
    profile = profile_of(manufacturer, product)
    assert (profile.name, profile.items) == (name, items)


async def test_a_known_server_is_spared(tmp_path: Path, free_port: Port) -> None:
    known = ("--manufacturer", "Siemens AG", "--product", "S7-1200")
    async with running(NODE_OPCUA, free_port(), "--tags", "1100", *known) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=100, poll_interval_ms=200)
        async with collecting(link, settings, tags(some(1100))):
            await link.until(lambda: len(link.newest()) == 1100, timeout=20)
            counts = (await server.ask("requests", answer="requests"))["counts"]
            assert ways(link) == {"subscribed": 1000, "polled": 100}
        assert counts["CreateMonitoredItemsRequest"] == 10
        assert "(the server subscribes 1000 tags at most)" in link.report_now[1]


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_healthier_of_two_servers_is_used(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.opcua.redundancy._LOOK_S", 0.2)
    async with (
        running(NODE_OPCUA, free_port(), "--level", "100") as one,
        running(NODE_OPCUA, free_port(), "--level", "255") as two,
    ):
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=one.url, urls=(two.url,), publishing_interval_ms=50)
        async with supervised(link, settings, tags(some(5))) as keeper:
            await until(lambda: f"at {two.url}, ServiceLevel 255" in keeper.health.detail)
            two.say("level", 10)
            await until(lambda: f"at {one.url}, ServiceLevel 100" in keeper.health.detail)
            two.say("level", 255)
            await one.kill()
            await until(lambda: f"at {two.url}, ServiceLevel 255" in keeper.health.detail)
            before = len(link.emitted)
            await two.ask("write", 2, 100, answer="done")
            await link.until(lambda: len(link.emitted) > before)
