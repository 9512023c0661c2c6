"""The application of ICOapi's contract: its operations and WebSockets under `/api/v1`."""

import asyncio
from typing import Final

from aiohttp import web

from gateway.api.body_room import BODY_ROOM, BodyRoom
from gateway.api.compat.icoapi import cloud, configuration, files, live, logs, measuring, nodes, system
from gateway.api.compat.icoapi.answers import failures, wrong_bodies
from gateway.api.compat.icoapi.guard import Doorkeeper
from gateway.api.compat.icoapi.measuring import INSTRUCTIONS
from gateway.api.compat.icoapi.units import SETTINGS
from gateway.api.contracts import GatewayView
from gateway.api.keys import GATEWAY, GUARD, SOCKETS, ZIPPING
from gateway.api.settings import HttpSettings, IcoapiSettings
from gateway.api.sockets import close_all

PREFIX: Final = "/api/v1"
_MODULES: Final = (system, nodes, live, measuring, files, cloud, configuration, logs)


def contract(gateway: GatewayView, http: HttpSettings, settings: IcoapiSettings) -> web.Application:
    """Return the application. Its only state is the instructions of what was started last."""
    door = Doorkeeper(gateway, http, settings)
    app = web.Application(
        middlewares=[failures, door.middleware, wrong_bodies], client_max_size=http.max_body_bytes
    )
    app[GATEWAY], app[GUARD], app[SETTINGS] = gateway, door.guard, settings
    app[INSTRUCTIONS], app[SOCKETS], app[ZIPPING] = {}, set(), asyncio.Lock()
    app[BODY_ROOM] = BodyRoom()
    for module in _MODULES:
        for method, path, handler in module.ROUTES:
            app.router.add_route(method, PREFIX + path, handler)
    app.on_shutdown.append(close_all)
    app.on_response_prepare.append(door.headers)
    return app
