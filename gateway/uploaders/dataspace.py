"""Keeps each unit as one object in a Trident dataspace, named by its key, so that a repeat is recognised."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from gateway.clock import Clock
from gateway.controls.files import RemoteFile
from gateway.model import Encoding, OutgoingFile, Outlet, Refusal, StoredFile, Unit, UploadProblem
from gateway.settings import Secret, setting
from gateway.uploaders.account import Account
from gateway.uploaders.dialects import S3, Dialect, Management, NewFile, is_same
from gateway.uploaders.encoders import compressed, encoder
from gateway.uploaders.web_target import WebTarget, session, web_address

TAKES_FILES = True


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
    dialect: Literal["management", "s3"] = setting(
        "management",
        help="`management`: the dataspace of ICOapi 0.2 (`/management/files`); `s3`: that of ICOapi 0.1 "
        "(`/s3/presigned-upload`), which needs `bucket`.",
    )
    bucket: str = setting("", help="Bucket, for the dialect `s3`.", example="common")
    folder: str = setting("edge-gateway", help="Folder in the bucket that objects are kept in.")
    virtual_group: str | None = setting(
        None, help="Virtual group that objects are shown in.", example="root/default"
    )
    virtual_group_root: str | None = setting(
        None,
        help="Virtual group whose part named by the profile of its metadata a measurement file is shown in.",
        example="root",
    )
    manage_url: str | None = setting(
        None, help="Where people look after the files in a browser; only shown.", check=web_address
    )
    measurements: bool = setting(
        default=True,
        help="Measurement files are uploaded as soon as they are written; `false`: only those asked for.",
    )
    timeout_s: float = setting(
        60.0,
        low=1,
        high=100,
        help="Longest time for delivering one object, with all its requests; for each piece of a file.",
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

    def __post_init__(self) -> None:
        if self.dialect == "s3" and not self.bucket:
            raise ValueError("the dialect s3 needs a bucket: say which in `bucket`")


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
        account = Account(settings.url, settings.user, settings.password.text, client, settings.timeout_s)
        target = Target(settings, account)
        yield Outlet(send=target.send, put=target.put, controls=(target,))


class Target:
    """A dataspace that takes units as objects, and files; it offers RemoteFiles."""

    def __init__(self, settings: Settings, account: Account) -> None:
        self._name, self._settings, self._account = account.name, settings, account
        self._dialect: Dialect = Management(account)
        if settings.dialect == "s3":
            self._dialect = S3(account, settings.bucket, settings.folder.strip("/"))

    async def send(self, unit: Unit) -> Sequence[Refusal]:
        """Store a unit as an object: once, or the same bytes over it."""
        content = await asyncio.to_thread(lambda: compressed(encoder(unit).body(unit)))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._store(unit, content)
        except TimeoutError:
            raise UploadProblem(
                f"{self._name} did not take an object within {self._settings.timeout_s:g} s"
            ) from None
        return ()

    async def put(self, file: OutgoingFile) -> StoredFile:
        """Store a file under its name, over an older one that is ours, and verify its checksum or size."""
        there = await self._there(file)
        # By its checksum alone: where none is listed, a file that was changed may have the same size.
        if there is None or not there.stored or there.etag != file.md5:
            self._refuse_foreign(there, file)
            await file.claim()
            new = self._new(file.name, "measurement", file.gateway_id, self._about(file), self._group(file))
            await self._account.put(await self._dialect.address(new, there), file)
            there = await self._there(file)
        if there is None or not is_same(there, file.md5, file.size):
            raise UploadProblem(f"{self._name} does not show {file.name} as it was sent; it is sent again")
        return StoredFile(there.id, there.etag)

    def files(self) -> AsyncGenerator[RemoteFile]:
        """Yield what is there."""
        return self._dialect.files()

    async def authenticate(self) -> None:
        """Log in anew."""
        await self._account.login()

    async def check(self) -> None:
        """Ask for little, logged in: whoever is answered may send a file."""
        await self._dialect.check()

    async def _store(self, unit: Unit, content: bytes) -> None:
        name = object_name(unit.key)
        there = await self._named(name) if unit.repeat and not self._dialect.replaces else None
        if is_same(there, hashlib.md5(content, usedforsecurity=False).hexdigest(), len(content)):
            return
        metadata = {
            "encoding": unit.encoding.name,
            "version": unit.encoding.version,
            "key": unit.key,
            "lane": unit.lane,
            "samples": len(unit.samples),
            "gaps": len(unit.gaps),
        }
        new = self._new(name, "samples", unit.gateway_id, metadata, self._settings.virtual_group)
        await self._account.put(await self._dialect.address(new, there), content)

    def _new(
        self, name: str, what: str, author: str, metadata: Mapping[str, Any], group: str | None
    ) -> NewFile:
        key = f"{self._settings.folder.strip('/')}/{name}".lstrip("/")
        return NewFile(key, name, f"edge-gateway {what}", author, metadata, group)

    @staticmethod
    def _about(file: OutgoingFile) -> Mapping[str, Any]:
        return {**file.about, "gateway": file.gateway_id, "md5": file.md5}

    def _group(self, file: OutgoingFile) -> str | None:
        """Return the virtual group of a file: by the profile of its metadata, where it has one."""
        root, metadata = self._settings.virtual_group_root, file.about.get("pre_metadata")
        profile = metadata.get("profile") if isinstance(metadata, Mapping) else None
        return f"{root}/{profile}" if root and profile else self._settings.virtual_group

    async def _named(self, name: str) -> RemoteFile | None:
        async with aclosing(self.files()) as listed:
            async for each in listed:
                if each.name == name:
                    return each
        return None

    async def _there(self, file: OutgoingFile) -> RemoteFile | None:
        """Return the file that this one is, or takes the place of."""
        found = await self._candidates(file)
        chosen = [each for each in found if each.id in file.replaces] or found
        if len(chosen) > 1:
            chosen = [each for each in chosen if is_same(each, file.md5, file.size)]
            if not chosen:
                raise UploadProblem(
                    f"{self._name} has {len(found)} files {file.name}, and none is this one: "
                    f"remove them there"
                )
        return chosen[0] if chosen else None

    async def _candidates(self, file: OutgoingFile) -> Sequence[RemoteFile]:
        """Return files of its name or said to be replaced, as many as it takes to know which one is meant."""
        found: dict[str, RemoteFile] = {}
        async with aclosing(self.files()) as listed:
            async for each in listed:
                if each.name != file.name and each.id not in file.replaces:
                    continue
                found[each.id] = each
                sent = not file.replaces and each.stored and each.etag == file.md5
                if sent or each.id in file.replaces:
                    break
        return list(found.values())

    def _refuse_foreign(self, there: RemoteFile | None, file: OutgoingFile) -> None:
        """Raise where a file is there that was not put there by us, nor said to be replaced."""
        if there is None or not there.stored or there.id in file.replaces or file.ours:
            return
        if there.metadata.get("gateway") != file.gateway_id:
            raise UploadProblem(
                f"{self._name} has another file {file.name}, which this gateway did not put there: rename "
                f"that one there, or have it replaced (POST /v1/cloud/update)"
            )


def object_name(key: str) -> str:
    """Return the name of the object of a key: readable, a legal file name, and its own for every key."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", key)[-100:]
    return f"{readable}.{hashlib.sha256(key.encode()).hexdigest()[:12]}.columns.json.gz"
