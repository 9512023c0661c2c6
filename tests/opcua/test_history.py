"""What was missed in a break comes from the server's history; what does not is a gap record."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asyncua import ua

from gateway.protocols import opcua
from gateway.protocols.opcua import history, overflow
from tests.opcua.plant import Plant, plant
from tests.opcua.proxy import Proxy, proxy
from tests.opcua.recording import tags
from tests.peers.opcua_peer import NODE_OPCUA, Peer, running

Port = Callable[[], int]
FIVE = {f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(5)}
TEN = {f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(10)}
CUT_S = float(os.environ.get("OPCUA_CUT_S", "2"))
"""60 for the Show: the session is then gone at the server."""


def fast(url: str, **extra: object) -> opcua.Settings:
    usual = {
        "publishing_interval_ms": 50,
        "sampling_interval_ms": 0,
        "queue_size": 1000,
        "session_timeout_s": 10.0,
        "request_timeout_s": 1.0,
    }
    return opcua.Settings(url=url, **(usual | extra))  # type: ignore[arg-type]


async def cut(run: Plant, between: Proxy, server: Peer, seconds: float) -> None:
    """Let it write every 20 ms for some time with a cut in the middle, and wait until all is settled."""
    await run.until(run.running)
    server.say("write", 1_000_000, 20)
    await asyncio.sleep(0.5)
    between.cut()
    await asyncio.sleep(seconds)
    between.heal()
    await run.has(server)
    await run.whole()
    await asyncio.sleep(0.5)
    await server.ask("stop", answer="done")
    await run.has(server)


@pytest.mark.seed_row("L5")
@pytest.mark.timeout(60 + 2 * CUT_S)
async def test_a_cut_is_filled_without_a_tick_missing_or_doubled(tmp_path: Path, free_port: Port) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--tags", "10", "--history", "10") as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url), tags(TEN)) as run,
    ):
        server.say("forbid", "yes")
        await cut(run, between, server, CUT_S)
        assert await run.judged(server) == (0, 0)
        assert await run.gaps() == []
        assert await run.fetched() >= 10 * CUT_S * 20


async def test_a_session_taken_up_again_misses_nothing(tmp_path: Path, free_port: Port) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--tags", "10") as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url), tags(TEN)) as run,
    ):
        for _ in range(3):
            await cut(run, between, server, 0.5)
        assert await run.judged(server) == (0, 0)
        assert await run.gaps() == []
        asked = (await server.ask("requests", answer="requests"))["counts"]
        assert asked["CreateSessionRequest"] == asked["CreateSubscriptionRequest"] == 1
        assert asked["ActivateSessionRequest"] == 4


async def test_subscriptions_are_moved_where_the_session_is_not(tmp_path: Path, free_port: Port) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--tags", "10", "--transfer", "yes") as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url), tags(TEN)) as run,
    ):
        server.say("forbid", "yes")
        for _ in range(2):
            await cut(run, between, server, 0.5)
        assert await run.judged(server) == (0, 0)
        assert await run.gaps() == []
        asked = (await server.ask("requests", answer="requests"))["counts"]
        assert asked["CreateSubscriptionRequest"] == 1
        assert asked["CreateSessionRequest"] == asked["TransferSubscriptionsRequest"] + 1 == 3


async def test_what_did_not_change_for_longer_than_backfill_is_no_gap(
    tmp_path: Path, free_port: Port
) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--history", "5") as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url, backfill_s=0.1), tags(FIVE)) as run,
    ):
        server.say("forbid", "yes")
        await run.until(run.running)
        await run.has(server)
        # The history is asked for up to a second ahead of the server's clock, and so for nothing here.
        await asyncio.sleep(0.2)
        starts = run.keeper.health.starts
        between.cut()

        async def lost() -> bool:
            return run.session.hole is not None

        await run.until(lost)
        between.heal()
        await run.until(run.running)
        await run.whole()
        assert run.keeper.health.starts > starts
        assert await run.gaps() == []
        await server.ask("write", 1, 20, answer="done")
        await run.has(server)
        assert await run.judged(server) == (0, 0)


async def test_a_history_that_began_after_the_hole_proves_nothing(tmp_path: Path, free_port: Port) -> None:
    """A restarted server has forgotten what it wrote before."""
    async with (
        running(NODE_OPCUA, free_port(), "--history", "5") as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url), tags(FIVE)) as run,
    ):
        await run.until(run.running)
        server.say("write", 1_000_000, 20)
        await asyncio.sleep(0.5)
        between.cut()
        written = len(server.ledger)
        while len(server.ledger) < written + 50:
            await asyncio.sleep(0.05)
        await server.kill()
        await server.start()
        between.heal()
        await server.ask("write", 100, 20, answer="done")
        await run.has(server)
        await run.whole()
        missing, unreported = await run.judged(server)
        assert missing >= 25
        assert unreported == 0
        assert "its history does not meet the values before and after" in (await run.gaps())[0].reason


async def test_lost_answers_are_asked_for_again(tmp_path: Path, free_port: Port) -> None:
    """All requests under way are answered, and the answers lost."""
    async with (
        running(NODE_OPCUA, free_port()) as server,
        plant(tmp_path, fast(server.url), tags(FIVE)) as run,
    ):
        await run.until(run.running)
        server.say("write", 1_000_000, 50)
        await asyncio.sleep(0.5)
        server.say("lose", "3")
        await asyncio.sleep(5)
        await server.ask("stop", answer="done")
        await run.has(server)
        assert (await run.judged(server))[1] == 0
        asked = (await server.ask("requests", answer="requests"))["counts"]
        assert asked["CreateSessionRequest"] == asked["CreateSubscriptionRequest"] == 1


async def test_without_history_a_cut_is_a_gap(tmp_path: Path, free_port: Port) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--tags", "10", "--history", "4") as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url), tags(TEN)) as run,
    ):
        server.say("forbid", "yes")
        await cut(run, between, server, 1)
        missing, unreported = await run.judged(server)
        assert missing >= 6 * 30
        assert unreported == 0
        names = {row[0] for row in Counter(server.ledger) - await run.rows()}
        assert names == {f"Tag{n}" for n in range(4, 10)}
        (gap,) = await run.gaps()
        assert "4 of 10 tags were filled from the server's history" in gap.reason


@pytest.mark.parametrize("history", ["5", "0"])
async def test_a_lost_message_that_is_forgotten(tmp_path: Path, free_port: Port, history: str) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--history", history) as server,
        plant(tmp_path, fast(server.url), tags(FIVE)) as run,
    ):
        await run.until(run.running)
        server.say("forget", "yes")
        server.say("write", 1_000_000, 20)
        await asyncio.sleep(0.5)
        server.say("lose", "2")
        await asyncio.sleep(1.5)
        await server.ask("stop", answer="done")
        await run.has(server)
        await asyncio.sleep(1)
        missing, unreported = await run.judged(server)
        assert unreported == 0
        if history == "5":
            assert (missing, await run.gaps()) == (0, [])
            assert await run.fetched()
        else:
            assert missing
            assert "messages of the subscription did not arrive" in (await run.gaps())[0].reason


async def test_an_overflow_is_filled(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overflow, "_REPORT_US", 200_000)
    async with (
        running(NODE_OPCUA, free_port(), "--history", "5") as server,
        plant(tmp_path, fast(server.url, publishing_interval_ms=500, queue_size=3), tags(FIVE)) as run,
    ):
        await run.until(run.running)
        await server.ask("write", 50, 20, answer="done")
        await run.has(server)
        await run.until(lambda: run.complete(server))
        assert await run.judged(server) == (0, 0)
        assert await run.gaps() == []
        assert await run.fetched()


@pytest.mark.timeout(60)
async def test_overflows_one_after_another_are_filled(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several are told as one, others come while the history is read."""
    monkeypatch.setattr(overflow, "_REPORT_US", 1_000_000)
    async with (
        running(NODE_OPCUA, free_port(), "--history", "5") as server,
        plant(tmp_path, fast(server.url, publishing_interval_ms=200, queue_size=3), tags(FIVE)) as run,
    ):
        await run.until(run.running)
        await server.ask("write", 150, 20, answer="done")
        await run.has(server)
        await run.until(lambda: run.complete(server))
        assert await run.gaps() == []


