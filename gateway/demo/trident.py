"""Both Trident dialects of the simulated dataspace: sessions, files, presigned addresses."""

import asyncio
import gzip
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import orjson
from aiohttp import web

from gateway.demo.faults import Faults
from gateway.demo.ledger import File, Ledger

T = TypeVar("T")
_PAGE_FILES = 500
_BUCKET = "demo"


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
            web.get("/s3/buckets", self.list_buckets),
            web.get("/s3/list", self.list_bucket),
            web.get("/s3/presigned-upload", self.presigned_upload),
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

    # The older dialect: a file is its key in a bucket, and there is no trace of it before its bytes came.

    async def list_buckets(self, request: web.Request) -> web.Response:
        return self._refused(request) or reply([{"Name": _BUCKET}])

    async def list_bucket(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        if request.query.get("bucket") != _BUCKET:
            return reply({"detail": "no such bucket"}, 404)
        files, _ = await self._work(lambda: self._ledger.files(1, 1_000_000))
        return reply(
            [
                {
                    "Key": file.objectname,
                    "LastModified": file.modified,
                    "ETag": f'"{file.etag}"',
                    "Size": file.size,
                    "StorageClass": "STANDARD",
                }
                for file in files
                if file.state == "available"
            ]
        )

    async def presigned_upload(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        key = request.query["key"]
        if request.query["bucket"] != _BUCKET:
            return reply({"detail": "no such bucket"}, 404)
        there = await self._work(lambda: self._ledger.keyed(key))
        if there is None:
            name = key.rpartition("/")[2]
            there = File(
                secrets.token_hex(8), name, key, orjson.dumps({}), _now(), None, "created", None, None
            )
            await self._work(lambda: self._ledger.add_file(there))
        return await self._presigned(there)

    async def put_file(self, request: web.Request) -> web.StreamResponse:
        file_id, signature = request.match_info["id"], request.match_info["signature"]
        if request.headers.get("Transfer-Encoding"):
            return reply({"detail": "MissingContentLength"}, 411)
        if self.faults.cut and await self._cut(request):
            return web.Response()
        if "Authorization" in request.headers:
            return reply({"detail": "a presigned address takes no token"}, 400)
        file = await self._work(lambda: self._ledger.file(file_id))
        if file is None or await self._work(lambda: self._ledger.secret(file_id, "")) != signature:
            return reply({"detail": "the signature does not match"}, 403)
        received = Received(keep=file.name.endswith(".columns.json.gz"))
        async for piece in request.content.iter_chunked(1 << 16):
            received.take(piece)
            while self.faults.hold == file.name:  # noqa: ASYNC110  # told by a request
                await asyncio.sleep(0.1)
        if self.faults.take("garble"):
            received.take(b"!")
        if received.kept:
            body = gzip.decompress(received.kept)
            key = orjson.loads(body)["key"]
            await self._work(lambda: self._ledger.keep(key, body, dedupe=self.faults.dedupe))
        md5, size = received.md5.hexdigest(), received.size
        await self._work(lambda: self._ledger.stored(file_id, md5, size, _now()))
        return await self._stored(request, web.Response())

    async def _cut(self, request: web.Request) -> bool:
        """Close the connection once half of the body is there."""
        half, came = (request.content_length or 0) // 2, 0
        if not half or not self.faults.take("cut"):
            return False
        while came < half:
            came += len(await request.content.readany())
        if request.transport is not None:
            request.transport.abort()
        return True


class Received:
    """The bytes of a file as they come: counted, summed up, and kept where they are asked for."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.md5, self.size, self.kept = hashlib.md5(usedforsecurity=False), 0, bytearray()

    def take(self, piece: bytes) -> None:
        self.md5.update(piece)
        self.size += len(piece)
        if self._keep:
            self.kept += piece


def _listed(file: File) -> dict[str, Any]:
    document = orjson.loads(file.document)
    return {
        "id": file.id,
        "bucket": _BUCKET,
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
