"""`edge-gateway plot`: tags of a device, or a series of a timeseries-api, over time."""

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from gateway.api.windows import duration_us
from gateway.commands.api_client import Access, connected, get, printable
from gateway.commands.charts import Column, Curve, sliced, svg, text_chart
from gateway.commands.tail import as_text
from gateway.commands.timeseries_client import listed, point_us, read_series
from gateway.local_time import instant, local_iso
from gateway.model import GatewayError

_MOST_CURVES: Final = 6
_CHART_LINES: Final = 10
_NAMED: Final = 10


def plot(to: Access, arguments: argparse.Namespace) -> int:
    """Draw, or list what there is."""
    if arguments.device is None and not arguments.series:
        lines = asyncio.run(_listed(to, series=arguments.series is not None))
        print(*lines, sep="\n")
        return 0
    drawn = _curves_of_series if arguments.series else _curves_of_device
    curves, from_us, to_us = asyncio.run(drawn(to, arguments))
    if not curves:
        print("edge-gateway: there are no numbers in this window: try --last or --from", file=sys.stderr)
        return 1
    _draw(curves, from_us, to_us, arguments)
    return 0


def _draw(curves: Sequence[Curve], from_us: int, to_us: int, arguments: argparse.Namespace) -> None:
    if arguments.svg is not None:
        title = arguments.device or f"series {arguments.series}"
        _write(arguments.svg, svg(curves, from_us, to_us, title))
        print(f"wrote {arguments.svg}: {', '.join(printable(curve.name) for curve in curves)}")
        return
    braille = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    width = _columns()
    for curve in curves:
        print(printable(curve.headline()))
        print(*text_chart(curve, from_us, to_us, width, _CHART_LINES, braille=braille), sep="\n")


def _write(path: Path, text: str) -> None:
    try:
        file = path.open("x", encoding="utf-8")  # follows no link either
    except FileExistsError:
        raise GatewayError(f"{path} is there already: a plot overwrites nothing, name another file") from None
    except OSError as error:
        raise GatewayError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with file:
            file.write(text)
    except OSError as error:
        path.unlink()
        raise GatewayError(f"{path} cannot be written: {error.strerror}") from None


def _columns() -> int:
    return min(max(shutil.get_terminal_size().columns, 40), 400)


async def _curves_of_device(to: Access, arguments: argparse.Namespace) -> tuple[list[Curve], int, int]:
    async with connected(to) as session:
        now_us = (await get(session, to, "/v1/state"))["now_us"]
        from_us, to_us = _window(arguments, now_us)
        path = f"/v1/devices/{quote(arguments.device, safe='')}"
        tags = (await get(session, to, path))["tags"]
        units = {tag["tag"]: tag["unit"] for tag in tags}
        likely = [tag["tag"] for tag in tags if tag["last"] and _may_have_numbers(tag["last"])]
        width_us = max((to_us - from_us) // (2 * _columns()) + 1, 1000)
        window = {"from": str(from_us), "to": str(to_us), "bucket": f"{width_us}us"}
        curves: list[Curve] = []
        left_out = []
        for tag in arguments.tag or likely:
            if len(curves) == _MOST_CURVES and not arguments.tag:
                print("edge-gateway: there are more tags: name them with --tag", file=sys.stderr)
                break
            answer = await get(session, to, f"{path}/samples", {"tags": tag, **window})
            columns = [
                Column(each["ts"], each["min"], each["max"], each["avg"], each["count"])
                for each in answer["buckets"]
            ]
            if columns:
                curves.append(Curve(tag, units.get(tag, ""), columns))
            else:
                left_out.append(tag)
    if left_out:
        print(f"edge-gateway: no number in this window: {_some(left_out)}", file=sys.stderr)
    return curves, from_us, to_us


def _may_have_numbers(last: dict[str, Any]) -> bool:
    """Say whether a tag may have numbers, by its last sample: a sensor that failed has null or NaN there."""
    return last["value"] is None or isinstance(last["value"], int | float) or last.get("type") == "float"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more


async def _curves_of_series(to: Access, arguments: argparse.Namespace) -> tuple[list[Curve], int, int]:
    window = {}
    if arguments.begin or arguments.end or arguments.last:
        begin, end = _window(arguments, time.time_ns() // 1000)
        window = {"from": local_iso(begin), "to": local_iso(end)}
    async with connected(to) as session:
        points = await read_series(session, to, arguments.series, window)
    if not points:
        return [], 0, 0
    from_us, to_us = point_us(points[0]), point_us(points[-1])
    width_us = (to_us - from_us) // (2 * _columns()) + 1
    names = dict.fromkeys(name for point in points for name in point["fields"])
    curves = []
    for name in arguments.tag or names:
        numbers = _numbers((point_us(point), point["fields"].get(name)) for point in points)
        if columns := sliced(numbers, from_us, width_us):
            curves.append(Curve(name, "", columns))
    return curves, from_us, to_us


def _numbers(pairs: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, float]]:
    """Leave out what cannot be drawn, such as a NaN that timeseries-api took."""
    for ts, value in pairs:
        if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
            yield ts, float(value)


def _window(arguments: argparse.Namespace, now_us: int) -> tuple[int, int]:
    to_us = now_us if arguments.end is None else _instant("--to", arguments.end)
    if arguments.begin is not None:
        from_us = _instant("--from", arguments.begin)
    else:
        try:
            from_us = to_us - duration_us(arguments.last or "1h")
        except ValueError as error:
            raise GatewayError(f"--last {arguments.last} {error}") from None
    if from_us >= to_us:
        raise GatewayError("the window is empty: --from is not before --to")
    return from_us, to_us


def _instant(option: str, text: str) -> int:
    if text.removeprefix("-").isdecimal():
        return int(text)
    try:
        return instant(text)
    except ValueError:
        raise GatewayError(f"{option} {text} is neither ISO 8601 nor microseconds since 1970") from None


async def _listed(to: Access, *, series: bool) -> list[str]:
    lines = []
    async with connected(to) as session:
        if series:
            return await listed(session, to)
        for each in (await get(session, to, "/v1/devices"))["devices"]:
            device = await get(session, to, f"/v1/devices/{each['id']}")
            lines.append(f"{each['id']}  {each['kind']}  {printable(each['health']['state'])}")
            lines += [
                "  " + as_text(tag["tag"], tag["last"], tag["unit"])
                if tag["last"]
                else printable(f"  {tag['tag']}")
                for tag in device["tags"]
            ]
    return lines
