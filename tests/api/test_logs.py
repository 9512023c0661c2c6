"""`/v1/logs`: real log files of a real logger, their names, their ends, their secrets, and the live log."""

import asyncio
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api import sockets
from gateway.api.tokens import Role
from gateway.logs import Logs, LogSettings
from gateway.logs.feed import QUEUE_BYTES, LogFeed
from gateway.logs.files import FILE
from gateway.redaction import Redaction
from tests.api.plant import Plant

SECRET = "hunter2/7f3a"
_log = logging.getLogger("gateway.test")


@pytest.fixture
def logs(gateway: Plant, tmp_path: Path) -> Iterator[Logs]:
    """The handlers of a gateway on the root logger, and their files."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    folder = tmp_path / "logs"
    folder.mkdir()
    root.handlers = []
    made = gateway.logs = Logs("INFO", {"LOGS_DIRECTORY": str(folder)})
    made.feed.redact = Redaction([SECRET])
    for handler in root.handlers:
        handler.addFilter(logging.Filter(_log.name))  # what other parts log comes when it comes
    yield made
    for handler in root.handlers:
        handler.close()
    root.handlers = before
    root.setLevel(level)


def rotating(logs: Logs, file_bytes: int) -> None:
    assert logs.files is not None
    logs.files.file_bytes = file_bytes


async def get(client: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def text(client: aiohttp.ClientSession, path: str) -> str:
    async with client.get(path) as answer:
        assert (answer.status, answer.content_type) == (200, "text/plain")
        return await answer.text()


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["text", "json"])
async def test_the_files_are_listed_with_the_times_of_their_records(
    admin: aiohttp.ClientSession, logs: Logs, format_: str
) -> None:
    logs.apply(LogSettings(format=format_))  # type: ignore[arg-type]
    rotating(logs, 3000)
    for number in range(60):
        _log.info("line %d %s", number, "x" * 50)
        if number % 10 == 9:
            assert logs.files is not None
            await asyncio.to_thread(logs.files.flush)
    try:
        raise ValueError("at the end")
    except ValueError:
        _log.exception("with a traceback")
    listed = await get(admin, "/v1/logs")
    assert listed["directory"] and listed["backup_count"] == 4 and listed["max_bytes"] == 5 * 1024 * 1024
    names = [each["name"] for each in listed["files"]]
    assert names[:2] == [FILE, f"{FILE}.1"]
    stamps = [
        stamp
        for each in reversed(listed["files"])
        for stamp in (each["first_timestamp"], each["last_timestamp"])
    ]
    assert stamps == sorted(stamps)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp) for stamp in stamps)
    assert all(each["size"] > 0 for each in listed["files"])


async def test_the_newest_lines_are_shown_also_those_not_written_yet(
    admin: aiohttp.ClientSession, logs: Logs
) -> None:
    for number in range(50):
        _log.info("line %d", number)
    shown = await get(admin, "/v1/logs/view?limit=3")
    assert shown["filename"] == FILE
    assert [line.rpartition(" ")[2] for line in shown["content"].splitlines()] == ["47", "48", "49"]
    for limit in ("0", "-1", "20001", "many"):
        await get(admin, f"/v1/logs/view?limit={limit}", 422)


async def test_a_view_is_bounded_and_begins_with_a_whole_line(
    admin: aiohttp.ClientSession, logs: Logs
) -> None:
    for number in range(300):
        _log.info("%d %s", number, "y" * 9000)
        if number % 50 == 0:
            assert logs.files is not None
            await asyncio.to_thread(logs.files.flush)
    shown = await get(admin, "/v1/logs/view?limit=20000")
    lines = shown["content"].splitlines()
    assert 900_000 < len(shown["content"]) <= 1024 * 1024
    assert all(re.match(r"\d{4}-\d\d-\d\d .* INFO +gateway.test: \d+ y", line) for line in lines)


async def test_a_file_and_all_files_are_downloaded_whole(admin: aiohttp.ClientSession, logs: Logs) -> None:
    rotating(logs, 400_000)
    for number in range(1200):
        _log.info("%d %s ä", number, "z" * 500)
        if number % 100 == 99:
            assert logs.files is not None
            await asyncio.to_thread(logs.files.flush)
    names = [each["name"] for each in (await get(admin, "/v1/logs"))["files"]]
    whole = "".join([await text(admin, f"/v1/logs/download/{name}") for name in reversed(names)])
    numbers = [int(found) for found in re.findall(r"gateway.test: (\d+) ", whole)]
    assert numbers == list(range(numbers[0], 1200)) and len(numbers) > 1000
    async with admin.get("/v1/logs/all") as answer:
        assert answer.content_type == "application/zip"
        assert "logs.zip" in answer.headers["Content-Disposition"]
        data = await answer.read()
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == names
        assert "".join(packed.read(name).decode() for name in reversed(names)).startswith(whole)


FOREIGN = [
    "../admin-token",
    "..",
    "..%2F..%2Fetc%2Fpasswd",
    "%2Fetc%2Fpasswd",
    "..%5Cx",
    f"{FILE}%00",
    f"{FILE}%0A",
    f"{FILE}.10",
    f"./{FILE}",
    "tokens.json",
    "other.log",
]


@pytest.mark.parametrize("name", FOREIGN)
async def test_no_other_file_is_read(
    admin: aiohttp.ClientSession, logs: Logs, gateway: Plant, name: str, url: str
) -> None:
    assert logs.files is not None
    (logs.files.folder / "other.log").write_text("not ours\n")
    _log.info("ours")
    await get(admin, f"/v1/logs/view?file={name}", 403)
    path = f"/v1/logs/download/{name}"
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    bearer = gateway.bearer(Role.ADMIN)["Authorization"]
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    assert answer.split()[1] in (b"403", b"404", b"400"), answer
    assert b"egw_" not in answer and b"root:" not in answer and b"not ours" not in answer


async def test_a_file_that_is_not_there_yet_is_404(admin: aiohttp.ClientSession, logs: Logs) -> None:
    _log.info("one")
    assert (await get(admin, f"/v1/logs/view?file={FILE}.3", 404))["error"]["code"] == "not_found"
    await get(admin, f"/v1/logs/download/{FILE}.3", 404)


async def test_a_link_in_the_place_of_a_file_leads_nowhere(
    admin: aiohttp.ClientSession, logs: Logs, gateway: Plant
) -> None:
    assert logs.files is not None
    (logs.files.folder / f"{FILE}.1").symlink_to(gateway.state / "admin-token")
    _log.info("ours")
    await get(admin, f"/v1/logs/view?file={FILE}.1", 404)
    assert [each["name"] for each in (await get(admin, "/v1/logs"))["files"]] == [FILE]


async def test_no_secret_is_shown_whichever_way(admin: aiohttp.ClientSession, logs: Logs) -> None:
    async with admin.ws_connect("/v1/logs/stream") as socket:
        await socket.receive_json()
        _log.info("somebody logged %s and password: other-one, then", SECRET)
        live = str(await socket.receive_json())
    shown = [live, str(await get(admin, "/v1/logs/view")), await text(admin, f"/v1/logs/download/{FILE}")]
    async with admin.get("/v1/logs/all") as answer, asyncio.timeout(10):
        with zipfile.ZipFile(io.BytesIO(await answer.read())) as packed:
            shown.append(packed.read(FILE).decode())
    for each in shown:
        assert "somebody logged" in each
        assert "hunter2" not in each and "other-one" not in each


async def test_where_there_are_no_files_it_says_so(
    admin: aiohttp.ClientSession, gateway: Plant, logs: Logs
) -> None:
    gateway.logs = None
    assert (await get(admin, "/v1/logs"))["files"] == []
    assert "journal" in (await get(admin, "/v1/logs/view", 404))["error"]["message"]
    await get(admin, "/v1/logs/all", 404)
    async with admin.get("/v1/logs/stream") as answer:
        assert answer.status == 409


async def test_reading_alone_is_not_enough_for_the_log(gateway: Plant, logs: Logs, url: str) -> None:
    paths = ("", "/view", f"/download/{FILE}", "/all", "/stream")
    async with aiohttp.ClientSession(url, headers=gateway.bearer(Role.READ)) as client:
        for path in paths:
            await get(client, f"/v1/logs{path}", 403)
    async with aiohttp.ClientSession(url) as client:
        for path in paths:
            await get(client, f"/v1/logs{path}", 401)
        async with client.ws_connect("/v1/logs/stream") as socket:
            await socket.send_json({"token": gateway.texts[Role.READ]})
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == sockets.LOGIN_FAILED


# -- live ----------------------------------------------------------------------------------------------


class Following:
    """A client that follows the log."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.lines: list[str] = []
        self.skipped = 0

    async def until(self, word: str, within_s: float = 8) -> None:
        async with asyncio.timeout(within_s):
            while not any(word in line for line in self.lines):
                message = await self.socket.receive_json()
                assert message.keys() == {"type", "lines", "skipped"} and message["type"] == "log"
                self.lines += message["lines"]
                self.skipped += message["skipped"]


