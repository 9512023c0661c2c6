"""Reads series of a timeseries-api: the original, or the contract here."""

from typing import Any

import aiohttp

from gateway.commands.api_client import Access, Refused, get, printable
from gateway.local_time import instant
from gateway.model import GatewayError


async def read_series(
    session: aiohttp.ClientSession, to: Access, series: str, window: dict[str, str]
) -> list[dict[str, Any]]:
    if not series.isalnum():
        raise GatewayError("--series takes the number of a series; without one, plot lists them")
    points = await get(session, to, f"/series/{series}", window)
    try:
        for point in points:
            _ = point["id"], point["fields"].items(), point_us(point)
    except (TypeError, KeyError, AttributeError, ValueError):
        raise Refused(f"{to.url} does not answer as timeseries-api does") from None
    return list(points)


def point_us(point: dict[str, Any]) -> int:
    return instant(point["timestamp"])


async def listed(session: aiohttp.ClientSession, to: Access) -> list[str]:
    """Return a line for each series, the newest last: id, description, date, count of points."""
    document = await get(session, to, "/series")
    try:
        rows = sorted(document.items(), key=lambda item: str(item[1]["timestamp"]))
        return [printable(_line(number, each)) for number, each in rows]
    except (TypeError, KeyError, AttributeError, ValueError):
        raise Refused(f"{to.url} does not answer as timeseries-api does") from None


def _line(number: str, series: dict[str, Any]) -> str:
    description, made = str(series["desc"] or ""), series["timestamp"][:16].replace("T", " ")
    return f"{number:>8}  {description:<40.40}  {made:16}  {series['count']:>8}"
