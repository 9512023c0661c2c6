"""`/v1/stu` and `/v1/sth` with a simulated STU: what they do, and what they refuse."""

import asyncio
from pathlib import Path

import pytest

from gateway.api.tokens import Role
from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.protocols.icotronic import asking
from tests.icoapi.bench import TOOLS, Bench, bench, until
from tests.icotronic.plant import CHUCK, MAC_OF, OLD_TOOL, SPINDLE

pytestmark = pytest.mark.timeout(60)

ADC = {"prescaler": 2, "acquisition_time": 8, "oversampling_rate": 64, "reference_voltage_v": 3.3}
STU_MAC = "08-6B-D7-01-DE-10"


async def test_the_stu_says_what_it_is_and_whom_it_is_connected_to(api: Bench) -> None:
    (stu,) = (await api.ask("GET", "/v1/stu", role=Role.READ))["stus"]
    assert (stu["device"], stu["ready"], stu["connected"], stu["measurement"]) == (TOOLS, True, None, None)
    said = await api.ask("GET", "/v1/stu/information", role=Role.READ)
    assert said["mac"] == STU_MAC and said["firmware_version"] == "2.1.10"
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    (stu,) = (await api.ask("GET", "/v1/stu"))["stus"]
    assert stu["connected"] == {"name": SPINDLE, "mac": MAC_OF[SPINDLE]}


@pytest.mark.seed_row(4)
async def test_the_stu_is_reset_only_when_nothing_is_connected(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    refused = await api.ask("PUT", "/v1/stu/reset", status=409)
    assert SPINDLE in refused["error"]["message"] and api.stage.stu.resets == 0
    await api.ask("PUT", "/v1/sth/disconnect")
    assert (await api.ask("PUT", "/v1/stu/reset"))["ready"]
    assert api.stage.stu.resets == 1
    await api.ask("GET", "/v1/stu/information")


@pytest.mark.seed_row(6)
async def test_nodes_are_found_in_the_order_of_their_numbers(api: Bench) -> None:
    nodes = (await api.ask("GET", "/v1/sth"))["nodes"]
    assert [(node["number"], node["name"], node["mac"]) for node in nodes] == [
        (n, name, MAC_OF[name]) for n, name in enumerate((SPINDLE, CHUCK, OLD_TOOL))
    ]
    assert [node["rssi_dbm"] for node in nodes] == [-51, -64, -72]


@pytest.mark.seed_row(7)
async def test_a_node_is_connected_by_mac_name_or_number(api: Bench) -> None:
    for choice in ({"mac": MAC_OF[CHUCK].lower().replace("-", ":")}, {"name": CHUCK}, {"number": 1}):
        chuck = {"name": CHUCK, "mac": MAC_OF[CHUCK]}
        assert await api.ask("PUT", "/v1/sth/connect", choice) == chuck
        assert api.nodes.connected is not None and api.nodes.connected.name == CHUCK
        refused = await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE}, status=409)
        assert refused["error"]["code"] == "node_busy" and CHUCK in refused["error"]["message"]
        assert await api.ask("PUT", "/v1/sth/disconnect") == chuck
        assert (await api.ask("PUT", "/v1/sth/disconnect", status=409))["error"]["code"] == "not_connected"


async def test_a_foreign_mac_is_a_404_that_names_who_is_there(
    api: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "CONNECT_S", 1.0)
    refused = await api.ask("PUT", "/v1/sth/connect", {"mac": "00-11-22-33-44-55"}, status=404)
    assert refused["error"]["code"] == "node_not_found" and MAC_OF[CHUCK] in refused["error"]["message"]
    await api.ask("PUT", "/v1/sth/connect", {"name": CHUCK})


async def test_what_names_no_node_is_a_422_with_the_field(api: Bench) -> None:
    for body in (
        {}, {"mac": "08-6B-D7-01-DE"}, {"mac": "08-6B-D7-01-DE-8G"}, {"mac": 8}, {"mac": None}, {"name": ""},
        {"name": "nine byte"}, {"number": -1}, {"number": 256}, {"number": True}, {"number": "0"},
        {"name": SPINDLE, "number": 0}, {"node": SPINDLE}, [], "Spindle",
    ):  # fmt: skip
        refused = (await api.ask("PUT", "/v1/sth/connect", body, status=422))["error"]
        assert refused["code"] == "invalid" and "body" in refused["message"]
        assert isinstance(body, dict) is bool(refused["details"])
    assert api.nodes.connected is None


async def test_bodies_that_are_no_json(api: Bench) -> None:
    as_json = api.plant.bearer(Role.OPERATE) | {"Content-Type": "application/json"}
    as_text = as_json | {"Content-Type": "text/plain"}
    for headers, data, status in (
        (as_json, b"", 400), (as_json, b"{", 400), (as_json, b"\xff\xfe", 400), (as_json, b"[" * 10_000, 400),
        (as_text, b'{"name": "Chuck"}', 415),
    ):  # fmt: skip
        async with api.client.put("/v1/sth/connect", data=data, headers=headers) as answer:
            assert answer.status == status and (await answer.json())["error"]["message"].endswith(".")


