"""Posts each unit to a URL with an Idempotency-Key; any 2xx means that all of it is kept there."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

import aiohttp

from gateway.clock import Clock
from gateway.model import Encoding, Outlet, Refusal, Unit, UnitRefused, UploadProblem
from gateway.redaction import Redaction, secrets_in, without_query
from gateway.settings import SECRET_WORDS, Secret, setting
from gateway.uploaders.answers import LONGEST_ANSWER_BYTES, Answer, network, read_answer, shown
from gateway.uploaders.encoders import compressed, encoder
from gateway.uploaders.web_target import WebTarget, session, web_address

TAKES_FILES = False
_POISON = frozenset({400, 413, 422})
"""The answers that speak of the body. All others speak of the target, its address or our rights there."""
_TOO_LARGE = 413
_REFUSAL_BYTES = 256
"""An answer may be longer by so much for each sample: it may refuse them all."""


def header_names(headers: Mapping[str, str | Secret]) -> None:
    """Check extra headers. ValueError: a sentence."""
    for name, text in headers.items():
        if not name or not set(name.lower()) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_"):
            raise ValueError(f"{name!r} is not the name of a header")
        if name.lower() in ("idempotency-key", "content-type", "content-encoding", "content-length", "host"):
            raise ValueError(f"the header {name} is set by the gateway itself")
        if not _plain(text).isprintable():
            raise ValueError(f"the header {name} holds a control character")


def _plain(text: str | Secret) -> str:
    return text.text if isinstance(text, Secret) else text


@dataclass(frozen=True, kw_only=True)
class Settings(WebTarget):
    """An upload that posts units to a URL."""

    SHORT: ClassVar[str | None] = "url"

    url: str = setting(
        help="Where units are posted to; http:// works and is shown as insecure.",
        check=web_address,
        example="https://cloud.example/ingest",
    )
    token: Secret | None = setting(
        None, help="Sent as `Authorization: Bearer ...`.", example="{credential: plant-cloud}"
    )
    headers: Mapping[str, str | Secret] = setting(
        {},
        help="Headers sent with every request; a key of an API is given by reference, as a secret.",
        check=header_names,
        example="{X-Api-Key: {credential: plant-cloud}}",
    )
    gzip: bool = setting(default=True, help="Compress bodies.")
    timeout_s: float = setting(
        30.0, low=1, high=100, help="Longest time for one request, from connecting to the end of its answer."
    )
    gather_s: float = setting(1.0, low=0.1, high=3600, help="A unit is sent at the latest after this time.")
    gather_bytes: int = setting(
        256 << 10,
        low=1 << 10,
        high=16 << 20,
        help="A unit is sent once this much is waiting, as stored.",
        yaml="gather_size",
    )


def encoding(settings: Settings) -> Encoding:
    """Return the encoding that new units get."""
    return Encoding("columns", 1)


def insecure(settings: Settings) -> str:
    """Return what is insecure about these settings as a sentence, or nothing."""
    written = (
        f"the header {name} is written in the configuration: give it by reference, {{credential: NAME}}"
        for name, text in settings.headers.items()
        if _is_open(name, text)
    )
    return "; ".join(filter(None, (settings.insecure(settings.url, "token"), *written)))


def _is_open(name: str, text: str | Secret) -> bool:
    return isinstance(text, str) and re.search(SECRET_WORDS, name, re.IGNORECASE) is not None


@asynccontextmanager
async def open(  # noqa: A001  # the contract's word
    upload: str, settings: Settings, clock: Clock
) -> AsyncIterator[Outlet]:
    """Open a client; it connects at the first send."""
    async with session(settings, settings.timeout_s) as client:
        target = Target(settings, client)
        yield Outlet(send=target.send)


class Target:
    """A URL that takes units."""

    def __init__(self, settings: Settings, client: aiohttp.ClientSession) -> None:
        self._settings, self._client = settings, client
        self._name, self._redact = without_query(settings.url), Redaction(secrets_in(settings))

    async def send(self, unit: Unit) -> Sequence[Refusal]:
        """Post a unit. UnitRefused: the target says that the body will not do."""
        body = await asyncio.to_thread(self._body, unit)
        answer = await self._post(unit.key, body, LONGEST_ANSWER_BYTES + len(unit.samples) * _REFUSAL_BYTES)
        if answer.ok:
            return await asyncio.to_thread(_refusals, answer, unit)
        if answer.status in _POISON:
            raise UnitRefused(answer.words(), too_large=answer.status == _TOO_LARGE)
        if 300 <= answer.status < 400:
            to = shown(without_query(answer.headers.get("Location", "nowhere")), self._redact)
            raise UploadProblem(f"{self._name} redirects to {to!r}; redirects are not followed: set that url")
        raise answer.problem(self._name)

    def _body(self, unit: Unit) -> bytes:
        body = encoder(unit).body(unit)
        return compressed(body) if self._settings.gzip else body

    async def _post(self, key: str, body: bytes, most_bytes: int) -> Answer:
        headers = {
            **{name: _plain(text) for name, text in self._settings.headers.items()},
            "Content-Type": "application/json",
            "Idempotency-Key": quote(key, safe="/-_.~:"),
        }
        if self._settings.gzip:
            headers["Content-Encoding"] = "gzip"
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.text}"
        async with (
            network(self._name, self._settings.timeout_s, self._redact),
            self._client.post(
                self._settings.url, data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            return await read_answer(response, self._name, self._redact, most_bytes)


def _refusals(answer: Answer, unit: Unit) -> list[Refusal]:
    """Read `{"refused": [{"index": 3, "reason": "..."}]}`; what makes no sense is no refusal."""
    document = answer.document()
    listed = document.get("refused") if isinstance(document, dict) else None
    if not listed or not isinstance(listed, list):
        return []
    order = encoder(unit).order(unit)
    refusals: dict[int, Refusal] = {}
    for item in listed:
        index = item.get("index") if isinstance(item, dict) else None
        if type(index) is int and 0 <= index < len(order):
            refusals[index] = Refusal(
                order[index], shown(str(item.get("reason") or "refused"), answer.redact)
            )
    return list(refusals.values())
