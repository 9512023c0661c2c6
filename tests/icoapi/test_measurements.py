"""`/v1/measurement` with a simulated STU: started, seen by several, stopped, refused."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.api import sockets
from gateway.api.tokens import Role
from gateway.demo.bus.signals import count
from gateway.measurements import live
from tests.icoapi.bench import TOOLS, Bench, until
from tests.icotronic.plant import OLD_TOOL, SPINDLE
from tests.measurements.reading import attributes, physical, table

pytestmark = pytest.mark.timeout(60)

PLAN = {"channels": [{"number": 1}, None, None]}


async def connected(api: Bench, name: str = SPINDLE) -> None:
    await api.ask("PUT", "/v1/sth/connect", {"name": name})


async def start(api: Bench, **plan: Any) -> Any:
    return await api.ask("POST", "/v1/measurement/start", PLAN | plan, status=201)


async def written(api: Bench, name: str) -> Any:
    """Wait for the file of a measurement, and return what is said of it."""
    await api.plant.measurements.finished(name)
    return await api.ask("GET", f"/v1/measurement/{name}", role=Role.READ)


@contextlib.asynccontextmanager
async def measuring(api: Bench, **plan: Any) -> AsyncIterator[Any]:
    """Enter while something is measured."""
    await connected(api)
    begun = await start(api, **plan)
    try:
        yield begun
    finally:
        if api.plant.measurements.running(TOOLS):
            await api.ask("POST", "/v1/measurement/stop")


@pytest.mark.seed_row(23, 24)
async def test_a_measurement_with_all_that_can_be_asked_for(api: Bench) -> None:
    await connected(api)
    metadata = {"version": "1", "profile": "turning", "parameters": {"speed": {"value": 12, "unit": "rpm"}}}
    begun = await start(
        api,
        name="Fräsen 3/4", duration_s=30,
        channels=[{"number": 2, "sensor_id": "acc100g_01"}, None, {"number": 1}],
        adc={"prescaler": 2, "acquisition_time": 16, "oversampling_rate": 128, "reference_voltage_v": 2.5},
        ift={"channel": 3, "window_s": 0.1}, metadata=metadata,
        wait_for_post_metadata=True, disconnect_afterwards=True,
    )  # fmt: skip
    name = begun["name"]
    assert name.startswith("Fraesen_3_4__plant__") and begun["state"] == "recording"
    assert begun["adc"]["reference_voltage_v"] == 2.5 and begun["node"] == SPINDLE
    assert [channel and channel["sensor"]["id"] for channel in begun["channels"]] == [
        "acc100g_01", None, "acc100g_01",
    ]  # fmt: skip
    status = await api.ask("GET", "/v1/measurement", role=Role.READ)
    assert status["device"] == TOOLS and status["running"]["name"] == name
    said = await api.ask("POST", f"/v1/devices/{TOOLS}/reconnect", status=409)
    assert name in said["error"]["message"]
    await until(lambda: api.plant.measurements.find(name).received > 300)  # type: ignore[union-attr]
    stopped = await api.ask("POST", "/v1/measurement/stop")
    assert stopped["state"] in ("recorded", "written") and stopped["ended_us"] > stopped["started_us"]
    assert (await api.ask("GET", "/v1/measurement"))["running"] is None
    await until(lambda: api.nodes.connected is None)
    waiting = await written(api, name)
    assert waiting["state"] == "written" and waiting["waits_for_metadata"]
    said = await api.ask("POST", "/v1/measurement/post-metadata", {"metadata": metadata | {"version": "2"}})
    assert said["name"] == name and not said["waits_for_metadata"]
    done = await written(api, name)
    (listed,) = (await api.ask("GET", "/v1/measurement/list?device=tools", role=Role.READ))["measurements"]
    assert listed == done and done["loss"] == 0 and not done["interrupted"] and done["ending"] == ""
    rows = table(api.plant.measurements.folder / done["file"])
    assert len(rows) == done["received"]
    sensors = begun["channels"][0]["sensor"]
    assert (sensors["phys_min"], sensors["volt_max"]) == (-100, 2.97)
    kept = attributes(api.plant.measurements.folder / done["file"])
    assert '"version": "1"' in kept["pre_metadata"] and '"version": "2"' in kept["post_metadata"]
    assert api.stage.node(SPINDLE).sensors == [2, 2, 1]


async def test_what_cannot_be_measured_is_refused_with_the_field(api: Bench) -> None:
    await connected(api)
    one = {"number": 1}
    for field, plan in (
        ("", {"channels": [None, None, None]}), ("channels", {"channels": [one]}),
        ("channels", {"channels": None}),
        ("channels.1.number", {"channels": [one, {"number": 256}, None]}),
        ("channels.0.number", {"channels": [{"number": 0}, None, None]}),
        ("channels.0.sensor_id", {"channels": [one | {"sensor_id": "nope"}, None, None]}),
        ("duration_s", PLAN | {"duration_s": 0}), ("duration_s", PLAN | {"duration_s": 1e9}),
        ("adc.prescaler", PLAN | {"adc": {"prescaler": 0, "acquisition_time": 8, "oversampling_rate": 64,
                                          "reference_voltage_v": 3.3}}),
        ("ift.window_s", PLAN | {"ift": {"channel": 1, "window_s": 2}}),
        ("", PLAN | {"ift": {"channel": 2, "window_s": 0.1}}),
        ("metadata", PLAN | {"metadata": [1]}), ("name", PLAN | {"name": "x" * 300}),
        ("mac", PLAN | {"mac": "x"}),
    ):  # fmt: skip
        refused = await api.ask("POST", "/v1/measurement/start", plan, status=422)
        assert [each["field"] for each in refused["error"]["details"]] == [field], plan
        assert len(refused["error"]["message"]) > 20
    assert api.stage.streaming == [] and api.plant.measurements.listed() == []


async def test_what_the_state_does_not_allow_is_a_409(api: Bench) -> None:
    for path, body in (("start", PLAN), ("stop", None), ("post-metadata", {"metadata": {}})):
        refused = await api.ask("POST", f"/v1/measurement/{path}", body, status=409)
        assert refused["error"]["message"].endswith(".")
    unknown = {"metadata": {}, "name": "nope"}
    await api.ask("POST", "/v1/measurement/post-metadata", unknown, status=404)
    await api.ask("GET", "/v1/measurement/nope", status=404)
    async with measuring(api) as begun:
        for method, path, body in (
            ("POST", "measurement/start", PLAN), ("PUT", "sth/disconnect", None), ("PUT", "sth/reset", None),
            ("PUT", "stu/reset", None), ("PUT", "sth/sensor-map", {"sensors": [1, 2, 3]}),
            ("PUT", "sth/connect", {"name": OLD_TOOL}),
        ):  # fmt: skip
            await api.ask(method, f"/v1/{path}", body, status=409)
        assert api.plant.measurements.running(TOOLS).name == begun["name"]  # type: ignore[union-attr]
        (stu,) = (await api.ask("GET", "/v1/stu"))["stus"]
        assert stu["measurement"] == begun["name"]
        assert (await api.ask("GET", "/v1/sth/adc"))["prescaler"] == 2, "reading is possible meanwhile"
    assert (await written(api, begun["name"]))["interrupted"] is False


async def test_old_firmware_measures_no_other_sensors(api: Bench) -> None:
    await connected(api, OLD_TOOL)
    plan = {"channels": [{"number": 5}, None, None]}
    refused = await api.ask("POST", "/v1/measurement/start", plan, status=409)
    assert refused["error"]["code"] == "unsupported"
    await start(api)
    await api.ask("POST", "/v1/measurement/stop")


async def test_two_starts_at_once_are_one_measurement(api: Bench) -> None:
    await connected(api)

    async def attempt() -> int:
        async with api.client.post(
            "/v1/measurement/start", json=PLAN, headers=api.plant.bearer(Role.OPERATE)
        ) as answer:
            return answer.status

    async with asyncio.TaskGroup() as group:
        attempts = [group.create_task(attempt()) for _ in range(6)]
    assert sorted(task.result() for task in attempts) == [201] + [409] * 5
    await api.ask("POST", "/v1/measurement/stop")


def frames_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message for message in messages if message["type"] == "frames"]


async def heard(client: aiohttp.ClientWebSocketResponse, kind: str) -> list[dict[str, Any]]:
    """Return the messages up to one of this type."""
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not messages or messages[-1]["type"] != kind:
            messages.append(await client.receive_json())
    return messages


@pytest.mark.seed_row(17)
async def test_every_client_gets_every_frame_and_one_who_aborts_is_alone(api: Bench) -> None:
    async with api.socket() as one, api.socket() as other, api.socket() as wrong, api.socket() as aborting:
        first = await one.receive_json()
        assert first == {"type": "state", "device": TOOLS, "running": None}
        async with measuring(api, ift={"channel": 1, "window_s": 0.05}) as begun:
            await heard(wrong, "frames")
            await wrong.send_str("{not json")
            while (message := await wrong.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert message.type is aiohttp.WSMsgType.CLOSE and wrong.close_code == sockets.BAD_MESSAGE
            assert aborting._response.connection is not None
            aborting._response.connection.transport.abort()  # type: ignore[union-attr]
            await heard(other, "loss")
            assert api.plant.measurements.running(TOOLS) is not None
            await api.ask("POST", "/v1/measurement/stop")
            seen = await heard(one, "ended")
        done = await written(api, begun["name"])
    frames = frames_of(seen)
    counters = [counter for message in frames for counter in message["counters"]]
    assert counters == [n % 256 for n in range(done["received"])]
    assert not any(message["missed"] for message in frames)
    values = [value for message in frames for value in message["values"][0]]
    sensor = api.plant.documents.sensors().sensors[0]
    assert values == [physical(count(1, n), sensor, 3.3) for n in range(3 * done["received"])]
    assert all(message["values"][1:] == [None, None] for message in frames)
    assert all(len(message["sample_ts"]) == 3 * len(message["ts"]) for message in frames)
    ift = [value for message in seen if message["type"] == "ift" for value in message["values"]]
    assert len(ift) == len(values)
    assert {message["type"] for message in seen} == {"state", "frames", "loss", "ift", "ended"}
    assert seen[-1] == {"type": "ended", "measurement": begun["name"], "reason": "", "overall_loss": 0}


def small_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket into which little fits, so that a client who does not read is felt at once."""
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # which bounds the other side's buffer too
    made.setblocking(False)
    return made


