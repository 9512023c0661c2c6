"""Runs the simulated dataspace in a process of its own, tells it to fail, and reads its ledger."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson

_ROOT = Path(__file__).resolve().parents[2]


class Receiver:
    """A dataspace process on a port of its own; its folder outlives its deaths."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder = port, folder
        self.url = f"http://127.0.0.1:{port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (
            sys.executable,
            "-m",
            "gateway.demo.dataspace",
            "--port",
            str(self.port),
            "--folder",
            str(self.folder),
        )
        self._process = await asyncio.create_subprocess_exec(*command, cwd=_ROOT, env={**os.environ})
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                await self.counts()
                return
            assert self._process.returncode is None, "the dataspace ended by itself"
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            self._process = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def faults(self, **faults: Any) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/faults", json=faults) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def _get(self, show: str) -> bytes:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/ledger?show={show}") as answer,
        ):
            return await answer.read()

    async def counts(self) -> dict[str, Any]:
        return orjson.loads(await self._get(""))

    async def samples(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in (await self._get("samples")).splitlines()]

    async def deliveries(self) -> list[dict[str, Any]]:
        return orjson.loads(await self._get("deliveries"))

    async def requests(self) -> list[dict[str, Any]]:
        return orjson.loads(await self._get("requests"))

    async def files(self) -> list[dict[str, Any]]:
        return orjson.loads(await self._get("files"))

    def spoil(self, name: str, etag: str | None = None) -> None:
        """Do to a file at the target what its people may: give it other bytes, or (None) remove it."""
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as conn, conn:
            if etag is None:
                conn.execute("DELETE FROM file WHERE name = ?", (name,))
            else:
                conn.execute("UPDATE file SET etag = ? WHERE name = ?", (etag, name))

    def announce(self, name: str) -> None:
        """Announce a file at the target once more, as its people may: its bytes are to come."""
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as conn, conn:
            conn.execute("UPDATE file SET state = 'created', etag = NULL WHERE name = ?", (name,))

    def fill(self, files: int, metadata: dict[str, Any]) -> None:
        """Put files of others there, stored before anything else."""
        document = orjson.dumps({"description": "of another gateway", "metadata": metadata})
        rows = (
            (
                f"f{n}",
                f"f{n}.hdf5",
                f"edge-gateway/f{n}.hdf5",
                document,
                "2001",
                "2001",
                "available",
                n,
                f"{n:032x}",
            )
            for n in range(files)
        )
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as conn, conn:
            conn.executemany(
                "INSERT INTO file(id, name, objectname, document, created, modified, state, size, etag) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    async def gaps(self) -> list[dict[str, Any]]:
        return orjson.loads(await self._get("gaps"))


@contextlib.asynccontextmanager
async def receiver(port: int, folder: Path, *, started: bool = True) -> AsyncIterator[Receiver]:
    peer = Receiver(port, folder)
    if started:
        await peer.start()
    try:
        yield peer
    finally:
        await peer.kill()
