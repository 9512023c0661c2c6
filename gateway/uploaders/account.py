"""One account at a Trident dataspace: log in, ask, PUT bytes to a presigned address."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from gateway.model import OutgoingFile, UploadProblem
from gateway.redaction import Redaction, without_query
from gateway.uploaders.answers import LONGEST_ANSWER_BYTES, Answer, network, read_answer
from gateway.uploaders.web_target import encrypted

_PIECE_BYTES = 128 * 1024
_ENCODED = re.compile(r"[!-~]+")


class Tokens(NamedTuple):
    """What a log-in gives."""

    access: str
    refresh: str


class Account:
    """Tokens are refreshed when the dataspace answers 401, once for all who wait."""

    def __init__(
        self, url: str, user: str, password: str, client: aiohttp.ClientSession, timeout_s: float
    ) -> None:
        self.name, self._url = without_query(url), url.rstrip("/")
        self._user, self._password = user, password
        self._client, self._timeout_s = client, timeout_s
        self._tokens: Tokens | None = None
        self._redact = Redaction([password])
        self._renewing = asyncio.Lock()

    async def login(self) -> None:
        """Log in anew. UploadProblem: user or password are refused."""
        async with self._renewing:
            await self._login()

    async def put(self, address: URL, content: bytes | OutgoingFile) -> None:
        """Send bytes to a presigned address, which is as good as a secret and appears in no message.

        A file may take as long as it takes, while pieces of it leave.
        """
        self._check_open()
        target = f"{self.name}: the storage behind it"
        size = len(content) if isinstance(content, bytes) else content.size
        async with (
            network(target, self._timeout_s, self._redact),
            asyncio.timeout(self._timeout_s) as limit,
            self._client.put(
                address,
                data=content if isinstance(content, bytes) else _pieces(content, limit, self._timeout_s),
                headers={"Content-Length": str(size), "Content-Type": ""},
                skip_auto_headers=("Content-Type",),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response,
        ):
            answer = await read_answer(response, target, self._redact)
        if not answer.ok:
            raise answer.problem(target)

    def presigned(self, document: Mapping[str, Any]) -> URL:
        """Return the address that a file is to be sent to, to the letter: what is signed is its very text."""
        address = _address(document.get("presignedUrl"))
        if address is None:
            raise UploadProblem(f"{self.name} gave no presignedUrl that a file can be sent to")
        if encrypted(self._url) and address.scheme != "https":
            raise UploadProblem(f"{self.name} wants the file sent unencrypted; it is not")
        return address

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON that is answered. UploadProblem: anything else; OverlongAnswer: above 1 MiB."""
        return self._document(await self._asked(method, path, body, LONGEST_ANSWER_BYTES))

    async def ask_long(self, path: str, most_bytes: int) -> bytes:
        """Return the body of a GET, however it is made. UploadProblem as `ask`."""
        answer = await self._asked("GET", path, None, most_bytes)
        if not answer.ok:
            raise answer.problem(self.name)
        return answer.body

    async def _asked(self, method: str, path: str, body: Mapping[str, Any] | None, most_bytes: int) -> Answer:
        tokens = self._tokens or await self._renewed(None)
        answer = await self._request(method, path, body, tokens, most_bytes)
        for _ in range(2):  # the token had ended: refreshed; that one is refused too: a new log-in
            if answer.status != 401:
                break
            tokens = await self._renewed(tokens)
            answer = await self._request(method, path, body, tokens, most_bytes)
        return answer

    async def _renewed(self, old: Tokens | None) -> Tokens:
        """Return tokens other than `old`: whoever comes first asks for them, the others wait."""
        async with self._renewing:
            if self._tokens is None:
                return await self._login()
            if self._tokens != old:
                return self._tokens
            return await self._refresh(self._tokens) or await self._login()

    async def _refresh(self, tokens: Tokens) -> Tokens | None:
        """Exchange the tokens; None: log in anew. So does whoever comes after a failure."""
        self._tokens = None
        answer = await self._request("POST", "/auth/refresh", {"refresh_token": tokens.refresh}, None)
        if answer.status >= 500 or answer.status == 429:
            raise answer.problem(self.name)
        renewed = _tokens(answer)
        if renewed is None or renewed.access == tokens.access:
            return None
        return self._keep(renewed)

    async def _login(self) -> Tokens:
        credentials = {"username": self._user, "password": self._password}
        answer = await self._request("POST", "/auth/login", credentials, None)
        if answer.status in (400, 401, 403, 422):
            raise UploadProblem(
                f"{self.name} refuses the user {self._user!r} or the password ({answer.status})"
            )
        tokens = _tokens(answer)
        if tokens is None:
            raise answer.problem(f"{self.name}: log-in")
        return self._keep(tokens)

    def _keep(self, tokens: Tokens) -> Tokens:
        self._tokens, self._redact = tokens, Redaction([self._password, *tokens])
        return tokens

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        tokens: Tokens | None,
        most_bytes: int = LONGEST_ANSWER_BYTES,
    ) -> Answer:
        self._check_open()
        headers = {"Authorization": f"Bearer {tokens.access}"} if tokens else {}
        async with (
            network(self.name, self._timeout_s, self._redact),
            self._client.request(
                method, self._url + path, json=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            return await read_answer(response, self.name, self._redact, most_bytes)

    def _check_open(self) -> None:
        if self._client.closed:
            raise UploadProblem(f"{self.name}: the upload was closed")

    def _document(self, answer: Answer) -> Any:
        document = answer.document()
        if not answer.ok:
            raise answer.problem(self.name)
        if document is None:
            raise UploadProblem(f"{self.name} answered {answer.status} with something that is not JSON")
        return document


def _address(text: object) -> URL | None:
    """Return a web address with a host and a port; None: it is none."""
    if not isinstance(text, str):
        return None
    try:
        address = URL(text, encoded=bool(_ENCODED.fullmatch(text)))
        usable = address.scheme in ("https", "http") and address.host and address.port
    except ValueError:
        return None
    return address if usable else None


def _tokens(answer: Answer) -> Tokens | None:
    document = answer.document()
    if not answer.ok or not isinstance(document, dict):
        return None
    access, refresh = document.get("access_token"), document.get("refresh_token")
    return Tokens(access, str(refresh or "")) if isinstance(access, str) and access else None


async def _pieces(file: OutgoingFile, limit: asyncio.Timeout, each_s: float) -> AsyncIterator[bytes]:
    """Yield a file's bytes from the beginning; each piece that leaves moves the limit."""
    loop, left = asyncio.get_running_loop(), file.size
    await asyncio.to_thread(file.content.seek, 0)
    while left:
        await file.pace()
        limit.reschedule(loop.time() + each_s)
        piece = await asyncio.to_thread(file.content.read, min(left, _PIECE_BYTES))
        if not piece:
            raise UploadProblem(f"{file.name} became shorter while it was sent")
        left -= len(piece)
        yield piece
        limit.reschedule(loop.time() + each_s)
