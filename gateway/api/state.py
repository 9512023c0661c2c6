"""`/healthz` and `/v1/state`: is it alive, and how is everything."""

import dataclasses

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.contracts import GatewayView
from gateway.api.keys import GATEWAY, SETTINGS, STREAMS
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import Alive, StateAnswer
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role


@endpoint(
    "GET",
    "/healthz",
    role=Role.OPEN,
    tag="state",
    summary="The process is alive and answers",
    answers={200: Alive},
)
async def healthz(_request: web.Request) -> web.Response:
    return json_answer({"status": "alive"})


@endpoint(
    "GET",
    "/v1/state",
    role=Role.READ,
    tag="state",
    summary="The gateway's state in one answer",
    query=NoQuery,
    answers={200: StateAnswer},
)
async def show_state(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    config, files = gateway.config(), gateway.log_files()
    return json_answer(
        {
            "id": gateway.id,
            "version": gateway.version,
            "now_us": gateway.clock.wall_us(),
            "uptime_s": uptime_s(gateway),
            "clock_synchronised": gateway.clock.synchronised(),
            "config": dataclasses.asdict(config),
            "compat": {name: dataclasses.asdict(health) for name, health in gateway.compat().items()},
            "insecure": insecure(gateway, request.app[SETTINGS]),
            "store": dataclasses.asdict(gateway.store.state()),
            "logs": dataclasses.asdict(files) if files else None,
            "devices": {device.id: dataclasses.asdict(device.health) for device in gateway.devices.values()},
            "uploads": {
                name: dataclasses.asdict(upload.health) | {"status": upload.status()}
                for name, upload in gateway.uploads.items()
            },
            "streams": request.app[STREAMS].clients,
        }
    )


def uptime_s(gateway: GatewayView) -> float:
    return (gateway.clock.mono_ns() - gateway.started_ns) / 1e9


def insecure(gateway: GatewayView, settings: HttpSettings) -> list[str]:
    """Return a sentence for everything that weakens security: shown wherever the state is shown."""
    devices = (_named("device", device.id, device.insecure) for device in gateway.devices.values())
    uploads = (_named("upload", name, upload.insecure) for name, upload in gateway.uploads.items())
    return [*settings.insecure(), *filter(None, devices), *filter(None, uploads)]


def _named(what: str, name: str, sentence: str) -> str:
    return sentence and f"{what} {name}: {sentence.removeprefix('insecure: ')}"


HANDLERS = (healthz, show_state)