async def test_a_client_that_reads_too_slowly_misses_frames_and_is_told_how_many(
    api: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_MOST_FRAMES", 500)
    async with (
        aiohttp.ClientSession(api.url, connector=aiohttp.TCPConnector(socket_factory=small_socket)) as client,
        client.ws_connect("/v1/measurement/stream", headers=api.plant.bearer(Role.READ)) as slow,
        api.socket() as quick,
    ):
        await slow.receive_json()
        assert slow._response.connection is not None and slow._response.connection.transport is not None
        transport = slow._response.connection.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        async with measuring(api, channels=[{"number": 1}, {"number": 2}, {"number": 3}]) as begun:
            found = api.plant.measurements.find(begun["name"])
            assert found is not None
            await until(lambda: found.received > 8_000, 60)
            await api.ask("POST", "/v1/measurement/stop")
            transport.resume_reading()  # type: ignore[attr-defined]
            got = [sum(len(m["ts"]) for m in frames_of(await heard(each, "ended"))) for each in (slow, quick)]
    assert 0 < got[0] < got[1] == found.received


async def test_a_socket_logs_in_and_learns_nothing_before(api: Bench) -> None:
    async with api.client.ws_connect("/v1/measurement/stream?device=nope") as socket:
        await socket.send_json({"token": api.plant.texts[Role.READ]})
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE and socket.close_code == 4404
    async with api.client.ws_connect("/v1/measurement/stream?device=nope") as socket:
        await socket.send_json({"token": "wrong"})
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == sockets.LOGIN_FAILED
    async with api.client.ws_connect("/v1/measurement/stream") as socket:
        await socket.send_json({"token": api.plant.texts[Role.READ]})
        assert (await socket.receive_json())["type"] == "state"


async def test_a_lost_node_ends_the_measurement_with_a_reason(api: Bench) -> None:
    async with api.socket() as socket:
        async with measuring(api) as begun:
            await heard(socket, "frames")
            api.stage.stu.faults.hang = True
            ended = (await heard(socket, "ended"))[-1]
        assert SPINDLE in ended["reason"]
        api.stage.stu.faults.hang = False
        done = await written(api, begun["name"])
        assert done["interrupted"] and done["ending"] == ended["reason"] and done["file"]
        async with measuring(api):
            assert (await heard(socket, "frames"))[-1]["measurement"] != begun["name"]
