"""Deleting samples through `/v1`: what goes, who may, what is said, and that it is recorded."""

import logging
import threading
from typing import Any

import aiohttp
import pytest

from gateway.api.tokens import Role
from gateway.store import deletes
from tests.api.plant import Plant
from tests.api.test_samples import SAMPLES, T0, get, push, series


async def delete(client: aiohttp.ClientSession, status: int = 200, **query: str) -> dict[str, Any]:
    async with client.delete(SAMPLES, params=query) as answer:
        assert answer.status == status, await answer.text()
        document: dict[str, Any] = await answer.json()
        return document


async def deletions(client: aiohttp.ClientSession, **query: str) -> dict[str, Any]:
    async with client.get("/v1/deletions", params=query) as answer:
        assert answer.status == 200, await answer.text()
        document: dict[str, Any] = await answer.json()
        return document


async def test_one_sample_a_window_and_a_series_are_deleted_and_recorded(
    gateway: Plant, admin: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await push(admin, series(10))
    await push(admin, series(3, "torque"))
    one = await delete(admin, tag="speed", ts=str(T0))
    assert one == {
        "id": 1, "at_us": one["at_us"], "by": "a admin",
        "device": "box", "tag": "speed", "from_us": T0, "to_us": T0, "count": 1,
    }  # fmt: skip
    assert (await get(admin, tags="speed"))["samples"] == series(10)[1:]
    async with admin.get("/v1/state") as answer:
        assert (await answer.json())["store"]["tombstones"] == 1
    window = await delete(admin, **{"tag": "speed", "from": "2025-11-21T01:53:20.001Z", "to": str(T0 + 3000)})
    assert (window["count"], window["from_us"], window["to_us"]) == (3, T0 + 1000, T0 + 3000)
    assert (await delete(admin, **{"tag": "speed", "from": str(T0 + 9000)}))["count"] == 1
    assert (await get(admin, tags="speed"))["samples"] == series(10)[4:9]
    async with admin.get("/v1/devices/box") as answer:
        tags = {row["tag"]: row for row in (await answer.json())["tags"]}
    assert tags["speed"]["last"] == series(10)[8] | {"tag": "speed"}
    whole = await delete(admin, tag="speed", all="true")
    assert (whole["count"], whole["from_us"], whole["to_us"]) == (5, None, None)
    async with admin.get("/v1/devices/box") as answer:
        assert [row["tag"] for row in (await answer.json())["tags"]] == ["torque"]
    assert (await get(admin))["samples"] == series(3, "torque")
    assert "deleted of tag speed: 5 samples, all times" in caplog.text
    page = await deletions(admin, limit="3")
    assert [row["count"] for row in page["deletions"]] == [5, 1, 3]
    rest = await deletions(admin, limit="3", cursor=str(page["next"]))
    assert [row["count"] for row in rest["deletions"]] == [1] and rest["next"] is None
    assert (await deletions(admin, device="counter"))["deletions"] == []
    assert await push(admin, series(10)) == {"added": 10, "same": 0, "moved": 0}


async def test_what_is_not_there_is_said(admin: aiohttp.ClientSession) -> None:
    await push(admin, series(3))
    missing = await delete(admin, 404, tag="speed", ts=str(T0 + 5))
    assert missing["error"]["message"] == 'Tag "speed" of device "box" has no such sample.'
    assert "has no tag" in (await delete(admin, 404, tag="pressure", all="true"))["error"]["message"]
    async with admin.delete("/v1/devices/none/samples", params={"tag": "a", "all": "true"}) as answer:
        assert answer.status == 404
    assert len((await get(admin))["samples"]) == 3 and (await deletions(admin))["deletions"] == []


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"tag": "speed"},
        {"tag": "speed", "all": "false"},
        {"tag": "speed", "ts": str(T0), "all": "true"},
        {"tag": "speed", "ts": str(T0), "from": str(T0)},
        {"tag": "speed", "from": str(T0 + 1), "to": str(T0)},
        {"tag": "speed", "ts": "yesterday"},
        {"ts": str(T0)},
        {"tags": "speed", "all": "true"},
    ],
)
async def test_nothing_goes_where_it_is_not_said_exactly(
    admin: aiohttp.ClientSession, query: dict[str, str]
) -> None:
    await push(admin, series(3))
    assert (await delete(admin, 422, **query))["error"]["details"]
    assert len((await get(admin))["samples"]) == 3


async def test_only_who_may_delete_does(gateway: Plant, admin: aiohttp.ClientSession) -> None:
    await push(admin, series(3))
    for role in (Role.READ, Role.OPERATE):
        params = {"tag": "speed", "all": "true"}
        async with admin.delete(SAMPLES, params=params, headers=gateway.bearer(role)) as answer:
            assert answer.status == 403
        async with admin.get("/v1/deletions", headers=gateway.bearer(role)) as answer:
            assert answer.status == 200
    assert len((await get(admin))["samples"]) == 3


async def test_a_deletion_that_is_not_committed_in_time_is_not_acknowledged(
    gateway: Plant, admin: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the writer stands still, as on a disk that hangs."""
    await push(admin, series(3))
    monkeypatch.setattr("gateway.api.deletions.COMMIT_S", 1)
    stuck = threading.Event()
    gateway.store.post(lambda tx: stuck.wait(10))
    try:
        refused = await delete(admin, 503, tag="speed", ts=str(T0))
    finally:
        stuck.set()
    assert "not committed after 1 s" in refused["error"]["message"]
    await gateway.store.flush()
    assert len((await deletions(admin))["deletions"]) <= 1


async def test_more_than_can_be_held_is_a_conflict(
    admin: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletes, "MOST_DELETIONS", 0)
    await push(admin, series(3))
    refused = await delete(admin, 409, tag="speed", ts=str(T0))
    assert "whole series" in refused["error"]["message"]
