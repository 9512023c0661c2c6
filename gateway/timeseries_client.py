"""Reads series of a timeseries-api: the original, or the contract here."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp

from gateway.api_client import Access, Refused, get, printable
from gateway.model import GatewayError

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


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
    return (datetime.fromisoformat(point["timestamp"]).astimezone(UTC) - _EPOCH) // _MICROSECOND


def naive(us: int) -> str:
    """Return local time without an offset, as timeseries-api takes it."""
    return (_EPOCH + us * _MICROSECOND).astimezone().replace(tzinfo=None).isoformat()


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
