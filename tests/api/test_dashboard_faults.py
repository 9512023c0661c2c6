"""The page in a real browser where something is wrong: odd values, cut cables, clocks, ends of sessions."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Page, Route, expect

from gateway.api.tokens import Role
from gateway.model import Batch
from tests.api.browser import INK, log_in
from tests.api.plant import Plant

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def cable(url: str) -> AsyncIterator["Cable"]:
    async with asyncio.TaskGroup() as group:
        made = Cable(url, group)
        server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made
        server.close()
        made.end()


class Cable:
    """Between browser and gateway. Cut, it carries no byte and closes nothing, as without power."""

    def __init__(self, to: str, group: asyncio.TaskGroup) -> None:
        self.url = ""
        self.whole = asyncio.Event()
        self.whole.set()
        self._port = int(to.rpartition(":")[2])
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(self._group.create_task(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.whole.wait()
        onward = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pump(reader, onward[1]), self._pump(onward[0], writer))
        finally:
            writer.close()
            onward[1].close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self.whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


async def put(
    gateway: Plant, tag: str, value: Any, at_s: float, *, status: int = 0, unit: str = "", device: str = "box"
) -> None:
    batch, box = Batch(), gateway.devices[device]
    batch.add(box.tag(tag, unit=unit), int(at_s * 1e6), value, status)
    await box.emit(batch)
    await gateway.store.flush()


# Draws buckets of these values, ten seconds apart, and returns the numbers at the axis.
TICKS = """async values => {
  const { Plot } = await import("/static/plot.js");
  const { parse } = await import("/static/live.js");
  const { number } = await import("/static/words.js");
  const canvas = document.createElement("canvas");
  canvas.style = "position: fixed; top: 0; width: 900px; height: 272px";
  document.body.append(canvas);
  const plot = new Plot(canvas, document.createElement("p")), from = Math.round(plot.now()) - 60e6;
  plot.seconds = 300;
  const bucket = (value, n) => `{"ts": ${from + n * 1e7}, "min": ${value}, "max": ${value}, "avg": ${value}}`;
  let ticks;
  plot.drawAxes = (pen, scale) => {
    const room = scale.x(scale.from), fits = (tick) => pen.measureText(number(tick)).width < room;
    ticks = scale.ticks.map((tick) => [tick, scale.y(tick), fits(tick)]);
  };
  plot.buckets(parse(`[${values.map(bucket)}]`), 1e6, []);
  canvas.remove();
  return ticks;
}"""


NARROW = [
    ("20", "20.000000000000004"),
    ("300652410000000017", "300652410000000093"),
    ("1763690000123456", "1763690000123756"),
    ("-1.7e308", "1.7e308"),
    ("0", "5e-324"),
    ("0.1", "0.3"),
]


async def test_values_that_hardly_differ_are_drawn(url: str, page: Page) -> None:
    """Their axis once was an endless loop, which froze every page that showed the tag."""
    await page.goto(url)
    for low, high in NARROW:
        async with asyncio.timeout(30):
            ticks: list[Any] = await page.evaluate(TICKS, [low, high])
        assert 1 <= len(ticks) <= 9, (low, high)
        if high != "1.7e308":  # the difference is beyond what a number can hold
            assert ticks[0][0] <= float(low) and float(high) <= ticks[-1][0]
            heights = [height for _, height, _ in ticks]
            assert all(fits for *_, fits in ticks), "the numbers at the axis are cut off"
            assert heights == sorted(heights, reverse=True)
            assert len(set(heights)) == len(heights)


async def test_a_gateway_without_power_is_offline(gateway: Plant, cable: Cable, page: Page) -> None:
    """Nothing closes the stream then; the page once stayed live for as long as it was open."""
    # A request is given up after 0.5 s here, not after ten.
    await page.add_init_script(
        "const limit = AbortSignal.timeout; AbortSignal.timeout = () => limit.call(AbortSignal, 500);"
    )
    await put(gateway, "speed", 1, time.time())
    await log_in(page, cable.url, gateway.texts[Role.READ])
    await expect(page.locator("#link")).to_have_text("live")
    await expect(page.locator("#values")).to_have_css("opacity", "1")
    cable.whole.clear()
    await expect(page.locator("#link")).to_have_text("offline")
    await expect(page.locator("#values")).not_to_have_css("opacity", "1")
    await put(gateway, "speed", 2, time.time())
    cable.whole.set()
    await expect(page.locator("#link")).to_have_text("live")
    await expect(page.locator("#values")).to_have_css("opacity", "1")
    await expect(page.locator("#values tr", has_text="speed").locator("td").nth(2)).to_have_text("2")


async def test_the_reading_beside_the_plot_is_the_tables(gateway: Plant, url: str, page: Page) -> None:
    now = time.time()
    shown, cells = page.locator("#plot-value"), page.locator("#values tr", has_text="pressure").locator("td")
    await put(gateway, "pressure", 5, now, unit="bar")
    await log_in(page, url, gateway.texts[Role.READ])
    await page.locator("#values tr", has_text="pressure").click()
    await expect(shown).to_have_text("5 bar")
    await put(gateway, "pressure", 6, now + 2, unit="bar")
    await expect(shown).to_have_text("6 bar")
    await put(gateway, "pressure", 1, now - 3600, unit="bar")  # a backfill
    await put(gateway, "pressure", 7, now + 3, status=0x80000000, unit="bar")
    await expect(shown).to_have_text("7 bar · Bad")
    await put(gateway, "pressure", 8, now + 86_400 * 5000, unit="bar")  # a clock that was wrong once
    await expect(cells.nth(2)).to_have_text("8")
    await put(gateway, "pressure", 900, now + 4, unit="kPa")  # a reload gave it another unit
    await expect(shown).to_have_text("900 kPa")
    await expect(cells.nth(2)).to_have_text("900")
    await expect(cells.nth(3)).to_have_text("kPa")
    await put(gateway, "new", 1, now, unit="rpm")
    row = page.locator("#values tr", has_text="new")
    await expect(row.locator("td").nth(3)).to_have_text("rpm")
    box = gateway.devices.pop("box")
    await expect(page.locator("#values tr", has_text="pressure")).to_have_count(0)
    await expect(page.locator("#plot-title")).to_contain_text("counter")
    gateway.devices["box"] = box


async def test_only_good_points_go_on_from_the_history(url: str, page: Page) -> None:
    """A late point, a Bad one and one of the year 2040 are not drawn; they once were, the line going back."""
    await page.goto(url)
    assert await page.evaluate(
        """async () => {
          const { Plot } = await import("/static/plot.js");
          const { plotted } = await import("/static/words.js");
          const [canvas, empty] = ["canvas", "p"].map((name) => document.createElement(name));
          const plot = new Plot(canvas, empty), now = plot.now();
          plot.buckets([{ ts: now - 3e6, min: 1, max: 1, avg: 1 }], 1e6, []);
          [-60e6, 9e14, -1e6, 0, -5e5].forEach((after, n) => plot.add(now + after, n));
          const rows = [0, 0x40000000, 0x80000000, 0xC0000000].map((status) => ({ value: 1, status }));
          return [plot.live.map((point) => point.value), rows.map(plotted)];
        }"""
    ) == [[2, 3], [1, 1, None, None]]


async def test_the_plot_follows_a_clock_that_is_set(gateway: Plant, url: str, page: Page) -> None:
    """That of a box without a battery is set once it has a network, a tablet's by hand."""
    await put(gateway, "speed", 1, time.time())
    await log_in(page, url, gateway.texts[Role.READ])
    await expect(page.locator("#link")).to_have_text("live")
    await page.evaluate("Date.now = ((now) => () => now() - 30 * 864e5)(Date.now)")
    async with page.expect_response("**/v1/state"):
        pass
    async with page.expect_request(lambda request: _ends_now(request.url), timeout=30_000):
        await page.click("text=1 h")  # where this was too early, the next comes by itself


