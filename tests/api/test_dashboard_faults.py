"""The page in a real browser where something is wrong: odd values, cut cables, clocks, ends of sessions."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page

pytest_plugins = ["tests.api.browser"]
pytestmark = pytest.mark.timeout(60)

# Draws buckets of these values, ten seconds apart, and returns the numbers at the axis.
TICKS = """async values => {
  const { Plot } = await import("/static/plot.js");
  const { parse } = await import("/static/live.js");
  const canvas = document.createElement("canvas");
  canvas.style = "position: fixed; top: 0; width: 900px; height: 272px";
  document.body.append(canvas);
  const plot = new Plot(canvas, document.createElement("p")), from = Math.round(plot.now()) - 60e6;
  plot.seconds = 300;
  const bucket = (value, n) => `{"ts": ${from + n * 1e7}, "min": ${value}, "max": ${value}, "avg": ${value}}`;
  let ticks;
  plot.drawAxes = (pen, scale) => { ticks = scale.ticks.map((tick) => [tick, scale.y(tick)]); };
  plot.history(parse(`[${values.map(bucket)}]`), 1e6, []);
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
        async with asyncio.timeout(10):
            ticks: list[Any] = await page.evaluate(TICKS, [low, high])
        assert 1 <= len(ticks) <= 9, (low, high)
        if high != "1.7e308":  # the difference is beyond what a number can hold
            assert ticks[0][0] <= float(low) and float(high) <= ticks[-1][0]
            heights = [height for _, height in ticks]
            assert heights == sorted(heights, reverse=True)
            assert len(set(heights)) == len(heights)
