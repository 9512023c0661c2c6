"""Failures in ICOapi's shape: `{"detail": "..."}`; of a wrong body a list of `{type, loc, msg, input}`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web
from marshmallow import Schema, ValidationError, fields

from gateway.api.answers import json_answer
from gateway.api.bodies import read_json
from gateway.api.errors import ApiError, Handler, errors
from gateway.api.sensor_nodes import sentence
from gateway.controls.sensor_nodes import NodeBusy, NodeNotFound, NodeProblem, NotConnected, Unsupported
from gateway.measurements import MeasurementRefused

_KEPT: Final = ("Allow", "Retry-After", "WWW-Authenticate")


class WrongBody(Exception):
    """A body that is not what it should be: `{"detail": [...]}` with each field."""

    def __init__(self, details: list[dict[str, Any]]) -> None:
        super().__init__()
        self.details = details


def nothing() -> web.Response:
    """Return what ICOapi answers where there is nothing to say."""
    return json_answer(None)


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into ICOapi's shape; outermost."""
    response = await errors(request, handler)
    if response.status < 400 or not isinstance(response, web.Response):
        return response
    headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
    document = json.loads(response.body)  # type: ignore[arg-type]  # it is ours: bytes
    if "error" not in document:
        return response
    return json_answer({"detail": _sentence(document["error"])}, response.status, headers)


def _sentence(error: Mapping[str, Any]) -> str:
    """Return all that an error says: clients show one text."""
    message: str = error["message"]
    if not message.endswith("see details."):
        return message
    return "; ".join(f"{each['field']}: {each['message']}" for each in error["details"])


@web.middleware
async def wrong_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn WrongBody into its answer; within `failures`."""
    try:
        return await handler(request)
    except WrongBody as wrong:
        return json_answer({"detail": wrong.details}, 422)


async def read_fields(request: web.Request, schema: type[Schema], most_bytes: int = 0) -> dict[str, Any]:
    """Return what a schema makes of the JSON body. WrongBody: `detail` has each field."""
    try:
        document = await read_json(request, most_bytes)
    except ValueError as error:
        raise WrongBody([wrong("json_invalid", ["body"], f"The body is not JSON: {error}.", None)]) from None
    if not isinstance(document, dict):
        raise WrongBody([wrong("model_type", ["body"], "The body is not a JSON object.", document)])
    try:
        loaded: dict[str, Any] = schema().load(document)
    except ValidationError as error:
        raise WrongBody(list(_details(error.normalized_messages(), ["body"], document))) from None
    return loaded


class Whole(fields.Integer):
    """A whole number as ICOapi takes it: 2, 2.0 or "2", and not 2.9."""

    def _validated(self, value: Any) -> int:
        if isinstance(value, float) and not value.is_integer():
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


def wrong_field(field: str, message: str, value: Any) -> WrongBody:
    return WrongBody([wrong("value_error", ["body", field], message, value)])


def missing_field(*at: str) -> WrongBody:
    """Return what is said where something is not there at all: `("body", "file")`, `("query", "file")`."""
    return WrongBody([wrong("missing", list(at), "Field required", None)])


def _details(messages: Any, at: list[Any], value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            if name == "_schema":
                yield from _details(inner, at, value)
            else:
                below = value.get(name) if isinstance(value, Mapping) else None
                yield from _details(inner, [*at, name], below)
        return
    for message in messages if isinstance(messages, list) else [messages]:
        missing = message == "Missing data for required field."
        yield wrong("missing" if missing else "value_error", at, str(message), value)


def wrong(kind: str, at: list[Any], message: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "loc": at, "msg": message, "input": value}


@contextmanager
def refusals(*, not_connected: int = 400) -> Iterator[None]:
    """Turn what a node, its STU or a measurement refuses into ICOapi's statuses."""
    try:
        yield
    except (NodeProblem, MeasurementRefused) as error:
        raise ApiError(_status(error, not_connected), sentence(error), code="refused") from None


def _status(error: Exception, not_connected: int) -> int:
    if isinstance(error, NodeNotFound):
        return 404
    if isinstance(error, NotConnected):
        return not_connected
    return 400 if isinstance(error, NodeBusy | Unsupported | MeasurementRefused) else 502
