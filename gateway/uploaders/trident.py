"""The dialect of a Trident dataspace: log in, list and create files, PUT bytes to a presigned address."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp

from gateway.model import UploadProblem
from gateway.uploaders.answers import Answer, network, read_answer

_PAGE_FILES = 500
_MOST_PAGES = 10_000
_PRESIGNED_FOR_S = 600


class Tokens(NamedTuple):
    """What a log-in gives."""

    access: str
    refresh: str


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be made: `key` is its path in the bucket, `name` what the dataspace lists it as."""

    key: str
    name: str
    description: str
    author: str
    metadata: Mapping[str, Any]
    virtual_group: str | None


class Trident:
    """One account at one dataspace."""

    def __init__(
        self, url: str, user: str, password: str, client: aiohttp.ClientSession, timeout_s: float
    ) -> None:
        self._name, self._url = url, url.rstrip("/")
        self._user, self._password = user, password
        self._client, self._timeout_s = client, timeout_s
        self._tokens: Tokens | None = None
        self._renewing = asyncio.Lock()

    async def login(self) -> None:
        """Log in anew. UploadProblem: user or password are refused."""
        async with self._renewing:
            await self._login()

    async def files(self) -> list[Mapping[str, Any]]:
        """List all files, page by page; a target that ignores the page number gives each file once."""
        found: dict[str, Mapping[str, Any]] = {}
        for page in range(1, _MOST_PAGES):
            document = await self._ask("GET", f"/management/files?page={page}&size={_PAGE_FILES}")
            listed = [item for item in _list(document, "files") if isinstance(item, dict)]
            fresh = {str(item.get("id")): item for item in listed if str(item.get("id")) not in found}
            found.update(fresh)
            total = document.get("total")
            if not fresh or (isinstance(total, int) and len(found) >= total):
                break
        return list(found.values())

    async def create(self, file: NewFile) -> str:
        """Announce a file; return the address that its bytes go to."""
        body = {
            "key": file.key,
            "name": file.name,
            "description": file.description,
            "author": file.author,
            "expiresInSeconds": _PRESIGNED_FOR_S,
            "metadata": file.metadata,
            "virtual_group": file.virtual_group,
        }
        return self._presigned(await self._ask("POST", "/management/files", body))

    async def upload_address(self, remote_id: str) -> str:
        """Return the address for new bytes of a file that is there."""
        document = await self._ask("GET", f"/management/files/{quote(remote_id, safe='')}/upload-url")
        return self._presigned(document)

    async def put(self, address: str, content: bytes | Path) -> None:
        """Send bytes to a presigned address, which is as good as a secret and appears in no message."""
        target = f"{self._name}: the storage behind it"
        opened = await asyncio.to_thread(content.open, "rb") if isinstance(content, Path) else None
        try:
            if isinstance(content, bytes):
                size = len(content)
            else:
                size = (await asyncio.to_thread(content.stat)).st_size
            async with (
                network(target, self._timeout_s),
                self._client.put(
                    address,
                    data=opened or content,
                    headers={"Content-Length": str(size), "Content-Type": ""},
                    skip_auto_headers=("Content-Type",),
                    allow_redirects=False,
                ) as response,
            ):
                answer = await read_answer(response, target)
        finally:
            if opened is not None:
                await asyncio.to_thread(opened.close)
        if not answer.ok:
            raise answer.problem(target)

    def _presigned(self, document: Mapping[str, Any]) -> str:
        address = document.get("presignedUrl")
        if not isinstance(address, str) or not address.startswith(("https://", "http://")):
            raise UploadProblem(f"{self._name} gave no presignedUrl to send the file to")
        if self._url.startswith("https://") and not address.startswith("https://"):
            raise UploadProblem(f"{self._name} wants the file sent unencrypted; it is not")
        return address

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        tokens = self._tokens or await self._renewed(None)
        answer = await self._request(method, path, body, tokens)
        for _ in range(2):  # the token had ended: refreshed; that one is refused too: a new log-in
            if answer.status != 401:
                break
            tokens = await self._renewed(tokens)
            answer = await self._request(method, path, body, tokens)
        return self._document(answer)

    async def _renewed(self, old: Tokens | None) -> Tokens:
        """Return tokens other than `old`: whoever comes first asks for them, the others wait."""
        async with self._renewing:
            if self._tokens is None:
                return await self._login()
            if self._tokens != old:
                return self._tokens
            return await self._refresh(self._tokens) or await self._login()

    async def _refresh(self, tokens: Tokens) -> Tokens | None:
        """Exchange the tokens; None where the target wants a new log-in."""
        answer = await self._request("POST", "/auth/refresh", {"refresh_token": tokens.refresh}, None)
        if answer.status >= 500 or answer.status == 429:
            raise answer.problem(self._name)
        renewed = _tokens(answer)
        if renewed is None or renewed.access == tokens.access:
            return None
        self._tokens = renewed
        return renewed

    async def _login(self) -> Tokens:
        credentials = {"username": self._user, "password": self._password}
        answer = await self._request("POST", "/auth/login", credentials, None)
        if answer.status in (400, 401, 403, 422):
            raise UploadProblem(
                f"{self._name} refuses the user {self._user!r} or the password ({answer.status})"
            )
        tokens = _tokens(answer)
        if tokens is None:
            raise answer.problem(f"{self._name}: log-in")
        self._tokens = tokens
        return tokens

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, tokens: Tokens | None
    ) -> Answer:
        headers = {"Authorization": f"Bearer {tokens.access}"} if tokens else {}
        async with (
            network(self._name, self._timeout_s),
            self._client.request(
                method, self._url + path, json=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            return await read_answer(response, self._name)

    def _document(self, answer: Answer) -> Mapping[str, Any]:
        document = answer.document()
        if not answer.ok:
            raise answer.problem(self._name)
        if not isinstance(document, dict):
            raise UploadProblem(f"{self._name} answered {answer.status} with something that is not JSON")
        return document


def _tokens(answer: Answer) -> Tokens | None:
    document = answer.document()
    if not answer.ok or not isinstance(document, dict):
        return None
    access, refresh = document.get("access_token"), document.get("refresh_token")
    return Tokens(access, str(refresh or "")) if isinstance(access, str) and access else None


def _list(document: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = document.get(name)
    return found if isinstance(found, list) else ()
