"""How a route is declared: method, path, role, documentation and query schema in one place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web
from aiohttp_apispec import docs, querystring_schema, response_schema
from marshmallow import Schema

from gateway.api.errors import Handler, error_response
from gateway.api.schemas import ErrorAnswer
from gateway.api.tokens import Role

H = TypeVar("H", bound=Handler)

_FAILURES = {
    400: "The request is malformed.",
    401: "No valid token or session.",
    403: "The role does not allow this, or the Origin is a foreign one.",
    404: "No such thing.",
    406: "None of the accepted formats can be given.",
    408: "The body did not arrive in time.",
    409: "It cannot be done in the present state.",
    413: "The body is too large.",
    415: "The content type is not one that is taken.",
    416: "The file has no such range.",
    421: "The Host header names another machine.",
    422: "A parameter or a field is wrong; `details` names each.",
    429: "Too many failed logins from this address.",
    500: "The gateway failed; the log has the reference.",
    502: "The sensor node or its STU answered with an error.",
    503: "No room, no commit or no answer of the device now; try again after Retry-After.",
}
_EVERYWHERE = (400, 421, 500)
_WITH_TOKEN = (401, 403, 429)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a handler says of its route."""

    method: str
    path: str
    role: Role
    late_login: bool = False
    """The handler itself asks for a token where the request brought none (WebSocket)."""


def endpoint(
    method: str,
    path: str,
    *,
    role: Role,
    summary: str,
    tag: str,
    description: str = "",
    query: type[Schema] | None = None,
    answers: Mapping[int, "type[Schema] | Mapping[str, Any]"],
    fails: Sequence[int] = (),
    body: Mapping[str, Any] | None = None,
    late_login: bool = False,
) -> Callable[[H], H]:
    """Declare the route of a handler. `answers` has a schema or an OpenAPI response per status."""

    def declare(handler: H) -> H:
        responses = {str(status): answer for status, answer in answers.items() if isinstance(answer, Mapping)}
        docs(
            tags=[tag],
            summary=summary,
            description=description,
            operationId=f"{method.lower()}_{path.strip('/').replace('/', '_').translate(_NAME)}",
            responses=responses,
            produces=["application/json"],
            **({"requestBody": body} if body else {}),
        )(handler)
        for status, answer in answers.items():
            if not isinstance(answer, Mapping):
                response_schema(answer, status, description=summary)(handler)
        statuses = {*fails, *_EVERYWHERE, *(_WITH_TOKEN if role is not Role.OPEN else ())}
        if query is not None:
            querystring_schema(query)(handler)
            statuses.add(422)
        if "{" in path:
            statuses.add(404)
        for status in sorted(statuses):
            response_schema(ErrorAnswer, status, description=_FAILURES[status])(handler)
        handler.endpoint = Endpoint(method, path, role, late_login)  # type: ignore[attr-defined]
        return handler

    return declare


_NAME = str.maketrans({"{": "", "}": "", ".": "_"})


def add_routes(app: web.Application, handlers: Iterable[Handler]) -> None:
    for handler in handlers:
        declared: Endpoint = handler.endpoint  # type: ignore[attr-defined]
        app.router.add_route(declared.method, declared.path, handler, expect_handler=_expected)


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Meet the one expectation there is; aiohttp's own handler would refuse others as plain text."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return error_response(417, "The gateway meets no expectation but 100-continue.")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
    return None


def declared(handler: object) -> Endpoint | None:
    """Return what a handler declared of its route, if anything."""
    found = getattr(handler, "endpoint", None)
    return found if isinstance(found, Endpoint) else None


async def refuse_undeclared(app: web.Application) -> None:
    """Fail the start where a route has no role: nothing is open by forgetting."""
    for route in app.router.routes():
        if declared(route.handler) is None:
            raise RuntimeError(
                f"{route.method} {route.resource and route.resource.canonical} declares no role"
            )
