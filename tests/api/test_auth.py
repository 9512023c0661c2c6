"""Who gets in: every route with every role, hosts, origins, sessions, failed logins, the token file."""

import asyncio
import gzip
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.api import sockets
from gateway.api.app import build_app
from gateway.api.auth import COOKIE, FailedLogins, Sessions
from gateway.api.errors import ApiError
from gateway.api.keys import GUARD
from gateway.api.routing import Endpoint, declared
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tokens import ADMIN_FILE, Role, Token, Tokens
from gateway.clock import SystemClock
from tests.api.plant import Plant

OPEN_PATHS = {"/healthz", "/", "/docs", "/static/{name}", "/v1/session"}


def routes(gateway: Plant) -> list[Endpoint]:
    app = build_app(gateway, HttpSettings())
    return [endpoint for route in app.router.routes() if (endpoint := declared(route.handler))]


async def status(client: aiohttp.ClientSession, route: Endpoint, **more: Any) -> int:
    path = route.path.replace("{id}", "counter").replace("{name}", "app.js")
    path = re.sub(r"\{\w+\}", "AB" * 20, path)
    async with client.request(route.method, path, **more) as answer:
        if answer.status >= 400:
            assert set((await answer.json())["error"]) == {"code", "message", "details"}
        return answer.status


async def test_every_route_with_every_role(gateway: Plant, anybody: aiohttp.ClientSession) -> None:
    """401 without a token, 403 below the declared role, neither from it on: the whole matrix."""
    found = routes(gateway)
    assert len(found) > 20
    for route in found:
        seen = {
            Role.OPEN: await status(anybody, route),
            **{
                role: await status(anybody, route, headers=gateway.bearer(role))
                for role in (Role.READ, Role.OPERATE, Role.ADMIN)
            },
        }
        for role, code in seen.items():
            if route.role is Role.OPEN:
                assert code not in (403,), (route, role, code)
            elif role is Role.OPEN:
                assert code == 401, (route, role, code)
            elif role < route.role:
                assert code == 403, (route, role, code)
            else:
                assert code not in (401, 403), (route, role, code)


async def test_only_shells_liveness_and_login_are_open(gateway: Plant) -> None:
    assert {route.path for route in routes(gateway) if route.role is Role.OPEN} == OPEN_PATHS
    changing = [route for route in routes(gateway) if route.method != "GET" and route.path != "/v1/session"]
    assert all(route.role >= Role.OPERATE for route in changing)


async def test_a_route_without_a_role_fails_the_start(gateway: Plant, settings: HttpSettings) -> None:
    async def forgotten(_request: web.Request) -> web.Response:
        return web.Response(text="secret")

    app = build_app(gateway, settings)
    app.router.add_get("/v1/forgotten", forgotten)
    with pytest.raises(RuntimeError, match="/v1/forgotten declares no role"):
        async with serve(app, settings, gateway.state):
            pass


async def test_a_wrong_token_is_401_and_never_taken_from_the_url(
    gateway: Plant, anybody: aiohttp.ClientSession
) -> None:
    good = gateway.texts[Role.ADMIN]
    for text in ("", "x", good[:-1], good + "x", good.upper(), "é"):
        async with anybody.get("/v1/state", headers={"Authorization": f"Bearer {text}"}) as answer:
            assert answer.status == 401, text
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for query in ("token", "access_token"):
        async with anybody.get("/v1/devices", params={query: good}) as answer:
            assert answer.status == 401
    async with anybody.get("/v1/state", headers={"Authorization": f"Basic {good}"}) as answer:
        assert answer.status == 401


async def test_public_read_opens_reading_and_nothing_else(gateway: Plant) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", tls="off", public_read=True)
    async with (
        serve(build_app(gateway, settings), settings, gateway.state) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
    ):
        for route in routes(gateway):
            code = await status(client, route)
            if route.role is Role.READ:
                assert code not in (401, 403), route
            elif route.role > Role.READ:
                assert code == 401, route
        async with client.get("/v1/state") as answer:
            assert "public_read" in " ".join((await answer.json())["insecure"])
        async with client.ws_connect("/v1/stream") as socket:
            assert (await socket.receive_json())["type"] == "state"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8443", 200),
        ("192.168.0.7", 200),
        ("[fe80::1]:8443", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8443", 421),
        ("", 421),
    ],
)
async def test_foreign_host_names_are_refused(gateway: Plant, url: str, host: str, code: int) -> None:
    async with aiohttp.ClientSession(url, headers={**gateway.bearer(Role.ADMIN), "Host": host}) as client:
        for path in ("/v1/state", "/healthz", "/"):
            async with client.get(path) as answer:
                assert answer.status == code, (path, await answer.text())


