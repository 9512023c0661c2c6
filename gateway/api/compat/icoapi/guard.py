"""Who may do what at this listener: `anonymous`, our tokens, and web pages of the origins in `cors`."""

from typing import Final

from aiohttp import web

from gateway.api.auth import Guard, Principal, check_origin, unauthorized
from gateway.api.contracts import GatewayView
from gateway.api.errors import ApiError, Handler
from gateway.api.settings import HttpSettings, IcoapiSettings
from gateway.api.tokens import Role

_ROLES: Final = {"off": None, "read": Role.READ, "operate": Role.OPERATE}
_SAFE: Final = frozenset({"GET", "HEAD"})
_MOST_AGE_S: Final = 600


class Doorkeeper:
    """Checks in front of every handler, and the headers by which a browser lets a page of `cors` in."""

    def __init__(self, gateway: GatewayView, http: HttpSettings, settings: IcoapiSettings) -> None:
        self.guard = Guard(http, gateway.tokens, gateway.clock)
        self._anonymous = _ROLES[settings.anonymous]
        self._origins = frozenset(origin.lower() for origin in settings.cors)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.guard.check_host(request)
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if not self._is_welcome(request) and (request.method not in _SAFE or upgrade):
            check_origin(request)
        if request.method == "OPTIONS":
            return self._preflight(request)
        await self._admit(request)
        return await handler(request)

    def _is_welcome(self, request: web.Request) -> bool:
        return request.headers.get("Origin", "").lower() in self._origins

    async def _admit(self, request: web.Request) -> None:
        principal = await self.guard.identify(request)
        if principal is None and self._anonymous is not None:
            principal = Principal("anybody at http.compat.icoapi", self._anonymous)
        if principal is None:
            raise unauthorized()
        needed = Role.READ if request.method in _SAFE else Role.OPERATE
        if principal.role < needed:
            raise ApiError(
                403, f'This needs the role {needed.word}; "{principal.name}" has {principal.role.word}.'
            )
        request["principal"] = principal

    def _preflight(self, request: web.Request) -> web.Response:
        asked = request.headers.get("Access-Control-Request-Headers", "")
        return web.Response(
            status=200,
            headers={
                "Access-Control-Allow-Methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
                "Access-Control-Max-Age": str(_MOST_AGE_S),
                **({"Access-Control-Allow-Headers": asked} if asked else {}),
            },
        )

    async def headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add what every answer has (a signal of aiohttp)."""
        headers = response.headers
        headers["Server"] = "edge-gateway"
        headers["X-Content-Type-Options"] = "nosniff"
        headers.setdefault("Cache-Control", "no-store")
        headers.add("Vary", "Origin")
        if self._is_welcome(request):
            headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            headers["Access-Control-Allow-Credentials"] = "true"
            headers["Access-Control-Expose-Headers"] = "Content-Disposition, Retry-After, X-Total-Count"
