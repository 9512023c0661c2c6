"""The API in front of a real store, on a real listener on loopback."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role
from tests.api.plant import Plant, plant

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path) as made:
        yield made


@pytest.fixture
def settings() -> HttpSettings:
    return HttpSettings(listen="127.0.0.1:0", tls="off")


@pytest.fixture
async def url(gateway: Plant, settings: HttpSettings) -> AsyncIterator[str]:
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
async def anybody(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a token."""
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        yield client


@pytest.fixture
async def admin(url: str, gateway: Plant) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, headers=gateway.bearer(Role.ADMIN)) as client:
        yield client


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    from tests.api.browser import chromium  # few tests need it

    async with chromium() as browser:
        yield browser


@pytest.fixture
async def page(browser: "Browser") -> AsyncIterator["Page"]:
    from tests.api.browser import watched

    async with watched(browser) as page:
        yield page
