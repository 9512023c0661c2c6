"""How much memory large bodies may have together."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api import body_room
from gateway.api.bodies import read_body, room_for_body
from gateway.api.body_room import BODY_ROOM, SMALL_BYTES, BodyRoom
from gateway.api.errors import errors
from tests.api.plant import Plant

LARGE = b"x" * 90_000
ROOM = 100_000


class Reader:
    """A handler that holds bodies for as long as a test wants."""

    def __init__(self) -> None:
        self.inside = self.large = self.most = 0
        self.may_go = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        async with room_for_body(request):
            large = len(LARGE) == request.content_length
            self.inside += 1
            self.large += large
            self.most = max(self.most, self.large)
            await read_body(request)
            await self.may_go.wait()
            self.large -= large
        return web.Response()


@asynccontextmanager
async def reading(reader: Reader) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application(middlewares=[errors], client_max_size=200_000)
    app[BODY_ROOM] = BodyRoom(ROOM)
    app.router.add_post("/", reader.take)
    async with TestClient(TestServer(app)) as client:
        yield client


async def until_inside(reader: Reader, count: int) -> None:
    while reader.inside < count:
        await asyncio.sleep(0.005)


async def test_large_bodies_come_in_one_after_the_other_and_small_ones_beside_them() -> None:
    reader = Reader()
    async with reading(reader) as client, asyncio.TaskGroup() as group:
        large = [group.create_task(client.post("/", data=LARGE)) for _ in range(3)]
        await until_inside(reader, 1)
        small = [group.create_task(client.post("/", data=b"x" * SMALL_BYTES)) for _ in range(2)]
        await until_inside(reader, 3)
        reader.may_go.set()
        assert [(await each).status for each in large + small] == [200] * 5
        assert reader.most == 1, "a second large body was read beside the first"


async def test_where_none_goes_the_next_is_to_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "_WAIT_S", 0.05)
    reader = Reader()
    async with reading(reader) as client:
        first = asyncio.create_task(client.post("/", data=LARGE))
        await until_inside(reader, 1)
        # What is compressed may become as long as any.
        for data, headers in ((LARGE, {}), (b"x", {"Content-Encoding": "gzip"})):
            async with client.post("/", data=data, headers=headers) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
                assert "no room for a body" in (await answer.json())["error"]["message"]
        reader.may_go.set()
        assert (await first).status == 200
        async with client.post("/", data=LARGE) as answer:
            assert answer.status == 200


async def test_one_body_larger_than_the_room_comes_in_alone() -> None:
    reader = Reader()
    reader.may_go.set()
    async with reading(reader) as client, client.post("/", data=b"x" * (ROOM + 1)) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("kind", "text", "rest"),
    [("text/plain", b"m v=1 %d\n", b"no line"), ("application/x-ndjson", b'{"tag":"a","value":%d}\n', b"{")],
)
async def test_a_push_is_parsed_no_further_than_its_device_takes(
    gateway: Plant, admin: aiohttp.ClientSession, kind: str, text: bytes, rest: bytes
) -> None:
    """1 300 000 lines in 8 MiB once took 190 MiB before they were counted."""
    body = b"".join(text % n for n in range(100_001)) + rest
    headers = {"Content-Type": kind}
    async with admin.post("/v1/devices/box/samples", data=io.BytesIO(body), headers=headers) as answer:
        said = (await answer.json())["error"]["message"]
        assert (answer.status, said) == (
            422,
            "Nothing was stored; device box takes at most 100000 samples in one request (max_batch).",
        )
    assert gateway.store.state().counters["added"] == 0


@pytest.mark.parametrize("bracket", ["[]", "{}"])
async def test_a_push_of_nothing_but_brackets_is_not_made_into_values(
    admin: aiohttp.ClientSession, bracket: str
) -> None:
    """8 MiB of them once took 200 MiB."""
    body = f"[{','.join([bracket] * 500_010)}]".encode()
    headers = {"Content-Type": "application/json"}
    async with admin.post("/v1/devices/box/samples", data=io.BytesIO(body), headers=headers) as answer:
        assert answer.status == 413
        assert "more lists and objects" in (await answer.json())["error"]["message"]