async def test_own_and_configured_host_names_pass(gateway: Plant) -> None:
    import socket

    own = await asyncio.to_thread(socket.gethostname)
    settings = HttpSettings(listen="127.0.0.1:0", tls="off", hosts=("Hall-3.Plant.example",))
    async with (
        serve(build_app(gateway, settings), settings, gateway.state) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
    ):
        for name in (own, f"{own}.local", "hall-3.plant.example:8443"):
            async with client.get("/healthz", headers={"Host": name}) as answer:
                assert answer.status == 200, name


async def test_a_foreign_origin_changes_nothing_and_opens_no_stream(
    gateway: Plant, url: str, admin: aiohttp.ClientSession
) -> None:
    own = {"Origin": url}
    for origin in ("https://evil.example", "null", "http://127.0.0.1", url + "0", "http://[", "é"):
        async with admin.post("/v1/devices/counter/poll", headers={"Origin": origin}) as answer:
            assert answer.status == 403, origin
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await admin.ws_connect("/v1/stream", headers={"Origin": origin})
        assert refused.value.status == 403
    async with admin.post("/v1/devices/counter/poll", headers=own) as answer:
        assert answer.status == 200
    async with admin.ws_connect("/v1/stream", headers=own) as socket:
        assert (await socket.receive_json())["type"] == "state"


