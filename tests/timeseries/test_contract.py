"""Every operation of timeseries-api: status, shape, types and headers, as its clients know them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.api.compat.timeseries import points as points_module
from gateway.controls.devices import Push, PushedSample
from gateway.model import Batch, Flag, Receipt
from tests.timeseries.bench import EVE, POINTS_DEVICE, ROBIN, SERIES, Bench, bench, serving


def now_iso(**before: float) -> str:
    return (datetime.now() - timedelta(**before)).isoformat()  # noqa: DTZ005  # local and naive, as the contract


async def test_the_old_test_script(api: Bench) -> None:
    """What tests/test_api.py of timeseries-api does, with its statuses."""
    auth = {"token": ROBIN}
    status, series, _ = await api.ask("PUT", "/series/new", SERIES | {"timestamp": now_iso()})
    assert status == 201 and type(series) is int
    status, listed, _ = await api.ask("GET", "/series")
    assert status == 200 and str(series) in listed
    points = []
    for value in (1, 2, 3):
        status, point, _ = await api.ask(
            "PUT", "/point/new", {"fields": {"temp_C": value}, "series_id": series} | auth
        )
        assert status == 201 and type(point) is int
        points.append(point)
    assert len(await api.points(series)) == 3
    assert (await api.ask("GET", f"/point/{points[0]}"))[0] == 200
    assert (await api.ask("DELETE", f"/point/{points[0]}", auth))[:2] == (204, None)
    assert (await api.ask("GET", f"/point/{points[0]}"))[0] == 404
    assert len(await api.points(series)) == 2
    assert (await api.ask("DELETE", f"/series/{series}", auth))[:2] == (204, None)
    assert str(series) not in (await api.ask("GET", "/series"))[1]
    assert (await api.ask("GET", f"/series/{series}"))[0] == 404


async def test_the_list_of_series(api: Bench) -> None:
    status, empty, headers = await api.ask("GET", "/series")
    assert (status, empty) == (200, {})
    assert headers["Content-Type"].startswith("application/json")
    before = now_iso()
    one, other = await api.register(), await api.register(EVE, device_id=7, desc=None)
    await api.add(one, temp_C=13)
    await api.add(one, temp_C=13.5, batt_V=3.3)
    status, listed, _ = await api.ask("GET", "/series")
    assert status == 200 and list(listed) == [str(one), str(other)]
    first = listed[str(one)]
    assert before <= first.pop("timestamp") <= now_iso()
    assert first == {
        "id": one,
        "desc": "Temperature in Tokyo",
        "device_desc": "ESP32 with DS18B20",
        "device_id": "12:AB:CD:XY:ZU:57",
        "user": "Robin",
        "count": 2,
    }
    assert (listed[str(other)]["device_id"], listed[str(other)]["desc"]) == ("7", None)
    assert (listed[str(other)]["user"], listed[str(other)]["count"]) == ("Eve", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device_id": None}, {"device_id": "Some kind of device ID"}),
        ({"device_desc": None}, {"device_desc": "Some kind of device ID"}),
        ({"device_id": {}}, {"device_id": "A text of at most 1000 characters"}),
        ({"desc": "x" * 1001}, {"desc": "A text of at most 1000 characters"}),
    ],
)
async def test_a_series_with_a_wrong_field(api: Bench, change: Any, message: Any) -> None:
    status, body, headers = await api.ask("PUT", "/series/new", SERIES | change)
    assert (status, body) == (400, {"message": message})
    assert headers["Content-Type"].startswith("application/json")


async def test_a_series_without_both_required_fields(api: Bench) -> None:
    status, body, _ = await api.ask("PUT", "/series/new", {"token": ROBIN})
    assert status == 400 and set(body["message"]) == {"device_id", "device_desc"}


@pytest.mark.parametrize("path", ["/series/7", "/series/x", "/point/7", "/point/x"])
async def test_only_new_is_put(api: Bench, path: str) -> None:
    status, body, _ = await api.ask("PUT", path, SERIES)
    assert status == 404 and isinstance(body["message"], str)


async def test_the_points_of_a_series(api: Bench) -> None:
    series = await api.register()
    assert await api.points(series) == []
    fields: list[dict[str, Any]] = [
        {"temp_C": 13},
        {"temp_C": 12.5, "batt_V": 3.3},
        {"note": "wärmer", "on": True, "none": None, "list": [1, "a"]},
        {"imu": {"x": 1, "mag": {"z": 0.5}, "on/off": False}, "imu/x": 7, "~": "tilde"},
    ]
    before = now_iso()
    numbers = [await api.add(series, **each) for each in fields]
    points = await api.points(series)
    assert [point["fields"] for point in points] == fields
    assert [point["id"] for point in points] == numbers == sorted(numbers)
    assert {point["series_id"] for point in points} == {series}
    assert before <= points[0]["timestamp"] < points[1]["timestamp"] < points[2]["timestamp"] <= now_iso()
    status, point, headers = await api.ask("GET", f"/point/{numbers[1]}")
    assert (status, point) == (200, points[1])
    assert headers["Content-Type"].startswith("application/json")
    assert headers["Content-Length"], "a small client knows no chunks"
    tags = {f"{series}/{place}" for place in ("imu/x", "imu/mag/z", "imu/on~1off", "imu~1x", "~0")}
    assert tags <= api.plant.devices["timeseries"].tags.keys()


async def test_places_that_exclude_each_other_are_shown_by_their_tags(api: Bench) -> None:
    """As only a native client can have pushed them: an object and a value of one name, in one point."""
    series, device = await api.register(), api.plant.devices["timeseries"]
    push = device.control(Push)
    assert push is not None
    ts = time.time_ns() // 1000
    tags = ("imu/x", "imu", "imu/y/z")
    await push.push([PushedSample(f"{series}/{tag}", n, ts) for n, tag in enumerate(tags)])
    (point,) = await api.points(series)
    assert point["fields"] == {"imu": 1, "imu/x": 0, "imu/y/z": 2}


async def test_the_window_is_the_last_two_days(api: Bench) -> None:
    series = await api.register()
    await api.add(series, n=0)
    (tag,) = (name for name in api.plant.devices["timeseries"].tags if name.endswith("/n"))
    push = api.plant.devices["timeseries"].control(Push)
    assert push is not None
    now_us, hour_us = time.time_ns() // 1000, 3_600_000_000
    ages = {"in": 47 * hour_us, "out": 49 * hour_us, "old": 24 * 30 * hour_us}
    await push.push([PushedSample(tag, name, now_us - age) for name, age in ages.items()])

    async def seen(**query: str) -> list[Any]:
        return [point["fields"]["n"] for point in await api.points(series, **query)]

    assert await seen() == ["in", 0]
    assert await seen(**{"from": now_iso(days=3)}) == ["out", "in", 0]
    assert await seen(**{"from": now_iso(days=40)}) == ["old", "out", "in", 0]
    assert await seen(to=now_iso(hours=48.5)) == ["out"], "two days before `to`"
    assert await seen(**{"from": now_iso(days=40), "to": now_iso(days=20)}) == ["old"]
    assert await seen(**{"from": "nonsense", "to": "13.13.2018"}) == ["in", 0], "bad dates are ignored"
    assert await seen(**{"from": now_iso(days=-1)}) == []
    exact = {"from": points[0]["timestamp"]} if (points := await api.points(series)) else {}
    assert await seen(**exact, to=points[0]["timestamp"]) == ["in"], "both ends included"
    utc = datetime.fromtimestamp((now_us - ages["in"]) / 1e6).astimezone().isoformat()
    assert await seen(**{"from": utc}) == ["in", 0]


async def test_a_series_longer_than_an_answer_that_is_held_in_memory(api: Bench) -> None:
    series = await api.register()
    await api.add(series, n=-1)
    push = api.plant.devices["timeseries"].control(Push)
    assert push is not None
    start = time.time_ns() // 1000 - 3_600_000_000
    await push.push([PushedSample(f"{series}/n", n, start + n) for n in range(20_000)])
    async with api.client.get(f"/series/{series}", params={"callback": "f"}) as answer:
        text = await answer.text()
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert answer.headers["Content-Type"] == "application/javascript; charset=utf-8"
    assert text.startswith("f([") and text.endswith("])")
    points = json.loads(text[2:-1])
    assert [point["fields"]["n"] for point in points] == [*range(20_000), -1]


async def test_a_count_that_failed_is_made_anew(api: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    series = await api.register()
    for n in range(3):
        await api.add(series, a=n)
    async with serving(api.plant, api.users) as again:
        with monkeypatch.context() as broken:
            broken.setattr(api.plant.store, "samples", _unreadable)
            assert (await again.ask("GET", "/points/count"))[0] >= 500
        assert (await again.ask("GET", "/points/count"))[:2] == (200, 3)


async def _unreadable(*_: object) -> AsyncIterator[Batch]:
    raise OSError("the disk cannot be read")
    yield Batch()


async def test_an_old_count_holds_as_long_as_the_oldest_point_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks after an hour has not all history read again, unless retention took something."""
    monkeypatch.setattr(points_module, "_COUNT_NS", 0)
    async with bench(tmp_path) as api:
        series, store, batches = await api.register(), api.plant.store, 0
        push = api.plant.devices[POINTS_DEVICE].control(Push)
        assert push is not None
        await push.push([PushedSample(f"{series}/a", n, n) for n in range(30_000)])
        await api.add(series, a=1)
        read = store.samples

        async def counted(*window: Any) -> AsyncIterator[Batch]:
            nonlocal batches
            async for batch in read(*window):
                batches += 1
                yield batch

        monkeypatch.setattr(store, "samples", counted)
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 30_001)
        once, batches = batches, 0
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 30_001)
        assert once > 2 and batches == 1
        (number,) = store.series_of(POINTS_DEVICE).values()
        await store.delete(number, "retention", 0, 9_999)
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 20_001)


