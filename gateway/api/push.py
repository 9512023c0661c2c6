"""`POST /v1/devices/{id}/samples`: samples from a client, answered after COMMIT."""

import functools
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.bodies import made_of, read_body, room_for_body
from gateway.api.contracts import GatewayView
from gateway.api.devices import device_of
from gateway.api.errors import RETRY_AFTER_S, ApiError, wrong_parameter
from gateway.api.keys import GATEWAY
from gateway.api.line_protocol import WrongLine
from gateway.api.line_protocol import samples as samples_of_lines
from gateway.api.queries import PushQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import Pushed
from gateway.api.tokens import Role
from gateway.api.values import FLAG_NAMES, loads, read
from gateway.api.windows import instant
from gateway.controls.devices import Push, PushedSample
from gateway.store.values import FIRST_TS, LAST_TS, value_bytes

_MAX_DETAILS: Final = 20
_PUSHES: Final = "push"
_RESTARTS: Final = ("starting", "stopped")
"""States of a session that is about to be, or to give way to the next."""
_STARTS_NS: Final = 3_000_000_000
_LOOK_S: Final = 0.02
_BRACKETS: Final = 5
_LEAST_BRACKETS: Final = 500_000
"""For each sample and in any case: `[[],[],...]` takes twenty times its length of memory."""
_FIELDS: Final = frozenset({"tag", "ts", "value", "status", "type", "flags"})
_JSON: Final = ("application/json", "")
_NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_LINES: Final = ("text/plain",)
"""InfluxDB line protocol, as Telegraf's outputs.http sends it."""
_PUSHED_SAMPLE: Final = {
    "type": "object",
    "required": ["tag", "value"],
    "properties": {
        "tag": {"type": "string", "minLength": 1, "maxLength": 1000},
        "ts": {
            "description": "Microseconds since 1970 UTC or ISO 8601 with an offset; without it: now.",
            "anyOf": [{"type": "integer", "format": "int64"}, {"type": "string"}],
        },
        "value": {
            "description": "null, boolean, number, text or an array of those.",
            "nullable": True,
            "anyOf": [
                {"type": "boolean"},
                {"type": "number"},
                {"type": "string"},
                {"type": "array", "items": {}},
            ],
        },
        "status": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0},
        "type": {"type": "string", "enum": ["float", "bytes", "mixed"]},
        "flags": {
            "description": "Taken so that an answer of GET can be sent; the gateway makes its own.",
            "type": "array",
            "items": {"type": "string", "enum": sorted(FLAG_NAMES)},
        },
    },
    "additionalProperties": False,
}
_LIST: Final = {"type": "array", "items": _PUSHED_SAMPLE}
_BODY: Final = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    _LIST,
                    {
                        "type": "object",
                        "required": ["samples"],
                        "properties": {"samples": _LIST},
                        "additionalProperties": False,
                    },
                ]
            }
        },
        "application/x-ndjson": {"schema": {"type": "string"}},
        "text/plain": {"schema": {"type": "string", "description": "InfluxDB line protocol."}},
    },
}


