"""Tags that a wildcard in the YAML stands for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.protocols import opcua
from gateway.protocols.opcua import collect
from tests.opcua.recording import RecordingLink, collecting, tags
from tests.peers.opcua_peer import NODE_OPCUA, PLC, running

Port = Callable[[], int]
pytestmark = pytest.mark.timeout(30)


async def test_each_match_is_a_tag(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "12", "--per-call", "5") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        configured = tags({"all": "Line*/Tag1?", "one": "Line1/Tag3"}) | tags({"deep": "**/Tag2"}, unit="rpm")
        async with collecting(link, settings, configured):
            await link.until(lambda: len(link.newest()) == 4)
            assert {name: sample.value for name, sample in link.newest().items()} == {
                "all/Line1/Tag10": 10,
                "all/Line1/Tag11": 11,
                "one": 3,
                "deep/Line1/Tag2": 2,
            }
            assert link.report_now[0] == "running"
            assert link.units["deep/Line1/Tag2"] == "rpm"
            # Tags of the search and listed ones are one subscription's: a poll reads both.
            link.polls.asked.put_nowait(7)
            await link.until(lambda: any(run.id == 7 and run.ended for run in link.runs))


async def test_more_matches_than_tags_are_told(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "9") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, max_tags=4)
        async with collecting(link, settings, tags({"some": "*/Tag0", "all": "Line1/*"})):
            await link.until(lambda: len(link.newest()) == 4)
            await link.until(lambda: link.reports)
            assert link.report_now[0] == "degraded"
            assert "3 of 9 matches of all" in link.report_now[1]


@pytest.mark.parametrize("mode", ["auto", "poll"])
async def test_no_match_is_named_and_looked_for_again(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(collect, "_RETRY_S", 0.2)
    async with running(PLC, free_port()) as plc:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=plc.url, publishing_interval_ms=50, poll_interval_ms=50, mode=mode)  # type: ignore[arg-type]
        configured = tags({"Tag0": "Line1/Tag0", "late": "Line?/Late*"})
        async with collecting(link, settings, configured):
            await link.until(lambda: link.reports and "Tag0" in link.newest())
            state, detail = link.report_now
            assert state == "degraded"
            assert "late (gateway.yaml:11): node Line?/Late*: no readable variable matches" in detail
            await plc.ask("add", "Late7", answer="added")
            await link.until(lambda: "late/Line1/Late7" in link.newest())
            await link.until(lambda: link.report_now[0] == "running")


def test_a_broken_pattern_is_named_when_the_file_is_read() -> None:
    with pytest.raises(ValueError, match="empty element"):
        opcua._check_node("Line*//Temp")
