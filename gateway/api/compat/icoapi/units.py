"""Which STU a client means, and how ICOapi writes it."""

from datetime import datetime
from typing import Any, Final

from aiohttp import web

from gateway.api.contracts import DeviceView
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.sensor_nodes import unit, units
from gateway.api.settings import IcoapiSettings
from gateway.controls.sensor_nodes import SensorNodes

SETTINGS = web.AppKey("icoapi", IcoapiSettings)
STU_NAME: Final = "STU 1"
GIB: Final = 2**30


def unit_of(request: web.Request) -> DeviceView:
    """Return the STU: of `?device=`, of the setting, or the only one. ApiError 404, 409, as in `/v1`."""
    named = request.query.get("device") or request.app[SETTINGS].device or None
    return unit(request.app[GATEWAY], named)


def unit_if_any(request: web.Request) -> DeviceView | None:
    """Return the STU, None where none is configured. ApiError 409: there are several."""
    return unit_of(request) if units(request.app[GATEWAY]) else None


def nodes_of(device: DeviceView) -> SensorNodes:
    """Return what may be asked of an STU. ApiError 502: its session is not up."""
    nodes = device.control(SensorNodes)
    if nodes is None:
        health = device.health
        why = f"{health.state}: {health.detail}" if health.detail else health.state
        raise ApiError(502, f'The STU "{device.id}" is not reached ({why}).')
    return nodes


def local_iso(us: int) -> str:
    """Return a time as ICOapi writes it, in the gateway's time zone, and with that, which ICOapi left out."""
    return datetime.fromtimestamp(us / 1e6).astimezone().isoformat()


def capacity(total_bytes: int, free_bytes: int) -> dict[str, Any]:
    """Return room on a disk in GiB."""
    return {"total": round(total_bytes / GIB, 2), "available": round(free_bytes / GIB, 2)}
