"""A simulated dataspace, in a process of its own: `python -m gateway.demo.dataspace --port N --folder DIR`.

It takes units at POST /ingest and files in the Trident dialect, and keeps a ledger of what it took.
`GET /ledger` counts (`?show=samples|deliveries|gaps|files|requests` lists), `POST /faults` makes it fail.
"""

import argparse
import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from aiohttp import web

from gateway.demo.faults import Faults
from gateway.demo.ledger import Ledger
from gateway.demo.trident import Trident, reply
from gateway.uploaders import columns

T = TypeVar("T")
_MOST_BYTES = 64 << 20
_REQUESTS_KEPT = 20_000
_OPEN = ("/ledger", "/faults")


class Dataspace:
    """The whole of it: ledger, faults, sessions."""

    def __init__(self, folder: Path, url: str) -> None:
        self.faults = Faults()
        self.requests: deque[dict[str, Any]] = deque(maxlen=_REQUESTS_KEPT)
        self.counted: Counter[str] = Counter()
        self._worker = ThreadPoolExecutor(1)
        self._ledger = Ledger(folder)
        self._trident = Trident(self._ledger, self.faults, url, self._work, self._stored)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._failing], client_max_size=_MOST_BYTES)
        app.add_routes(
            [
                web.get("/ledger", self.ledger),
                web.post("/faults", self.set_faults),
                web.post("/ingest", self.ingest),
                *self._trident.routes(),
            ]
        )
        return app

    async def _work(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job)

    # How it fails.

    @web.middleware
    async def _failing(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in _OPEN:
            return await handler(request)
        began = time.time()
        answer = await self._answered(request, handler)
        self.counted[f"{request.method} /{request.path.split('/')[1]}"] += 1
        self.requests.append(
            {
                "at": began,
                "method": request.method,
                "path": request.path,
                "key": unquote(request.headers.get("Idempotency-Key", "")),
                "status": answer.status,
            }
        )
        return answer

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        faults = self.faults
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        if canned := faults.canned(request.path):
            await request.read()
            return web.Response(status=canned.status, headers=canned.headers, text=canned.body)
        if faults.take("hang"):
            await asyncio.sleep(3600)
        if faults.take("drip"):
            return await _endless(request, b" ", 0.1)
        if faults.take("flood"):
            return await _endless(request, b" " * 65536, 0)
        answer = await handler(request)
        if faults.mute and f"{request.method} {request.path}".startswith(faults.mute):
            faults.mute = ""
            if request.transport is not None:
                request.transport.abort()
        return answer

    async def _stored(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        """Answer for something that was stored, or fail to."""
        if self.faults.die_after_stores:
            self.faults.die_after_stores -= 1
            if not self.faults.die_after_stores:
                os._exit(9)
        if self.faults.take("forget") and request.transport is not None:
            request.transport.abort()
        if self.faults.take("truncate"):
            broken = web.StreamResponse(headers={"Content-Length": "1000"})
            await broken.prepare(request)
            await broken.write(b"{")
            if request.transport is not None:
                request.transport.abort()
            return broken
        return answer

    async def set_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults.tell(await request.json())
        except (ValueError, TypeError) as error:
            return reply({"error": str(error)}, 400)
        return reply({})

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        ledger = self._ledger
        match request.query.get("show", ""):
            case "samples":
                rows = await self._work(lambda: list(ledger.samples()))
                return web.Response(body=b"".join(rows), content_type="application/x-ndjson")
            case "deliveries":
                return reply(await self._work(ledger.deliveries))
            case "gaps":
                return reply(await self._work(ledger.gaps))
            case "files":
                return reply(await self._work(ledger.stores))
            case "requests":
                return reply(list(self.requests))
        return reply({**await self._work(ledger.counts), "requests": self.counted})

    # Units.

    async def ingest(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()  # aiohttp undoes the gzip
        key = unquote(request.headers.get("Idempotency-Key", ""))
        if not key:
            return reply({"error": "no Idempotency-Key"}, 400)
        if 0 < self.faults.most_bytes < len(body):
            return reply({"error": f"more than {self.faults.most_bytes} bytes"}, 413)
        try:
            _, samples = columns.decode(body)
        except (ValueError, KeyError, TypeError) as error:
            return reply({"error": f"not a body of this encoding: {error}"}, 400)
        if self.faults.poison is not None and any(s.value == self.faults.poison for s in samples):
            return reply({"error": f"the value {self.faults.poison} is not to my taste"}, 422)
        kept = await self._work(lambda: self._ledger.keep(key, body, dedupe=self.faults.dedupe))
        refused = [
            {"index": index, "reason": "not to my taste"}
            for index, sample in enumerate(samples)
            if self.faults.refuse is not None and sample.value == self.faults.refuse
        ]
        return await self._stored(request, reply({"kept": kept, "refused": refused}))


async def _endless(request: web.Request, piece: bytes, pause_s: float) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(piece)
        await asyncio.sleep(pause_s)


def main() -> None:
    """Serve on loopback until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    dataspace = Dataspace(options.folder, f"http://127.0.0.1:{options.port}")
    web.run_app(dataspace.app(), host="127.0.0.1", port=options.port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