async def test_a_browser_session(gateway: Plant, anybody: aiohttp.ClientSession) -> None:
    text = gateway.texts[Role.OPERATE]
    async with anybody.post("/v1/session", json={"token": text}) as answer:
        assert await answer.json() == {"name": "a operate", "role": "operate"}
        cookie = answer.headers["Set-Cookie"]
    assert all(flag in cookie for flag in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert text not in cookie
    assert "Secure" not in cookie  # plain HTTP on loopback
    async with anybody.get("/v1/session") as answer:
        assert (await answer.json())["role"] == "operate"
    async with anybody.post("/v1/devices/counter/poll") as answer:
        assert answer.status == 200
    async with anybody.ws_connect("/v1/stream") as socket:
        assert (await socket.receive_json())["type"] == "state"
    kept = {c.key: c.value for c in anybody.cookie_jar}[COOKIE]
    async with anybody.delete("/v1/session") as answer:
        assert answer.status == 204
    async with anybody.get("/v1/state", headers={"Cookie": f"{COOKIE}={kept}"}) as answer:
        assert answer.status == 401


async def test_a_revoked_token_ends_its_sessions_and_streams(
    gateway: Plant, anybody: aiohttp.ClientSession
) -> None:
    text, token = await asyncio.to_thread(gateway.tokens.make, "short", Role.READ)
    await asyncio.sleep(
        1.1
    )  # the daemon looks at the file once a second: the command line is another process
    async with anybody.post("/v1/session", json={"token": text}) as answer:
        assert answer.status == 200
    async with anybody.ws_connect("/v1/stream") as socket:
        other = Tokens(gateway.state, SystemClock())
        assert await asyncio.to_thread(other.revoke, token.id)
        assert await close_reason(socket) == (4401, "the token was revoked")
    async with anybody.get("/v1/state") as answer:
        assert answer.status == 401


async def close_reason(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    async with asyncio.timeout(6):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
    return socket.close_code, message.extra


async def test_a_log_out_ends_the_streams_of_its_session_and_no_others(
    gateway: Plant, anybody: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    async with anybody.post("/v1/session", json={"token": gateway.texts[Role.ADMIN]}):
        pass
    by_cookie = [await anybody.ws_connect("/v1/stream") for _ in range(2)]
    by_header = await admin.ws_connect("/v1/stream")
    async with anybody.delete("/v1/session") as answer:
        assert answer.status == 204
    for socket in by_cookie:
        assert await close_reason(socket) == (4401, "the session ended")
    await asyncio.sleep(1.5)
    async with admin.post("/v1/devices/box/samples", json=[{"tag": "a", "value": 1}]) as answer:
        assert answer.status == 200
    async with asyncio.timeout(5):
        while "samples" not in (await by_header.receive_json()):
            pass
    await by_header.close()


async def test_a_stream_ends_with_the_twelve_hours_of_its_session(
    gateway: Plant, settings: HttpSettings
) -> None:
    app = build_app(gateway, settings)
    app[GUARD].sessions = Sessions(clock := MovedClock())
    async with (
        serve(app, settings, gateway.state) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}", cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        async with client.post("/v1/session", json={"token": gateway.texts[Role.READ]}):
            pass
        async with client.ws_connect("/v1/stream") as socket:
            clock.hours = 12.1
            assert await close_reason(socket) == (4401, "the session ended")


@pytest.mark.parametrize(("role", "lasts"), [(Role.READ, True), (Role.OPERATE, False), (Role.ADMIN, False)])
async def test_a_session_in_use_goes_on_where_it_may_only_read(
    gateway: Plant, settings: HttpSettings, role: Role, lasts: bool
) -> None:
    app = build_app(gateway, settings)
    app[GUARD].sessions = Sessions(clock := MovedClock())
    async with (
        serve(app, settings, gateway.state) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}", cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        async with client.post("/v1/session", json={"token": gateway.texts[role]}):
            pass
        clock.hours = 11
        async with client.get("/v1/session") as answer:
            assert answer.status == 200
            kept = answer.headers.get("Set-Cookie", "")
        assert all(word in kept for word in ("HttpOnly", "SameSite=Strict", "Max-Age=43200")) == lasts
        clock.hours = 22.9
        async with client.get("/v1/state") as answer:
            assert answer.status == (200 if lasts else 401)
        clock.hours = 23.1
        async with client.get("/v1/session") as answer:
            assert answer.status == 401


async def test_a_stream_of_a_session_that_is_over_says_so(
    anybody: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that was open while the gateway restarted: its token is as good as before."""
    monkeypatch.setattr(sockets, "LOGIN_S", 0.3)
    async with anybody.ws_connect("/v1/stream", headers={"Cookie": f"{COOKIE}=over"}) as socket:
        assert await close_reason(socket) == (4401, "the session ended")


async def test_failed_logins_are_slowed_but_a_right_token_passes(
    gateway: Plant, anybody: aiohttp.ClientSession
) -> None:
    codes = []
    for _ in range(15):
        async with anybody.post("/v1/session", json={"token": "wrong"}) as answer:
            codes.append(answer.status)
            retry_after = answer.headers.get("Retry-After")
    assert codes == [401] * 10 + [429] * 5
    assert 1 <= int(retry_after or 0) <= 60
    async with anybody.get("/v1/state", headers=gateway.bearer(Role.READ)) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("packed", [False, True])
async def test_a_login_is_refused_by_its_length_before_it_is_parsed(
    gateway: Plant, anybody: aiohttp.ClientSession, packed: bool
) -> None:
    """Nobody knows yet who sends it: eight MiB of `[]` would cost hundreds of MiB and seconds."""

    def packed_or_not(body: bytes) -> bytes:
        return gzip.compress(body) if packed else body

    headers = {"Content-Type": "application/json", **({"Content-Encoding": "gzip"} if packed else {})}
    large = packed_or_not(b'{"token": [' + b"[]," * (2_000_000 if packed else 10_000) + b"[]]}")
    async with anybody.post("/v1/session", data=large, headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (413, "too_large")
        assert "4096 bytes" in (await answer.json())["error"]["message"]
    good = json.dumps({"token": gateway.texts[Role.READ]}).encode().ljust(4096)
    for body, status in ((good, 200), (good + b" ", 413)):
        async with anybody.post("/v1/session", data=packed_or_not(body), headers=headers) as answer:
            assert answer.status == status


class MovedClock(SystemClock):
    """The machine's clock, some hours later."""

    hours = 0.0

    def mono_ns(self) -> int:
        return super().mono_ns() + int(self.hours * 3600e9)


def test_a_session_ends_after_twelve_hours_and_there_are_only_so_many() -> None:
    clock = MovedClock()
    sessions = Sessions(clock)
    token = Token("1", "n", "read", "", 0)
    cookie = sessions.start(token)
    clock.hours = 11.9
    assert sessions.token_id(cookie) == "1"
    clock.hours = 12.1
    assert sessions.token_id(cookie) is None
    cookies = [sessions.start(token) for _ in range(300)]
    alive = [cookie for cookie in cookies if sessions.token_id(cookie)]
    assert alive == cookies[-256:]


def test_failed_logins_are_forgotten_with_time_and_per_address() -> None:
    clock = MovedClock()
    failed = FailedLogins(clock)

    def until_refused(address: str) -> int:
        for count in range(100):
            try:
                failed.count(address)
            except ApiError:
                return count
        return 100

    assert until_refused("10.0.0.1") == 10
    assert until_refused("10.0.0.2") == 10
    clock.hours = 30 / 3600
    assert 3 <= until_refused("10.0.0.1") <= 5
    clock.hours = 1
    assert until_refused("10.0.0.1") == 10


async def test_security_headers_stand_on_every_answer(anybody: aiohttp.ClientSession) -> None:
    for path in ("/", "/docs", "/healthz", "/v1/state", "/nowhere", "/static/app.js"):
        async with anybody.get(path) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            assert answer.headers["X-Frame-Options"] == "DENY", path
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], path
            assert "script-src 'unsafe" not in answer.headers["Content-Security-Policy"]
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_pages_are_not_sent_twice(anybody: aiohttp.ClientSession) -> None:
    async with anybody.get("/static/app.js") as answer:
        assert (answer.status, answer.content_type) == (200, "text/javascript")
        tag = answer.headers["ETag"]
    for path, expected in (("/static/app.js", 304), ("/static/style.css", 200)):
        async with anybody.get(path, headers={"If-None-Match": tag}) as answer:
            assert answer.status == expected
    async with anybody.get("/static/app.js", headers={"Range": "bytes=99999999-"}) as answer:
        assert answer.status == 200


def test_the_token_file_is_private_and_holds_no_token(tmp_path: Path) -> None:
    state = tmp_path / "state"
    tokens = Tokens(state, SystemClock()).open()
    admin = (state / ADMIN_FILE).read_text().strip()
    made, record = tokens.make("press line", Role.OPERATE)
    assert len(admin) >= 43
    for file in state.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    text = (state / "tokens.json").read_text()
    assert admin not in text
    assert made not in text
    assert [(token.name, token.role) for token in tokens.list()] == [
        ("first admin", "admin"),
        ("press line", "operate"),
    ]
    assert tokens.revoke(record.id)
    assert not tokens.revoke(record.id)
    Tokens(state, SystemClock()).open()
    assert (state / ADMIN_FILE).read_text().strip() == admin  # a second start makes no second one


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_belongs_to_the_service(tmp_path: Path) -> None:
    """`sudo edge-gateway token` must not lock the service out of its own file."""
    os.chown(tmp_path, 4242, 4243)
    Tokens(tmp_path, SystemClock()).open().make("by root", Role.READ)
    owners = {file.name: (file.stat().st_uid, file.stat().st_gid) for file in tmp_path.iterdir()}
    assert set(owners) == {"tokens.json", "tokens.lock", ADMIN_FILE}
    assert set(owners.values()) == {(4242, 4243)}


async def test_a_damaged_token_file_lets_nobody_in_and_is_left_alone(tmp_path: Path) -> None:
    for damage in ("", "{", "[]", '{"tokens": [{"id": 1}]}', '{"tokens": [null]}'):
        (tmp_path / "tokens.json").write_text(damage)
        tokens = await asyncio.to_thread(Tokens(tmp_path, SystemClock()).open)
        assert "damaged" in tokens.problem
        assert await tokens.find("egw_x") is None
        assert (tmp_path / "tokens.json").read_text() == damage


async def test_tokens_made_by_two_processes_at_once_all_stay(tmp_path: Path) -> None:
    hands = [Tokens(tmp_path, SystemClock()) for _ in range(8)]
    await asyncio.gather(*(asyncio.to_thread(hand.make, f"n{n}", Role.READ) for n, hand in enumerate(hands)))
    document = json.loads((tmp_path / "tokens.json").read_text())
    assert len(document["tokens"]) == 8