@pytest.mark.seed_row(9)
async def test_a_name_has_at_most_8_bytes_and_is_that_of_the_node_meant(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    said = await api.ask("PUT", "/v1/sth/rename", {"new_name": "Fräse", "mac": MAC_OF[SPINDLE]})
    assert said == {"name": "Fräse", "mac": MAC_OF[SPINDLE], "old_name": SPINDLE}
    assert (await api.ask("GET", "/v1/sth/information"))["name"] == "Fräse"
    for name in ("", "nine byte", "äöüßä", "a\nb", "  ", 8, None):
        refused = await api.ask("PUT", "/v1/sth/rename", {"new_name": name}, status=422)
        assert refused["error"]["details"][0]["field"] == "new_name", name
    refused = await api.ask("PUT", "/v1/sth/rename", {"new_name": "Other", "mac": MAC_OF[CHUCK]}, status=409)
    assert "Fräse" in refused["error"]["message"]
    assert [node.name.decode() for node in api.stage.stu.nodes] == ["Fräse", CHUCK, OLD_TOOL]


@pytest.mark.seed_row(9)
async def test_a_node_that_is_not_connected_is_connected_to_be_renamed(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/rename", {"new_name": "Lathe"}, status=409)
    said = await api.ask("PUT", "/v1/sth/rename", {"new_name": "Lathe", "mac": MAC_OF[CHUCK]})
    assert said["old_name"] == CHUCK and api.nodes.connected is None
    assert "Lathe" in [node["name"] for node in (await api.ask("GET", "/v1/sth"))["nodes"]]


async def test_the_adc_is_read_and_written(api: Bench) -> None:
    await api.ask("GET", "/v1/sth/adc", status=409)
    await api.ask("PUT", "/v1/sth/adc", ADC, status=409)
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    for changed in (
        {"prescaler": 127}, {"acquisition_time": 256}, {"oversampling_rate": 4096},
        {"reference_voltage_v": 1.25},
    ):  # fmt: skip
        wanted = ADC | changed
        said = await api.ask("PUT", "/v1/sth/adc", wanted)
        assert said == await api.ask("GET", "/v1/sth/adc", role=Role.READ)
        assert said == wanted | {"sample_rate_hz": AdcConfiguration(*wanted.values()).sample_rate_hz}  # type: ignore[arg-type]


async def test_adc_values_out_of_range_are_a_422_and_reach_no_node(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    for field, value in (
        ("prescaler", 0), ("prescaler", 128), ("prescaler", 2.5), ("prescaler", "2"), ("prescaler", None),
        ("acquisition_time", 5), ("oversampling_rate", 3), ("oversampling_rate", 8192),
        ("reference_voltage_v", 3.4), ("reference_voltage_v", "high"), ("gain", 1),
    ):  # fmt: skip
        refused = await api.ask("PUT", "/v1/sth/adc", ADC | {field: value}, status=422)
        assert [each["field"] for each in refused["error"]["details"]] == [field]
    assert not [data for data in api.stage.asked(0x28, 0x00) if data[0] & 0x80]


async def test_voltage_rssi_information_and_sensors_of_a_node(api: Bench) -> None:
    for path in ("supply-voltage", "rssi", "information", "sensor-map"):
        assert (await api.ask("GET", f"/v1/sth/{path}", status=409))["error"]["code"] == "not_connected"
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    api.stage.node(SPINDLE).supply_count = 12_600
    said = await api.ask("GET", "/v1/sth/supply-voltage", role=Role.READ)
    assert said["supply_voltage_v"] == pytest.approx(3.616, abs=0.001)
    assert await api.ask("GET", "/v1/sth/rssi", role=Role.READ) == {"rssi_dbm": -51}
    said = await api.ask("GET", "/v1/sth/information", role=Role.READ)
    assert (said["name"], said["mac"], said["serial_number"]) == (SPINDLE, MAC_OF[SPINDLE], "STH-0001")
    assert await api.ask("PUT", "/v1/sth/sensor-map", {"sensors": [7, 0, 9]}) == {"sensors": [7, 2, 9]}
    for wrong in ([1, 2], [1, 2, 256], [1, 2, -1], [1, 2, "3"], [1, 2, None], None):
        await api.ask("PUT", "/v1/sth/sensor-map", {"sensors": wrong}, status=422)
    assert await api.ask("GET", "/v1/sth/sensor-map") == {"sensors": [7, 2, 9]}


@pytest.mark.seed_row(12)
async def test_old_firmware_knows_no_sensors(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/connect", {"name": OLD_TOOL})
    for method, body in (("GET", None), ("PUT", {"sensors": [4, 5, 6]})):
        refused = await api.ask(method, "/v1/sth/sensor-map", body, status=409)
        assert refused["error"]["code"] == "unsupported" and "firmware" in refused["error"]["message"]


async def test_a_node_is_restarted(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/reset", status=409)
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    assert (await api.ask("PUT", "/v1/sth/reset"))["name"] == SPINDLE
    assert api.nodes.connected is None


async def test_parallel_requests_all_answer(api: Bench) -> None:
    """Acknowledgements carry no number of their request: only one request may be under way."""
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    paths = ("stu/information", "sth", "sth/adc", "sth/rssi", "sth/supply-voltage", "sth/sensor-map")
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(api.ask("GET", f"/v1/{path}")) for path in paths * 4]
    answers = [task.result() for task in asked]
    for n in range(len(paths)):
        assert answers[n :: len(paths)] == [answers[n]] * 4


async def test_a_client_that_goes_away_disturbs_nobody(api: Bench) -> None:
    """What it asked for is done, and the next one's answer is its own."""
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    api.stage.stu.faults.delay_s = 0.1
    for path in ("sth/adc", "sth/rssi", "sth/supply-voltage", "sth", "stu/information") * 2:
        leaving = asyncio.create_task(api.ask("GET", f"/v1/{path}"))
        await asyncio.sleep(0.05)
        leaving.cancel()
        assert (await api.ask("GET", "/v1/sth/rssi")) == {"rssi_dbm": -51}


@pytest.mark.seed_row(5)
async def test_a_silent_node_is_a_503_with_a_sentence_and_then_lost(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    api.stage.stu.faults.unreachable = [SPINDLE]
    asked = await api.ask("GET", "/v1/sth/adc", status=503)
    assert SPINDLE in asked["error"]["message"] or "sensor node" in asked["error"]["message"]
    await until(lambda: api.nodes.connected is None)
    lost = await api.ask("GET", "/v1/sth/adc", status=409)
    assert lost["error"]["code"] == "not_connected" and "was lost" in lost["error"]["message"]
    await until(lambda: api.plant.devices[TOOLS].health.state == "degraded")
    (stu,) = (await api.ask("GET", "/v1/stu"))["stus"]
    assert stu["ready"] and stu["connected"] is None and "was lost" in stu["health"]["detail"]


async def test_an_error_acknowledgement_is_a_502(api: Bench) -> None:
    await api.ask("PUT", "/v1/sth/connect", {"name": SPINDLE})
    api.stage.stu.faults.error_acks = -1
    refused = await api.ask("GET", "/v1/sth/adc", status=502)
    api.stage.stu.faults.error_acks = 0
    assert refused["error"]["code"] == "node_refused"
    await api.ask("GET", "/v1/sth/adc")


async def test_several_stus_have_to_be_named(tmp_path: Path) -> None:
    async with bench(tmp_path, ("hall-1", "hall-2")) as api:
        for method, path, body in (
            ("GET", "/v1/stu/information", None), ("PUT", "/v1/stu/reset", None), ("GET", "/v1/sth", None),
            ("PUT", "/v1/sth/connect", {"name": SPINDLE}), ("GET", "/v1/measurement", None),
        ):  # fmt: skip
            refused = (await api.ask(method, path, body, status=409))["error"]
            assert "hall-1, hall-2" in refused["message"]
            assert refused["details"] == [{"device": "hall-1"}, {"device": "hall-2"}]
        await api.ask("PUT", "/v1/sth/connect?device=hall-2", {"name": SPINDLE})
        stus = (await api.ask("GET", "/v1/stu"))["stus"]
        assert [stu["connected"] and stu["connected"]["name"] for stu in stus] == [None, SPINDLE]
        for other in ("hall-3", "box", ""):
            await api.ask("GET", f"/v1/sth/adc?device={other}", status=404)


async def test_without_an_stu_it_is_a_404_and_with_a_dead_one_a_409(tmp_path: Path) -> None:
    async with bench(tmp_path / "none", ()) as api:
        assert (await api.ask("GET", "/v1/stu")) == {"stus": []}
        assert "icotronic" in (await api.ask("GET", "/v1/sth", status=404))["error"]["message"]
    async with bench(tmp_path / "dead") as api:
        api.stage.stu.faults.mute = True
        await until(lambda: api.plant.devices[TOOLS].health.state == "failed")
        refused = await api.ask("GET", "/v1/sth", status=409)
        assert "STU" in refused["error"]["message"] and "powered" in refused["error"]["message"]
        (stu,) = (await api.ask("GET", "/v1/stu"))["stus"]
        assert not stu["ready"] and stu["health"]["state"] == "failed"


async def test_reading_needs_read_and_acting_needs_operate(api: Bench) -> None:
    for method, path in (
        ("GET", "sth"), ("PUT", "sth/connect"), ("PUT", "sth/disconnect"), ("PUT", "sth/rename"),
        ("PUT", "sth/reset"), ("PUT", "sth/adc"), ("PUT", "sth/sensor-map"), ("PUT", "stu/reset"),
        ("POST", "measurement/start"),
        ("POST", "measurement/stop"), ("POST", "measurement/post-metadata"),
    ):  # fmt: skip
        await api.ask(method, f"/v1/{path}", status=403, role=Role.READ)
        async with api.client.request(method, f"/v1/{path}") as answer:
            assert answer.status == 401
    assert api.nodes.connected is None
