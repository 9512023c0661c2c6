"""What the contract has to withstand: foreign tokens, wrong bodies, large ones, and edits of users.json."""

import asyncio
import functools
import hashlib
import itertools
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.compat.timeseries import series as series_module
from gateway.api.compat.timeseries import users as users_module
from gateway.api.compat.timeseries.users import KEPT, Users
from gateway.controls.devices import Push
from gateway.model import GatewayError
from tests.measurements.machine import rss_mb
from tests.timeseries.bench import EVE, GUEST, ROBIN, SERIES, USERS, Bench, bench, write_users

JSON = {"Content-Type": "application/json"}


async def test_only_its_owner_writes_to_a_series_or_deletes_of_it(api: Bench) -> None:
    series = await api.register()
    point = await api.add(series, a=1)
    eve = {"token": EVE}
    refused = [
        await api.ask("PUT", "/point/new", eve | {"series_id": series, "fields": {"a": 2}}),
        await api.ask("DELETE", f"/point/{point}", eve),
        await api.ask("DELETE", f"/series/{series}", eve),
    ]
    assert [(status, body["message"][:17]) for status, body, _ in refused] == [(403, "Permission denied")] * 3
    assert [each["fields"] for each in await api.points(series)] == [{"a": 1}]


@pytest.mark.parametrize(
    "token", [None, "", "unknown", "robins-long-toke", 7, {}, [ROBIN], True, "\ud800", ROBIN + "\0"]
)
async def test_no_write_without_a_token_of_a_user(api: Bench, token: Any) -> None:
    for method, path in (
        ("PUT", "/series/new"), ("PUT", "/point/new"), ("DELETE", "/series/1"), ("DELETE", "/point/1"),
    ):  # fmt: skip
        status, body, _ = await api.ask(method, path, SERIES | {"token": token})
        assert status == 403 and isinstance(body["message"], str)
        assert "unknown" not in body["message"], "no token is echoed"


async def test_a_missing_token_is_no_failure_of_the_gateway(api: Bench) -> None:
    for body in ({}, {"fields": {}}):
        assert (await api.ask("PUT", "/point/new", body))[0] == 403
    assert (await api.ask("DELETE", "/series/1"))[0] == 403
    assert (await api.ask("DELETE", "/series/1", headers={"Authorization": "Basic eDp5"}))[0] == 403


async def test_guessing_tokens_is_held_up_and_the_right_one_passes(api: Bench) -> None:
    statuses = [(await api.ask("PUT", "/series/new", SERIES | {"token": f"guess {n}"}))[0] for n in range(14)]
    assert statuses[:10] == [403] * 10 and statuses[-1] == 429
    status, body, headers = await api.ask("PUT", "/series/new", SERIES | {"token": "one more"})
    assert status == 429 and int(headers["Retry-After"]) > 0 and isinstance(body["message"], str)
    await api.register()


