"""Samples in and out, through the real store."""

import asyncio
import csv
import functools
import gzip
import io
import json
import math
from typing import Any

import aiohttp
import pytest

from gateway.controls.devices import PushedSample
from gateway.intake import DeviceSession
from gateway.model import Device, DeviceProblem
from gateway.protocols import push as pushing
from tests.api.plant import Plant

T0 = 1_763_690_000_000_000
SAMPLES = "/v1/devices/box/samples"


async def push(client: aiohttp.ClientSession, samples: list[dict[str, Any]]) -> dict[str, int]:
    headers = {"Content-Type": "application/json"}
    async with client.post(SAMPLES, data=io.BytesIO(json.dumps(samples).encode()), headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        counts: dict[str, int] = await answer.json()
        return counts


async def get(client: aiohttp.ClientSession, **query: str) -> dict[str, Any]:
    async with client.get(SAMPLES, params=query) as answer:
        assert answer.status == 200, await answer.text()
        document: dict[str, Any] = await answer.json()
        return document


def series(count: int, tag: str = "speed") -> list[dict[str, Any]]:
    return [{"tag": tag, "ts": T0 + n * 1000, "value": n / 4, "status": 0} for n in range(count)]


async def test_what_is_pushed_is_read_back_exactly(admin: aiohttp.ClientSession) -> None:
    assert await push(admin, series(10)) == {"added": 10, "same": 0, "moved": 0}
    assert await get(admin) == {"samples": series(10), "next": None}


@pytest.mark.seed_row("L5")
async def test_a_repeat_adds_nothing_and_another_value_is_moved(admin: aiohttp.ClientSession) -> None:
    await push(admin, series(3))
    assert await push(admin, series(3)) == {"added": 0, "same": 3, "moved": 0}
    other = [{"tag": "speed", "ts": T0, "value": 99, "status": 0}]
    assert await push(admin, other) == {"added": 0, "same": 0, "moved": 1}
    rows = (await get(admin))["samples"]
    assert {"tag": "speed", "ts": T0 + 1, "value": 99, "status": 0, "flags": ["moved"]} in rows


async def test_the_answer_comes_after_commit(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    """What a 200 acknowledged is in the file, for a reader that knows nothing of this process's memory."""
    before = gateway.store.state().newest_seq
    await push(admin, series(1))
    assert gateway.store.state().newest_seq > before
    blocks = await gateway.store.read(lambda conn: conn.execute("SELECT count(*) FROM block").fetchone()[0])
    assert blocks >= 1


async def test_the_three_ways_to_send(admin: aiohttp.ClientSession) -> None:
    rows = series(6)
    for part, body, kind in (
        (rows[:2], json.dumps(rows[:2]), "application/json"),
        (rows[2:4], json.dumps({"samples": rows[2:4]}), "application/json; charset=utf-8"),
        (rows[4:], "\n".join(map(json.dumps, rows[4:])) + "\n\n", "application/x-ndjson"),
    ):
        async with admin.post(SAMPLES, data=body, headers={"Content-Type": kind}) as answer:
            assert (answer.status, (await answer.json())["added"]) == (200, len(part))
    assert (await get(admin))["samples"] == rows


async def test_pages_by_cursor_give_every_sample_once(admin: aiohttp.ClientSession) -> None:
    rows = sorted(series(50) + series(50, "temp"), key=lambda row: row["ts"])
    await push(admin, rows)
    found: list[dict[str, Any]] = []
    query = {"limit": "7"}
    while True:
        page = await get(admin, **query)
        found += page["samples"]
        if page["next"] is None:
            break
        assert len(page["samples"]) == 7
        query["cursor"] = page["next"]
    assert len(found) == 100
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, rows))
    assert [row["ts"] for row in found] == sorted(row["ts"] for row in rows)


async def test_a_limit_that_fits_exactly_has_no_next(admin: aiohttp.ClientSession) -> None:
    await push(admin, series(5))
    assert (await get(admin, limit="5"))["next"] is None
    assert (await get(admin, limit="4"))["next"] is not None