def _ends_now(url: str) -> bool:
    """Say whether this asks for a window of the history that ends about now."""
    query = parse_qs(urlsplit(url).query)
    return "bucket" in query and abs(int(query["to"][0]) / 1e6 - time.time()) < 60


NUMBERS = {
    "48213977.35": "48,213,977.35",
    "123456789.25": "123,456,789.25",
    "1763690000123456": "1,763,690,000,123,456",
    "-9007199254740991": "-9,007,199,254,740,991",
    "9007199254740993": "9007199254740993",
    "-12345678901234567890": "-12345678901234567890",
    "1e300": "1.0000e+300",
    "1480.123456789": "1,480.123",
    "0.1": "0.1",
    "1000": "1,000",
    "0": "0",
    '"9007199254740993 \\\\\\" 9007199254740993"': '9007199254740993 \\" 9007199254740993',
    "[9007199254740993, 0.12345678901234567, 12345678901234567.5]": '["9007199254740993",'
    "0.12345678901234566,12345678901234568]",
}


async def test_numbers_and_times_are_written_out(url: str, browser: Browser) -> None:
    """No digit of a large number is lost; after midnight comes 00, in America too."""
    context = await browser.new_context(locale="en-US", timezone_id="America/New_York")
    page = await context.new_page()
    await page.goto(url)
    shown = await page.evaluate(
        """async texts => {
          const { parse } = await import("/static/live.js");
          const { value } = await import("/static/words.js");
          return texts.map((text) => value(parse(`{"ts": 1763690000123456, "value": ${text}}`)));
        }""",
        list(NUMBERS),
    )
    assert dict(zip(NUMBERS, shown, strict=True)) == NUMBERS
    times = """async () => {
      const { clock, zone } = await import("/static/words.js");
      return [clock(new Date(2026, 0, 1, 0, 5, 7) * 1000), zone()];
    }"""
    assert await page.evaluate(times) in (["1/1/2026 00:05:07", "EST"], ["1/1/2026 00:05:07", "EDT"])
    await context.close()


