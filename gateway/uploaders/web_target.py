"""What every target over HTTP can be set to, and the client for it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from gateway.model import UploadProblem
from gateway.redaction import without_query
from gateway.settings import Settings, setting


def web_address(url: str) -> None:
    """Check a URL. ValueError: a sentence."""
    if any(each.isspace() or not each.isprintable() for each in url):
        raise ValueError("a web address has no blanks; write %20 where one is meant")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{without_query(url)!r} is not a web address; write https://host/path")
    if parts.username or parts.password:
        raise ValueError("a web address must not hold a password; give it as a secret by reference")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port of the web address is no number from 1 to 65535")


def encrypted(url: str) -> bool:
    """Say whether nobody reads on the way to a URL."""
    return urlsplit(url).scheme == "https"


@dataclass(frozen=True, kw_only=True)
class WebTarget(Settings):
    """How the target's certificate is checked."""

    verify: bool = setting(default=True, help="Check the target's certificate; `false` is shown as insecure.")
    ca: Path | None = setting(
        None,
        help="File with the certificates to trust in place of the system's.",
        example="/etc/plant-ca.pem",
    )

    def files(self) -> list[Path]:
        return [] if self.ca is None else [self.ca]

    def insecure(self, url: str, secret: str) -> str:
        """Return what is insecure about the way to `url` as a sentence, or nothing."""
        if not encrypted(url):
            return f"samples and {secret} travel unencrypted; use an https:// address"
        return "" if self.verify else "the target's certificate is not checked; set `verify: true`, or `ca`"


@asynccontextmanager
async def session(target: WebTarget, timeout_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client that asks for answers as they are, keeps no cookies and leaves redirects to us."""
    context = await asyncio.to_thread(trust, target.ca, target.verify)  # reads files
    connector = aiohttp.TCPConnector(ssl=context, limit=8, keepalive_timeout=30)
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(10.0, timeout_s))
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "edge-gateway", "Accept": "application/json", "Accept-Encoding": "identity"},
    ) as client:
        yield client


def trust(ca: Path | None, verify: bool) -> ssl.SSLContext:
    """Return what a target's certificate is checked against. UploadProblem: the file will not do."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UploadProblem(f"the file {ca} with trusted certificates cannot be used: {error}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
