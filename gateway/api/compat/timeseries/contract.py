"""timeseries-api's operations: `/series`, `/series/{id}`, `/point/{id}`, `/points/count`.

Its statuses and shapes; where it answered 500 to a client's mistake, a 4xx. Whoever made a series is the only
one who writes to it or deletes it or a point of it.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.auth import FailedLogins
from gateway.api.bodies import read_json
from gateway.api.body_room import BODY_ROOM, BodyRoom
from gateway.api.compat.timeseries.answers import Form, answer, answer_list, failures
from gateway.api.compat.timeseries.fields import flat, nested
from gateway.api.compat.timeseries.points import Points
from gateway.api.compat.timeseries.series import Series, SeriesFile, TooManySeries
from gateway.api.compat.timeseries.users import User, Users
from gateway.api.contracts import GatewayView
from gateway.api.errors import ApiError
from gateway.api.settings import POINTS_DEVICE
from gateway.local_time import instant, local_iso
from gateway.model import Value

MAX_BODY_BYTES: Final = 64 * 1024
_LONGEST_TEXT: Final = 1000
_SLICE: Final = 500
_WINDOW_US: Final = 2 * 86_400_000_000
_REQUIRED: Final = {"device_id": "Some kind of device ID", "device_desc": "Some kind of device ID"}


class Contract:
    """The handlers."""

    def __init__(self, gateway: GatewayView, users: Users, series: SeriesFile, points: Points) -> None:
        self._gateway, self._users, self._series, self._points = gateway, users, series, points
        self._failed = FailedLogins(gateway.clock)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[failures], client_max_size=MAX_BODY_BYTES)
        app[BODY_ROOM] = BodyRoom()
        app.router.add_get("/series", self.list_series)
        app.router.add_get("/series/{id}", self.show_series)
        app.router.add_put("/series/{id}", self.put_series)
        app.router.add_delete("/series/{id}", self.delete_series)
        app.router.add_get("/points/count", self.count_points)
        app.router.add_get("/point/{id}", self.show_point)
        app.router.add_put("/point/{id}", self.put_point)
        app.router.add_delete("/point/{id}", self.delete_point)
        app.on_response_prepare.append(_headers)
        return app

    async def list_series(self, request: web.Request) -> web.Response:
        form, series = Form(request), list(self._series)
        counts = await self._points.counts(series)
        rows = {str(each.id): self._row(each, count) for each, count in zip(series, counts, strict=True)}
        return answer(form, rows)

    def _row(self, series: Series, count: int) -> dict[str, Any]:
        return {
            "id": series.id,
            "desc": series.desc,
            "device_desc": series.device_desc,
            "device_id": series.device_id,
            "timestamp": local_iso(series.created_us),
            "user": self._users.name_of(series.owner),
            "count": count,
        }

    async def show_series(self, request: web.Request) -> web.StreamResponse:
        form, series = Form(request), self._asked_for(request)
        from_us, to_us = _window(request.query, self._gateway.clock.wall_us())
        return await answer_list(request, form, self._rows(series, from_us, to_us))

    async def _rows(self, series: Series, from_us: int, to_us: int) -> AsyncGenerator[list[dict[str, Any]]]:
        async with aclosing(self._points.within(series, from_us, to_us)) as slices:
            async for points in slices:
                for start in range(0, len(points), _SLICE):
                    yield [_point_row(series, *point) for point in points[start : start + _SLICE]]
                    await asyncio.sleep(0)  # the loop has other clients too

    async def put_series(self, request: web.Request) -> web.Response:
        document = await _document(request)
        user = self._user(request, document)
        if request.match_info["id"] != "new":
            raise ApiError(404, "A series is made by PUT /series/new; nothing else is put.")
        texts = _series_texts(document)
        try:
            made = await self._series.add(
                user.id, self._device_of(user), **texts, created_us=self._gateway.clock.wall_us()
            )
        except TooManySeries as error:
            raise ApiError(409, f"No series was made: {error}.") from None
        return json_answer(made.id, 201)

    def _device_of(self, user: User) -> str:
        """Return the push device that is called as the user is, or the one for all others."""
        device = self._gateway.devices.get(user.name)
        return device.id if device is not None and device.kind == "push" else POINTS_DEVICE

    async def delete_series(self, request: web.Request) -> web.Response:
        user = self._user(request, await _document(request, may_be_missing=True))
        number = _number(request)
        series = None if number is None else self._series.get(number)
        if series is not None:
            _check_owner(series, user)
            await self._points.delete(series, user.name)
            await self._series.remove(series.id)
            await self._points.delete(series, user.name)  # a point that was under way meanwhile
            self._points.deleted(series)
        return web.Response(status=204)

    async def count_points(self, request: web.Request) -> web.Response:
        form = Form(request)
        return answer(form, sum(await self._points.counts(list(self._series))))

    async def show_point(self, request: web.Request) -> web.Response:
        form, number = Form(request), _number(request)
        found = None if number is None else await self._points.at(list(self._series), number)
        if found is None:
            raise ApiError(404, f"Point {_shown(request)} doesn't exist.")
        series, point = found
        return answer(form, _point_row(series, *point))

    async def put_point(self, request: web.Request) -> web.Response:
        document = await _document(request)
        user = self._user(request, document)
        if request.match_info["id"] != "new":
            raise ApiError(404, "A point is made by PUT /point/new; nothing else is put.")
        series = self._series_of(document)
        _check_owner(series, user)
        return json_answer(await self._points.put(series, _fields(document)), 201)

    def _series_of(self, document: Mapping[str, Any]) -> Series:
        number = document.get("series_id")
        if isinstance(number, str) and _is_number(number):
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int):
            raise _wrong(
                "series_id", "The id of a series" + (" is missing" if number is None else ": a number")
            )
        series = self._series.get(number)
        if series is None:
            raise ApiError(404, f"Series {number} not found.")
        return series

    async def delete_point(self, request: web.Request) -> web.Response:
        user = self._user(request, await _document(request, may_be_missing=True))
        number = _number(request)
        found = None if number is None else await self._points.at(list(self._series), number)
        if found is not None:
            series, (ts, _) = found
            _check_owner(series, user)
            if await self._points.delete(series, user.name, ts, ts):
                self._points.deleted(series, 1)
        return web.Response(status=204)

    def _asked_for(self, request: web.Request) -> Series:
        number = _number(request)
        series = None if number is None else self._series.get(number)
        if series is None:
            raise ApiError(404, f"Series {_shown(request)} doesn't exist.")
        return series

    def _user(self, request: web.Request, document: Mapping[str, Any]) -> User:
        """Return whose token came in the body, or as bearer. ApiError 403; 429 after too many wrong ones."""
        token = document.get("token")
        if token is None:
            scheme, _, text = request.headers.get("Authorization", "").partition(" ")
            token = text.strip() if scheme.lower() == "bearer" else None
        if token is None:
            raise ApiError(403, "Authentication token is required for access.")
        user = self._users.find(token) if isinstance(token, str) else None
        if user is None:
            self._failed.count(request.remote or "")
            raise ApiError(403, "The token is not one of a user.")
        return user


def _check_owner(series: Series, user: User) -> None:
    if series.owner != user.id:
        raise ApiError(403, f"Permission denied: series {series.id} is not of {user.name}.")


async def _document(request: web.Request, *, may_be_missing: bool = False) -> Mapping[str, Any]:
    """Return the body's JSON object; where it may be missing, {} for none."""
    if may_be_missing and not request.can_read_body:
        return {}
    kind = request.content_type.lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(415, "The body is sent as application/json.")
    try:
        document = await read_json(request)
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES // 1024} KiB.") from None
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise ApiError(400, "The body is not a JSON object.")
    return document


