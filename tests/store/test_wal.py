"""The write-ahead log stays small, however long and however slowly somebody reads."""

import asyncio
import json
import logging
import os
import re
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role
from gateway.model import Batch
from gateway.store import Store, disk, wal
from tests.api.plant import Plant, plant
from tests.store.conftest import NOW_US, Opener
from tests.store.reading import everything, put

PAGES = 100
"""A checkpoint after so many, as if the log were allowed forty times less."""
LIMIT_BYTES = 4 * PAGES * 1024
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plant]:
    monkeypatch.setattr(disk, "_LOOK_NS", 0)
    monkeypatch.setattr(wal, "WAL_BYTES", LIMIT_BYTES)
    monkeypatch.setattr(wal, "CHECKPOINT_PAGES", PAGES)
    async with plant(tmp_path, commit_interval_s=0.005) as made:
        yield made


class Intake:
    """A thousand samples a commit, and the log after each."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._file = store, folder / "hot.db-wal"
        self._series = [store.series("box", f"tag {n}") for n in range(1000)]
        self._time_us = 1_795_000_000_000_000
        self.largest = 0

    async def commits(self, count: int) -> int:
        """Return the largest the log has been meanwhile, in bytes."""
        self.largest = 0
        for _ in range(count):
            batch, self._time_us = Batch(), self._time_us + 1_000_000
            for place, series in enumerate(self._series):
                batch.add(
                    series, self._time_us + place, (self._time_us * 7919 + place * 104_729) % 1_000_003 / 7
                )
            await (await self._store.put(batch))
            self.largest = max(self.largest, await asyncio.to_thread(lambda: self._file.stat().st_size))
        return self.largest


def ask(url: str, token: str) -> socket.socket:
    """Ask for everything and read only the first bytes of the answer."""
    address = urlsplit(url)
    client = socket.create_connection((address.hostname, address.port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    path = "/v1/devices/box/samples?format=ndjson"
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: {token}\r\n\r\n".encode()
    )
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    return client


async def test_clients_that_stall_or_read_slowly_do_not_make_it_grow(gateway: Plant) -> None:
    intake = Intake(gateway.store, gateway.state)
    await intake.commits(100)
    settings = HttpSettings(listen="127.0.0.1:0", tls="off")
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        token = gateway.bearer(Role.READ)["Authorization"]
        clients = [await asyncio.to_thread(ask, f"http://{host}:{port}", token) for _ in range(6)]

        async def sip() -> int:
            got = 0
            while True:
                got += len(await asyncio.to_thread(clients[0].recv, 2000))
                await asyncio.sleep(0.01)

        slow = asyncio.create_task(sip())
        largest = await intake.commits(150)
        slow.cancel()
        for client in clients:
            client.close()
        await asyncio.gather(slow, return_exceptions=True)
    assert largest < LIMIT_BYTES + 200_000, f"{largest} bytes"


async def overlapping(folder: Path, stop: Callable[[], bool]) -> int:
    """Read in transactions that overlap: there is no moment without one. Returns how many."""
    turns = 0
    held: list[sqlite3.Connection] = []
    while not stop():
        conn = sqlite3.connect(
            f"file:{folder}/hot.db?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        await asyncio.to_thread(
            lambda c=conn: (c.execute("BEGIN"), c.execute("SELECT max(seq) FROM block").fetchone())
        )  # type: ignore[misc]
        held.append(conn)
        turns += 1
        await asyncio.sleep(0.1)
        if len(held) > 1:
            held.pop(0).close()
    for conn in held:
        conn.close()
    return turns


@pytest.mark.parametrize("kept_small", [True, False], ids=["kept small", "without it: the control"])
async def test_readers_without_a_break_do_not_make_it_grow(
    gateway: Plant, monkeypatch: pytest.MonkeyPatch, kept_small: bool
) -> None:
    if not kept_small:
        monkeypatch.setattr(wal, "WAL_BYTES", 2**40)
    intake, done = Intake(gateway.store, gateway.state), False
    readers = asyncio.create_task(overlapping(gateway.state, lambda: done))
    largest = await intake.commits(300)
    done = True
    assert await readers > 10
    assert (largest < 2 * LIMIT_BYTES) == kept_small, f"{largest} bytes"


async def test_a_foreign_reader_that_holds_is_named_and_the_log_shrinks_when_it_is_gone(
    gateway: Plant, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "_PATIENCE_MS", 50)
    caplog.set_level(logging.WARNING)
    intake = Intake(gateway.store, gateway.state)
    await intake.commits(10)
    conn = sqlite3.connect(f"file:{gateway.state}/hot.db?mode=ro", uri=True, isolation_level=None)
    conn.execute("BEGIN")
    conn.execute("SELECT max(seq) FROM block").fetchone()
    while gateway.store.state().wal_bytes < 4 * LIMIT_BYTES + 100_000:
        await intake.commits(10)
    await intake.commits(2)
    assert caplog.text.count("another program has been reading hot.db in one transaction") == 1
    conn.close()
    await intake.commits(20)
    assert gateway.store.state().wal_bytes <= LIMIT_BYTES, json.dumps(gateway.store.state().counters)


@pytest.mark.parametrize("way", ["committed", "look", "empty"])
async def test_a_checkpoint_whose_sync_fails_has_the_file_written_anew(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What a checkpoint before it wrote may be lost: only a copy elsewhere on the disk can be trusted."""
    monkeypatch.setattr(disk, "_LOOK_NS", 0)
    monkeypatch.setattr(wal, "CHECKPOINT_PAGES", 1)
    monkeypatch.setattr(wal, "WAL_BYTES", 1)
    hot = tmp_path / "store" / "hot.db"
    real, failed = getattr(wal.WriteAheadLog, way), []

    def fails_once(log: wal.WriteAheadLog, conn: sqlite3.Connection) -> None:
        real(log, conn)
        if not failed:
            failed.append(way)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    async with opened() as store:
        assert store._writer._conn.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)  # type: ignore[union-attr]
        before = hot.stat().st_ino
        monkeypatch.setattr(wal.WriteAheadLog, way, fails_once)
        series = store.series("plc", "a")
        for n in range(5):
            await put(store, (series, NOW_US + n, n))
    assert failed and hot.stat().st_ino != before
    async with opened() as store:
        assert [x.value for x in await everything(store, [series])] == [0, 1, 2, 3, 4]


async def test_the_locks_on_its_index_are_kept(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the next process that reads the store cuts the index short, and this one is killed."""
    monkeypatch.setattr(wal, "CHECKPOINT_PAGES", 1)
    async with opened() as store:
        series = store.series("plc", "a")
        for n in range(3):
            await put(store, (series, NOW_US + n, n))
        inode = (tmp_path / "store" / "hot.db-shm").stat().st_ino
        held = await asyncio.to_thread(Path("/proc/locks").read_text)
        assert re.search(rf"POSIX .* {os.getpid()} \S+:{inode} ", held), held
