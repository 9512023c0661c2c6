"""What a target over HTTP answers, bounded: its words, its refusals, when it wants to be asked again."""

import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import aiohttp
import orjson
from multidict import CIMultiDictProxy

from gateway.model import GatewayError, UploadProblem

LONGEST_ANSWER_BYTES = 1 << 20
Redact: TypeAlias = Callable[[str], str]
"""Takes secrets out of a text: a target may say again what it was told."""


class OverlongAnswer(UploadProblem):
    """An answer of more bytes than are read."""


LONGEST_WAIT_S = 3600.0
_WORDS = 300
_SEARCHED = 64 << 10
"""Of an answer: a secret that is cut at its end must be far from what is shown."""
_ADDRESS = re.compile(r"(https?://)(?:[^/\s?#@]*@)?([^/\s?#'\")]*)[^\s'\")]*")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    headers: CIMultiDictProxy[str]
    redact: Redact

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def words(self) -> str:
        """Return the status and the beginning of the body as one line."""
        text = shown(self.body[:_SEARCHED].decode(errors="replace"), self.redact)
        return f"{self.status}: {text}" if text else str(self.status)

    def document(self) -> Any:
        """Return the body as JSON, or None where it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def problem(self, target: str) -> UploadProblem:
        return UploadProblem(f"{target} answered {self.words()}", retry_after_s(self.headers))


def shown(text: str, redact: Redact) -> str:
    """Return the beginning of a target's text as one line without secrets."""
    line = " ".join(redact(text[:_SEARCHED]).split())
    return "".join(c for c in line if c.isprintable())[:_WORDS]


def retry_after_s(headers: CIMultiDictProxy[str], now: datetime | None = None) -> float | None:
    """Return Retry-After in seconds, at most an hour; None where there is none that makes sense.

    A date is held against the target's own Date where it gives one: our clock may stand in 1970.
    """
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until = _date(text)
        if until is None:
            return None
        seconds = (until - (_date(headers.get("Date", "")) or now or datetime.now(UTC))).total_seconds()
    return min(seconds, LONGEST_WAIT_S) if seconds > 0 and not math.isnan(seconds) else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


async def read_answer(
    response: aiohttp.ClientResponse, target: str, redact: Redact, most_bytes: int = LONGEST_ANSWER_BYTES
) -> Answer:
    """Read an answer to its end. OverlongAnswer: it has more than `most_bytes`."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            raise OverlongAnswer(
                f"{target} answered {response.status} and more than {most_bytes >> 20} MiB, which is not read"
            )
    return Answer(response.status, bytes(body), response.headers, redact)


@asynccontextmanager
async def network(target: str, timeout_s: float, redact: Redact) -> AsyncIterator[None]:
    """Turn whatever the network does into an UploadProblem with a sentence."""
    try:
        yield
    except GatewayError:
        raise
    except TimeoutError:
        raise UploadProblem(f"{target} did not answer within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise UploadProblem(f"{target} could not be reached: {_words(error, redact)}") from None


def _words(error: Exception, redact: Redact) -> str:
    """Return what an error says, but of addresses the host alone: the rest may be as good as a password."""
    return _ADDRESS.sub(r"\1\2", shown(str(error), redact)) or type(error).__name__
