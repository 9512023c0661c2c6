"""The contract of timeseries-api (facts: docs/timeseries.md) on a listener of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from gateway.api.compat.timeseries.contract import Contract
from gateway.api.compat.timeseries.points import Points
from gateway.api.compat.timeseries.series import SeriesFile
from gateway.api.compat.timeseries.users import Users
from gateway.api.contracts import GatewayView
from gateway.api.server import serve
from gateway.api.settings import CompatSettings, HttpSettings, TimeseriesSettings

_RECHECK_S = 1.0


async def run(
    gateway: GatewayView,
    http: HttpSettings,
    settings: TimeseriesSettings,
    state: Path,
    report: Callable[[str, str], None],
) -> NoReturn:
    """Serve until cancelled. OSError: the address is in use; GatewayError: the file of series is damaged.

    `report` is told the state and a sentence: where it listens, and why `users.json` cannot be used.
    """
    users, series, points = Users(settings.users, state), SeriesFile(state), Points(gateway)
    await users.refresh()
    await series.load(points.first_free_id())
    listener = replace(http, listen=settings.listen, tls=settings.tls, compat=CompatSettings())
    async with serve(Contract(gateway, users, series, points).app(), listener, state) as (host, port):
        while True:
            where = f"listening on {host}:{port}"
            report(*(("degraded", f"{where}; {users.problem}") if users.problem else ("running", where)))
            await gateway.clock.sleep(_RECHECK_S)
            await users.refresh()
