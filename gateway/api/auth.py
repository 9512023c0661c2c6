"""Who asks, and may they: host names, origins, tokens, sessions and roles, before any handler runs."""

import hashlib
import ipaddress
import logging
import secrets
import socket
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from gateway.api.errors import ApiError, Handler
from gateway.api.routing import declared
from gateway.api.settings import HttpSettings, is_loopback
from gateway.api.tokens import Role, Token, Tokens
from gateway.clock import Clock

_log = logging.getLogger(__name__)
COOKIE: Final = "edge_gateway_session"
SESSION_S: Final = 12 * 3600
_MAX_SESSIONS: Final = 256
_MAX_ADDRESSES: Final = 1024
_FAILURES_ALLOWED: Final = 10
_FAILURE_FORGOTTEN_NS: Final = 6_000_000_000
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request."""

    name: str
    role: Role
    token_id: str = ""
    """"" for anybody, where reading is public."""
    cookie: str = field(default="", repr=False)
    """Of the browser session by which it came, if any."""


@dataclass(frozen=True, slots=True)
class _Session:
    token_id: str
    ends_ns: int


class Sessions:
    """Browser sessions, in RAM: a restart logs everybody out. Only hashes of the cookies are kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    def start(self, token: Token) -> str:
        cookie = secrets.token_urlsafe(32)
        self._keep(cookie, token.id)
        while len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie

    def prolong(self, cookie: str) -> None:
        """Let a session last as long from now on as a new one."""
        if (token_id := self.token_id(cookie)) is not None:
            self._keep(cookie, token_id)

    def _keep(self, cookie: str, token_id: str) -> None:
        self._sessions[_key(cookie)] = _Session(token_id, self._clock.mono_ns() + SESSION_S * 1_000_000_000)

    def token_id(self, cookie: str) -> str | None:
        session = self._sessions.get(_key(cookie))
        if session is None or session.ends_ns <= self._clock.mono_ns():
            return None
        return session.token_id

    def end(self, cookie: str) -> None:
        self._sessions.pop(_key(cookie), None)


class FailedLogins:
    """Failures per address: ten at once, then one in six seconds. Only wrong credentials are held up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at_ns: OrderedDict[str, int] = OrderedDict()

    def count(self, address: str) -> None:
        """Note a failure; ApiError 429 where there were too many."""
        now = self._clock.mono_ns()
        full_at = max(self._full_at_ns.pop(address, now), now) + _FAILURE_FORGOTTEN_NS
        self._full_at_ns[address] = min(full_at, now + (_FAILURES_ALLOWED + 1) * _FAILURE_FORGOTTEN_NS)
        while len(self._full_at_ns) > _MAX_ADDRESSES:
            self._full_at_ns.popitem(last=False)
        excess_ns = full_at - now - _FAILURES_ALLOWED * _FAILURE_FORGOTTEN_NS
        if 0 < excess_ns <= _FAILURE_FORGOTTEN_NS:
            _log.warning("too many wrong tokens from %s: the next ones are refused with 429", address)
        if excess_ns > 0:
            wait_s = excess_ns // 1_000_000_000 + 1
            raise ApiError(
                429, "Too many failed logins from this address.", headers={"Retry-After": str(wait_s)}
            )


class Guard:
    """The checks in front of every handler, in their order."""

    def __init__(self, settings: HttpSettings, tokens: Tokens, clock: Clock) -> None:
        self._tokens = tokens
        self._public_read = settings.public_read
        self.sessions = Sessions(clock)
        self._failed = FailedLogins(clock)
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, f"{own}.local", *(name.lower() for name in settings.hosts)}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.check_host(request)
        route = declared(request.match_info.handler)
        if route is None:
            return await handler(request)  # no such path or method: the router's own handler says so
        if request.method not in _SAFE or route.late_login:
            check_origin(request)
        if route.role is not Role.OPEN:
            await self._admit(request, route.role, late_login=route.late_login)
        return await handler(request)

    async def _admit(self, request: web.Request, needed: Role, *, late_login: bool) -> None:
        principal = await self.identify(request)
        if principal is None:
            if needed is Role.READ and self._public_read and request.method in _SAFE:
                principal = Principal("anybody", Role.READ)
            elif late_login:
                return
            else:
                raise unauthorized()
        if principal.role < needed:
            raise ApiError(
                403, f'This needs the role {needed.word}; "{principal.name}" has {principal.role.word}.'
            )
        request["principal"] = principal

    async def identify(self, request: web.Request) -> Principal | None:
        """Return who the header or the cookie says it is; None where there is neither. ApiError if wrong."""
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, text = header.partition(" ")
            if scheme.lower() != "bearer":
                raise unauthorized("Only `Authorization: Bearer TOKEN` is taken.")
            return _principal(await self.login(request, text.strip()))
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            return None
        token_id = self.sessions.token_id(cookie)
        token = None if token_id is None else await self._tokens.get(token_id)
        return None if token is None else _principal(token, cookie)

    async def login(self, request: web.Request, text: str) -> Token:
        """Return the token of this text; a wrong one is counted against the address."""
        token = await self._tokens.find(text)
        if token is None:
            self._failed.count(request.remote or "")
            raise unauthorized(self._tokens.problem or "The token is not valid.")
        return token

    async def late(self, request: web.Request, text: str) -> Principal:
        """Return who a first message says it is."""
        return _principal(await self.login(request, text))

    async def ended(self, principal: Principal) -> str:
        """Return why a long conversation may not go on, or ""."""
        if principal.token_id and await self._tokens.get(principal.token_id) is None:
            return "the token was revoked"
        if principal.cookie and self.sessions.token_id(principal.cookie) is None:
            return "the session ended"
        return ""

    def check_host(self, request: web.Request) -> None:
        """Refuse names that are not ours: a page that had its own name point at us (DNS rebinding)."""
        name = _hostname(request.headers.get("Host", ""))
        if name in self._hosts or _is_address(name):
            return
        raise ApiError(
            421, "The Host header is not a name of this gateway; if it should be, add it to http.hosts."
        )


def unauthorized(message: str = "This needs a token: `Authorization: Bearer TOKEN`.") -> ApiError:
    return ApiError(401, message, headers={"WWW-Authenticate": 'Bearer realm="edge-gateway"'})


def check_origin(request: web.Request) -> None:
    """Refuse a browser that was sent here by a page of another site."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    scheme, _, netloc = origin.lower().partition("://")
    if scheme not in ("http", "https") or netloc != request.headers.get("Host", "").lower():
        raise ApiError(403, "The request comes from a page of another site.")


def cookie_is_secure(request: web.Request) -> bool:
    """Say whether the session cookie is Secure; ApiError where plain HTTP would show it to the network."""
    if request.secure:
        return True
    sockname = request.transport.get_extra_info("sockname") if request.transport else None
    if sockname and is_loopback(str(sockname[0])):
        return False
    raise ApiError(
        403,
        "Logging in with a browser needs TLS: set http.tls to self-signed, or listen on 127.0.0.1.",
        code="tls_required",
    )


def _principal(token: Token, cookie: str = "") -> Principal:
    return Principal(token.name, token.rank, token.id, cookie)


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).digest()


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0][1:].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