async def test_a_tablet_held_upright_shows_whose_value_it_is_and_that_it_is_bad(
    gateway: Plant, url: str, page: Page
) -> None:
    await page.set_viewport_size({"width": 800, "height": 1200})
    await put(gateway, "count", 7, time.time(), status=0x80000000)
    await log_in(page, url, gateway.texts[Role.READ])
    for device, word in (("box", '"Bad"'), ("counter", "none")):
        row = page.locator(f"#values tr:has(td[data-device={device}])", has_text="count")
        assert await row.evaluate(AFTER, 1) == f'"{device}"'
        assert await row.evaluate(AFTER, 2) == word
        assert (await row.bounding_box() or {})["height"] >= 44
    assert (await page.locator("#logout").bounding_box() or {})["height"] >= 44


# What stands behind the text of a cell.
AFTER = '(row, cell) => getComputedStyle(row.children[cell], "::after").content'


async def test_warnings_and_selections_stay_and_rows_take_the_keyboard(
    gateway: Plant, url: str, page: Page
) -> None:
    gateway.broken = ("gateway.yaml:7:5: wrong",)
    for tag in ("speed", "pressure"):
        await put(gateway, tag, 1, time.time())
    await log_in(page, url, gateway.texts[Role.READ])
    notice, running = page.locator("#notices p").first, page.locator("#store dt:text('Running') + dd")
    await notice.evaluate("it => { it.same = true }")
    await page.locator("#uploads li").evaluate("it => { it.same = true }")
    before = await running.inner_text()
    await expect(running).not_to_have_text(before)
    assert await notice.evaluate("it => it.same")
    assert await page.locator("#uploads li").evaluate("it => it.same")
    for tag, press in (("pressure", "Space"), ("speed", "Enter")):
        await page.locator("#values button", has_text=tag).press(press)
        await expect(page.locator("#plot-title")).to_have_text(f"box · {tag}")


async def test_one_log_in_is_one_session_and_its_end_is_told_as_such(
    gateway: Plant, url: str, page: Page
) -> None:
    asked: list[str] = []
    streams: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.on("websocket", lambda socket: streams.append(socket.url))

    async def slow(route: Route) -> None:
        await asyncio.sleep(0.3)
        await route.continue_()

    await page.goto(url)
    await page.route("**/v1/session", slow)
    await page.fill("#token", gateway.texts[Role.READ])
    await page.locator("#login-button").dblclick()
    await expect(page.locator("#link")).to_have_text("live")
    assert asked.count("POST") == len(streams) == 1
    await page.context.request.delete(f"{url}/v1/session")
    await expect(page.locator("#login-error")).to_contain_text("Please log in again")


async def test_an_open_page_keeps_its_session(gateway: Plant, url: str, page: Page) -> None:
    """Displays on walls once logged themselves out twice a day."""
    await page.clock.install()
    await log_in(page, url, gateway.texts[Role.READ])
    await expect(page.locator("#link")).to_have_text("live")
    async with page.expect_response("**/v1/session") as asked:
        await page.clock.fast_forward("01:00:01")
    assert "Max-Age" in (await (await asked.value).all_headers())["set-cookie"]


async def test_what_is_told_on_change_holds_until_now(gateway: Plant, url: str, page: Page) -> None:
    """A steady value of a device that is heard is a line; one that is pushed may have no sender any more."""
    now, empty, note = time.time(), page.locator("#plot-empty"), page.locator("#plot-note")
    await put(gateway, "steady", 7, now - 3600, device="counter")
    await put(gateway, "failed", 7, now - 3600, device="counter", status=0x80000000)
    await put(gateway, "door", True, now - 3600, device="counter")
    await put(gateway, "pushed", 7, now - 3600)
    await log_in(page, url, gateway.texts[Role.READ])
    for tag, line in (("steady", True), ("pushed", False), ("door", True), ("failed", False)):
        await page.locator("#values button", has_text=tag).click()
        await expect(page.locator("#plot-title")).to_contain_text(tag)
        if line:
            await page.wait_for_function(INK, arg=1000)
        else:
            await expect(empty).to_have_text("No numbers in this range.")
        assert await note.is_visible() == (tag == "door")
    await page.locator("#values button", has_text="steady").click()
    await page.wait_for_function(INK, arg=1000)
    gateway.devices["counter"].report("failed", "no answer")
    await expect(empty).to_have_text("No numbers in this range.")


