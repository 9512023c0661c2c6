"""Chromium for the tests of the pages."""

import contextlib
from collections.abc import AsyncIterator

from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def watched(browser: Browser) -> AsyncIterator[Page]:
    """A page that notes every complaint of the browser and every request that leaves the gateway."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda r: (
            complaints.append(r.url) if "127.0.0.1" not in r.url and not r.url.startswith("data:") else None
        ),
    )
    yield page
    await context.close()
    # A 401 before the login and a gateway that is away are no faults of the page; that the canvas is read
    # back, and how often, is this test's own doing.
    expected = ("401", "ERR_CONNECTION_REFUSED", "willReadFrequently")
    assert [text for text in complaints if not any(word in text for word in expected)] == []


async def log_in(page: Page, url: str, text: str) -> None:
    await page.goto(url)
    await page.fill("#token", text)
    await page.click("#login-form button")