class Historian:
    """A server that says after each page that there is more."""

    def __init__(self, step_us: int) -> None:
        self.limits = {"history": 10}
        self.services = self
        self.calls = 0
        self._step = timedelta(microseconds=step_us)

    def heard(self) -> None:
        pass

    async def history_read(self, parameters: ua.HistoryReadParameters) -> list[ua.HistoryReadResult]:
        self.calls += 1
        value = ua.DataValue(
            ua.Variant(1.0), SourceTimestamp=datetime(2026, 1, 1, tzinfo=UTC) + self._step * self.calls
        )
        more = b"more" if self.calls < 1000 else None
        history = ua.HistoryData(DataValues=[value])
        return [
            ua.HistoryReadResult(ContinuationPoint=more, HistoryData=history) for _ in parameters.NodesToRead
        ]


@pytest.mark.parametrize(("step_us", "calls"), [(1, 1000), (0, 21)])
async def test_a_history_without_end_is_left(
    monkeypatch: pytest.MonkeyPatch, step_us: int, calls: int
) -> None:
    monkeypatch.setattr(history, "_LEAST_REST_S", 0.0)
    server = Historian(step_us)
    found = [page async for page in history.pages(server, [ua.NodeId(1), ua.NodeId(2)], 0, 10**15)]  # type: ignore[arg-type]
    assert server.calls == calls
    problems = [page.problem for page in found if page.problem]
    assert problems == (["its history gives pages without end"] * 2 if step_us == 0 else [])
