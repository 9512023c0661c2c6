"""Answers in timeseries-api's shapes: JSON, JSONP, `{"message": ...}` for a failure."""

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

import orjson
from aiohttp import web

from gateway.api.answers import Stream, stream
from gateway.api.errors import ApiError, Handler, errors
from gateway.api.values import dumps

_PIECE_BYTES: Final = 256 * 1024
_CALLBACK: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*(\.[A-Za-z_$][A-Za-z0-9_$]*)*", re.ASCII)
_LONGEST_CALLBACK: Final = 200


class Form:
    """JSON, or a script that hands it to a function (JSONP)."""

    def __init__(self, request: web.Request) -> None:
        """ApiError 400 where the callback is not the name of a function."""
        callback = request.query.get("callback", "")
        if callback and (len(callback) > _LONGEST_CALLBACK or not _CALLBACK.fullmatch(callback)):
            raise ApiError(
                400, "callback is not the name of a function: letters, digits, _, $ and dots between names."
            )
        self._script = bool(callback)
        self.content_type = "application/javascript" if callback else "application/json"
        self.charset = "utf-8" if callback else None
        self.head = f"{callback}(".encode() if callback else b""
        self.tail = b")" if callback else b""

    def text(self, value: Any) -> bytes:
        """Return JSON, without the two line ends of JavaScript that JSON takes for characters."""
        text = dumps(value)
        if self._script:
            text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        return text


def answer(form: Form, value: Any) -> web.Response:
    return _whole(form, form.head + form.text(value) + form.tail)


def _whole(form: Form, body: bytes) -> web.Response:
    return web.Response(body=body, content_type=form.content_type, charset=form.charset)


async def answer_list(
    request: web.Request, form: Form, slices: AsyncGenerator[list[dict[str, Any]]]
) -> web.StreamResponse:
    """Answer with a list: whole where it is short, for many a small client knows no chunks; else streamed."""
    waiting, between, out = bytearray(form.head + b"["), b"", None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(aclosing(slices))
        async for rows in slices:
            for row in rows:
                waiting += between + form.text(row)
                between = b","
            if len(waiting) >= _PIECE_BYTES:
                out = out or await _begun(stack, request, form)
                await out.write(bytes(waiting))
                waiting.clear()
        waiting += b"]" + form.tail
        if out is None:
            return _whole(form, bytes(waiting))
        await out.write(bytes(waiting))
        return out.response


async def _begun(stack: AsyncExitStack, request: web.Request, form: Form) -> Stream:
    return await stack.enter_async_context(stream(request, form.content_type))


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into `{"message": ...}`, of a wrong field `{"message": {FIELD: ...}}`."""
    response = await errors(request, handler)
    if response.status < 400 or not isinstance(response, web.Response):
        return response
    error = orjson.loads(response.body)["error"]  # type: ignore[arg-type]  # it is ours: bytes
    named = {each["field"]: each["message"] for each in error["details"]}
    headers = {name: response.headers[name] for name in ("Allow", "Retry-After") if name in response.headers}
    return web.Response(
        status=response.status,
        body=orjson.dumps({"message": named or error["message"]}),
        content_type="application/json",
        headers=headers,
    )
