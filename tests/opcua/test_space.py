"""What a server says beside values: units, ranges, texts of enumerations; and structures as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.controls.devices import TagAbout, TagState, TagStates
from gateway.protocols import opcua
from tests.opcua.recording import RecordingLink, collecting, tags
from tests.peers.opcua_peer import NODE_OPCUA, PLC, running

Port = Callable[[], int]
pytestmark = pytest.mark.timeout(30)
NAMES = ("Temperature", "Switch", "Door", "Mode", "Point", "Points", "Path", "Maybe", "Either")
SPACE = {name: f"Space/{name}" for name in NAMES}


def state(link: RecordingLink, tag: str) -> TagState:
    (states,) = [control for control in link.controls if isinstance(control, TagStates)]
    return states.tag_states()[tag]


def about(link: RecordingLink, tag: str) -> TagAbout:
    found = state(link, tag).about
    assert found is not None
    return found


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_units_ranges_texts_and_structures(tmp_path: Path, free_port: Port, mode: str) -> None:
    async with running(NODE_OPCUA, free_port(), "--space", "yes", "--per-call", "7") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50, mode=mode)  # type: ignore[arg-type]
        configured = tags(SPACE | {"Tag0": "Line1/Tag0"})
        configured |= tags({"Fahrenheit": SPACE["Temperature"]}, scale=1.8, offset=32.0)
        configured |= tags({"Named": SPACE["Temperature"]}, unit="degrees")
        async with collecting(link, settings, configured):
            await link.until(lambda: set(link.newest()) == set(configured))
            await link.until(lambda: all(state(link, tag).about for tag in configured))
            got = {name: sample.value for name, sample in link.newest().items()}
            warm = about(link, "Temperature")
            assert (warm.type, warm.unit, warm.range, warm.instrument_range) == (
                "Double",
                "°C",
                (-10, 90),
                (-50, 150),
            )
            assert (link.units["Temperature"], link.units["Named"]) == ("°C", "degrees")
            assert link.units["Fahrenheit"] == ""  # scaled, it is not in the server's unit
            assert about(link, "Switch").enum == {"0": "Off", "1": "On"} and got["Switch"] == 1
            assert about(link, "Door").enum == {"0": "closed", "1": "open"} and got["Door"] is True
            mode_about = about(link, "Mode")
            assert (mode_about.type, mode_about.enum, got["Mode"]) == ("Mode", {"0": "Idle", "7": "Run"}, 7)
            assert (about(link, "Path").format, about(link, "Tag0").format) == ("json", "")
            assert json.loads(got["Point"]) == {"X": 1.5, "Y": -2}
            assert [json.loads(each) for each in got["Points"]] == [{"X": 1, "Y": 2}, {"X": "NaN", "Y": 4}]
            assert json.loads(got["Path"]) == {
                "Name": "Päth",
                "Mode": 7,
                "Points": [{"X": 1, "Y": 2}, {"X": 3, "Y": 4}],
                "Counts": [1, 2**63 - 1],
                "Duration": 12.5,
                "At": "2001-02-03T04:05:06.789000Z",
                "Id": "72962b91-fa75-4ae6-8d28-b404dc7daf63",
                "Raw": "AAH/",
                "Title": "Wärme",
                "Any": -3,
                "Node": "ns=1;s=Line1",
                "Good": True,
            }
            assert json.loads(got["Maybe"]) == {"Always": 1, "Second": {"X": 5, "Y": 6}}
            assert json.loads(got["Either"]) == {"Point": {"X": 7, "Y": 8}}
            assert link.report_now[0] == "running"


async def test_structures_of_another_make(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port(), "--space", "yes") as plc:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=plc.url, publishing_interval_ms=50)
        names = ("Axle", "Gear")
        async with collecting(link, settings, tags({name: f"Space/{name}" for name in names})):
            await link.until(lambda: set(link.newest()) == set(names))
            await link.until(lambda: all(state(link, tag).about for tag in names))
            got = {name: sample.value for name, sample in link.newest().items()}
            assert json.loads(got["Axle"]) == {
                "Wheels": [
                    {"Radius": 0.5, "Bolts": [1, 2], "Maker": "ACME"},
                    {"Radius": 0.25, "Bolts": []},
                ],
                "Since": "2020-01-02T00:00:00Z",
            }
            assert (got["Gear"], about(link, "Gear").enum) == (1, {"0": "Neutral", "1": "First"})


async def test_a_server_that_tells_nothing_of_its_tags(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--space", "yes", "--refuse", "browse") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        async with collecting(link, settings, tags({"Temperature": "Space/Temperature"})) as task:
            await link.until(lambda: link.newest() and link.reports)
            await server.ask("write", 3, 50, answer="done")
            assert (link.report_now[0], task.done(), link.units["Temperature"]) == ("running", False, "")
            assert state(link, "Temperature").about is None
