"""Devices, polls, browsing, runs, gaps, state, metrics, uploads: the API with the real parts behind it."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api.schemas import StoreAnswer
from gateway.api.tokens import Role
from gateway.controls.devices import Channel
from gateway.forward import Forwarder
from gateway.model import Batch, Gap
from gateway.supervise import Backoff
from gateway.uploaders import http
from tests.api.plant import Plant
from tests.peers.receiver import Receiver, receiver

T0 = 1_763_690_000_000_000


async def get(client: aiohttp.ClientSession, path: str, expected: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == expected, await answer.text()
        return await answer.json()


@pytest.mark.seed_row("L3")
async def test_devices(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    async with admin.post("/v1/devices/box/samples", json=[{"tag": "speed", "ts": T0, "value": 2.5}]):
        pass
    devices = (await get(admin, "/v1/devices"))["devices"]
    assert [(device["id"], device["kind"], device["tags"]) for device in devices] == [
        ("box", "push", 1),
        ("counter", "counter", 1),
    ]
    box = await get(admin, "/v1/devices/box")
    assert box["health"]["state"] == "running"
    assert box["controls"] == ["push"]
    assert box["tags"] == [
        {
            "tag": "speed",
            "unit": "",
            "last": {"tag": "speed", "ts": T0, "value": 2.5, "status": 0},
            "state": None,
        }
    ]
    assert box["items"] is None
    assert abs(box["last_heard_us"] - gateway.clock.wall_us()) < 5_000_000
    counter = await get(admin, "/v1/devices/counter")
    assert counter["controls"] == ["browse"]
    assert counter["items"] == {"alive": 1, "subscribed": 0, "polled": 1, "bad": 1}
    about = {
        "type": "word",
        "format": "",
        "unit": "",
        "range": [0, 9],
        "instrument_range": None,
        "enum": {},
    }
    assert {row["tag"]: row["state"] for row in counter["tags"]} == {
        "count": {"way": "polled", "address": "register 1", "detail": "", "alive": True, "about": about}
    }


@pytest.mark.seed_row("L3")
async def test_a_poll_gives_its_run_and_a_second_one_joins(admin: aiohttp.ClientSession) -> None:
    async def poll() -> dict[str, Any]:
        async with admin.post("/v1/devices/counter/poll") as answer:
            assert answer.status == 200
            found: dict[str, Any] = await answer.json()
            return found

    answers = await asyncio.gather(*(poll() for _ in range(5)))
    assert len({answer["run_id"] for answer in answers}) == 1
    run = answers[0]["run"]
    assert (run["id"], run["device"], run["samples"], run["status"], run["error"]) == (
        answers[0]["run_id"], "counter", 1, "ok", None,
    )  # fmt: skip
    assert run["duration_us"] >= 50_000
    assert (await poll())["run_id"] > run["id"]
    await asyncio.sleep(0.1)  # runs ride on the group commit
    listed = (await get(admin, "/v1/runs?device=counter&status=ok"))["runs"]
    assert run in listed
    assert (await get(admin, "/v1/devices/counter"))["last_run"]["id"] == listed[0]["id"]


async def test_a_poll_that_takes_long_is_202(
    gateway: Plant, admin: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.api import devices

    monkeypatch.setattr(devices, "POLL_WAIT_S", 0.01)
    async with admin.post("/v1/devices/counter/poll") as answer:
        assert answer.status == 202
        accepted = await answer.json()
    assert accepted["run"] is None
    await asyncio.sleep(0.3)
    runs = (await get(admin, "/v1/runs?device=counter"))["runs"]
    assert [run["status"] for run in runs if run["id"] == accepted["run_id"]] == ["ok"]


async def test_a_poll_whose_session_ends_is_409(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    counter = gateway.devices["counter"]

    async def poll() -> tuple[int, str]:
        async with admin.post("/v1/devices/counter/poll") as answer:
            return answer.status, (await answer.json())["error"]["message"]

    polling = asyncio.create_task(poll())
    await asyncio.sleep(0.02)
    counter.lost("the cable was pulled")
    status, message = await polling
    assert status == 409
    assert "the cable was pulled" in message


async def test_a_device_is_told_to_reconnect(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    before = gateway.devices["counter"]
    async with admin.post("/v1/devices/counter/reconnect") as answer:
        assert answer.status == 200
        assert (await answer.json())["health"]["state"] == "running"
    assert gateway.devices["counter"] is not before
    async with admin.post("/v1/devices/nobody/reconnect") as answer:
        assert answer.status == 404


async def test_browsing_by_pages(admin: aiohttp.ClientSession) -> None:
    names: list[str] = []
    path = "/v1/devices/counter/browse?limit=10"
    page = await get(admin, path)
    while True:
        names += [node["name"] for node in page["nodes"]]
        if page["next"] is None:
            break
        page = await get(admin, f"{path}&cursor={page['next']}")
    assert names == [f"Machine {n}" for n in range(25)]
    [leaf] = (await get(admin, "/v1/devices/counter/browse?node=s%3Dm3"))["nodes"]
    assert (leaf["value"], leaf["value_type"], leaf["access"]) == ("NaN", "float", "r")


async def test_a_device_that_fails_while_it_is_browsed_is_named(admin: aiohttp.ClientSession) -> None:
    async with admin.get("/v1/devices/counter/browse?node=s%3Dgone") as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["message"] == (
            "device counter: the server has not answered for 10 s"
        )


@pytest.mark.seed_row("L3")
async def test_runs_and_gaps_by_pages_and_filters(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    for n in range(25):
        gateway.store.gap(
            Gap(n * 100, n * 100 + 50, f"reason {n}", device="box" if n % 2 else "other", count=n)
        )
    await gateway.store.flush()
    found: list[dict[str, Any]] = []
    page = await get(admin, "/v1/gaps?limit=4&device=box")
    while True:
        found += page["gaps"]
        if page["next"] is None:
            break
        page = await get(admin, f"/v1/gaps?limit=4&device=box&cursor={page['next']}")
    assert [gap["reason"] for gap in found] == [f"reason {n}" for n in range(23, 0, -2)]
    window = (await get(admin, "/v1/gaps?from=500&to=720"))["gaps"]
    assert [gap["count"] for gap in window] == [7, 6, 5]
    assert (await get(admin, "/v1/gaps?upload=cloud"))["gaps"] == []
    assert (await get(admin, "/v1/runs?device=box&from=9000000000000000"))["runs"] == []


async def test_a_clock_that_is_odd_and_a_name_that_is_odd(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    """A gap's reason may hold a foreign answer: whatever bytes it had, JSON comes out."""
    gateway.store.gap(Gap(-5, 5, 'said "\x00\x1b[31m\U0001f600"', device="box"))
    await gateway.store.flush()
    [gap] = (await get(admin, "/v1/gaps?device=box&limit=1"))["gaps"]
    assert gap["reason"] == 'said "\x00\x1b[31m\U0001f600"'


