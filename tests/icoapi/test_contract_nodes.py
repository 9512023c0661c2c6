"""ICOapi's general, STU, STH and measurement operations, and its WebSockets: statuses and shapes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api import sockets
from gateway.api.compat.icoapi.live import IftPoints
from gateway.api.tokens import Role
from gateway.demo.bus.signals import count
from gateway.protocols.icotronic import asking
from tests.icoapi import shapes
from tests.icoapi.bench import TOOLS, Contract, add_stu, contract, until
from tests.icoapi.shapes import check
from tests.icotronic.plant import CHUCK, MAC_OF, MASKS, OLD_TOOL, SPINDLE
from tests.icotronic.plant import plant as stage
from tests.measurements.reading import attributes, physical, table

pytestmark = pytest.mark.timeout(60)

ADC = {"prescaler": 2, "acquisition_time": 8, "oversampling_rate": 64, "reference_voltage": 3.3}
DAY_US = 86_400_000_000
STU_MAC = "08-6B-D7-01-DE-10"


def instructions(*numbers: int, **more: Any) -> dict[str, Any]:
    """Return instructions as ICOweb sends them, of three channels."""
    first, second, third = ({"channel_number": number, "sensor_id": None} for number in numbers or (1, 0, 0))
    return {
        "name": "Test",
        "mac_address": MAC_OF[SPINDLE],
        "time": None,
        "first": first,
        "second": second,
        "third": third,
        "ift_requested": False,
        "ift_channel": "",
        "ift_window_width": 0,
        "adc": ADC,
        "meta": None,
    } | more


async def connect(ico: Contract, name: str = SPINDLE) -> None:
    assert await ico.ask("PUT", "/sth/connect", {"mac_address": MAC_OF[name]}) is None


@contextlib.asynccontextmanager
async def measuring(ico: Contract, *numbers: int, **more: Any) -> AsyncIterator[str]:
    """Enter while something is measured; yield its name."""
    begun = await ico.ask("POST", "/measurement/start", instructions(*numbers, **more))
    try:
        yield begun["data"]["name"]
    finally:
        assert await ico.ask("POST", "/measurement/stop") is None


# -- general -----------------------------------------------------------------------------------------------


@pytest.mark.seed_row(41)
async def test_state(ico: Contract) -> None:
    state = await ico.ask("GET", "/state")
    check(state, shapes.STATE)
    assert state["can_ready"] and not state["measurement_status"]["running"]
    assert state["cloud"] == {"enabled": False, "healthy": False, "manage_url": None}
    assert 0 < state["disk_capacity"]["available"] < state["disk_capacity"]["total"]
    await connect(ico)
    async with measuring(ico) as name:
        state = await ico.ask("GET", "/state")
        check(state, shapes.STATE)
        status = state["measurement_status"]
        assert status["running"] and status["name"] == name and status["tool_name"] == SPINDLE
        assert datetime.fromisoformat(status["start_time"]).tzinfo is not None


@pytest.mark.seed_row(2)
async def test_reset_can(ico: Contract) -> None:
    async with ico.socket("/state") as socket, ico.socket("/measurement/stream") as broken:
        broken._response.connection.transport.abort()
        before = ico.plant.devices[TOOLS]
        await connect(ico)
        assert await ico.ask("PUT", "/reset-can") is None
        assert ico.plant.devices[TOOLS] is not before and (await ico.ask("GET", "/state"))["can_ready"]
        assert await ico.ask("GET", "/stu/connected") is False, "what ended lets its node go"
        assert not socket.closed
    await connect(ico)
    async with measuring(ico):
        check(await ico.ask("PUT", "/reset-can", status=400), shapes.DETAIL)
    ico.stage.stu.faults.mute = True
    await until(lambda: ico.plant.devices[TOOLS].health.state == "failed")
    check(await ico.ask("PUT", "/reset-can", status=502), shapes.DETAIL)
    assert (await ico.ask("GET", "/state"))["can_ready"] is False
    ico.stage.stu.faults.mute = False
    assert await ico.ask("PUT", "/reset-can") is None, "at once: without the wait after a failure"
    assert (await ico.ask("GET", "/state"))["can_ready"] is True


@pytest.mark.seed_row(23, 41)
async def test_state_socket(ico: Contract) -> None:
    async with ico.socket("/state") as one, ico.socket("/state") as other, ico.socket("/state") as wrong:
        for socket in (one, other, wrong):
            message = await socket.receive_json()
            assert message["message"] == "state"
            check(message["data"], shapes.STATE)
        await one.send_json({"message": "local_storage_state", "data": {}})
        await one.send_json({"message": "get_state"})
        check((await one.receive_json())["data"], shapes.STATE)
        await wrong.send_str("{no json")
        message = await wrong.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE and wrong.close_code == sockets.BAD_MESSAGE
        await connect(ico)
        async with measuring(ico, wait_for_post_meta=True):
            message = await other.receive_json()
            assert message["data"]["measurement_status"]["running"]
        words = [await other.receive_json() for _ in range(2)]
        assert [word["message"] for word in words] == ["state", "post_meta_request"]
        assert words[1]["data"] is None and not words[0]["data"]["measurement_status"]["running"]
        meta = {"version": "1", "profile": "p", "parameters": {"tool": "new"}}
        assert await ico.ask("POST", "/measurement/post_meta", meta) is None
        assert await other.receive_json() == {"message": "post_meta_completed", "data": None}


# -- STU, STH ----------------------------------------------------------------------------------------------


@pytest.mark.seed_row(3, 4, 5)
async def test_stu(ico: Contract) -> None:
    stus = await ico.ask("GET", "/stu")
    check(stus, [shapes.STU])
    assert stus == [{"name": "STU 1", "device_number": 1, "mac_address": STU_MAC}]
    assert await ico.ask("GET", "/stu/connected") is False
    assert await ico.ask("POST", "/stu/connected", {"name": "STU 1"}) is False
    assert await ico.ask("PUT", "/stu/reset") is None and ico.stage.stu.resets == 1
    await connect(ico)
    assert await ico.ask("GET", "/stu/connected") is True
    assert await ico.ask("POST", "/stu/connected", {"name": "STU 1"}) is True
    check(await ico.ask("POST", "/stu/connected", {"name": "STU 2"}, status=404), shapes.DETAIL)
    check(await ico.ask("POST", "/stu/connected", {}, status=422), shapes.FIELDS)
    check(await ico.ask("PUT", "/stu/reset", status=400), shapes.DETAIL)


@pytest.mark.seed_row(6)
@pytest.mark.parametrize("there", [(SPINDLE,), (SPINDLE, CHUCK, OLD_TOOL)])
async def test_sth_list(ico: Contract, there: tuple[str, ...]) -> None:
    """One node, and three."""
    ico.stage.stu.faults.unreachable = [name for name in MAC_OF if name not in there]
    nodes = await ico.ask("GET", "/sth")
    check(nodes, [shapes.NODE])
    assert [(node["device_number"], node["name"], node["mac_address"]) for node in nodes] == [
        (n, name, MAC_OF[name]) for n, name in enumerate(there)
    ]


@pytest.mark.seed_row(7)
async def test_connect_and_disconnect(ico: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    check(await ico.ask("PUT", "/sth/disconnect", status=400), shapes.DETAIL)
    for body in ({}, {"mac_address": "nonsense"}, {"mac_address": 5}, [], {"mac_address": "00-11-22"}):
        check(await ico.ask("PUT", "/sth/connect", body, status=422), shapes.FIELDS)
    monkeypatch.setattr(asking, "CONNECT_S", 0.8)
    foreign = {"mac_address": "00-11-22-33-44-55"}
    check(await ico.ask("PUT", "/sth/connect", foreign, status=404), shapes.DETAIL)
    monkeypatch.setattr(asking, "CONNECT_S", 20.0)
    await connect(ico)
    again = {"mac_address": MAC_OF[SPINDLE]}
    check(await ico.ask("PUT", "/sth/connect", again, status=400), shapes.DETAIL)
    assert await ico.ask("PUT", "/sth/disconnect") is None and ico.nodes.connected is None


@pytest.mark.seed_row(9)
async def test_rename(ico: Contract) -> None:
    said = await ico.ask("PUT", "/sth/rename", {"mac_address": MAC_OF[CHUCK], "new_name": "Lathe"})
    check(said, shapes.RENAMED)
    assert said == {"name": "Lathe", "old_name": CHUCK, "mac_address": MAC_OF[CHUCK]}
    assert ico.nodes.connected is None
    await connect(ico)
    for name in ("nine byte", "", "äöüßä"):
        body = {"mac_address": MAC_OF[SPINDLE], "new_name": name}
        check(await ico.ask("PUT", "/sth/rename", body, status=422), shapes.FIELDS)
    other = {"mac_address": MAC_OF[CHUCK], "new_name": "Mill"}
    check(await ico.ask("PUT", "/sth/rename", other, status=400), shapes.DETAIL)
    assert [node.name.decode() for node in ico.stage.stu.nodes] == [SPINDLE, "Lathe", OLD_TOOL]


@pytest.mark.seed_row(10, 11)
async def test_adc_and_voltage(ico: Contract) -> None:
    for method, path, body in (
        ("GET", "read-adc", None), ("PUT", "write-adc", ADC), ("GET", "supply-voltage", None),
    ):  # fmt: skip
        check(await ico.ask(method, f"/sth/{path}", body, status=404), shapes.DETAIL)
    await connect(ico)
    wanted = ADC | {"oversampling_rate": 128}
    assert await ico.ask("PUT", "/sth/write-adc", wanted) is None
    said = await ico.ask("GET", "/sth/read-adc")
    check(said, shapes.ADC)
    assert said == wanted
    for changed in ({"prescaler": 0}, {"prescaler": 128}, {"acquisition_time": 5}, {"reference_voltage": 3.4},
                    {"oversampling_rate": 5000}, {"prescaler": "x"}, {"prescaler": None},
                    {"prescaler": 2.9}):  # fmt: skip
        check(await ico.ask("PUT", "/sth/write-adc", ADC | changed, status=422), shapes.FIELDS)
    assert await ico.ask("GET", "/sth/read-adc") == wanted
    ico.stage.node(SPINDLE).supply_count = 12_600
    said = await ico.ask("GET", "/sth/supply-voltage")
    check(said, shapes.VOLTAGE)
    assert said["supply_voltage"] == pytest.approx(3.616, abs=0.001) and said["unit"] == "V"
    assert datetime.fromisoformat(said["timestamp_utc_iso"]).utcoffset() is not None


# -- measurement -------------------------------------------------------------------------------------------


@pytest.mark.seed_row(13, 14)
async def test_start_stop_and_status(ico: Contract) -> None:
    check(await ico.ask("POST", "/measurement/start", instructions(), status=400), shapes.DETAIL)
    status = await ico.ask("GET", "/measurement")
    assert status == {
        "running": False,
        "name": None,
        "start_time": None,
        "tool_name": None,
        "instructions": None,
    }
    await connect(ico)
    asked = instructions(3, 0, 7, time=60, name="Fräsen")
    begun = await ico.ask("POST", "/measurement/start", asked)
    check(begun, shapes.STARTED)
    assert begun["message"] == "Measurement started successfully."
    data = begun["data"]
    assert data["running"] and data["name"].startswith("Fraesen__") and data["instructions"]["time"] == 60
    assert data["instructions"]["third"] == {"channel_number": 7, "sensor_id": None}
    assert await ico.ask("GET", "/measurement") == data
    check(await ico.ask("POST", "/measurement/start", asked, status=400), shapes.DETAIL)
    check(await ico.ask("PUT", "/sth/disconnect", status=400), shapes.DETAIL)
    assert await ico.ask("POST", "/measurement/stop") is None
    assert await ico.ask("POST", "/measurement/stop") is None
    # One that is only about to begin is stopped too.
    starting = asyncio.create_task(ico.ask("POST", "/measurement/start", asked))
    while not ico.plant.measurements.busy(TOOLS):
        await asyncio.sleep(0)
    assert ico.plant.measurements.running(TOOLS) is None
    assert await ico.ask("POST", "/measurement/stop") is None
    await starting
    assert (await ico.ask("GET", "/measurement"))["running"] is False
    check(await ico.ask("POST", "/measurement/post_meta", {"version": "1", "profile": "p", "parameters": {}},
                        status=400), shapes.DETAIL)  # fmt: skip


@pytest.mark.seed_row(12)
async def test_instructions_that_cannot_be(ico: Contract) -> None:
    await connect(ico)
    wrong_adc = {"detail": "Invalid ADC configuration."}
    assert await ico.ask("POST", "/measurement/start", instructions(adc=None), status=422) == wrong_adc
    for asked in (
        instructions(0, 0, 0), instructions(adc=ADC | {"prescaler": 0}), instructions(adc={"prescaler": 2}),
        instructions(ift_requested=True, ift_channel="second", ift_window_width=50),
        instructions(ift_requested=True, ift_channel="first", ift_window_width=5000),
        instructions(256, 0, 0), instructions(time=0), instructions(time=-1), instructions(first=None),
        instructions(first={"channel_number": 1, "sensor_id": "nope"}), instructions(meta={"version": 1}),
        instructions(ift_channel="fourth"), {}, [],
    ):  # fmt: skip
        said = await ico.ask("POST", "/measurement/start", asked, status=422)
        check(said, shapes.DETAIL if isinstance(said["detail"], str) else shapes.FIELDS)
        assert said["detail"]
    assert (await ico.ask("GET", "/measurement"))["running"] is False
    await ico.ask("PUT", "/sth/disconnect")
    await connect(ico, OLD_TOOL)
    said = await ico.ask("POST", "/measurement/start", instructions(5, 0, 0), status=400)
    assert "firmware" in said["detail"]


async def streamed(ico: Contract, *numbers: int, frames: int = 400, **more: Any) -> tuple[str, list[Any]]:
    """Measure so many frames; return the name, and all messages that a client got until the close."""
    messages = []
    async with ico.socket("/measurement/stream") as socket:
        async with measuring(ico, *numbers, **more) as name:
            found = ico.plant.measurements.find(name)
            assert found is not None
            await until(lambda: found.received > frames)
        async with asyncio.timeout(30):
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                messages.append(message.json())
    assert message.type is aiohttp.WSMsgType.CLOSE and socket.close_code == 1000
    return name, messages


@pytest.mark.seed_row(13, 15)
@pytest.mark.parametrize("mask", MASKS)
async def test_stream_of_all_channel_masks(ico: Contract, mask: tuple[bool, bool, bool]) -> None:
    """Every sample of every frame, converted, of every combination of channels; the file holds the same."""
    await connect(ico)
    name, messages = await streamed(ico, *(n * on for n, on in enumerate(mask, 1)))
    check(messages, [[shapes.POINT]])
    points = [point for message in messages for point in message if point["counter"] is not None]
    losses = [point["dataloss"] for message in messages for point in message if point["dataloss"] is not None]
    done = await ico.plant.measurements.finished(name)
    each = 3 if sum(mask) == 1 else 1
    assert len(points) == each * done.received and set(losses) == {0}
    assert [point["counter"] for point in points] == [n // each % 256 for n in range(len(points))]
    stamps = [point["timestamp"] for point in points]
    assert stamps == sorted(stamps) and 0 <= stamps[0] < stamps[-1] < 60
    sensors, rows = ico.plant.documents.sensors().sensors, table(ico.plant.measurements.folder / done.file)
    for place, (field, on) in enumerate(zip(("first", "second", "third"), mask, strict=True)):
        want = [
            physical(count(place + 1, n), sensors[place], 3.3) if on else None for n in range(len(points))
        ]
        assert [point[field] for point in points] == want
        if on:
            assert rows["xyz"[place]].tolist() == pytest.approx(want, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("ico", ["bare"], indirect=True)
async def test_a_box_without_a_clock_counts_from_the_start_of_the_measurement(
    ico: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut it woke two days before its newest sample, and nothing sets the clock."""
    monkeypatch.setattr(ico.plant.clock, "synchronised", lambda: False)
    ico.plant.own_time._guesses.clear()
    ico.plant.own_time._newest_us = ico.plant.clock.wall_us() + 2 * DAY_US
    await connect(ico)
    name, messages = await streamed(ico)
    done = await ico.plant.measurements.finished(name)
    stamps = [
        point["timestamp"] for message in messages for point in message if point["timestamp"] is not None
    ]
    assert stamps == sorted(stamps) and 0 <= stamps[0] < stamps[-1] < 60
    assert done.ended_us is not None and 0 < done.ended_us - done.started_us < 60_000_000
    assert done.started_us - ico.plant.clock.wall_us() > 2 * DAY_US - 60_000_000