async def test_the_live_log_speaks(
    admin: aiohttp.ClientSession, logs: Logs, gateway: Plant, url: str
) -> None:
    async with (
        aiohttp.ClientSession(url) as late,
        admin.ws_connect("/v1/logs/stream") as one,
        late.ws_connect("/v1/logs/stream") as two,
    ):
        await two.send_json({"token": gateway.texts[Role.OPERATE]})
        clients = [Following(one), Following(two)]
        for client in clients:
            assert await client.socket.receive_json() == {"type": "log", "lines": [], "skipped": 0}
        _log.info("from the loop")
        await asyncio.to_thread(_log.warning, "from a thread")
        try:
            raise ValueError("why")
        except ValueError:
            _log.exception("the last")
        for client in clients:
            await client.until("the last")
            assert [line.partition(": ")[2].splitlines()[0] for line in client.lines] == [
                "from the loop",
                "from a thread",
                "the last",
            ]
            assert client.lines[-1].endswith("ValueError: why")
            assert client.skipped == 0
    assert logs.feed._followers == ()


async def test_rotation_costs_a_live_client_nothing(admin: aiohttp.ClientSession, logs: Logs) -> None:
    rotating(logs, 2000)
    assert logs.files is not None
    async with admin.ws_connect("/v1/logs/stream") as socket:
        client = Following(socket)
        await socket.receive_json()
        download = await admin.get(f"/v1/logs/download/{FILE}") if _log.info("first") is None else None
        for number in range(200):
            _log.info("number %d %s", number, "r" * 100)
            await asyncio.to_thread(logs.files.flush)
        await client.until("number 199")
    assert download is not None
    assert "first" in await download.text()
    numbers = [int(found) for line in client.lines for found in re.findall(r"number (\d+)", line)]
    assert (numbers, client.skipped) == (list(range(200)), 0)
    assert len((await get(admin, "/v1/logs"))["files"]) == 5


