"""A simulated dataspace, in a process of its own: `python -m gateway.demo.dataspace --port N --folder DIR`.

It takes units at POST /ingest and files in the Trident dialect, and keeps a ledger of what it took.
`GET /ledger` counts (`?show=samples|deliveries|gaps|requests` lists), `POST /faults` makes it fail.
"""

import argparse
import asyncio
import gzip
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson
from aiohttp import web

from gateway.demo.faults import Faults
from gateway.demo.ledger import File, Ledger
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
        self._url = url
        self._worker = ThreadPoolExecutor(1)
        self._ledger = Ledger(folder)
        self._access: dict[str, int] = {}
        """Access token to its number of requests."""
        self._refresh: set[str] = set()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._failing], client_max_size=_MOST_BYTES)
        app.add_routes(
            [
                web.get("/ledger", self.ledger),
                web.post("/faults", self.set_faults),
                web.post("/ingest", self.ingest),
                web.post("/auth/login", self.login),
                web.post("/auth/refresh", self.refresh),
                web.get("/management/files", self.list_files),
                web.post("/management/files", self.create_file),
                web.get("/management/files/{id}/upload-url", self.upload_url),
                web.put("/storage/{id}/{signature}", self.put_file),
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
        return await handler(request)

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
            return _json({"error": str(error)}, 400)
        return _json({})

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        ledger = self._ledger
        match request.query.get("show", ""):
            case "samples":
                rows = await self._work(lambda: list(ledger.samples()))
                return web.Response(body=b"".join(rows), content_type="application/x-ndjson")
            case "deliveries":
                return _json(await self._work(ledger.deliveries))
            case "gaps":
                return _json(await self._work(ledger.gaps))
            case "requests":
                return _json(list(self.requests))
        return _json({**await self._work(ledger.counts), "requests": self.counted})

    # Units.

    async def ingest(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()  # aiohttp undoes the gzip
        key = unquote(request.headers.get("Idempotency-Key", ""))
        if not key:
            return _json({"error": "no Idempotency-Key"}, 400)
        if 0 < self.faults.most_bytes < len(body):
            return _json({"error": f"more than {self.faults.most_bytes} bytes"}, 413)
        try:
            _, samples = columns.decode(body)
        except (ValueError, KeyError, TypeError) as error:
            return _json({"error": f"not a body of this encoding: {error}"}, 400)
        if self.faults.poison is not None and any(s.value == self.faults.poison for s in samples):
            return _json({"error": f"the value {self.faults.poison} is not to my taste"}, 422)
        kept = await self._work(lambda: self._ledger.keep(key, body, dedupe=self.faults.dedupe))
        refused = [
            {"index": index, "reason": "not to my taste"}
            for index, sample in enumerate(samples)
            if self.faults.refuse is not None and sample.value == self.faults.refuse
        ]
        return await self._stored(request, _json({"kept": kept, "refused": refused}))

    # The Trident dialect.

    async def login(self, request: web.Request) -> web.Response:
        credentials = await request.json()
        if not credentials.get("username") or credentials.get("password") in (None, "", "wrong"):
            return _json({"detail": "unknown user or password"}, 401)
        return self._session()

    async def refresh(self, request: web.Request) -> web.Response:
        token = (await request.json()).get("refresh_token")
        if self.faults.revoked or token not in self._refresh:
            return _json({"detail": "refresh token refused"}, 401)
        self._refresh.discard(token)
        return self._session()

    def _session(self) -> web.Response:
        access, refresh = secrets.token_hex(16), secrets.token_hex(16)
        self._access = {access: 0}
        self._refresh.add(refresh)
        return _json({"access_token": access, "refresh_token": refresh})

    def _refused(self, request: web.Request) -> web.Response | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        used = self._access.get(token)
        if used is None or (0 < self.faults.token_requests <= used):
            return _json({"detail": "not logged in"}, 401)
        self._access[token] = used + 1
        return None

    async def list_files(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        page, size = int(request.query.get("page", "1")), int(request.query.get("size", "20"))
        files, total = await self._work(lambda: self._ledger.files(page, size))
        return _json({"files": [_listed(f) for f in files], "total": total, "page": page, "size": size})

    async def create_file(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        document = await request.json()
        name = document["name"]
        there = await self._work(lambda: self._ledger.named(name))
        if self.faults.dedupe and there is not None:
            return _json({"detail": "duplicate entry"}, 500)
        file = File(
            secrets.token_hex(8),
            name,
            document["key"],
            orjson.dumps(document),
            _now(),
            None,
            "created",
            None,
            None,
        )
        await self._work(lambda: self._ledger.add_file(file))
        return await self._presigned(file)

    async def upload_url(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        file_id = request.match_info["id"]
        file = await self._work(lambda: self._ledger.file(file_id))
        return await self._presigned(file) if file else _json({"detail": "no such file"}, 404)

    async def _presigned(self, file: File) -> web.Response:
        signature = await self._work(lambda: self._ledger.secret(file.id, secrets.token_hex(16)))
        return _json({"presignedUrl": f"{self._url}/storage/{file.id}/{signature}"})

    async def put_file(self, request: web.Request) -> web.StreamResponse:
        file_id, signature = request.match_info["id"], request.match_info["signature"]
        content = await request.read()
        if "Authorization" in request.headers:
            return _json({"detail": "a presigned address takes no token"}, 400)
        file = await self._work(lambda: self._ledger.file(file_id))
        if file is None or await self._work(lambda: self._ledger.secret(file_id, "")) != signature:
            return _json({"detail": "the signature does not match"}, 403)
        key = orjson.loads(file.document).get("metadata", {}).get("key")
        if key:
            body = gzip.decompress(content)
            await self._work(lambda: self._ledger.keep(key, body, dedupe=self.faults.dedupe))
        await self._work(lambda: self._ledger.stored(file_id, content, _now()))
        return await self._stored(request, web.Response())


def _listed(file: File) -> dict[str, Any]:
    document = orjson.loads(file.document)
    return {
        "id": file.id,
        "bucket": "demo",
        "objectname": file.objectname,
        "name": file.name,
        "description": document.get("description"),
        "metadata": document.get("metadata"),
        "created_at": file.created,
        "s3_lastmodified": file.modified,
        "s3_size": file.size,
        "etag": file.etag and f'"{file.etag}"',
        "author": document.get("author"),
        "last_status": file.state,
        "virtual_group": document.get("virtual_group"),
        "a_field_of_tomorrow": True,
    }


async def _endless(request: web.Request, piece: bytes, pause_s: float) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(piece)
        await asyncio.sleep(pause_s)


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _now() -> str:
    return datetime.now(UTC).isoformat()


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
