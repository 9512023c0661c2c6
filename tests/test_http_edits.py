"""Edits of `http:` while the daemon runs: what cannot be changes nothing, what can is what listens."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import listeners
from gateway.config.last_good import kept_file
from gateway.daemon import Daemon
from tests.test_daemon import begun, told, until

pytestmark = [pytest.mark.timeout(30)]
HTTP = "http: {{listen: '{}:{}', tls: off}}\n"
COMPAT = "http: {{listen: '{}:{}', tls: off, compat: {{icoapi: {{listen: '{}:{}', tls: off}}}}}}\n"
LOCAL = "127.0.0.1"


@contextlib.contextmanager
def taken(host: str = LOCAL, port: int = 0) -> Iterator[int]:
    with socket.create_server((host, port)) as other:
        yield other.getsockname()[1]


async def edited(daemon: Daemon, text: str) -> Any:
    await until(lambda: daemon.address is not None)
    daemon.file.write_text(text)
    return await told(daemon, "reload")


async def answers(url: str) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz", ssl=context) as answer:
        return answer.status == 200


async def test_an_edit_that_cannot_be_is_refused_and_nothing_stops(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port, other = free_port(), free_port()
    (tmp_path / "half.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    good = COMPAT.format(LOCAL, port, LOCAL, other)
    with taken() as busy:
        cases = [
            (good.replace("tls: off", "tls: {certificate: half.pem, key: half.pem}", 1), "http.tls: "),
            (good.replace(", tls: off}}", ", tls: {certificate: no.pem, key: no.pem}}}"), "no.pem cannot be"),
            (HTTP.format("192.0.2.77", busy), f"http.listen: 192.0.2.77:{busy} cannot be listened on: this"),
            (HTTP.format("192.0.2.77", port), f"http.listen: 192.0.2.77:{port} cannot be listened on: this"),
            (HTTP.format(LOCAL, busy), f"http.listen: {LOCAL}:{busy} cannot be listened on: another program"),
            (COMPAT.format(LOCAL, port, LOCAL, busy), f"http.compat.icoapi.listen: {LOCAL}:{busy} cannot be"),
        ]
        async with begun(tmp_path, good) as daemon:
            await until(lambda: [each.state for each in daemon.compat().values()] == ["running"])
            kept = await asyncio.to_thread(kept_file, daemon.state, daemon.file)
            before = kept.read_bytes()
            for text, sentence in cases:
                answer = await edited(daemon, f"devices: {{}}\n{text}")
                assert not answer["ok"], text
                (problem,) = answer["problems"]
                assert problem.startswith(f"{daemon.file}:2:1: http")
                assert sentence in problem
                status = await told(daemon, "status")
                assert (status["ok"], status["problems"]) == (False, [problem])
                assert status["url"] == f"http://{LOCAL}:{port}"
                assert await answers(status["url"])
            assert kept.read_bytes() == before
            assert {each.starts for each in daemon.compat().values()} == {1}
            assert (await edited(daemon, good))["ok"]
            assert (await told(daemon, "status"))["ok"]
        text, sentence = cases[0]
        async with begun(tmp_path, text) as daemon:  # nor is it taken by a restart
            await until(lambda: daemon.address is not None)
            status = await told(daemon, "status")
            assert status["url"] == f"http://{LOCAL}:{port}"
            assert sentence in status["problems"][0]


async def test_what_can_be_is_what_listens(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port, other = free_port(), free_port()
    async with begun(tmp_path, HTTP.format(LOCAL, port)) as daemon:
        for text, url, compat in (
            (HTTP.format(LOCAL, port).replace("off", "self-signed"), f"https://{LOCAL}:{port}", None),
            (HTTP.format("0.0.0.0", port), f"http://{LOCAL}:{port}", None),
            (HTTP.format(LOCAL, other), f"http://{LOCAL}:{other}", None),
            (COMPAT.format(LOCAL, other, LOCAL, port), f"http://{LOCAL}:{other}", port),
            (
                COMPAT.format(LOCAL, port, LOCAL, other),
                f"http://{LOCAL}:{port}",
                other,
            ),  # in each other's place
            (HTTP.format(LOCAL, port), f"http://{LOCAL}:{port}", None),
        ):
            answer = await edited(daemon, text)
            assert (answer["ok"], answer["warnings"]) == (True, []), text
            status = await told(daemon, "status")
            assert (status["ok"], status["url"], bool(status["fingerprint"])) == (True, url, "https" in url)
            assert await answers(url)
            assert list(daemon.compat()) == (["icoapi"] if compat else [])
            if compat:
                await until(lambda: daemon.compat()["icoapi"].state == "running")
                assert daemon.compat()["icoapi"].detail.endswith(f":{compat}")


async def test_what_only_the_change_itself_shows_brings_back_what_listened(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_UP_S", 1.0)
    port, other = free_port(), free_port()
    with taken(
        "127.0.0.2", port
    ):  # which 0.0.0.0 takes in, and a port that the gateway itself has is no proof
        async with begun(tmp_path, COMPAT.format(LOCAL, port, LOCAL, other)) as daemon:
            await until(lambda: [each.state for each in daemon.compat().values()] == ["running"])
            answer = await edited(daemon, HTTP.format("0.0.0.0", port))
            assert not answer["ok"]
            assert "the API does not listen" in answer["problems"][0]
            assert "address already in use" in answer["problems"][0]
            assert daemon.address == (LOCAL, port)
            assert await answers(f"http://{LOCAL}:{port}")
            await until(lambda: daemon.compat()["icoapi"].state == "running")
            _reader, writer = await asyncio.open_connection(LOCAL, other)
            writer.close()


async def test_where_nothing_listens_the_status_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_UP_S", 0.2)
    with taken() as busy:
        pair = "{certificate: own.pem, key: own.pem}"
        text = HTTP.format(LOCAL, busy)
        async with begun(tmp_path, text.replace("off", pair)) as daemon:
            await until(lambda: daemon.compat() == {} and daemon.config().file != "")
            status = await told(daemon, "status")
            assert (status["ok"], status["address"], status["url"]) == (False, None, "")
            assert "the API does not listen: http.tls: " in status["problems"][0]
            warnings = (await told(daemon, "reload"))["warnings"]
            assert any(each.startswith("http.tls: ") for each in warnings)
            assert not any("is used on" in each for each in warnings)
            assert (await edited_without_waiting(daemon, text))[
                "ok"
            ]  # nothing listened: nothing to go back to
            warnings = (await told(daemon, "reload"))["warnings"]
            assert any("the API does not listen: " in each for each in warnings)
            assert (await edited_without_waiting(daemon, HTTP.format(LOCAL, 0)))["ok"]
            assert (await told(daemon, "status"))["ok"]
            (api,) = daemon._http.keepers
            await api.stop()
            status = await told(daemon, "status")
            assert (status["ok"], status["address"], status["url"], status["fingerprint"]) == (
                False,
                None,
                "",
                "",
            )


async def edited_without_waiting(daemon: Daemon, text: str) -> Any:
    daemon.file.write_text(text)
    return await told(daemon, "reload")
