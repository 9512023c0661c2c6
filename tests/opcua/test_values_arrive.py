"""Exactly what the server wrote arrives, by subscription and by polling."""

from collections.abc import Callable
from pathlib import Path

from gateway.protocols import opcua
from tests.opcua.recording import RecordingLink, collecting, tags
from tests.peers.opcua_peer import PLC, running

Port = Callable[[], int]


async def test_a_subscription_brings_exactly_what_the_server_wrote(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port(), "--tags", "20") as plc:
        link = RecordingLink("press", tmp_path, commit_s=1.0)
        settings = opcua.Settings(url=plc.url, publishing_interval_ms=100, sampling_interval_ms=0)
        listed = tags({f"Tag{n}": f"ns=2;s=Line1.Tag{n}" for n in range(20)})
        async with collecting(link, settings, listed):
            await link.until(lambda: len(link.emitted) >= 20)
            await plc.ask("write", 50, 20, answer="done")
            await link.until(lambda: len(link.committed) >= len(plc.ledger))
        assert link.rows() == set(plc.ledger)
        assert len(link.committed) == len(plc.ledger) == 20 * 51


async def test_polling_brings_what_is_visible(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port()) as plc:
        link = RecordingLink("press", tmp_path)
        settings = opcua.Settings(url=plc.url, mode="poll", poll_interval_ms=20)
        async with collecting(link, settings, tags({f"Tag{n}": f"Line1/Tag{n}" for n in range(5)})):
            await link.until(lambda: len(link.emitted) >= 5)
            await plc.ask("write", 10, 200, answer="done")
            await link.until(lambda: len(link.committed) >= len(plc.ledger))
        assert link.rows() == set(plc.ledger)
        assert len(link.committed) == len(plc.ledger)
        assert {run.kind for run in link.runs} == {"cycle"}


async def test_polls_that_the_full_memory_budget_kept_from_being_made_are_a_gap(
    tmp_path: Path, free_port: Port
) -> None:
    async with running(PLC, free_port()) as plc:
        link = RecordingLink("press", tmp_path)
        settings = opcua.Settings(url=plc.url, mode="poll", poll_interval_ms=20)
        async with collecting(link, settings, tags({f"Tag{n}": f"Line1/Tag{n}" for n in range(5)})):
            await link.until(lambda: len(link.emitted) >= 5)
            link.full.clear()
            await plc.ask("write", 10, 200, answer="done")
            link.full.set()
            await link.until(lambda: link.gaps)
            ((start, end, reason, _),) = link.gaps
        assert "the memory budget was full" in reason and end - start >= 1_000_000
        assert link.rows() < set(plc.ledger), "values that were not read"


async def test_without_tags_everything_readable_is_found(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port(), "--tags", "7") as plc:
        link = RecordingLink("press", tmp_path)
        async with collecting(link, opcua.Settings(url=plc.url, publishing_interval_ms=50)):
            await link.until(lambda: len(link.emitted) >= 7)
        assert {f"Line1/Tag{n}" for n in range(7)} <= set(link.names)
        assert not any(name.startswith("Server/") for name in link.names)
