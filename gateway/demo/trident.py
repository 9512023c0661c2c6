"""The Trident dialect of the simulated dataspace: sessions, files, presigned addresses."""

import gzip
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import orjson
from aiohttp import web

from gateway.demo.faults import Faults
from gateway.demo.ledger import File, Ledger

T = TypeVar("T")
_PAGE_FILES = 50


class Work(Protocol):
    """Runs a job on the ledger's thread."""

    async def __call__(self, job: Callable[[], T]) -> T: ...


class Trident:
    """One account; `stored` answers for what was stored, or fails to."""

    def __init__(
        self,
        ledger: Ledger,
        faults: Faults,
        url: str,
        work: Work,
        stored: Callable[[web.Request, web.Response], Awaitable[web.StreamResponse]],
    ) -> None:
        self.faults, self._url, self._ledger = faults, url, ledger
        self._work, self._stored = work, stored
        self._access: dict[str, int] = {}
        """Access token to its number of requests."""
        self._refresh: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/auth/login", self.login),
            web.post("/auth/refresh", self.refresh),
            web.get("/management/files", self.list_files),
            web.post("/management/files", self.create_file),
            web.get("/management/files/{id}/upload-url", self.upload_url),
            web.put("/storage/{id}/{signature}", self.put_file),
        ]

    async def login(self, request: web.Request) -> web.Response:
        credentials = await request.json()
        if not credentials.get("username") or credentials.get("password") in (None, "", "wrong"):
            return reply({"detail": "unknown user or password"}, 401)
        return self._session()

    async def refresh(self, request: web.Request) -> web.Response:
        token = (await request.json()).get("refresh_token")
        if self.faults.revoked or token not in self._refresh:
            return reply({"detail": "refresh token refused"}, 401)
        self._refresh.discard(token)
        return self._session()

    def _session(self) -> web.Response:
        access, refresh = secrets.token_hex(16), secrets.token_hex(16)
        self._access = {access: 0}
        self._refresh.add(refresh)
        return reply({"access_token": access, "refresh_token": refresh})

    def _refused(self, request: web.Request) -> web.Response | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        used = self._access.get(token)
        if used is None or (0 < self.faults.token_requests <= used):
            return reply({"detail": "not logged in"}, 401)
        self._access[token] = used + 1
        return None

    async def list_files(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        page, size = (
            int(request.query.get("page", "1")),
            min(int(request.query.get("size", "20")), _PAGE_FILES),
        )
        files, total = await self._work(lambda: self._ledger.files(page, size))
        return reply({"files": [_listed(f) for f in files], "total": total, "page": page, "size": size})

    async def create_file(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        document = await request.json()
        name = document["name"]
        there = await self._work(lambda: self._ledger.named(name))
        if self.faults.dedupe and there is not None:
            return reply({"detail": "duplicate entry"}, 500)
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
        return await self._presigned(file) if file else reply({"detail": "no such file"}, 404)

    async def _presigned(self, file: File) -> web.Response:
        signature = await self._work(lambda: self._ledger.secret(file.id, secrets.token_hex(16)))
        return reply({"presignedUrl": f"{self._url}/storage/{file.id}/{signature}"})

    async def put_file(self, request: web.Request) -> web.StreamResponse:
        file_id, signature = request.match_info["id"], request.match_info["signature"]
        content = await request.read()
        if "Authorization" in request.headers:
            return reply({"detail": "a presigned address takes no token"}, 400)
        file = await self._work(lambda: self._ledger.file(file_id))
        if file is None or await self._work(lambda: self._ledger.secret(file_id, "")) != signature:
            return reply({"detail": "the signature does not match"}, 403)
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


def reply(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _now() -> str:
    return datetime.now(UTC).isoformat()
