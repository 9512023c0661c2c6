"""Runs `edge-gateway run` as systemd would: a process, a NOTIFY_SOCKET, signals; and asks its API."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

READY_S = 20


class GatewayProcess:
    """One configuration file, one state directory, and the process on them, started as often as asked."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.state = folder / "state"
        self.file = folder / "gateway.yaml"
        self.log = folder / "gateway.log"
        self.command = [sys.executable, "-m", "gateway", "run"]
        self.process: asyncio.subprocess.Process | None = None
        self._notify: socket.socket | None = None
        self._session: aiohttp.ClientSession | None = None

    def write(self, rest: str) -> None:
        """Write the configuration: the listener of this test, then `rest`."""
        self.folder.mkdir(exist_ok=True)
        http = f"http: {{listen: '127.0.0.1:{self.port}', tls: off}}\n"
        self.file.write_text(http + rest, encoding="utf-8")

    async def start(self, *, ready: bool = True, **environ: str) -> None:
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        address = f"\0edge-gateway-test-{os.getpid()}-{id(self)}-{os.urandom(4).hex()}"
        notify.bind(address)
        if self._notify is not None:
            self._notify.close()
        self._notify = notify
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                *("--config", str(self.file), "--state", str(self.state)),
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": "@" + address[1:], **environ},
            )
        if ready:
            await self.told("READY=1")

    async def told(self, word: str, within_s: float = READY_S) -> str:
        """Wait until systemd is told a line; return the whole message."""
        assert self._notify is not None
        assert self.process is not None
        loop = asyncio.get_running_loop()
        ended = asyncio.ensure_future(self.process.wait())
        try:
            async with asyncio.timeout(within_s):
                while True:
                    message = asyncio.ensure_future(loop.sock_recv(self._notify, 4096))
                    await asyncio.wait({message, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not message.done():
                        message.cancel()
                        raise AssertionError(f"the gateway ended:\n{self.log.read_text()[-4000:]}")
                    text = message.result().decode()
                    if word in text.splitlines():
                        return text
        except TimeoutError:
            raise AssertionError(f"no {word} in {within_s} s:\n{self.log.read_text()[-4000:]}") from None
        finally:
            ended.cancel()

    async def kill(self) -> None:
        """SIGKILL it: what was not committed is gone."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM it; return its exit code. It has 10 s."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            return await self.process.wait()

    async def reload(self) -> tuple[int, str]:
        """Run `edge-gateway reload --wait`; return its exit code and what it printed."""
        return await self.run("reload", "--wait", "--state", str(self.state))

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run another command of ours; return its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def get(self, path: str, **query: str | int) -> Any:
        """GET a path of /v1 with the admin token; the answer must be 200."""
        async with self._client().get(path, params=query) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def ask(self, method: str, path: str, body: Any, *, status: int = 200) -> Any:
        """Send JSON to a path of /v1 with the admin token; the answer must have that status."""
        async with self._client().request(method, path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            token = (self.state / "admin-token").read_text().strip()
            self._session = aiohttp.ClientSession(
                f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {token}"}
            )
        return self._session

    async def pages(self, path: str, items: str, **query: str | int) -> list[Any]:
        """GET all pages of a list."""
        found: list[Any] = []
        page = await self.get(path, **query)
        while True:
            found += page[items]
            if page["next"] is None:
                return found
            page = await self.get(path, **query, cursor=page["next"])

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self.process is not None and self.process.returncode is None:
            await self.kill()
        if self._notify is not None:
            self._notify.close()


@contextlib.asynccontextmanager
async def gateway(folder: Path, port: int) -> AsyncIterator[GatewayProcess]:
    """Yield a gateway that is not started yet; whatever runs at the end is killed."""
    process = GatewayProcess(folder, port)
    try:
        yield process
    finally:
        await process.close()