async def test_state(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    sentence = "Device box is spoken to without encryption."
    gateway.broken = ("gateway.yaml:1:1: broken",)
    with gateway.devices["box"].offer(Channel("none", sentence)):
        state = await get(admin, "/v1/state")
    assert (state["id"], state["version"]) == ("plant", "0.0.1")
    assert state["insecure"] == [f"device box: {sentence}"]
    assert state["config"]["problems"] == ["gateway.yaml:1:1: broken"]
    assert state["config"]["warnings"] == ["a warning"]
    assert state["store"]["bytes_budget"] > 0
    assert (state["store"]["salvaging"], state["store"]["tombstones"]) == ("", 0)
    assert StoreAnswer().validate(state["store"]) == {}, "it is what the documentation says, all of it"
    assert set(state["devices"]) == {"box", "counter"}
    assert 0 < state["uptime_s"] < 60


@pytest.mark.seed_row("L3")
async def test_healthz_is_open_and_says_nothing_else(anybody: aiohttp.ClientSession) -> None:
    assert await get(anybody, "/healthz") == {"status": "alive"}


async def test_every_answer_says_whether_the_clock_was_set(
    gateway: Plant, anybody: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    for synced, said in ((False, "unsynchronised"), (True, None)):
        monkeypatch.setattr(gateway.clock, "synchronised", lambda synced=synced: synced)
        for path in ("/healthz", "/v1/state", "/nowhere"):
            async with anybody.get(path) as answer:
                assert answer.headers.get("Clock") == said, path


LINE = re.compile(
    r"^(# TYPE edge_gateway_[a-z0-9_]+ gauge"
    r'|edge_gateway_[a-z0-9_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)*\})? -?[0-9.e+-]+)$'
)


async def test_metrics(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    async with admin.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await answer.text()
    for line in text.splitlines():
        assert LINE.match(line), line
    assert 'edge_gateway_device_running{device="box",kind="push"} 1' in text
    assert "edge_gateway_store_bytes_used " in text
    assert text.count("# TYPE edge_gateway_device_running ") == 1


@pytest.fixture
async def cloud(gateway: Plant, tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Receiver]:
    """A dataspace in its own process, which does not take the value 666, and an upload to it."""
    async with receiver(free_port(), tmp_path / "dataspace") as peer:
        await peer.faults(poison=666)
        settings = http.Settings(url=f"{peer.url}/ingest", gather_s=0.1)
        gateway.store.pin(["cloud"])
        forwarder = Forwarder(
            "cloud", "http", settings, gateway.store, gateway.clock, "plant", Backoff(first_s=0.05, cap_s=0.5)
        )
        gateway.supervisor.keep("upload cloud", forwarder.run)
        gateway.uploads["cloud"] = forwarder
        yield peer


@pytest.mark.timeout(30)
async def test_an_upload_its_quarantine_replay_and_discard(
    gateway: Plant, cloud: Receiver, admin: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    batch = Batch()
    for n in range(10):
        batch.add(gateway.devices["box"].tag("speed"), 1000 + n, 666 if n in (3, 7) else n)
    await (await gateway.devices["box"].emit(batch))
    quarantine = "/v1/uploads/cloud/quarantine"
    async with asyncio.timeout(10):
        while len(refused := (await get(admin, quarantine))["quarantine"]) < 2:
            await asyncio.sleep(0.05)
    assert [entry["sample"]["ts"] for entry in refused] == [1007, 1003]
    assert (refused[0]["device"], refused[0]["sample"]["tag"]) == ("box", "speed")
    assert refused[0]["reason"]
    page = await get(admin, f"{quarantine}?limit=1")
    assert (await get(admin, f"{quarantine}?limit=1&cursor={page['next']}"))["quarantine"] == refused[1:]

    [upload] = (await get(admin, "/v1/uploads"))["uploads"]
    assert (upload["id"], upload["kind"], upload["health"]["state"]) == ("cloud", "http", "running")
    assert "unencrypted" in upload["insecure"]
    assert upload["status"]["counters"]["refused"] == 2
    assert f"upload cloud: {upload['insecure']}" in (await get(admin, "/v1/state"))["insecure"]
    async with admin.get("/metrics") as answer:
        assert 'edge_gateway_upload_counters_refused{upload="cloud"} 2' in await answer.text()

    async with admin.get(f"{quarantine}?ids=1") as answer:
        assert answer.status == 422
    async with admin.post(f"{quarantine}?ids=x") as answer:
        assert answer.status == 422
    async with admin.post(f"{quarantine}?ids={refused[0]['id']}") as answer:
        assert await answer.json() == {"count": 0}  # refused again
    await cloud.faults(reset=True)
    async with admin.post(f"{quarantine}?ids={refused[0]['id']}") as answer:
        assert await answer.json() == {"count": 1}
    async with admin.delete(quarantine, headers=gateway.bearer(Role.OPERATE)) as answer:
        assert answer.status == 403
    with caplog.at_level(logging.INFO, "gateway.api"):
        async with admin.delete(quarantine) as answer:
            assert await answer.json() == {"count": 1}
    assert 'upload cloud: "a admin" let 1 refused samples be forgotten' in caplog.text
    assert (await get(admin, quarantine))["quarantine"] == []
    values = [sample["value"] for sample in await cloud.samples()]
    assert sorted(values) == [0, 1, 2, 4, 5, 6, 8, 9, 666]


@pytest.mark.timeout(30)
async def test_a_replay_to_a_target_that_is_down_is_503(
    gateway: Plant, cloud: Receiver, admin: aiohttp.ClientSession
) -> None:
    batch = Batch()
    batch.add(gateway.devices["box"].tag("speed"), 1000, 666)
    await (await gateway.devices["box"].emit(batch))
    quarantine = "/v1/uploads/cloud/quarantine"
    async with asyncio.timeout(10):
        while not (await get(admin, quarantine))["quarantine"]:
            await asyncio.sleep(0.05)
    await cloud.kill()
    async with admin.post(quarantine) as answer:
        assert answer.status == 503, await answer.text()
        assert answer.headers["Retry-After"]
    assert len((await get(admin, quarantine))["quarantine"]) == 1