async def test_a_level_begins_at_its_sample_and_ends_with_a_gap(url: str, page: Page) -> None:
    await page.goto(url)
    levels = await page.evaluate(
        """async () => {
          const { Plot } = await import("/static/plot.js");
          const [canvas, empty] = ["canvas", "p"].map((name) => document.createElement(name));
          const plot = new Plot(canvas, empty);
          const brief = (points) => points.map(({ ts, value }) => [ts, value]);
          plot.held = { ts: 40, value: 7 };
          const windows = [[0, 0, 100], [45, 0, 100], [50, 50, 100], [0, 0, 30]];
          const levels = windows.map((window) => brief(plot.level(...window)));
          plot.gaps = [{ from_us: 50, to_us: 60 }];
          levels.push(plot.level(0, 0, 100));
          plot.gaps = [{ from_us: 20, to_us: 40 }];
          levels.push(brief(plot.level(0, 0, 100)));
          plot.width = 1;
          plot.seconds = 0;
          const points = [{ ts: 10, value: 5 }, { ts: 40, value: 7 }, { ts: 100, value: 7, holds: true }];
          return [...levels, ...plot.parts(points).map(brief)];
        }"""
    )
    whole = [[40, 7], [100, 7]]
    assert levels == [whole, [[45, 7], [100, 7]], [[50, 7], [100, 7]], [], [], whole, [[10, 5]], whole]


async def test_a_value_holds_until_the_next_a_gap_or_bad(url: str, page: Page) -> None:
    """What is told on change was loose dots, where its samples were far apart."""
    await page.goto(url)
    lines = await page.evaluate(
        """async () => {
          const { Plot } = await import("/static/plot.js");
          const [canvas, empty] = ["canvas", "p"].map((name) => document.createElement(name));
          const plot = new Plot(canvas, empty);
          const lines = () => plot.parts(plot.past).map((line) => line.map(({ ts, value }) => [ts, value]));
          const far = [[0, 1], [1e8, 2], [2e8, null], [3e8, 3], [4e8, 4]];
          plot.samples(far.map(([ts, value]) => ({ ts, value })), 1, [{ from_us: 3.2e8, to_us: 3.4e8 }]);
          const steps = lines();
          plot.buckets([0, 1e8].map((ts) => ({ ts, avg: 1, min: 1, max: 1 })), 2, []);
          return [steps, lines()];
        }"""
    )
    steps = [[[0, 1], [1e8, 1], [1e8, 2], [2e8, 2]], [[3e8, 3]], [[4e8, 4]]]
    assert lines == [steps, [[[1, 1]], [[1e8 + 1, 1]]]]


@pytest.mark.parametrize(("device", "joined"), [("counter", True), ("box", False)])
async def test_few_samples_are_drawn_each(
    gateway: Plant, url: str, page: Page, device: str, joined: bool
) -> None:
    now = time.time()
    for ago, value in ((150, False), (100, True)):
        await put(gateway, "door", value, now - ago, device=device)
    await log_in(page, url, gateway.texts[Role.READ])
    await page.locator("#values button", has_text="door").click()
    await expect(page.locator("#plot-note")).to_be_visible()
    if joined:  # a line of 50 s at 0, then one of 100 s at 1
        await page.wait_for_function(INK, arg=1500)
        await expect(page.locator("#plot-note-more")).to_be_hidden()
    else:
        await expect(page.locator("#plot-empty")).to_have_text("No numbers in this range.")
        await expect(page.locator("#plot-note-more")).to_be_visible()


async def test_why_there_is_no_history_stays(url: str, page: Page) -> None:
    """The next redraw, half a second later, once wrote "No numbers in this range." over it."""
    await page.goto(url)
    said = await page.evaluate(
        """async () => {
          const { Plot } = await import("/static/plot.js");
          const [canvas, empty] = ["canvas", "p"].map((name) => document.createElement(name));
          document.body.append(canvas);
          const plot = new Plot(canvas, empty);
          plot.buckets([], 1, []);
          plot.failed("The store is closing.");
          plot.draw();
          return empty.textContent;
        }"""
    )
    assert said == "The store is closing."
