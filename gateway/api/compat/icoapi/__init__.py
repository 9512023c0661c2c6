"""The contract of ICOapi 0.2.1 (docs/icoapi.md) on a listener of its own."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gateway.api.compat.icoapi.contract import contract
from gateway.api.contracts import GatewayView
from gateway.api.server import serve
from gateway.api.settings import CompatSettings, HttpSettings, IcoapiSettings


async def run(
    gateway: GatewayView,
    http: HttpSettings,
    settings: IcoapiSettings,
    state: Path,
    report: Callable[[str, str], None],
) -> None:
    """Serve until cancelled. OSError: the address is in use.

    `report` is told the state and a sentence: where it listens.
    """
    listener = replace(http, listen=settings.listen, tls=settings.tls, compat=CompatSettings())
    async with serve(contract(gateway, http, settings), listener, state) as (host, port):
        report("running", f"listening on {host}:{port}")
        await asyncio.Event().wait()