async def test_counts(api: Bench) -> None:
    one, other = await api.register(), await api.register()
    assert (await api.ask("GET", "/points/count"))[:2] == (200, 0)
    first = await api.add(one, a=1, b=2)
    for n in range(3):
        await api.add(other, **{f"f{n}": n})
    assert (await api.ask("GET", "/points/count"))[:2] == (200, 4)
    await api.ask("DELETE", f"/point/{first}", {"token": ROBIN})
    await api.ask("DELETE", f"/point/{first}", {"token": ROBIN})
    assert (await api.ask("GET", "/points/count"))[:2] == (200, 3)
    async with serving(api.plant, api.users) as again:  # counted anew
        assert (await again.ask("GET", "/points/count"))[:2] == (200, 3)
        await asyncio.gather(*(again.add(one, a=n) for n in range(5)), again.ask("GET", "/series"))
        assert (await again.ask("GET", "/points/count"))[:2] == (200, 8)
        await again.ask("DELETE", f"/series/{other}", {"token": ROBIN})
        assert (await again.ask("GET", "/points/count"))[:2] == (200, 5)


async def test_a_point_that_is_committed_while_it_is_counted_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else asks: a count of before the point would hold until the point is acknowledged."""
    async with bench(tmp_path) as api:
        series = await api.register()
        push = api.plant.devices["timeseries"].control(Push)
        assert push is not None
        really_push, stored, answer = push.push, asyncio.Event(), asyncio.Event()

        async def slowly(samples: Sequence[PushedSample]) -> Receipt:
            receipt = await really_push(samples)
            stored.set()
            await answer.wait()
            return receipt

        monkeypatch.setattr(push, "push", slowly)
        adding = asyncio.ensure_future(api.add(series, a=1))
        await stored.wait()
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 1)
        answer.set()
        await adding
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 1)
        await api.add(series, a=2)
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 2)


async def test_a_point_that_waits_for_its_commit_is_counted(tmp_path: Path) -> None:
    async with bench(tmp_path, commit_interval_s=5) as api:
        series = await api.register()
        await api.add(series, a=1)  # at once: nothing was committed lately
        adding = asyncio.ensure_future(api.add(series, a=2))
        while not api.plant.store.state().pending_samples:
            await asyncio.sleep(0.01)
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 2)
        await adding
        assert (await api.ask("GET", "/points/count"))[:2] == (200, 2)


async def test_two_points_of_one_microsecond_have_ids_of_their_own(
    api: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await api.register(), await api.register()
    push = api.plant.devices["timeseries"].control(Push)
    assert push is not None
    now = push.stamp()
    monkeypatch.setattr(push, "stamp", lambda: now)
    numbers = [await api.add(series, a=series) for series in (one, other, one)]
    assert len(set(numbers)) == 3
    for series, number in zip((one, other, one), numbers, strict=True):
        _, point, _ = await api.ask("GET", f"/point/{number}")
        assert (point["series_id"], point["fields"]) == (series, {"a": series})


async def test_jsonp(api: Bench) -> None:
    series = await api.register()
    point = await api.add(series, note="a\u2028b")
    for path in ("/series", f"/series/{series}", f"/point/{point}", "/points/count"):
        async with api.client.get(path, params={"callback": "jQuery11_15.$done"}) as answer:
            text = await answer.text()
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "application/javascript; charset=utf-8"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "Cross-Origin-Resource-Policy" not in answer.headers, "another site's script tag loads it"
        assert text.startswith("jQuery11_15.$done(") and text.endswith(")")
        assert "\u2028" not in text
        _, plain, _ = await api.ask("GET", path)
        assert json.loads(text[len("jQuery11_15.$done(") : -1]) == plain
    async with api.client.get("/series", params={"callback": ""}) as answer:
        assert answer.headers["Content-Type"].startswith("application/json")


async def test_a_token_as_bearer(api: Bench) -> None:
    headers = {"Authorization": f"Bearer {ROBIN}"}
    without = {name: text for name, text in SERIES.items() if name != "token"}
    status, series, _ = await api.ask("PUT", "/series/new", without, headers=headers)
    assert status == 201
    body = {"series_id": str(series), "fields": {"a": 1}}
    status, point, _ = await api.ask("PUT", "/point/new", body, headers=headers)
    assert status == 201
    assert (await api.ask("DELETE", f"/point/{point}", headers=headers))[0] == 204
    assert (await api.ask("DELETE", f"/series/{series}", headers=headers))[0] == 204


async def test_points_are_samples_of_the_gateway(api: Bench) -> None:
    """Stored and streamed as all others, of one moment and marked as the gateway's own time."""
    heard: list[str] = []
    with api.plant.subscribe(lambda device, batch: heard.extend([device] * len(batch))):
        robins, eves = await api.register(), await api.register(EVE)
        point = await api.add(robins, temp_C=13, batt_V=3.3)
        await api.add(eves, EVE, temp_C=14)
    ours = [device for device in heard if device != "box"]  # where the load goes
    assert ours == ["timeseries", "timeseries", "Eve"], "Eve has a push device of her own name"
    tags = api.plant.devices["timeseries"].tags
    assert set(tags) == {f"{robins}/temp_C", f"{robins}/batt_V"}
    assert set(api.plant.devices["Eve"].tags) == {f"{eves}/temp_C"}
    samples = [api.plant.store.last(number) for number in tags.values()]
    assert {sample.ts for sample in samples if sample} == {point}
    assert all(sample is not None and sample.flags & Flag.OWN_TIME for sample in samples)


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with bench(tmp_path) as api:
        kept, gone = await api.register(), await api.register()
        point = await api.add(kept, a=1)
        await api.ask("DELETE", f"/series/{gone}", {"token": ROBIN})
        before = (await api.ask("GET", "/series"))[1]
    async with bench(tmp_path) as api:
        assert (await api.ask("GET", "/series"))[1] == before
        assert (await api.ask("GET", f"/point/{point}"))[1]["fields"] == {"a": 1}
        assert await api.register() == gone + 1, "an id is never given twice"


async def test_a_lost_file_of_series_leads_no_sample_into_a_new_one(tmp_path: Path) -> None:
    async with bench(tmp_path) as api:
        series = await api.register()
        await api.add(series, a=1)
    (tmp_path / "state" / "timeseries-series.json").unlink()
    async with bench(tmp_path) as api:
        assert await api.register() == series + 1


async def test_a_hundred_points_at_once_have_ids_of_their_own(api: Bench) -> None:
    series = await api.register()
    numbers = await asyncio.gather(*(api.add(series, n=n) for n in range(100)))
    points = await api.points(series)
    assert len(set(numbers)) == 100
    assert {point["id"]: point["fields"]["n"] for point in points} == dict(
        zip(numbers, range(100), strict=True)
    )