def test_a_token_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each user the whole digest is compared, also after one that fits."""
    file = tmp_path / "users.json"
    write_users(file, json.dumps(USERS))
    users = Users(file, tmp_path)
    users._refresh()
    compared: list[str] = []

    def compare(known: str, digest: str) -> bool:
        compared.append(known)
        return known == digest

    monkeypatch.setattr(users_module.hmac, "compare_digest", compare)
    found = users.find(ROBIN)
    assert found is not None and found.name == "Robin"
    assert compared == [hashlib.sha256(token.encode()).hexdigest() for token in USERS]


CALLBACKS = [
    "alert(1)//",
    "a;b",
    "<script>",
    "a b",
    "a[0]",
    "1a",
    "a..b",
    ".a",
    "a.",
    "é",
    "a\n",
    "a\u2028",
    "x" * 201,
    "a%00",
]


async def test_a_callback_that_is_no_function_name(api: Bench) -> None:
    for callback, path in itertools.product(CALLBACKS, ("/series", "/points/count", "/series/1", "/point/1")):
        status, body, headers = await api.ask("GET", path, params={"callback": callback})
        assert status == 400 and "callback" in body["message"], callback
        assert headers["Content-Type"].startswith("application/json")
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_an_id_that_is_none(api: Bench) -> None:
    numbers = ["x", "-1", "1.5", "1e3", "\u0663", "9" * 30, "%00", "..", "1%2F2", "new"]
    for what, number in itertools.product(("series", "point"), numbers):
        path = f"/{what}/{number}"
        async with api.client.get(path) as answer:
            assert answer.status == 404, path
            assert isinstance((await answer.json())["message"], str)
        status, _, _ = await api.ask("DELETE", path, {"token": ROBIN})
        assert status in (204, 404)


BODIES: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe{}", 400),
    (b"[]", 400),
    (b"7", 400),
    (b"null", 400),
    (b'{"token": NaN}', 400),
    (b"[" * 50_000, 400),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
    (b"x" * 70_000, 413),
]


async def test_a_body_that_is_no_object(api: Bench) -> None:
    operations = (("PUT", "/series/new"), ("PUT", "/point/new"), ("DELETE", "/series/1"))
    for (body, status), (method, path) in itertools.product(BODIES, operations):
        if body or method == "PUT":
            found, answer, _ = await api.ask(method, path, data=body, headers=JSON)
            assert found == status and isinstance(answer["message"], str), (method, path)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_body_that_does_not_say_it_is_json(api: Bench, kind: str) -> None:
    headers = {"Content-Type": kind}
    status, body, _ = await api.ask("PUT", "/series/new", data=json.dumps(SERIES), headers=headers)
    assert status == 415 and isinstance(body["message"], str)


WRONG_POINTS: list[tuple[dict[str, Any], str | None]] = [
    ({"series_id": None}, "series_id"),
    ({"series_id": "x"}, "series_id"),
    ({"series_id": 1.5}, "series_id"),
    ({"series_id": True}, "series_id"),
    ({"series_id": [1]}, "series_id"),
    ({"fields": None}, "fields"),
    ({"fields": {}}, "fields"),
    ({"fields": [1]}, "fields"),
    ({"fields": "a"}, "fields"),
    ({"fields": {"a": {}}}, "fields"),
    ({"fields": {"a": {"": 1}}}, "fields"),
    ({"fields": {"a": [{"b": 1}]}}, "fields"),
    ({"fields": functools.reduce(lambda within, _: {"a": within}, range(33), {"a": 1})}, "fields"),
    ({"fields": {"a": 10**30}}, "fields"),
    ({"fields": {"": 1}}, "fields"),
    ({"fields": {"a\nb": 1}}, None),
    ({"fields": {"x" * 300: 1}}, None),
    ({"fields": {"\ud800": 1}}, None),
]


async def test_a_point_with_a_wrong_field(api: Bench) -> None:
    series = await api.register()
    for change, field in WRONG_POINTS:
        body = {"token": ROBIN, "series_id": series, "fields": {"a": 1}} | change
        status, answer, _ = await api.ask("PUT", "/point/new", body)
        assert status == 400, change
        assert set(answer["message"]) == {field} if field else isinstance(answer["message"], str)
    assert await api.points(series) == []


async def test_extra_keys_are_dropped(api: Bench) -> None:
    series = await api.register()
    body = {"token": ROBIN, "series_id": series, "fields": {"a": 1}, "timestamp": "2001-01-01", "id": 9}
    status, _, _ = await api.ask("PUT", "/point/new", body)
    assert status == 201
    assert [point["fields"] for point in await api.points(series)] == [{"a": 1}]


async def test_a_point_of_an_unknown_series(api: Bench) -> None:
    status, body, _ = await api.ask(
        "PUT", "/point/new", {"token": ROBIN, "series_id": 99, "fields": {"a": 1}}
    )
    assert (status, body) == (404, {"message": "Series 99 not found."})


@pytest.mark.parametrize(("method", "path"), [("POST", "/series"), ("PATCH", "/point/1"), ("PUT", "/series")])
async def test_a_method_that_is_not_taken(api: Bench, method: str, path: str) -> None:
    status, body, headers = await api.ask(method, path, {})
    assert status == 405 and "Allow" in headers and isinstance(body["message"], str)
    assert (await api.ask("GET", "/nothing"))[0] == 404
    assert (await api.ask("GET", "/v1/state"))[0] == 404, "nothing of /v1 is on this listener"


@pytest.mark.parametrize("told", [{}, {"Content-Length": "100000000"}])
async def test_a_body_of_a_hundred_megabytes(api: Bench, told: dict[str, str]) -> None:
    """Refused before it is there, though others get their answers meanwhile, and memory stays as it is."""
    series, before_mb, sent, most_mb = await api.register(), await asyncio.to_thread(rss_mb), 0, 0.0

    async def large() -> AsyncIterator[bytes]:
        nonlocal sent, most_mb
        yield b"{"
        for _ in range(1000):
            yield b" " * 100_000
            sent += 100_000
            most_mb = max(most_mb, await asyncio.to_thread(rss_mb))
            await api.add(series, a=sent)

    operations = (
        ("PUT", "/series/new"),
        ("PUT", "/point/new"),
        ("DELETE", "/series/1"),
        ("DELETE", "/point/1"),
    )
    for method, path in operations:
        sent = 0
        async with api.client.request(method, path, data=large(), headers=JSON | told) as answer:
            assert answer.status == 413 and "64 KiB" in (await answer.json())["message"]
        assert sent < 20_000_000 and most_mb < before_mb + 32, (sent, most_mb - before_mb)
    await api.add(series, a=1)


async def test_parallel_requests_of_all_kinds_disturb_nothing(api: Bench) -> None:
    series = await api.register()
    bad: list[tuple[str, str, Any]] = [
        ("PUT", "/point/new", {"token": ROBIN, "series_id": series}),
        ("PUT", "/series/new", {"token": ROBIN}),
        ("DELETE", "/series/77", {"token": ROBIN}),
        ("GET", "/point/1", None),
        ("GET", "/series?callback=;", None),
    ]
    good = [api.add(series, n=n) for n in range(40)]
    wrong = [api.ask(*bad[n % len(bad)]) for n in range(100)]
    numbers, answers = await asyncio.gather(asyncio.gather(*good), asyncio.gather(*wrong))
    assert {status for status, _, _ in answers} == {400, 404, 204}
    assert {point["id"] for point in await api.points(series)} == set(numbers)


async def test_an_edit_of_users_is_taken_and_a_broken_one_is_not(api: Bench) -> None:
    api.users.write_text(json.dumps(USERS | {GUEST: {"name": "Guest", "id": 3}}))
    await until_it_may_write(api, GUEST)
    api.users.write_text(json.dumps(USERS)[:-5])
    sentence = await api.told("degraded")
    assert "users.json cannot be used, the last valid users stay" in sentence
    assert ROBIN not in sentence and GUEST not in sentence
    await api.register(GUEST)
    api.users.write_text(json.dumps({GUEST: {"name": "Guest", "id": 3}}))
    await api.told("running")
    status, body, _ = await api.ask("PUT", "/series/new", SERIES)
    assert status == 403, body


async def until_it_may_write(api: Bench, token: str) -> None:
    async with asyncio.timeout(8):
        while (await api.ask("PUT", "/series/new", SERIES | {"token": token}))[0] != 201:
            await asyncio.sleep(0.7)  # more often would be held up as guessing


async def test_a_new_token_of_the_same_user_owns_what_the_old_one_made(api: Bench) -> None:
    series = await api.register()
    api.users.write_text(json.dumps({"robins-new-token": {"name": "Robin", "id": 1}, EVE: USERS[EVE]}))
    await until_it_may_write(api, "robins-new-token")
    await api.add(series, "robins-new-token", a=1)
    assert (await api.ask("PUT", "/series/new", SERIES))[0] == 403


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Expecting value"),
        ("[]", "not a JSON object"),
        ("{", "Expecting property name"),
        ('{"secret-a": 1}', "entry 1 has no name"),
        ('{"secret-a": {"name": "A"}}', '"A" (entry 1) has no id'),
        ('{"secret-a": {"name": "A", "id": true}}', '"A" (entry 1) has no id'),
        ('{"": {"name": "A", "id": 1}}', "entry 1 has an empty token"),
        ('{"secret-a": {"name": "A", "id": 1}, "secret-b": {"name": "B", "id": "1"}}', "both have the id 1"),
        ('{"secret-a": {"name": "A", "id": 1}, "secret-a": {"name": "A", "id": 1}}', "given twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
async def test_users_that_cannot_be_used(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "users.json"
    write_users(file, text)
    users = Users(file, tmp_path)
    await users.refresh()
    assert sentence in users.problem and "nobody may write" in users.problem
    assert "secret" not in users.problem
    assert users.find("secret-a") is None


async def test_users_that_everybody_can_read_are_none(api: Bench) -> None:
    api.users.chmod(0o644)
    sentence = await api.told("degraded")
    assert f"every user of this machine can read it; run: chmod 640 {api.users}" in sentence
    await api.register()
    api.users.chmod(0o640)
    await api.told("running")
    api.users.unlink()
    os.mkfifo(api.users, 0o600)
    assert "not a regular file" in await api.told("degraded")


async def test_a_broken_file_at_the_start_leaves_the_last_valid_users(tmp_path: Path) -> None:
    async with bench(tmp_path) as api:
        await api.register()
    for break_it in (lambda file: file.write_text("{"), os.unlink):
        async with bench(tmp_path, USERS):
            pass
        file, state = tmp_path / "users.json", tmp_path / "state"
        break_it(file)
        users = Users(file, state)
        await users.refresh()
        assert "the last valid users stay" in users.problem
        found = users.find(ROBIN)
        assert found is not None and found.name == "Robin" and users.find("x") is None
    kept = state / KEPT
    assert kept.stat().st_mode & 0o777 == 0o600 and ROBIN not in kept.read_text()


async def test_no_token_stands_in_what_is_kept(api: Bench) -> None:
    await api.add(await api.register(), a=1)
    for file in api.plant.state.rglob("*"):
        if file.is_file():
            assert ROBIN.encode() not in file.read_bytes(), file


async def test_what_cannot_be_stored_now_is_a_503(api: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    series = await api.register()
    body = {"token": ROBIN, "series_id": series, "fields": {"a": 1}}
    device = api.plant.devices["timeseries"]
    push = device.control(Push)

    async def full(_samples: object) -> None:
        raise TimeoutError

    def refuses(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(push, "push", full)
        status, said, headers = await api.ask("PUT", "/point/new", body)
        assert status == 503 and int(headers["Retry-After"]) > 0 and isinstance(said["message"], str)
    with monkeypatch.context() as patch:
        patch.setattr(series_module, "write", refuses)
        for method, path in (("PUT", "/series/new"), ("DELETE", f"/series/{series}")):
            status, said, headers = await api.ask(method, path, SERIES)
            assert status == 503 and "No space left on device" in said["message"]
    assert list((await api.ask("GET", "/series"))[1]) == [str(series)]
    assert device.keeper is not None
    await device.keeper.stop()
    status, said, headers = await api.ask("PUT", "/point/new", body)
    assert status == 503 and "takes no points now" in said["message"] and int(headers["Retry-After"]) > 0


async def test_no_more_series_than_fit(api: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_module, "MOST", 2)
    statuses = [(await api.ask("PUT", "/series/new", SERIES))[0] for _ in range(3)]
    assert statuses == [201, 201, 409]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"next_id": 1}', '{"next_id": 1, "series": [{"id": 1}]}'])
async def test_a_damaged_file_of_series_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / series_module.FILE
    file.write_text(text)
    with pytest.raises(GatewayError, match=r"is damaged .* put it back from a backup"):
        await series_module.SeriesFile(tmp_path).load(1)
    assert file.read_text() == text


def mutated(chosen: random.Random, document: Any) -> Any:
    """Return a document with something in it replaced, removed or added."""
    wrong = [
        None,
        True,
        -1,
        0,
        2**70,
        1.5,
        1e308,
        "",
        "x",
        "\ud800",
        "\0",
        ROBIN,
        [],
        [[]],
        {},
        {"a": {}},
        [1] * 50,
    ]
    if not isinstance(document, dict) or not document or chosen.random() < 0.1:
        return chosen.choice(wrong)
    key = chosen.choice(list(document))
    match chosen.randrange(4):
        case 0:
            return {name: value for name, value in document.items() if name != key}
        case 1:
            return document | {chosen.choice(["", "a/b", "\ud800", "x" * 250, "ts"]): chosen.choice(wrong)}
        case _:
            return document | {key: mutated(chosen, document[key])}


async def test_no_document_makes_the_gateway_fail(api: Bench) -> None:
    chosen, series = random.Random(7), await api.register()
    point = {"token": ROBIN, "series_id": series, "fields": {"a": 1, "b": "x"}}
    seen: set[int] = set()
    for n in range(300):
        path, document = (("/point/new", point), ("/series/new", SERIES))[n % 2]
        for _ in range(chosen.randrange(1, 4)):
            document = mutated(chosen, document)
        status, said, _ = await api.ask("PUT", path, data=json.dumps(document), headers=JSON)
        assert status in (201, 400, 403, 404, 429), (path, document, said)
        assert isinstance(said, int) == (status == 201)
        seen.add(status)
    assert seen >= {201, 400, 403}
    await api.add(series, a=1)
