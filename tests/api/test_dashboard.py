"""The page in a real browser: log in, see values change, plot, log out; nothing from elsewhere."""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role
from gateway.model import Batch, Gap
from tests.api.browser import log_in
from tests.api.plant import Plant

pytestmark = pytest.mark.timeout(60)


@contextlib.asynccontextmanager
async def running(gateway: Plant) -> AsyncIterator[None]:
    """Ten minutes of history, then values ten times a second."""
    box = gateway.devices["box"]
    names = {"speed": "rpm", "temperature": "°C", "pressure": "bar"}
    series = {name: box.tag(name, unit=unit) for name, unit in names.items()}
    texts = {name: box.tag(name) for name in ("state", "door open", "serial", "big")}

    def values(at: float) -> Batch:
        batch, us = Batch(), int(at * 1e6)
        batch.add(series["speed"], us, 1480 + 40 * math.sin(at / 20) + 6 * math.sin(at * 3))
        batch.add(series["temperature"], us, round(61.5 + math.sin(at / 90), 2))
        batch.add(series["pressure"], us, 5.02 + 0.01 * math.sin(at), 0x40000000 if int(at) % 20 < 3 else 0)
        return batch

    now = time.time()
    for n in range(600):
        await box.emit(values(now - 600 + n))
    once = Batch()
    for name, value in (("state", "RUN"), ("door open", False), ("serial", 2**63), ("big", [1.5, 2, 3])):
        once.add(texts[name], int(now * 1e6), value)
    await box.emit(once)
    gateway.store.gap(
        Gap(int((now - 200) * 1e6), int((now - 170) * 1e6), "no answer from 10.0.0.7", "box", None, 300)
    )
    await gateway.store.flush()

    async def feed() -> None:
        while True:
            await box.emit(values(time.time()))
            await asyncio.sleep(0.1)

    feeding = asyncio.create_task(feed())
    try:
        yield
    finally:
        feeding.cancel()


async def shot(page: Page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        await page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


async def test_log_in_see_values_change_plot_log_out(gateway: Plant, url: str, page: Page) -> None:
    gateway.broken = ('gateway.yaml:7:5: "nod" is not a known setting here; did you mean "node"?',)
    async with running(gateway):
        await log_in(page, url, "egw_wrong")
        await expect(page.locator("#login-error")).to_have_text("The token is not valid.")
        await log_in(page, url, gateway.texts[Role.READ])
        await expect(page.locator("#link")).to_have_text("live")
        await expect(page.locator("#gateway-id")).to_have_text("plant")
        await expect(page.locator("#devices li").first).to_contain_text("running")
        await expect(page.locator("#notices")).to_contain_text("did you mean")
        await expect(page.locator("#gaps")).to_contain_text("no answer from 10.0.0.7")
        await expect(page.locator("#values")).to_contain_text("9223372036854775808")
        speed = page.locator("#values tr", has_text="speed").locator("td").nth(2)
        before = await speed.inner_text()
        await expect(speed).not_to_have_text(before)
        await speed.click()
        await expect(page.locator("#plot-title")).to_have_text("box · speed")
        await expect(page.locator("#plot-value")).to_contain_text("rpm")
        await page.wait_for_function(INK, arg=3000)
        await shot(page, "dashboard")
        await page.click("text=1 h")
        await page.fill("#filter", "pressure")
        await expect(page.locator("#values tr")).to_have_count(1)
        await page.click("#logout")
        await expect(page.locator("#login")).to_be_visible()
        await page.reload()
        await expect(page.locator("#login")).to_be_visible()


# How many pixels of the canvas are drawn in: an empty plot has none.
INK = """least => {
  const canvas = document.getElementById("plot");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let at = 3; at < data.length; at += 4) if (data[at] > 40) count += 1;
  return count > least;
}"""


async def test_on_a_phone_and_in_the_dark(gateway: Plant, url: str, page: Page) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.emulate_media(color_scheme="dark")
    async with running(gateway):
        await log_in(page, url, gateway.texts[Role.READ])
        await page.locator("#values tr", has_text="temperature").click()
        await page.wait_for_function(INK, arg=1000)
        await shot(page, "phone")
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0  # nothing sticks out to the side


async def test_it_comes_back_after_the_gateway_did(gateway: Plant, page: Page) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", tls="off")
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        await log_in(page, f"http://{host}:{port}", gateway.texts[Role.READ])
        await expect(page.locator("#link")).to_have_text("live")
    await expect(page.locator("#link")).to_have_text("offline")
    settings = HttpSettings(listen=f"127.0.0.1:{port}", tls="off", public_read=True)
    async with serve(build_app(gateway, settings), settings, gateway.state):
        await expect(page.locator("#link")).to_have_text("live", timeout=10_000)
        await expect(page.locator("#notices")).to_contain_text("without a token", timeout=10_000)


async def test_over_tls(gateway: Plant, browser: Browser) -> None:
    """The session's cookie is Secure, and the stream is wss."""
    settings = HttpSettings(listen="127.0.0.1:0")
    context = await browser.new_context(ignore_https_errors=True)
    page = await context.new_page()
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        await log_in(page, f"https://{host}:{port}", gateway.texts[Role.READ])
        await expect(page.locator("#link")).to_have_text("live")
        [cookie] = await context.cookies()
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        await context.close()


@pytest.mark.seed_row("L4")
async def test_the_docs_page(gateway: Plant, url: str, page: Page) -> None:
    await page.goto(f"{url}/docs")
    await expect(page.locator("#docs-note")).to_be_visible()
    await log_in(page, url, gateway.texts[Role.READ])
    await expect(page.locator("#link")).to_have_text("live")
    await page.goto(f"{url}/docs")
    await expect(page.locator(".opblock-summary-path").first).to_be_visible()
    assert await page.locator(".opblock").count() >= 20
    await shot(page, "docs")
