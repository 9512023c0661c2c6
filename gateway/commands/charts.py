"""Charts of numbers over time: Unicode in a terminal, SVG in a file."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

from gateway.local_time import shown

_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Of a Braille character by column and row (Unicode 15, chapter 21.1)."""
_BRAILLE: Final = 0x2800
_SVG_WIDTH, _SVG_HEIGHT, _LEFT, _TOP = 960, 220, 90, 28


@dataclass(frozen=True, slots=True)
class Column:
    """The numbers of one slice of time."""

    ts: int
    low: float
    high: float
    mean: float
    count: int


@dataclass(frozen=True, slots=True)
class Curve:
    """One tag over a window; slices without numbers are left out."""

    name: str
    unit: str
    columns: Sequence[Column]

    @property
    def low(self) -> float:
        return min(column.low for column in self.columns)

    @property
    def high(self) -> float:
        return max(column.high for column in self.columns)

    def headline(self) -> str:
        """Return its name with what is to be known of the numbers."""
        count = sum(column.count for column in self.columns)
        mean = math.fsum(column.mean * column.count for column in self.columns) / count
        unit = f" {self.unit}" if self.unit else ""
        span = f"{number(self.low)} to {number(self.high)}{unit}"
        return f"{self.name}: {span}, mean {number(mean)}, {count} values"


def sliced(samples: Iterable[tuple[int, float]], from_us: int, width_us: int) -> list[Column]:
    """Return the columns of (ts, number) pairs, as the API's buckets are."""
    slices: dict[int, list[float]] = {}
    for ts, value in samples:
        slices.setdefault((ts - from_us) // width_us, []).append(value)
    return [
        Column(
            from_us + place * width_us,
            min(values),
            max(values),
            math.fsum(values) / len(values),
            len(values),
        )
        for place, values in sorted(slices.items())
    ]


def text_chart(
    curve: Curve, from_us: int, to_us: int, width: int, height: int, *, braille: bool
) -> list[str]:
    """Return the lines of a chart, `width` characters wide with its scale. Without Braille: asterisks."""
    across, down = (2, 4) if braille else (1, 1)
    labels = [number(curve.high), number(curve.low)]
    margin = max(map(len, labels))
    cells = max(width - margin - 2, 10)
    grid = [[0] * cells for _ in range(height)]
    for x, y in _points(curve, from_us, to_us, cells * across, height * down):
        grid[y // down][x // across] |= _DOTS[x % 2][y % 4] if braille else 1
    lines = []
    for at, row in enumerate(grid):
        label = labels[0] if at == 0 else labels[1] if at == height - 1 else ""
        drawn = "".join(_cell(cell, braille=braille) for cell in row)
        lines.append(f"{label:>{margin}} {'┤' if braille else '|'}{drawn}".rstrip())
    start, end = shown(from_us), shown(to_us)
    lines.append(" " * (margin + 2) + start + end.rjust(max(cells - len(start), len(end) + 1)))
    return lines


def _cell(dots: int, *, braille: bool) -> str:
    if not dots:
        return " "
    return chr(_BRAILLE + dots) if braille else "*"


def _points(curve: Curve, from_us: int, to_us: int, width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield what is to be marked of a grid whose row 0 is the top. Neighbouring columns are joined."""
    before: tuple[int, int, int] | None = None
    for column in curve.columns:
        x = min(max((column.ts - from_us) * width // max(to_us - from_us, 1), 0), width - 1)
        top, bottom = (_row(curve, value, height) for value in (column.high, column.low))
        first, last = top, bottom
        if before is not None and x - before[0] <= 1:
            first, last = min(top, before[2]), max(bottom, before[1])
        yield from ((x, y) for y in range(first, last + 1))
        before = x, top, bottom


def _row(curve: Curve, value: float, height: int) -> int:
    if curve.high == curve.low:
        return height // 2
    part = (value / 2 - curve.low / 2) / (
        curve.high / 2 - curve.low / 2
    )  # halves: no overflow between doubles
    return round((1 - part) * (height - 1))


def svg(curves: Sequence[Curve], from_us: int, to_us: int, title: str) -> str:
    """Return a document with one chart below the other: the mean as a line, low to high as a band."""
    height = _TOP + len(curves) * _SVG_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SVG_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{_SVG_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="18" font-size="14">{_text(title)}</text>',
    ]
    for number_, curve in enumerate(curves):
        parts += _svg_chart(curve, from_us, to_us, _TOP + number_ * _SVG_HEIGHT)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _svg_chart(curve: Curve, from_us: int, to_us: int, top: int) -> list[str]:
    width, height = _SVG_WIDTH - _LEFT - 10, _SVG_HEIGHT - 60
    begin = top + 24

    def place(ts: int, value: float) -> str:
        x = _LEFT + (ts - from_us) / max(to_us - from_us, 1) * width
        span = curve.high / 2 - curve.low / 2
        part = (value / 2 - curve.low / 2) / span if span else 0.5
        return f"{x:.1f},{begin + (1 - part) * height:.1f}"

    drawn = []
    for part in _whole_parts(curve.columns):
        band = [place(column.ts, column.high) for column in part]
        band += [place(column.ts, column.low) for column in reversed(part)]
        line = [place(column.ts, column.mean) for column in part]
        drawn.append(f'<polygon points="{" ".join(band)}" fill="#9ecae1" stroke="#9ecae1"/>')
        drawn.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="#08519c" stroke-width="1.5"/>')
    right, bottom = _SVG_WIDTH - 10, begin + height
    return [
        f'<text x="{_LEFT}" y="{top + 16}">{_text(curve.headline())}</text>',
        f'<rect x="{_LEFT}" y="{begin}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>',
        *drawn,
        f'<text x="{_LEFT - 6}" y="{begin + 10}" text-anchor="end">{number(curve.high)}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{number(curve.low)}</text>',
        f'<text x="{_LEFT}" y="{bottom + 16}">{shown(from_us)}</text>',
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{shown(to_us)}</text>',
    ]


def _whole_parts(columns: Sequence[Column]) -> list[list[Column]]:
    """Cut where nothing came for much longer than usual: a line across a hole would be invented."""
    steps = sorted(after.ts - before.ts for before, after in pairwise(columns))
    most = 5 * steps[len(steps) // 2] if steps else 0
    parts = [[columns[0]]]
    for before, after in pairwise(columns):
        if after.ts - before.ts > most:
            parts.append([])
        parts[-1].append(after)
    return parts


def _text(text: str) -> str:
    """Return text for XML, without what no XML can hold."""
    return escape("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))


def number(value: float) -> str:
    return f"{value:.6g}"
