"""The two ways in which Trident dataspaces have files listed, announced and replaced."""

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from yarl import URL

from gateway.controls.files import RemoteFile
from gateway.model import UploadProblem
from gateway.uploaders.account import Account
from gateway.uploaders.answers import OverlongAnswer
from gateway.uploaders.listings import entries

_PAGE_FILES = 500
_MOST_PAGES = 10_000
_LONGEST_LIST_BYTES = 64 << 20
_PRESIGNED_FOR_S = 600
_GONE = "deleted"
_ANNOUNCED = "created"
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be made: `key` is its path in the bucket, `name` what the dataspace lists it as."""

    key: str
    name: str
    description: str
    author: str
    metadata: Mapping[str, Any]
    virtual_group: str | None


class Dialect(Protocol):
    """Files at a dataspace. All raise UploadProblem."""

    replaces: bool
    """What is sent to the address of a new file takes the place of one with its key."""

    def files(self) -> AsyncGenerator[RemoteFile]:
        """Yield all files but those deleted, as they are read; one may come twice."""

    async def check(self) -> None:
        """Ask for little, as somebody who is logged in."""

    async def address(self, new: NewFile, there: RemoteFile | None) -> URL:
        """Return where the bytes of a file go: a new one, or over the one that is there."""


class Management:
    """The dialect of ICOapi 0.2: `/management/files`. A file has an id and a name that no other one has."""

    replaces = False

    def __init__(self, account: Account) -> None:
        self._account = account
        self._page_files = _PAGE_FILES
        """As many as this target's answers have room for."""

    async def files(self) -> AsyncGenerator[RemoteFile]:
        """Yield page by page; a target that ignores the page number gives each file once."""
        size, first, count = self._page_files, 0, 0
        before: set[str] = set()
        for _ in range(_MOST_PAGES):
            try:
                document = await self._page(first // size + 1, size)
            except OverlongAnswer:
                if size == 1:
                    raise
                size = self._page_files = size // 2
                continue
            listed = _list(document.get("files"))
            page = {str(item.get("id")): item for item in listed if isinstance(item, dict)}
            fresh = [item for number, item in page.items() if number not in before]
            for item in fresh:
                if item.get("last_status") != _GONE:
                    yield self._remote(item)
            count += len(fresh)
            total = document.get("total")
            if not fresh or (isinstance(total, int) and count >= total):
                return
            first = first // size * size + len(listed)
            size = min(size, len(listed))  # fewer than asked for: pages are that short there
            before = set(page)
        raise UploadProblem(f"{self._account.name} lists files without an end")

    async def check(self) -> None:
        """Ask for one file."""
        await self._page(1, 1)

    async def address(self, new: NewFile, there: RemoteFile | None) -> URL:
        """Announce a new file, or ask for a new address of one that is there."""
        if there is not None:
            path = f"/management/files/{quote(there.id, safe='')}/upload-url"
            return self._account.presigned(_object(await self._account.ask("GET", path)))
        body = {
            "key": new.key,
            "name": new.name,
            "description": new.description,
            "author": new.author,
            "expiresInSeconds": _PRESIGNED_FOR_S,
            "metadata": new.metadata,
            "virtual_group": new.virtual_group,
        }
        return self._account.presigned(_object(await self._account.ask("POST", "/management/files", body)))

    async def _page(self, page: int, size: int) -> Mapping[str, Any]:
        return _object(await self._account.ask("GET", f"/management/files?page={page}&size={size}"))

    @staticmethod
    def _remote(item: Mapping[str, Any]) -> RemoteFile:
        metadata = item.get("metadata")
        return RemoteFile(
            id=str(item.get("id")),
            name=str(item.get("name")),
            size=_whole(item.get("s3_size")),
            etag=_etag(item.get("etag")),
            stored=item.get("last_status") != _ANNOUNCED,
            modified=str(item.get("s3_lastmodified") or ""),
            metadata=metadata if isinstance(metadata, dict) else {},
            listed=item,
        )


class S3:
    """The dialect of ICOapi 0.1.2: `/s3/...`. A file is its key in a bucket: bytes sent again replace it."""

    replaces = True

    def __init__(self, account: Account, bucket: str, folder: str) -> None:
        self._account, self._bucket, self._folder = account, bucket, folder

    async def files(self) -> AsyncGenerator[RemoteFile]:
        """List the bucket, as far as it is in our folder: this dialect has no pages."""
        path = f"/s3/list?{urlencode({'bucket': self._bucket})}"
        body = await self._account.ask_long(path, _LONGEST_LIST_BYTES)
        try:
            async for some in entries(body):
                for file in self._ours(some):
                    yield file
        except (ValueError, RecursionError):
            raise UploadProblem(
                f"{self._account.name} lists the bucket with something that is not JSON"
            ) from None

    def _ours(self, listed: Sequence[Any]) -> Iterator[RemoteFile]:
        start = f"{self._folder}/" if self._folder else ""
        for item in listed:
            key = str(item.get("Key", "")) if isinstance(item, dict) else ""
            if key.startswith(start) and len(key) > len(start):
                yield RemoteFile(
                    id=key,
                    name=key.removeprefix(start),
                    size=_whole(item.get("Size")),
                    etag=_etag(item.get("ETag")),
                    stored=True,
                    modified=str(item.get("LastModified") or ""),
                    metadata={},
                    listed=item,
                )

    async def check(self) -> None:
        """Ask for the names of the buckets."""
        await self._account.ask("GET", "/s3/buckets")

    async def address(self, new: NewFile, there: RemoteFile | None) -> URL:
        """Ask for an address of the key, the same whether something is there or not."""
        key = there.id if there is not None else new.key
        query = urlencode({"bucket": self._bucket, "key": key, "expiresInSeconds": _PRESIGNED_FOR_S})
        return self._account.presigned(
            _object(await self._account.ask("GET", f"/s3/presigned-upload?{query}"))
        )


def is_same(there: RemoteFile | None, md5: str, size: int) -> bool:
    """Say whether a listed file has this content: by its checksum where that is listed, else its size."""
    if there is None or not there.stored:
        return False
    return there.etag == md5 if _MD5.fullmatch(there.etag) else there.size == size


def _etag(value: object) -> str:
    return str(value or "").strip('"').lower()


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _object(document: object) -> Mapping[str, Any]:
    if isinstance(document, list):
        return {}
    if not isinstance(document, dict):
        raise UploadProblem("the dataspace answered with JSON that is neither an object nor a list")
    return document
