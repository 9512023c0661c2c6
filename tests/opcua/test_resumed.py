"""A session taken up again over a new connection: what was on its way is not lost in silence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asyncua.client.ua_session import UaSession

from gateway.protocols import opcua
from tests.opcua.plant import plant
from tests.opcua.proxy import proxy
from tests.opcua.recording import RecordingLink, collecting, tags
from tests.opcua.test_faults import Swallow
from tests.peers.opcua_peer import NODE_OPCUA, PLC, running

Port = Callable[[], int]
FIVE = {f"Tag{n}": f"Line1/Tag{n}" for n in range(5)}


def fast(url: str, publishing_interval_ms: int = 50) -> opcua.Settings:
    return opcua.Settings(
        url=url, publishing_interval_ms=publishing_interval_ms, sampling_interval_ms=0, queue_size=100
    )


@pytest.mark.timeout(60)
async def test_a_server_that_sends_nothing_again_and_calls_that_good(tmp_path: Path, free_port: Port) -> None:
    """asyncua's server answers a Republish of what it does not have with an empty message."""
    async with (
        running(PLC, free_port()) as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url), tags(FIVE)) as run,
    ):
        await run.until(run.running)
        for _ in range(2):
            await server.ask("write", 5, 50, answer="done")
            await run.has(server)
            starts = run.keeper.health.starts
            between.reset()

            async def again(starts: int = starts) -> bool:
                return run.keeper.health.starts > starts and await run.running()

            await run.until(again)
        await server.ask("write", 5, 50, answer="done")
        await run.has(server)
        assert (await run.judged(server))[1] == 0


@pytest.mark.timeout(30)
async def test_a_message_that_such_a_server_has_no_more_is_a_gap(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(PLC, free_port()) as server:
        link = RecordingLink("press", tmp_path)
        async with collecting(link, fast(server.url), tags(FIVE)):
            await link.until(lambda: len(link.emitted) >= 5)
            swallow, sent = Swallow(2), UaSession._send_request

            async def forgetful(session: Any, request: Any, *rest: Any) -> Any:
                if type(request).__name__ == "RepublishRequest":
                    request.Parameters.RetransmitSequenceNumber += 1_000_000
                return await sent(session, request, *rest)

            monkeypatch.setattr(swallow, "_send", forgetful)
            monkeypatch.setattr(UaSession, "_send_request", lambda self, *a, **k: swallow(self, *a, **k))
            await server.ask("write", 20, 50, answer="done")
            await link.until(lambda: server.ledger[-1] in link.rows())
            await link.until(lambda: bool(link.gaps))
        missing = set(server.ledger) - link.rows()
        assert missing
        assert all(any(gap[0] <= ts <= gap[1] for gap in link.gaps) for _, ts, _ in missing)
        assert "messages of the subscription did not arrive" in link.gaps[0][2]
        assert swallow.left == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("forbid", ["no", "yes"])
async def test_a_cut_while_the_memory_budget_is_full(tmp_path: Path, free_port: Port, forbid: str) -> None:
    """A message that arrived and found no room: it is kept with its session, and part of the hole without."""
    async with (
        running(NODE_OPCUA, free_port()) as server,
        proxy(server.url) as between,
        plant(tmp_path, fast(between.url, 800), tags(FIVE)) as run,
    ):
        await run.until(run.running)
        server.say("forbid", forbid)
        await server.ask("write", 5, 20, answer="done")
        await run.has(server)
        budget, starts = run.store.budget, run.keeper.health.starts
        await run.store.flush()
        assert budget.try_take(budget.limit_bytes)
        await server.ask("write", 45, 20, answer="done")

        async def waiting() -> bool:
            return budget.full

        await run.until(waiting)
        between.reset()

        async def again() -> bool:
            return run.keeper.health.starts > starts

        await run.until(again)
        budget.give(budget.limit_bytes)
        await run.until(run.running)
        await run.whole()
        await server.ask("write", 1, 20, answer="done")
        await run.has(server)
        missing, unreported = await run.judged(server)
        assert unreported == 0
        if forbid == "no":
            assert missing == 0
            assert await run.gaps() == []
