"""`/metrics`: the state as Prometheus text. Every number of the store's and the uploads' state is there."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from gateway.api.contracts import GatewayView
from gateway.api.keys import GATEWAY, STREAMS
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.state import uptime_s
from gateway.api.tokens import Role

_PREFIX = "edge_gateway"


@endpoint(
    "GET",
    "/metrics",
    role=Role.READ,
    tag="state",
    summary="The state as Prometheus text",
    query=NoQuery,
    answers={
        200: {
            "description": "Prometheus text format 0.0.4.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def show_metrics(request: web.Request) -> web.Response:
    page = _Page()
    gateway = request.app[GATEWAY]
    page.add("info", 1, id=gateway.id, version=gateway.version)
    page.add("uptime_seconds", uptime_s(gateway))
    page.add("stream_clients", request.app[STREAMS].clients)
    page.add("clock_synchronised", gateway.clock.synchronised())
    page.add("config_problems", len(gateway.config().problems))
    if files := gateway.log_files():
        page.add("log_bytes_written", files.bytes_written)
        page.add("log_records_dropped", files.dropped)
    page.add_all("store", dataclasses.asdict(gateway.store.state()))
    _devices(page, gateway)
    for name, health in gateway.compat().items():
        page.add("compat_running", health.state == "running", contract=name)
    for name, upload in gateway.uploads.items():
        status = upload.status()
        numbers = status if isinstance(status, Mapping) else _asdict(status)
        page.add("upload_running", upload.health.state == "running", upload=name)
        page.add_all("upload", numbers, upload=name)
    return web.Response(body=page.text().encode(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _devices(page: "_Page", gateway: GatewayView) -> None:
    now_us = gateway.clock.wall_us()
    for device in gateway.devices.values():
        labels = {"device": device.id, "kind": device.kind}
        page.add("device_running", device.health.state == "running", **labels)
        page.add("device_starts", device.health.starts, **labels)
        page.add("device_tags", len(device.tags), **labels)
        if device.last_heard_us is not None:
            page.add("device_heard_seconds_ago", (now_us - device.last_heard_us) / 1e6, **labels)


def _asdict(value: Any) -> Mapping[str, Any]:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else {}  # type: ignore[arg-type]


class _Page:
    """Samples by metric, so that each metric stands in one group, as the format wants it."""

    def __init__(self) -> None:
        self._metrics: dict[str, list[str]] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        shown = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        full = f"{_PREFIX}_{name}"
        line = f"{full}{{{shown}}} {value + 0}" if shown else f"{full} {value + 0}"
        self._metrics.setdefault(full, []).append(line)

    def add_all(self, name: str, numbers: Mapping[str, Any], **labels: str) -> None:
        for key, value in _flat(numbers):
            self.add(f"{name}_{key}", value, **labels)

    def text(self) -> str:
        parts = [f"# TYPE {name} gauge\n" + "\n".join(lines) for name, lines in self._metrics.items()]
        return "\n".join(parts) + "\n"


def _flat(numbers: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in numbers.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}_{inner}", number) for inner, number in _flat(value))
        elif isinstance(value, bool | int | float):
            yield "".join(c if c.isascii() and c.isalnum() else "_" for c in str(key)), value


def _escape(text: str) -> str:
    clean = text.encode("utf-8", "backslashreplace").decode()
    return clean.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


HANDLERS = (show_metrics,)