@pytest.mark.seed_row("L3")
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (str(T0 + 2000), str(T0 + 4000)),
        ("2025-11-21T01:53:20.002Z", "2025-11-21T02:53:20.004+01:00"),
        ("2025-11-21T01:53:20.002000Z", "2025-11-21T02:53:20.004 01:00"),
    ],
)
async def test_windows_include_both_ends(admin: aiohttp.ClientSession, start: str, end: str) -> None:
    await push(admin, series(8))
    rows = (await get(admin, **{"from": start, "to": end}))["samples"]
    assert [row["ts"] - T0 for row in rows] == [2000, 3000, 4000]


async def test_tags_are_chosen_by_name(admin: aiohttp.ClientSession) -> None:
    await push(admin, [{"tag": tag, "ts": T0, "value": 1} for tag in ("a", "b", "c", "a,b")])
    assert [row["tag"] for row in (await get(admin, tags="a,c"))["samples"]] == ["a", "c"]
    assert [row["tag"] for row in (await get(admin, tags="a,b"))["samples"]] == ["a,b"]
    async with admin.get(SAMPLES, params={"tags": "a,nope"}) as answer:
        assert answer.status == 404
        assert "nope" in (await answer.json())["error"]["message"]


VALUES: list[dict[str, Any]] = [
    {"value": None},
    {"value": True},
    {"value": -(2**63)},
    {"value": 2**64 - 1},
    {"value": 2**53 + 1},
    {"value": 0.1},
    {"value": -0.0},
    {"value": 5e-324},
    {"value": 1.7976931348623157e308},
    {"value": "NaN", "type": "float"},
    {"value": "Infinity", "type": "float"},
    {"value": "-Infinity", "type": "float"},
    {"value": "NaN"},
    {"value": ""},
    {"value": "nul \u0000 and \U0001f600"},
    {"value": "lone \ud800 surrogate"},
    {"value": "x" * 1_000_000},
    {"value": "AAEC/w==", "type": "bytes"},
    {"value": "", "type": "bytes"},
    {"value": []},
    {"value": [1, 2.5, None, "text", [True]]},
    {"value": [1.5, "NaN", "-Infinity"], "type": "float"},
    {"value": ["AAEC", "/w=="], "type": "bytes"},
    {
        "value": ["NaN", {"type": "float", "value": "NaN"}, {"type": "bytes", "value": "/w=="}],
        "type": "mixed",
    },
]