@endpoint(
    "POST",
    "/v1/devices/{id}/samples",
    role=Role.OPERATE,
    tag="samples",
    summary="Send samples to a device that takes them; answered after they are committed",
    description='A list of samples, `{"samples": [...]}`, NDJSON, or InfluxDB line protocol. All are stored '
    "or none; those with a time of their own may be sent again after any failure: what is there counts as "
    "`same`.",
    query=PushQuery,
    body=_BODY,
    answers={200: Pushed},
    fails=(408, 409, 413, 415, 422, 503),
)
async def push_samples(request: web.Request) -> web.Response:
    device = device_of(request)
    push = await push_of(request.app[GATEWAY], device.id)
    if push is None:
        if device.kind != _PUSHES:
            raise ApiError(409, f'Device "{device.id}" takes no samples: its kind is {device.kind}.')
        raise ApiError(
            503,
            f'Device "{device.id}" takes no samples now ({device.health.state}); send them again.',
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    parse = _parser(request, push)
    async with room_for_body(request):
        samples = await made_of(await read_body(request), parse)
        try:
            receipt = await push.push(samples)
        except ValueError as error:
            raise ApiError(422, f"Nothing was stored; {error}.") from None
    return json_answer({"added": receipt.added, "same": receipt.same, "moved": receipt.moved})


async def push_of(gateway: GatewayView, device: str) -> Push | None:
    """Return what takes samples for a device, where it has any now or within the moment that a start takes.

    Who pushes need not know that the gateway was just started, or its configuration edited.
    """
    until_ns = gateway.clock.mono_ns() + _STARTS_NS
    while (session := gateway.devices.get(device)) is not None and session.kind == _PUSHES:
        push = session.control(Push)
        if push is not None or session.health.state not in _RESTARTS or gateway.clock.mono_ns() > until_ns:
            return push
        await gateway.clock.sleep(_LOOK_S)
    return None


def _parser(request: web.Request, push: Push) -> Callable[[bytes], list[PushedSample]]:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    precision = request["querystring"].get("precision")
    if kind in _LINES:
        return functools.partial(_lines, push.most + 1, precision=precision or "ns", own=push.stamp())
    if precision is not None:
        raise wrong_parameter("precision", "goes with line protocol (text/plain) alone")
    if kind not in (*_JSON, *_NDJSON):
        raise ApiError(
            415,
            "Samples are sent as application/json, application/x-ndjson or, in line protocol, text/plain.",
        )
    return functools.partial(_ndjson if kind in _NDJSON else _json, push.most + 1)


def _json(most: int, body: bytes) -> list[PushedSample]:
    if sum(map(body.count, b"[{")) > max(_LEAST_BRACKETS, _BRACKETS * most):
        raise ApiError(413, "The request body holds more lists and objects than the samples of one request.")
    try:
        document = loads(body)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if isinstance(document, dict) and document.keys() == {"samples"}:
        document = document["samples"]
    if not isinstance(document, list):
        raise ApiError(422, 'The body is neither a list of samples nor {"samples": [...]}.')
    return _all(islice(enumerate(document), most))


def _ndjson(most: int, body: bytes) -> list[PushedSample]:
    def parsed() -> Iterator[tuple[int, Any]]:
        index = 0
        for number, line in enumerate(BytesIO(body), 1):
            if line.strip():
                try:
                    yield index, loads(line)
                except ValueError as error:
                    raise ApiError(400, f"Line {number} is not JSON: {error}.") from None
                index += 1

    return _all(islice(parsed(), most))


def _lines(most: int, body: bytes, precision: str, own: tuple[int, int]) -> list[PushedSample]:
    try:
        return list(islice(samples_of_lines(body.decode("utf-8"), precision, own), most))
    except UnicodeDecodeError as error:
        raise ApiError(400, f"The body is not UTF-8 at byte {error.start}.") from None
    except WrongLine as error:
        raise ApiError(400, f"Nothing was stored; {error}.") from None


def _all(entries: Iterator[tuple[int, Any]]) -> list[PushedSample]:
    """Return every sample, or fail naming each wrong field by index: nothing is stored then."""
    samples, details = [], []
    for index, entry in entries:
        try:
            samples.append(_sample(entry))
        except _Wrong as wrong:
            details.append({"index": index, "field": wrong.field, "message": wrong.message})
            if len(details) >= _MAX_DETAILS:
                break
    if details:
        first = details[0]
        where = f"sample {first['index']}, {first['field'] or 'the whole'}: {first['message']}"
        raise ApiError(422, f"Nothing was stored; {where}.", details=details)
    return samples


class _Wrong(ValueError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def _sample(entry: Any) -> PushedSample:
    if not isinstance(entry, Mapping):
        raise _Wrong("", "is not an object")
    for name in entry:
        if name not in _FIELDS:
            raise _Wrong(name, "is not a field of a sample")
    if "value" not in entry:
        raise _Wrong("value", "is missing")
    kind = entry.get("type")
    if kind is not None and not isinstance(kind, str):
        raise _Wrong("type", "is not a text")
    try:
        value = read(entry["value"], kind)
        value_bytes(value)
    except ValueError as error:
        raise _Wrong("type" if str(error).startswith("type ") else "value", str(error)) from None
    _check_flags(entry.get("flags", []))
    return PushedSample(_tag(entry), value, _ts(entry.get("ts")), _status(entry.get("status", 0)))


def _tag(entry: Mapping[str, Any]) -> str:
    tag = entry.get("tag")
    if not isinstance(tag, str) or not tag:
        raise _Wrong("tag", "is missing" if tag is None else "is not a text with at least one character")
    if len(tag) > 1000:
        raise _Wrong("tag", "is longer than 1000 characters")
    if not tag.isprintable():
        raise _Wrong("tag", "has characters that cannot be shown")
    return tag


def _ts(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = instant(value)
        except ValueError as error:
            raise _Wrong("ts", str(error)) from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Wrong("ts", "is neither an integer of microseconds nor a text with ISO 8601")
    if not FIRST_TS <= value <= LAST_TS:
        raise _Wrong("ts", "is more than 140 000 years from 1970: it counts microseconds")
    return value


def _status(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise _Wrong("status", "is not a StatusCode: an integer from 0 to 4294967295")
    return value


def _check_flags(value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(flag, str) and flag in FLAG_NAMES for flag in value):
        raise _Wrong("flags", f"is not a list of {', '.join(sorted(FLAG_NAMES))}")


HANDLERS = (push_samples,)