@pytest.mark.parametrize("ico", ["bare"], indirect=True)
@pytest.mark.parametrize("step_us", [3 * DAY_US, -3_600_000_000])
async def test_a_clock_that_is_set_meanwhile_does_not_reach_the_measurement(
    ico: Contract, monkeypatch: pytest.MonkeyPatch, step_us: int
) -> None:
    """On this bus frames follow the gateway's own time where it is far from theirs."""
    monkeypatch.setattr(ico.plant.clock, "synchronised", lambda: True)
    await connect(ico)
    messages = []
    wall_us = ico.plant.clock.wall_us
    async with ico.socket("/measurement/stream") as socket:
        async with measuring(ico) as name:
            found = ico.plant.measurements.find(name)
            assert found is not None
            await until(lambda: found.received > 300)
            monkeypatch.setattr(ico.plant.clock, "wall_us", lambda: wall_us() + step_us)
            await until(lambda: found.clock_set_us)
            before = found.received
            await until(lambda: found.received > before + 300)
        while (message := await socket.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
            messages += message.json()
    done = await ico.plant.measurements.finished(name)
    path = ico.plant.measurements.folder / done.file
    times = [int(us) for us in table(path)["timestamp"]]
    assert times == sorted(times) and 100_000 < times[-1] < 60_000_000 and len(set(times)) > 500
    stamps = [point["timestamp"] for point in messages if point["timestamp"] is not None]
    assert stamps == sorted(stamps) and 0 <= stamps[0] < stamps[-1] < 60
    assert done.ended_us is not None and 0 < done.ended_us - done.started_us < 60_000_000
    assert done.clock_set_us == pytest.approx(step_us, abs=2_000_000)
    said = float(attributes(path)["clock_set"].split()[1])
    assert said == pytest.approx(step_us / 1e6, abs=2)


@pytest.mark.seed_row(19, 20)
async def test_stream_with_ift_and_a_lost_node(ico: Contract) -> None:
    await connect(ico)
    ift = {"ift_requested": True, "ift_channel": "first", "ift_window_width": 50}
    _, messages = await streamed(ico, frames=2500, **ift)
    check(messages, [[shapes.POINT]])
    (last,) = messages[-1]
    assert last["counter"] == 1 and last["timestamp"] == 1 and len(last["ift"]) > 1000
    assert all(point["ift"] is None for message in messages[:-1] for point in message)
    async with ico.socket("/measurement/stream") as socket:
        async with measuring(ico):
            await socket.receive_json()
            ico.stage.stu.faults.hang = True
            async with asyncio.timeout(30):
                while isinstance(said := await socket.receive_json(), list):
                    check(said, [shapes.POINT])
            message = await socket.receive()
        assert (
            said["error"] is True and said["type"] == "StreamingTimeoutError" and SPINDLE in said["message"]
        )
        assert said.keys() == {"error", "type", "message"}
        assert message.type is aiohttp.WSMsgType.CLOSE and socket.close_code == 1000
    assert (await ico.ask("GET", "/stu/connected")) is False


def test_ift_of_a_long_measurement_is_thinned_evenly() -> None:
    points = IftPoints()
    for start in range(0, 3_000_000, 7919):
        numbers = range(start, min(start + 7919, 3_000_000))
        points.add(list(numbers), [float(n) for n in numbers])
    row = points.row(0)
    assert row is not None
    ys = [point["y"] for point in row["ift"]]
    assert 10_000 <= len(ys) <= 20_000 and ys == list(range(0, 3_000_000, 256))


# -- who may -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("anonymous", "reading", "acting"), [("off", 401, 401), ("read", 200, 403)])
async def test_it_is_as_open_as_the_setting_says(
    tmp_path: Path, anonymous: str, reading: int, acting: int
) -> None:
    async with contract(tmp_path, anonymous=anonymous) as ico:
        await ico.ask("GET", "/state", status=reading)
        await ico.ask("PUT", "/stu/reset", status=acting)
        await ico.ask("GET", "/logs", status=401 if anonymous == "off" else 403)
        for role, status in ((Role.READ, 403), (Role.OPERATE, 200)):
            await ico.ask("GET", "/state", headers=ico.plant.bearer(role))
            await ico.ask("PUT", "/stu/reset", headers=ico.plant.bearer(role), status=status)
        assert ico.stage.stu.resets == 1


@pytest.mark.seed_row(43)
async def test_pages_of_other_origins_are_shut_out(ico: Contract) -> None:
    ours, foreign = {"Origin": "http://web.example:5173"}, {"Origin": "http://evil.example"}
    async with ico.client.options("/api/v1/sth/connect", headers=ours | {
        "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type",
    }) as answer:  # fmt: skip
        assert answer.status == 200 and "PUT" in answer.headers["Access-Control-Allow-Methods"]
        assert answer.headers["Access-Control-Allow-Origin"] == ours["Origin"]
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert answer.headers["Access-Control-Allow-Headers"] == "content-type"
    async with ico.client.get("/api/v1/state", headers=ours) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == ours["Origin"]
    async with ico.client.get("/api/v1/state", headers=foreign) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers
    check(await ico.ask("PUT", "/stu/reset", status=403, headers=foreign), shapes.DETAIL)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await ico.client.ws_connect("/api/v1/state", headers=foreign)
    async with ico.client.ws_connect("/api/v1/state", headers=ours) as socket:
        assert (await socket.receive_json())["message"] == "state"
    check(await ico.ask("GET", "/state", status=421, headers={"Host": "rebound.example"}), shapes.DETAIL)
    assert ico.stage.stu.resets == 0


async def test_several_stus(ico: Contract) -> None:
    async with stage() as second:
        add_stu(ico.plant, "hall-2", second)
        await until(lambda: ico.plant.devices["hall-2"].health.state == "running")
        said = await ico.ask("GET", "/sth", status=409)
        assert "tools, hall-2" in said["detail"]
        check(await ico.ask("GET", "/state", status=409), shapes.DETAIL)
        await ico.ask("PUT", "/sth/connect?device=hall-2", {"mac_address": MAC_OF[SPINDLE]})
        assert await ico.ask("GET", "/stu/connected?device=hall-2") is True
        assert await ico.ask("GET", "/stu/connected?device=tools") is False
        await ico.ask("PUT", "/sth/disconnect?device=hall-2")


async def test_without_an_stu_nothing_is_measured(tmp_path: Path) -> None:
    async with contract(tmp_path) as ico:
        status = await ico.ask("GET", "/measurement")
        ico.plant.devices.pop(TOOLS)
        assert await ico.ask("GET", "/measurement") == status and status["running"] is False
        check(await ico.ask("GET", "/stu/connected", status=404), shapes.DETAIL)


async def test_what_is_not_there(ico: Contract) -> None:
    check(await ico.ask("GET", "/nope", status=404), shapes.DETAIL)
    check(await ico.ask("PATCH", "/sth", status=405), shapes.DETAIL)
    check(await ico.ask("GET", "/config/dataspace", status=405), shapes.DETAIL)
    async with ico.client.get("/v1/state") as answer:
        assert answer.status == 404