@pytest.mark.seed_row("L6")
async def test_every_kind_of_value_goes_through_and_back(admin: aiohttp.ClientSession) -> None:
    rows = [{"tag": "any", "ts": T0 + n, "status": n * 1000, **value} for n, value in enumerate(VALUES)]
    body = json.dumps({"samples": rows})  # surrogates as escapes: valid JSON
    async with admin.post(SAMPLES, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert (answer.status, (await answer.json()).get("added")) == (200, len(rows))
    async with admin.get(SAMPLES) as answer:
        text = await answer.read()
    found = json.loads(text.decode("utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [json.dumps(row, sort_keys=True) for row in found["samples"]] == [
        json.dumps(row, sort_keys=True) for row in rows
    ]
    # and what GET gave can be sent again: the same samples
    async with admin.post(SAMPLES, data=text, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 422  # `next` is not a field of a push
    async with admin.post(SAMPLES, json=found["samples"]) as answer:
        assert await answer.json() == {"added": 0, "same": len(rows), "moved": 0}


async def test_dates_before_1970_and_at_the_edges(admin: aiohttp.ClientSession) -> None:
    rows = [{"tag": "old", "ts": ts, "value": 1, "status": 0} for ts in (-(10**15), -1, 0)]
    await push(admin, rows)
    assert [(row["ts"], row["value"]) for row in (await get(admin))["samples"]] == [
        (-(10**15), 1),
        (-1, 1),
        (0, 1),
    ]


@pytest.mark.parametrize(
    ("body", "kind", "status", "index", "field"),
    [
        ("", "application/json", 400, None, None),
        ("{", "application/json", 400, None, None),
        ('[{"tag":"a","value":NaN}]', "application/json", 400, None, None),
        ("[" * 100_000, "application/json", 400, None, None),
        ("\xff\xfe", "application/json", 400, None, None),
        ('{"tag":"a","value":1}\n{', "application/x-ndjson", 400, None, None),
        ("{}", "application/json", 422, None, None),
        ('"text"', "application/json", 422, None, None),
        ("[1]", "application/json", 422, 0, ""),
        ('[{"value":1}]', "application/json", 422, 0, "tag"),
        ('[{"tag":"","value":1}]', "application/json", 422, 0, "tag"),
        ('[{"tag":7,"value":1}]', "application/json", 422, 0, "tag"),
        ('[{"tag":"a"}]', "application/json", 422, 0, "value"),
        ('[{"tag":"a","value":1},{"tag":"a","value":{}}]', "application/json", 422, 1, "value"),
        ('[{"tag":"a","value":18446744073709551616}]', "application/json", 422, 0, "value"),
        ('[{"tag":"a","value":1e400}]', "application/json", 422, 0, "value"),
        ('[{"tag":"a","value":"x","type":"float"}]', "application/json", 422, 0, "value"),
        ('[{"tag":"a","value":"x","type":"bytes"}]', "application/json", 422, 0, "value"),
        ('[{"tag":"a","value":1,"type":"int"}]', "application/json", 422, 0, "type"),
        ('[{"tag":"a","value":1,"ts":1.5}]', "application/json", 422, 0, "ts"),
        ('[{"tag":"a","value":1,"ts":"yesterday"}]', "application/json", 422, 0, "ts"),
        ('[{"tag":"a","value":1,"ts":9223372036854775808}]', "application/json", 422, 0, "ts"),
        ('[{"tag":"a","value":1,"status":-1}]', "application/json", 422, 0, "status"),
        ('[{"tag":"a","value":1,"flags":["x"]}]', "application/json", 422, 0, "flags"),
        ('[{"tag":"a","value":1,"unit":"m"}]', "application/json", 422, 0, "unit"),
        ("a=1", "application/x-www-form-urlencoded", 415, None, None),
    ],
)
async def test_a_wrong_body_names_index_and_field_and_stores_nothing(
    admin: aiohttp.ClientSession, body: str, kind: str, status: int, index: int | None, field: str | None
) -> None:
    data = body.encode("latin-1")
    async with admin.post(SAMPLES, data=data, headers={"Content-Type": kind}) as answer:
        error = (await answer.json())["error"]
        assert answer.status == status, error
    if index is not None:
        assert (error["details"][0]["index"], error["details"][0]["field"]) == (index, field)
    assert (await get(admin))["samples"] == []


@pytest.mark.parametrize(
    ("field", "beyond"),
    [
        ("ts", {"ts": 2**62 + 1, "value": 1}),
        ("ts", {"ts": f"{-(2**62) - 1}", "value": 1}),
        ("value", {"ts": 2, "value": functools.reduce(lambda inner, _: [inner], range(17), 1)}),
        ("value", {"ts": 2, "value": [1.5] * 600_000}),
    ],
    ids=["late", "early", "deep", "large"],
)
async def test_what_the_store_would_not_keep_is_refused_with_all_the_rest(
    admin: aiohttp.ClientSession, field: str, beyond: dict[str, Any]
) -> None:
    good = {"tag": "a", "ts": 1, "value": 1}
    body = io.BytesIO(json.dumps([good, {"tag": "a", **beyond}]).encode())
    async with admin.post(SAMPLES, data=body, headers={"Content-Type": "application/json"}) as answer:
        error = (await answer.json())["error"]
        assert answer.status == 422, error
    assert (error["details"][0]["index"], error["details"][0]["field"]) == (1, field)
    assert (await get(admin))["samples"] == []
    within = [{"tag": "a", "ts": ts, "value": 1} for ts in (-(2**62), 2**62)]
    async with admin.post(SAMPLES, json=within) as answer:
        assert (await answer.json())["added"] == 2
    async with admin.get("/v1/gaps") as answer:
        assert (await answer.json())["gaps"] == []


async def test_a_large_body_is_413(admin: aiohttp.ClientSession) -> None:
    body = io.BytesIO(b'[{"tag": "a", "value": "' + b"x" * 9_000_000 + b'"}]')
    async with admin.post(SAMPLES, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (413, "too_large")


async def test_a_compressed_bomb_is_413(admin: aiohttp.ClientSession) -> None:
    bomb = await asyncio.to_thread(gzip.compress, b" " * 100_000_000)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with admin.post(SAMPLES, data=bomb, headers=headers) as answer:
        assert answer.status == 413


async def test_a_device_that_takes_no_samples_is_409(admin: aiohttp.ClientSession) -> None:
    async with admin.post("/v1/devices/counter/samples", json=series(1)) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (409, "conflict")


async def test_a_push_meets_a_session_that_begins(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    """Whoever pushes cannot know of a start, an edit or a reconnect; a session that fails is told apart."""

    async def restarted() -> None:
        await gateway.devices["box"].keeper.stop()
        await asyncio.sleep(0.2)  # as where another device of the same edit takes its time
        gateway.add("box", "push", late)

    async def late(link: DeviceSession) -> None:
        await asyncio.sleep(0.3)
        await pushing.run(Device("box"), pushing.Settings(), link)

    async def failing(_link: DeviceSession) -> None:
        raise DeviceProblem("a secret is missing")

    restart = asyncio.create_task(restarted())
    await asyncio.sleep(0.05)
    assert await push(admin, series(3)) == {"added": 3, "same": 0, "moved": 0}
    await restart
    gateway.add("lost", "push", failing)
    async with admin.post("/v1/devices/lost/samples", json=series(1)) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert "lost" in (await answer.json())["error"]["message"]


async def test_no_commit_in_time_is_503_with_retry_after(
    gateway: Plant, admin: aiohttp.ClientSession
) -> None:
    class Full:
        most = 1000

        async def push(self, samples: list[PushedSample]) -> None:
            raise TimeoutError

        def stamp(self) -> tuple[int, int]:
            return 0, 0

    box = gateway.devices["box"]
    own = list(box._controls)
    box._controls[:] = [Full()]
    async with admin.post(SAMPLES, json=series(1)) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    box._controls[:] = own


async def test_ndjson_and_csv(admin: aiohttp.ClientSession) -> None:
    rows = [
        {"tag": "a", "ts": T0, "value": 1.5, "status": 0},
        {"tag": "a", "ts": T0 + 1, "value": 'say "hi", you', "status": 0},
        {"tag": "a", "ts": T0 + 2, "type": "float", "value": "NaN", "status": 5},
    ]
    await push(admin, rows)
    async with admin.get(SAMPLES, headers={"Accept": "application/x-ndjson"}) as answer:
        assert answer.content_type == "application/x-ndjson"
        assert [json.loads(line) for line in (await answer.text()).splitlines()] == rows
    async with admin.get(SAMPLES, params={"format": "ndjson", "limit": "2"}) as answer:
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert lines[:2] == rows[:2]
    assert (await get(admin, cursor=lines[2]["next"]))["samples"] == rows[2:]
    async with admin.get(SAMPLES, headers={"Accept": "text/csv;q=0.9, application/pdf"}) as answer:
        assert answer.content_type == "text/csv"
        table = list(csv.reader(io.StringIO(await answer.text())))
    assert table == [
        ["tag", "ts", "value", "status", "type", "flags"],
        ["a", str(T0), "1.5", "0", "", ""],
        ["a", str(T0 + 1), 'say "hi", you', "0", "text", ""],
        ["a", str(T0 + 2), "NaN", "5", "float", ""],
    ]
    async with admin.get(SAMPLES, headers={"Accept": "application/pdf"}) as answer:
        assert answer.status == 406


async def test_buckets(admin: aiohttp.ClientSession) -> None:
    await push(admin, [*series(25), {"tag": "speed", "ts": T0 + 25_000, "value": "text"}])
    query = {"from": str(T0), "to": str(T0 + 30_000), "bucket": "10ms"}
    rows = (await get(admin, **query))["buckets"]
    assert [(row["ts"] - T0, row["min"], row["max"], row["count"]) for row in rows] == [
        (0, 0, 2.25, 10),
        (10_000, 2.5, 4.75, 10),
        (20_000, 5, 6, 5),
    ]
    assert math.isclose(rows[0]["avg"], 1.125)
    async with admin.get(SAMPLES, params={"from": "0", "to": str(T0), "bucket": "1s"}) as answer:
        assert answer.status == 422
        assert (await answer.json())["error"]["details"][0]["field"] == "bucket"


@pytest.mark.timeout(40)
async def test_a_hundred_thousand_samples_stream(admin: aiohttp.ClientSession) -> None:
    for start in range(0, 100_000, 20_000):
        rows = [{"tag": f"t{n % 20}", "ts": T0 + n * 100, "value": n} for n in range(start, start + 20_000)]
        await push(admin, rows)
    async with admin.get(SAMPLES, params={"limit": "1000000"}) as answer:
        document = await answer.json()
    assert [row["value"] for row in document["samples"]] == list(range(100_000))