def _series_texts(document: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: _text(document.get(name)) for name in (*_REQUIRED, "desc")}
    wrong = {name: help_ for name, help_ in _REQUIRED.items() if texts[name] is None}
    wrong |= {
        name: f"A text of at most {_LONGEST_TEXT} characters"
        for name, text in texts.items()
        if (text is None and document.get(name) is not None) or len(text or "") > _LONGEST_TEXT
    }
    if wrong:
        raise ApiError(
            400,
            "A field is missing or wrong.",
            details=[{"field": name, "message": message} for name, message in wrong.items()],
        )
    return texts


def _text(value: Any) -> str | None:
    """Return a text; a number becomes one, as it did in timeseries-api. None: it is neither."""
    return str(value) if isinstance(value, str | int | float) else None


def _fields(document: Mapping[str, Any]) -> dict[str, Value]:
    fields = document.get("fields")
    try:
        return flat(fields if isinstance(fields, dict) else {})
    except ValueError as error:
        raise _wrong("fields", str(error)) from None


def _wrong(field: str, message: str) -> ApiError:
    return ApiError(400, f"{field}: {message}.", details=[{"field": field, "message": message}])


def _number(request: web.Request) -> int | None:
    text = request.match_info["id"]
    return int(text) if _is_number(text) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _shown(request: web.Request) -> str:
    return request.match_info["id"][:40]


def _point_row(series: Series, ts: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": ts, "series_id": series.id, "timestamp": local_iso(ts), "fields": nested(fields)}


def _window(query: Mapping[str, str], now_us: int) -> tuple[int, int]:
    """Return the first and last time; the last two days where none are given, or what is no date."""
    to_us = _instant(query.get("to", ""))
    to_us = now_us if to_us is None else to_us
    from_us = _instant(query.get("from", ""))
    return to_us - _WINDOW_US if from_us is None else from_us, to_us


def _instant(text: str) -> int | None:
    try:
        return instant(text)
    except ValueError:
        return None


async def _headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Say to every browser: no guessing of types, no caching. Scripts of other sites may load it: JSONP."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = "edge-gateway"
