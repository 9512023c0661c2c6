"""Which STU a request means, and what it stands for in HTTP when a node or its STU refuses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from gateway.api.answers import found
from gateway.api.contracts import DeviceView, GatewayView
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.controls.sensor_nodes import (
    NodeBusy,
    NodeNotFound,
    NodeProblem,
    NotConnected,
    Refused,
    SensorNodes,
    Unsupported,
)

KIND: Final = "icotronic"
_ANSWERS: Final[Mapping[type[NodeProblem], tuple[int, str]]] = {
    NodeNotFound: (404, "node_not_found"),
    NotConnected: (409, "not_connected"),
    NodeBusy: (409, "node_busy"),
    Unsupported: (409, "unsupported"),
    Refused: (502, "node_refused"),
}
"""Status and code; what is not here (no answer, a lost node) is a 503: try again."""


def units(gateway: GatewayView) -> Mapping[str, DeviceView]:
    """Return the devices that are STUs."""
    return {name: device for name, device in gateway.devices.items() if device.kind == KIND}


def unit(gateway: GatewayView, named: str | None) -> DeviceView:
    """Return the STU that is named, or the only one. ApiError 404: there is none; 409: there are several."""
    among = units(gateway)
    if named is not None:
        device: DeviceView = found("STU", named, among)
        return device
    if not among:
        raise ApiError(404, "There is no STU: no device of the configuration is of the kind icotronic.")
    if len(among) > 1:
        names = ", ".join(among)
        details = [{"device": name} for name in among]
        raise ApiError(409, f"There are several STUs: say by ?device= which of {names}.", details=details)
    return next(iter(among.values()))


def unit_of(request: web.Request) -> DeviceView:
    """Return the STU of a request by its `?device=`."""
    return unit(request.app[GATEWAY], request["querystring"].get("device"))


def nodes_of(device: DeviceView) -> SensorNodes:
    """Return what may be asked of an STU. ApiError 409: its session is not up."""
    nodes = device.control(SensorNodes)
    if nodes is None:
        raise ApiError(409, f'The STU "{device.id}" cannot be asked now ({_state(device)}).')
    return nodes


def _state(device: DeviceView) -> str:
    health = device.health
    return f"{health.state}: {health.detail}" if health.detail else health.state


def refuse_while_measuring(gateway: GatewayView, device: DeviceView, status: int = 409) -> None:
    """Raise ApiError where a measurement would be ended by what is asked."""
    running = gateway.measurements.running(device.id)
    if running is not None:
        raise ApiError(status, f'The measurement "{running.name}" is running: stop it first.')


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a node or its STU refuses into an ApiError; silence stays a GatewayError, a 503."""
    try:
        yield
    except NodeProblem as problem:
        for kind, (status, code) in _ANSWERS.items():
            if isinstance(problem, kind):
                raise ApiError(status, sentence(problem), code=code) from None
        raise


def sentence(error: Exception) -> str:
    """Return an error's text as a sentence."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
