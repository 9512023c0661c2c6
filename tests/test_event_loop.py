"""Name look-ups of the event loop: none keeps other work waiting, however dead the name servers are."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from gateway.event_loop import MOST_LOOKUPS, EventLoop

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))


class DeadNames:
    """socket.getaddrinfo while no name server answers; afterwards it answers or refuses."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuse = False
        self.back = threading.Event()

    def look_up(self, host: str, *_more: object) -> list[Any]:
        self.asked.append(host)
        self.back.wait()
        if self.refuse:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [ADDRESS]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadNames]:
    dead = DeadNames()
    monkeypatch.setattr(socket, "getaddrinfo", dead.look_up)
    yield dead
    dead.back.set()


def run(test: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(test(runner.get_loop()))


async def begin(loop: asyncio.AbstractEventLoop, host: str) -> "asyncio.Task[Any]":
    lookup = asyncio.ensure_future(loop.getaddrinfo(host, 80))
    await asyncio.sleep(0)
    return lookup


def test_other_work_goes_on_and_the_end_waits_for_no_look_up(names: DeadNames) -> None:
    async def test(loop: asyncio.AbstractEventLoop) -> None:
        lookups = [await begin(loop, f"plc-{n}") for n in range(MOST_LOOKUPS)]
        assert await asyncio.to_thread(lambda: "done") == "done"
        with pytest.raises(socket.gaierror) as refused:
            await loop.getaddrinfo("one-more", 80)
        assert refused.value.errno == socket.EAI_AGAIN
        assert not any(each.done() for each in lookups)

    run(test)  # leaves the loop while they all are under way
    assert not names.back.is_set()


def test_who_asks_again_gets_the_answer_to_the_first_question(names: DeadNames) -> None:
    async def test(loop: asyncio.AbstractEventLoop) -> None:
        first = await begin(loop, "plc")
        first.cancel()
        again = [await begin(loop, "plc") for _ in range(3)]
        names.back.set()
        assert await asyncio.gather(*again) == [[ADDRESS]] * 3
        assert names.asked == ["plc"]
        assert await loop.getaddrinfo("plc", 80) == [ADDRESS]
        assert names.asked == ["plc", "plc"]

    run(test)


def test_a_refusal_is_raised_to_all_who_wait_and_forgotten(names: DeadNames) -> None:
    async def test(loop: asyncio.AbstractEventLoop) -> None:
        names.refuse = True
        lookups = [await begin(loop, "plc") for _ in range(2)]
        names.back.set()
        found = await asyncio.gather(*lookups, return_exceptions=True)
        assert [type(each) for each in found] == [socket.gaierror] * 2
        names.refuse = False
        assert await loop.getaddrinfo("plc", 80) == [ADDRESS]

    run(test)
