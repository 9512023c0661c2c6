"""Each row of the seeds' feature table that is timeseries-api's, but the plot page (row 53)."""

import asyncio
import json
import re
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import pytest

from gateway.controls.devices import Push, PushedSample
from tests.commands.conftest import command
from tests.timeseries.bench import EVE, GUEST, ROBIN, SERIES, USERS, Bench

pytestmark = pytest.mark.timeout(60)


@pytest.mark.seed_row(46)
async def test_series_have_their_user_and_count(api: Bench) -> None:
    """Two users, three points and a deleted one: `GET /series` has each series' user and count, no token."""
    mine, hers = await api.register(), await api.register(EVE)
    points = [await api.add(mine, temp_C=n) for n in range(3)]
    await api.ask("DELETE", f"/point/{points[0]}", {"token": ROBIN})
    _, listed, _ = await api.ask("GET", "/series")
    assert {number: (each["user"], each["count"]) for number, each in listed.items()} == {
        str(mine): ("Robin", 2),
        str(hers): ("Eve", 0),
    }
    assert ROBIN not in json.dumps(listed)


@pytest.mark.seed_row(47)
async def test_a_series_needs_a_token_and_its_fields(api: Bench) -> None:
    """201 with the id; 400 naming the required field that is missing; 403 for a token unknown or null."""
    assert (await api.ask("PUT", "/series/new", SERIES))[0] == 201
    for name in ("device_id", "device_desc"):
        status, said, _ = await api.ask(
            "PUT", "/series/new", {key: SERIES[key] for key in SERIES if key != name}
        )
        assert status == 400 and list(said["message"]) == [name]
    for token in ("unknown", None):
        assert (await api.ask("PUT", "/series/new", SERIES | {"token": token}))[0] == 403
    assert (await api.ask("PUT", "/series/new", {"device_id": "x", "device_desc": "y"}))[0] == 403


@pytest.mark.seed_row(48)
async def test_a_window_is_two_days_and_includes_both_ends(api: Bench) -> None:
    """Samples a minute within and beyond two days: the default window; `from` and `to` with both ends."""
    series = await api.register()
    newest = await api.add(series, n=0)
    push = api.plant.devices["timeseries"].control(Push)
    assert push is not None
    two_days_us, minute_us = 2 * 86_400_000_000, 60_000_000
    inside, outside = newest - two_days_us + minute_us, newest - two_days_us - minute_us
    await push.push([PushedSample(f"{series}/n", name, name) for name in (inside, outside)])
    assert [point["id"] for point in await api.points(series)] == [inside, newest]
    everything = await api.points(series, **{"from": "1970-01-02"})
    times = [point["timestamp"] for point in everything]
    assert [point["id"] for point in everything] == [outside, inside, newest]
    both = await api.points(series, **{"from": times[0], "to": times[1]})
    assert [point["id"] for point in both] == [outside, inside]
    after = (datetime.fromisoformat(times[0]) + timedelta(microseconds=1)).isoformat()
    assert [point["id"] for point in await api.points(series, **{"from": after, "to": times[1]})] == [inside]


@pytest.mark.seed_row(49)
async def test_a_point_has_any_fields_and_is_added_by_its_owner(api: Bench) -> None:
    """Any fields come back as they were; extra keys are dropped; missing ones: 400; another's series: 403."""
    series = await api.register()
    fields = {"temp_C": 12.5, "state": "on", "door": False, "none": None, "µ": [1, 2]}
    point = await api.add(series, **fields)
    assert (await api.ask("GET", f"/point/{point}"))[1]["fields"] == fields
    body = {"token": ROBIN, "series_id": series, "fields": {"a": 1}}
    assert (await api.ask("PUT", "/point/new", body | {"extra": 1}))[0] == 201
    for missing, status in (("token", 403), ("series_id", 400), ("fields", 400)):
        short = {key: value for key, value in body.items() if key != missing}
        assert (await api.ask("PUT", "/point/new", short))[0] == status, missing
    assert (await api.ask("PUT", "/point/new", body | {"token": EVE}))[0] == 403
    assert (await api.ask("PUT", "/point/new", body | {"series_id": 99}))[0] == 404


