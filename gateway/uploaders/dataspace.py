"""Keeps each unit as one object in a Trident dataspace, named by its key, so that a repeat is recognised."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.model import Encoding, Outlet, Refusal, Unit, UploadProblem
from gateway.settings import Secret, setting
from gateway.uploaders.encoders import compressed, encoder
from gateway.uploaders.trident import NewFile, Trident
from gateway.uploaders.web_target import WebTarget, session, web_address

_GONE = "deleted"
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Settings(WebTarget):
    """An upload to a Trident dataspace."""

    url: str = setting(
        help="Address of the service, with its base path.",
        check=web_address,
        example="https://dataspace.example/trident-service",
    )
    user: str = setting(help="Name of the account.", example="hall-3")
    password: Secret = setting(help="Its password.", example="{credential: dataspace}")
    folder: str = setting("edge-gateway", help="Folder in the bucket that objects are kept in.")
    virtual_group: str | None = setting(
        None, help="Virtual group that objects are shown in.", example="root/default"
    )
    timeout_s: float = setting(
        60.0, low=1, high=100, help="Longest time for delivering one object, with all its requests."
    )
    gather_s: float = setting(
        60.0, low=0.1, high=3600, help="An object is sent at the latest after this time."
    )
    gather_bytes: int = setting(
        1 << 20,
        low=1 << 10,
        high=16 << 20,
        help="An object is sent once this much is waiting, as stored.",
        yaml="gather_size",
    )


def encoding(settings: Settings) -> Encoding:
    """Return the encoding that new units get."""
    return Encoding("columns", 1)


def insecure(settings: Settings) -> str:
    """Return what is insecure about these settings as a sentence, or nothing."""
    return settings.insecure(settings.url, "password")


@asynccontextmanager
async def open(  # noqa: A001  # the contract's word
    upload: str, settings: Settings, clock: Clock
) -> AsyncIterator[Outlet]:
    """Open a client; it logs in at the first send."""
    async with session(settings, settings.timeout_s) as client:
        trident = Trident(settings.url, settings.user, settings.password.text, client, settings.timeout_s)
        target = Target(settings, trident)
        yield Outlet(send=target.send, put=target.put, controls=(target,))


class Target:
    """A dataspace that takes units as objects, and files; it offers RemoteFiles."""

    def __init__(self, settings: Settings, trident: Trident) -> None:
        self._name, self._settings, self._trident = settings.url, settings, trident

    async def send(self, unit: Unit) -> Sequence[Refusal]:
        """Store a unit as an object, unless it is there already."""
        content = await asyncio.to_thread(lambda: compressed(encoder(unit).body(unit)))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._store(unit, content)
        except TimeoutError:
            raise UploadProblem(
                f"{self._name} did not take an object within {self._settings.timeout_s:g} s"
            ) from None
        return ()

    async def put(self, file: Path) -> None:
        """Store a file under its name, over an older one of that name, and verify its size and checksum."""
        there = await self._named(file.name)
        if there is not None:
            await self.replace(str(there["id"]), file)
        else:
            address = await self._trident.create(self._new(file.name, "file", file.name, {}))
            await self._trident.put(address, file)
        md5, size = await asyncio.to_thread(_fingerprint, file)
        if not _same(await self._named(file.name), md5, size):
            raise UploadProblem(f"{self._name} does not show {file.name} as it was sent; it is sent again")

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """List what is there, deleted files left out."""
        return [item for item in await self._trident.files() if item.get("last_status") != _GONE]

    async def authenticate(self) -> None:
        """Log in anew."""
        await self._trident.login()

    async def healthy(self) -> bool:
        """Ask for a log-in, which is what a file needs first."""
        try:
            await self._trident.login()
        except UploadProblem:
            return False
        return True

    async def replace(self, remote_id: str, path: Path) -> None:
        """Store the file over a remote one."""
        await self._trident.put(await self._trident.upload_address(remote_id), path)

    async def _store(self, unit: Unit, content: bytes) -> None:
        name = object_name(unit.key)
        there = await self._named(name) if unit.repeat else None
        if _same(there, hashlib.md5(content, usedforsecurity=False).hexdigest(), len(content)):
            return
        if there is not None:
            address = await self._trident.upload_address(str(there["id"]))
        else:
            metadata = {
                "encoding": unit.encoding.name,
                "version": unit.encoding.version,
                "key": unit.key,
                "lane": unit.lane,
                "samples": len(unit.samples),
                "gaps": len(unit.gaps),
            }
            address = await self._trident.create(self._new(name, "samples", unit.gateway_id, metadata))
        await self._trident.put(address, content)

    def _new(self, name: str, what: str, author: str, metadata: Mapping[str, Any]) -> NewFile:
        key = f"{self._settings.folder.strip('/')}/{name}".lstrip("/")
        return NewFile(key, name, f"edge-gateway {what}", author, metadata, self._settings.virtual_group)

    async def _named(self, name: str) -> Mapping[str, Any] | None:
        return next((item for item in await self.list() if item.get("name") == name), None)


def object_name(key: str) -> str:
    """Return the name of the object of a key: readable, a legal file name, and its own for every key."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", key)[-100:]
    return f"{readable}.{hashlib.sha256(key.encode()).hexdigest()[:12]}.columns.json.gz"


def _same(there: Mapping[str, Any] | None, md5: str, size: int) -> bool:
    """Say whether a listed file has this content: by its checksum where that is listed, else its size."""
    if there is None or there.get("last_status") == "created":
        return False
    etag = str(there.get("etag") or "").strip('"').lower()
    return etag == md5 if _MD5.fullmatch(etag) else there.get("s3_size") == size


def _fingerprint(file: Path) -> tuple[str, int]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "md5")
    return digest.hexdigest(), file.stat().st_size
