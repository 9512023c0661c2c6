"""What systemd is told when its queue is full, or when it is not there any more."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.systemd import Notifier

# The notifier has its socket as long as the process lives.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = os.path.relpath(tmp_path / "notify")  # a socket's name has 107 characters at most
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    return path


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.settimeout(0)
        taker.bind(address)
        yield taker


@pytest.fixture
def notifier(systemd: socket.socket) -> Notifier:
    return Notifier()


def fill(address: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.settimeout(0)
        other.connect(address)
        for count in range(100_000):
            try:
                other.send(b"X=1")
            except BlockingIOError:
                return count
    raise AssertionError("its queue never gets full")


async def test_a_full_queue_stops_nothing_and_loses_nothing(
    address: str, systemd: socket.socket, notifier: Notifier
) -> None:
    before = fill(address)
    telling = asyncio.ensure_future(notifier.tell("READY=1", "STATUS=up"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not telling.done()
    assert [systemd.recv(100) for _ in range(before)] == [b"X=1"] * before
    await telling
    assert systemd.recv(100) == b"READY=1\nSTATUS=up"


async def test_what_nobody_takes_is_given_up(
    address: str, notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.systemd._AGAIN_S", 0)
    fill(address)
    await notifier.tell("STOPPING=1")


async def test_a_systemd_that_went_away_harms_nothing(systemd: socket.socket, notifier: Notifier) -> None:
    systemd.close()
    await notifier.tell("WATCHDOG=1")


async def test_one_that_was_never_there_harms_nothing(address: str) -> None:
    await Notifier().tell("WATCHDOG=1")


async def test_a_ping_needs_no_thread(systemd: socket.socket, notifier: Notifier) -> None:
    free = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        busy = asyncio.get_running_loop().run_in_executor(None, free.wait)
        try:
            async with asyncio.timeout(5):
                await notifier.tell("WATCHDOG=1")
        finally:
            free.set()
        await busy
    assert systemd.recv(100) == b"WATCHDOG=1"