@pytest.mark.seed_row(50)
async def test_points_and_series_are_deleted_by_their_owner_only(api: Bench) -> None:
    """200, 204 and then 404 for the owner, 403 for others; of a deleted series no sample is left."""
    series = await api.register()
    first, second = await api.add(series, a=1), await api.add(series, a=2)
    for path in (f"/point/{first}", f"/series/{series}"):
        assert (await api.ask("GET", path))[0] == 200
        assert (await api.ask("DELETE", path, {"token": EVE}))[0] == 403
        assert (await api.ask("DELETE", path, {"token": ROBIN}))[0] == 204
        assert (await api.ask("GET", path))[0] == 404
        assert (await api.ask("DELETE", path, {"token": ROBIN}))[0] == 204
    assert (await api.ask("GET", f"/point/{second}"))[0] == 404
    assert not any(tag.startswith(f"{series}/") for tag in api.plant.devices["timeseries"].tags)


@pytest.mark.seed_row(51)
async def test_points_are_counted_and_a_callback_is_a_functions_name(api: Bench) -> None:
    """The count; with `callback` a script that calls it; a callback that is no function's name is a 400."""
    series = await api.register()
    for n in range(3):
        await api.add(series, n=n)
    assert (await api.ask("GET", "/points/count"))[:2] == (200, 3)
    async with api.client.get("/points/count", params={"callback": "f"}) as answer:
        assert (answer.content_type, await answer.text()) == ("application/javascript", "f(3)")
    for callback in ("alert(1)//", "<script>", "f;g"):
        assert (await api.ask("GET", "/points/count", params={"callback": callback}))[0] == 400


@pytest.mark.seed_row(52)
async def test_an_edit_of_the_users_is_taken_without_a_restart(api: Bench) -> None:
    """A user written into the file may write, one taken out may not, within seconds and without a restart."""
    api.users.write_text(json.dumps({EVE: USERS[EVE], GUEST: {"name": "Guest", "id": 3}}))
    async with asyncio.timeout(8):
        while (await api.ask("PUT", "/series/new", SERIES | {"token": GUEST}))[0] != 201:
            await asyncio.sleep(0.7)
    assert (await api.ask("PUT", "/series/new", SERIES))[0] == 403


@pytest.mark.seed_row(54)
async def test_plot_prints_what_the_api_answers(api: Bench) -> None:
    """`edge-gateway plot --series` and `plot --series ID`: what they print is what the API answers."""
    series = await api.register()
    values = [await api.add(series, temp_C=n) and n for n in (13, 15, 14)]
    url = api.client._base_url
    said = await command("plot", "--series", "--url", url, "--state", api.users.parent)
    _, listed, _ = await api.ask("GET", "/series")
    assert re.split(r"\s{2,}", said.out.strip()) == [
        str(series),
        listed[str(series)]["desc"],
        listed[str(series)]["timestamp"][:16].replace("T", " "),
        str(listed[str(series)]["count"]),
    ]
    said = await command("plot", "--series", series, "--url", url, "--state", api.users.parent)
    points = [point["fields"]["temp_C"] for point in await api.points(series)]
    assert points == values
    assert said.out.splitlines()[0] == "temp_C: 13 to 15, mean 14, 3 values"


@pytest.mark.seed_row(55)
async def test_the_old_loggers_two_requests_are_answered_as_it_expects(api: Bench) -> None:
    """The old logger's two requests byte by byte, HTTP/1.0 as urequests writes it: 201 with an integer."""
    url = urlsplit(str(api.client._base_url))

    async def urequests_put(path: str, document: object) -> tuple[bytes, bytes]:
        data = json.dumps(document).encode()
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"PUT %s HTTP/1.0\r\nHost: %s\r\n" % (path.encode(), (url.hostname or "").encode()))
        writer.write(b"content-type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        status, *_ = (await reader.readline()).split(None, 2)[1:]
        while (line := await reader.readline()) != b"\r\n":
            assert not line.lower().startswith(b"transfer-encoding"), "it knows no chunks"
        body = await reader.read()
        writer.close()
        return status, body

    status, series = await urequests_put("/series/new", SERIES)
    assert status == b"201" and series.isdigit()
    point = {"token": ROBIN, "series_id": int(series), "fields": {"temp_C": 21.5, "batt_V": 3.7}}
    status, number = await urequests_put("/point/new", point)
    assert status == b"201" and number.isdigit()
    assert (await api.points(int(series)))[0]["fields"] == point["fields"]
