"""`/v1/session`: a browser exchanges its token for a cookie that no script can read."""

import logging
from typing import Final

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.auth import COOKIE, SESSION_S, cookie_is_secure, unauthorized
from gateway.api.bodies import described, read_document
from gateway.api.errors import ApiError
from gateway.api.keys import GUARD
from gateway.api.queries import NoQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import Login, SessionAnswer
from gateway.api.tokens import Role

_log = logging.getLogger(__name__)
_MOST_BYTES: Final = 4096
"""Of a login, after decompression: nobody knows yet who sends it."""


@endpoint(
    "GET",
    "/v1/session",
    role=Role.READ,
    tag="session",
    summary="Who this request comes from",
    query=NoQuery,
    answers={200: SessionAnswer},
)
async def show_session(request: web.Request) -> web.Response:
    principal = request["principal"]
    response = json_answer({"name": principal.name, "role": principal.role.word})
    # A display on a wall stays; who may change things logs in anew each 12 h.
    if principal.cookie and principal.role is Role.READ:
        request.app[GUARD].sessions.prolong(principal.cookie)
        _set_cookie(response, principal.cookie, secure=cookie_is_secure(request))
    return response


@endpoint(
    "POST",
    "/v1/session",
    role=Role.OPEN,
    tag="session",
    summary="Log in: exchange a token for a session cookie",
    query=NoQuery,
    body=described(Login),
    answers={200: SessionAnswer},
    fails=(401, 403, 408, 413, 415, 422, 429),
)
async def log_in(request: web.Request) -> web.Response:
    secure = cookie_is_secure(request)
    text = await _token(request)
    guard = request.app[GUARD]
    token = await guard.login(request, text)
    _log.info('"%s" (%s) logged in from %s', token.name, token.role, request.remote)
    response = json_answer({"name": token.name, "role": token.role})
    _set_cookie(response, guard.sessions.start(token), secure=secure)
    return response


def _set_cookie(response: web.Response, cookie: str, *, secure: bool) -> None:
    response.set_cookie(
        COOKIE, cookie, max_age=SESSION_S, httponly=True, secure=secure, samesite="Strict", path="/"
    )


async def _token(request: web.Request) -> str:
    try:
        said = await read_document(request.clone(client_max_size=_MOST_BYTES), Login)
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(413, f"A login is no longer than {_MOST_BYTES} bytes.") from None
    token: str = said["token"]
    return token


@endpoint(
    "DELETE",
    "/v1/session",
    role=Role.OPEN,
    tag="session",
    summary="Log out",
    query=NoQuery,
    answers={204: {"description": "Logged out."}},
    fails=(401, 403),
)
async def log_out(request: web.Request) -> web.Response:
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise unauthorized("There is no session to end.")
    request.app[GUARD].sessions.end(cookie)
    response = web.Response(status=204)
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return response


HANDLERS = (show_session, log_in, log_out)
