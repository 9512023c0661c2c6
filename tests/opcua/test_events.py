"""Events and alarms of a source as samples of a tag."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Batch, Device, Flag, Sample
from gateway.protocols import opcua
from gateway.protocols.opcua import reads, selftest, subscriptions
from gateway.protocols.opcua.events import Taker, event_items
from tests.opcua.recording import RecordingLink, collecting, supervised, tags
from tests.peers.opcua_peer import NODE_OPCUA, PLC, Peer, running

Port = Callable[[], int]
pytestmark = pytest.mark.timeout(30)


def alarms(**extra: Any) -> dict[str, opcua.TagSettings]:
    return {"alarms": opcua.TagSettings(events="i=2253", **extra)}


def events(link: RecordingLink) -> list[tuple[Sample, dict[str, Any]]]:
    series = link.names.get("alarms")
    found = [sample for sample in link.committed if sample.series == series]
    return [(sample, json.loads(str(sample.value))) for sample in found]


def messages(link: RecordingLink) -> list[str]:
    return [told["Message"] for _, told in events(link)]


async def raised(server: Peer, severity: int, text: str) -> None:
    await server.ask("event", severity, text, answer="raised")


@pytest.mark.parametrize("fast", [True, False])
async def test_events_are_samples_at_their_own_time(
    tmp_path: Path, free_port: Port, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        for module in (subscriptions, reads, selftest):
            monkeypatch.setattr(module, "fast_path_works", lambda: False)
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        async with collecting(link, settings, alarms() | tags({"Tag0": "Line1/Tag0"})):
            await link.until(lambda: "Tag0" in link.newest())
            await raised(server, 300, "door open")
            await raised(server, 100, "door closed")
            await link.until(lambda: messages(link) == ["door open", "door closed"])
            (sample, told), _ = events(link)
            assert abs(sample.ts - link.clock.wall_us()) < 10_000_000
            assert told["Time"].startswith("20") and bytes.fromhex(told["EventId"])
            assert (told["EventType"], told["Severity"]) == ("SystemEventType", 300)
            assert told["SourceName"] == "Server"
            assert "ActiveState" not in told and sample.flags == 0
            # A poll of all tags reads no events.
            link.polls.asked.put_nowait(7)
            await link.until(lambda: any(run.id == 7 and run.ended for run in link.runs))
            assert link.report_now[0] == "running"


async def test_severity_and_type_are_judged(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--space", "yes") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        configured = alarms(least_severity=120, event_types=("SystemEventType",)) | tags(
            {"Tag0": "Line1/Tag0"}
        )
        async with collecting(link, settings, configured):
            await link.until(lambda: "Tag0" in link.newest())
            await raised(server, 100, "low")
            server.say("heat", 85)  # an alarm: another type
            await raised(server, 400, "high")
            await link.until(lambda: "high" in messages(link))
            assert messages(link) == ["high"]


async def test_conditions_are_refreshed_when_the_session_is_made(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--space", "yes") as server:
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        link = RecordingLink("mill", tmp_path)
        async with collecting(link, settings, alarms() | tags({"T": "Space/Temperature"})):
            await link.until(lambda: "T" in link.newest())
            server.say("heat", 85)
            await link.until(lambda: any(told.get("ActiveState") for _, told in events(link)))
            sample, told = next(one for one in events(link) if one[1].get("ActiveState"))
            assert (told["ConditionName"], told["AckedState"], told["Retain"]) == ("TooHot", False, True)
            assert told["EventType"] == "NonExclusiveLimitAlarmType" and not sample.flags
        again = RecordingLink("mill", tmp_path)
        async with collecting(again, settings, alarms()):
            await again.until(lambda: any(told.get("ActiveState") for _, told in events(again)))
            assert all(sample.flags == Flag.HISTORY for sample, _ in events(again))
            # Stored already, it is the same sample: key and value.
            assert [(s.ts, s.value) for s, _ in events(again)] == [(sample.ts, sample.value)]
            await raised(server, 500, "new")
            await again.until(lambda: "new" in messages(again))
            assert events(again)[-1][0].flags == 0


async def test_an_overflow_is_a_gap(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        async with collecting(link, settings, alarms() | tags({"Tag0": "Line1/Tag0"})):
            await link.until(lambda: "Tag0" in link.newest())
            await raised(server, 300, "before")
            await link.until(lambda: messages(link) == ["before"])
            await server.ask("overflow", answer="raised")
            await link.until(lambda: link.gaps)
            from_us, to_us, reason, _ = link.gaps[0]
            assert "queue of events overflowed for alarms (gateway.yaml:10)" in reason
            assert events(link)[0][0].ts == from_us <= to_us
            await raised(server, 300, "after")
            await link.until(lambda: messages(link) == ["before", "after"])


async def test_what_gives_no_events_is_named(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port()) as server:
        wrong = {
            "variable": opcua.TagSettings(events="Line1/Tag0"),
            "type": opcua.TagSettings(events="i=2253", event_types=("NoSuchType",)),
        }
        for mode, sentences in (
            ("auto", ("node Line1/Tag0: it gives no events", "'NoSuchType' is no event type")),
            ("poll", ("its events come by subscription only",)),
        ):
            link = RecordingLink("mill", tmp_path)
            settings = opcua.Settings(url=server.url, publishing_interval_ms=50, mode=mode)  # type: ignore[arg-type]
            async with supervised(link, settings, wrong | tags({"Tag0": "Line1/Tag0"})):
                await link.until(lambda: "Tag0" in link.newest())  # noqa: B023
                await link.until(lambda: link.reports)  # noqa: B023
                assert link.report_now[0] == "degraded"
                for sentence in sentences:
                    assert sentence in link.report_now[1]


async def test_a_server_that_cannot_refresh(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port()) as plc:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=plc.url, publishing_interval_ms=50)
        async with collecting(link, settings, alarms() | tags({"Tag0": "Line1/Tag0"})):
            await link.until(lambda: "Tag0" in link.newest())
            await plc.ask("event", 300, "door", answer="raised")
            await link.until(lambda: messages(link) == ["door"])


@pytest.mark.parametrize(
    "given", [{}, {"node": "i=1", "events": "i=2253"}, {"node": "i=1", "least_severity": 5}]
)
def test_half_a_tag_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="events"):
        opcua.TagSettings(**given)


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("i=2041", "yesterday"),
        ("i=2041", "2026-01-01"),
        ("i=2041", [1]),
        ("no node id", None),
        ([], "Z"),
        (7, 8),
    ],
)
def test_fields_of_a_wrong_type_are_kept_as_they_are(tmp_path: Path, kind: Any, at: Any) -> None:
    link = RecordingLink("d", tmp_path)
    device = Device("d", alarms())
    (alarm,) = event_items(device, opcua.Settings(url="opc.tcp://x"), link, {})  # type: ignore[arg-type]
    batch = Batch()
    Taker(link).take(alarm, [b"1", kind, "pump", at, "too hot"], [], batch)  # type: ignore[arg-type]
    (sample,) = batch
    told = json.loads(str(sample.value))
    assert told["EventType"] == ("BaseEventType" if kind == "i=2041" else kind)
    assert (told.get("Time"), told["Message"]) == (at, "too hot")
    assert sample.flags & Flag.OWN_TIME
