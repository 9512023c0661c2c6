"""One JSON shape for every failure: {"error": {"code", "message", "details": [...]}}.

ApiError                 raised by handlers and guards: status, code, sentence
web.HTTPException        raised by aiohttp: translated by its status
TimeoutError             503 with Retry-After: no room or no commit in time
GatewayError             503 with Retry-After: a batch given up, a disk or a device that does not answer
everything else          500 with a reference that the log has too; nothing of the inside is shown
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from gateway.model import GatewayError

_log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RETRY_AFTER_S: Final = 2

CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    417: "expectation_failed",
    421: "misdirected",
    422: "invalid",
    429: "too_many_requests",
    500: "internal",
    502: "bad_gateway",
    503: "unavailable",
}
_SENTENCES: Final[Mapping[int, str]] = {
    400: "The request is not valid HTTP.",
    404: "There is nothing under this path.",
    405: "This path does not take this method.",
    413: "The request body is larger than the gateway takes (http.max_body).",
}


class ApiError(Exception):
    """A failure with its HTTP status and a sentence for the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        details: Sequence[Mapping[str, Any]] = (),
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.details = status, message, details
        self.code = code or CODES[status]
        self.headers = headers or {}


def wrong_parameter(field: str, message: str) -> ApiError:
    return ApiError(422, "A parameter is wrong; see details.", details=[{"field": field, "message": message}])


def error_body(code: str, message: str, details: Sequence[Mapping[str, Any]] = ()) -> bytes:
    return orjson.dumps(
        {"error": {"code": code, "message": _clean(message), "details": _clean(list(details))}}
    )


def error_response(
    status: int,
    message: str,
    details: Sequence[Mapping[str, Any]] = (),
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    return web.Response(
        status=status,
        body=error_body(code or CODES.get(status, "error"), message, details),
        content_type="application/json",
        headers=headers,
    )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into the one shape; outermost, so that nothing passes it."""
    try:
        return await handler(request)
    except ConnectionError:
        raise  # the client went away: nobody is left to answer
    except Exception as error:
        if request.get("prepared") is None:
            return _answer_to(error, request)
        # The answer has begun: cutting the connection is all that is left to say.
        _log.warning("%s %s broke off: %s: %s", request.method, request.path, type(error).__name__, error)
        raise ConnectionResetError("the answer broke off") from error


def _answer_to(error: Exception, request: web.Request) -> web.StreamResponse:
    if isinstance(error, ApiError):
        return error_response(
            error.status, error.message, error.details, code=error.code, headers=error.headers
        )
    if isinstance(error, web.HTTPException):
        return _translated(error)
    if isinstance(error, TimeoutError | GatewayError):
        message = str(error) or "The gateway has no room or cannot commit now."
        return error_response(503, message, headers={"Retry-After": str(RETRY_AFTER_S)})
    reference = secrets.token_hex(4)
    _log.error("%s %s failed (reference %s)", request.method, request.path, reference, exc_info=error)
    return error_response(500, f"The gateway failed; its log says why under reference {reference}.")


def _translated(error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    message = _SENTENCES.get(error.status, f"{error.reason}.")
    return error_response(error.status, message, headers=headers)


def _clean(value: Any) -> Any:
    """Return text that JSON carries, whatever a client sent us."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
