"""What the handlers find on the application."""

import asyncio
from typing import Any

from aiohttp import web

from gateway.api.auth import Guard
from gateway.api.contracts import GatewayView
from gateway.api.settings import HttpSettings
from gateway.api.stream import Streams

GATEWAY: web.AppKey[GatewayView] = web.AppKey("gateway", GatewayView)
GUARD = web.AppKey("guard", Guard)
SETTINGS = web.AppKey("settings", HttpSettings)
STREAMS = web.AppKey("streams", Streams)
SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets", set)
ZIPPING = web.AppKey("zipping", asyncio.Lock)
DOCUMENT: web.AppKey[dict[str, Any]] = web.AppKey("openapi", dict)