async def test_a_client_that_reads_nothing_misses_the_oldest_and_is_told(
    admin: aiohttp.ClientSession, logs: Logs
) -> None:
    async with admin.ws_connect("/v1/logs/stream") as socket:
        client = Following(socket)
        await socket.receive_json()
        flood = 3 * QUEUE_BYTES // 1000
        for number in range(flood):  # the loop is not let go: nobody can send meanwhile
            _log.info("number %d %s", number, "f" * 1000)
        await client.until(f"number {flood - 1} ")
        assert client.skipped > flood / 2
        assert len(client.lines) + client.skipped == flood


async def test_a_client_that_never_reads_is_closed_and_disturbs_nobody(
    admin: aiohttp.ClientSession, logs: Logs, monkeypatch: pytest.MonkeyPatch, url: str, gateway: Plant
) -> None:
    monkeypatch.setattr(sockets, "WRITE_S", 0.3)
    host, port = url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port), limit=1)
    bearer = gateway.bearer(Role.ADMIN)["Authorization"]
    head = f"GET /v1/logs/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n"
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    writer.write(f"{head}{upgrade}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    async with admin.ws_connect("/v1/logs/stream") as socket:
        await socket.receive_json()
        while len(logs.feed._followers) < 2:
            await asyncio.sleep(0.01)
        number = 0
        client = Following(socket)
        async with asyncio.timeout(9):
            while len(logs.feed._followers) > 1:
                _log.info("number %d %s", number, "s" * 50_000)
                await client.until(f"number {number} ")
                number += 1
        _log.info("still here")
        await client.until("still here")
    writer.close()


async def test_what_the_client_says_is_refused_and_ends_it_alone(
    admin: aiohttp.ClientSession, logs: Logs
) -> None:
    async with admin.ws_connect("/v1/logs/stream") as other:
        await other.receive_json()
        for said in ("nonsense", "[]", json.dumps({"devices": ["a"]})):
            async with admin.ws_connect("/v1/logs/stream") as socket:
                await socket.receive_json()
                await socket.send_str(said)
                while (await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass
                assert socket.close_code == sockets.BAD_MESSAGE
        client = Following(other)
        _log.info("undisturbed")
        await client.until("undisturbed")


async def test_a_revoked_token_ends_the_live_log(gateway: Plant, logs: Logs, url: str) -> None:
    text, token = await asyncio.to_thread(gateway.tokens.make, "short", Role.OPERATE)
    async with (
        aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {text}"}) as client,
        client.ws_connect("/v1/logs/stream") as socket,
    ):
        await socket.receive_json()
        await asyncio.to_thread(gateway.tokens.revoke, token.id)
        message = await socket.receive(timeout=8)
        assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, sockets.LOGIN_FAILED)


def test_nothing_is_formatted_where_nobody_follows() -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    LogFeed().handle(logging.LogRecord("a", logging.INFO, "", 0, "%s", (Costly(),), None))
