"""`GET /v1/devices/{id}/samples`: committed samples of a window, or buckets of them, streamed."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from gateway.api.answers import stream
from gateway.api.contracts import DeviceView
from gateway.api.devices import device_of
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.routing import endpoint
from gateway.api.schemas import SampleList, SamplesQuery
from gateway.api.tokens import Role
from gateway.api.values import Row, dumps, row
from gateway.api.windows import MAX_US, MIN_US, cursor_of, cursor_text
from gateway.model import Batch
from gateway.store import Store

JSON_LIMIT: Final = 10_000
MAX_BUCKETS: Final = 10_000
_DEFAULT_BUCKETS: Final = 500
_SLICE: Final = 1000
_TYPES: Final = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}
_SAMPLE_COLUMNS: Final = ("tag", "ts", "value", "status", "type", "flags")
_BUCKET_COLUMNS: Final = ("tag", "ts", "min", "max", "avg", "count")
_ANSWER: Final = {
    "description": "The samples in order of time, or the buckets.",
    "content": {
        "application/json": {"schema": SampleList},
        "application/x-ndjson": {"schema": {"type": "string"}},
        "text/csv": {"schema": {"type": "string"}},
    },
}


@dataclass(slots=True)
class _Window:
    """What was asked for, and after reading: where to go on."""

    tags: dict[int, str]
    from_us: int
    to_us: int
    after: tuple[int, int] | None
    limit: int | None
    next: str | None = None

    async def slices(self, store: Store) -> AsyncGenerator[list[Row]]:
        """Yield rows by the thousand. One sample more than asked for is read, to know whether to go on."""
        left = self.limit
        ask = None if left is None else left + 1
        last: tuple[int, int] | None = None
        async with aclosing(self._read(store, ask)) as batches:
            async for batch in batches:
                count = len(batch) if left is None else min(left, len(batch))
                for start in range(0, count, _SLICE):
                    yield self._rows(batch, start, min(start + _SLICE, count))
                if count:
                    last = batch.ts[count - 1], batch.series[count - 1]
                if left is not None:
                    if len(batch) > left and last is not None:
                        self.next = cursor_text(*last)
                        return
                    left -= count

    async def _read(self, store: Store, limit: int | None) -> AsyncGenerator[Batch]:
        async for batch in store.samples(
            list(self.tags), self.from_us, self.to_us, after=self.after, limit=limit
        ):
            yield batch

    def _rows(self, batch: Batch, start: int, end: int) -> list[Row]:
        columns = (column[start:end] for column in batch.columns())
        return [row(self.tags[series], *rest) for series, *rest in zip(*columns, strict=True)]


@endpoint(
    "GET",
    "/v1/devices/{id}/samples",
    role=Role.READ,
    tag="samples",
    summary="Committed samples of a window, in order of time",
    description="JSON, NDJSON or CSV. Without `from` and `to`: everything. Where `next` is not null, "
    "the same query with `cursor` set to it goes on. Where an answer fails half way, its connection is cut.",
    query=SamplesQuery,
    answers={200: _ANSWER},
    fails=(406, 503),
)
async def list_samples(request: web.Request) -> web.StreamResponse:
    query, device = request["querystring"], device_of(request)
    content_type = _negotiated(request, query.get("format"))
    tags = _tags_of(device, query.get("tags"))
    if "bucket" in query:
        rows = await _buckets(request, tags, query)
        return await _answer(request, content_type, "buckets", _BUCKET_COLUMNS, _sliced(rows), lambda: None)
    limit = query.get("limit", JSON_LIMIT if content_type == _TYPES["json"] else None)
    window = _Window(
        tags, query.get("from_us", MIN_US), query.get("to_us", MAX_US), _cursor(query.get("cursor")), limit
    )
    slices = window.slices(request.app[GATEWAY].store)
    return await _answer(request, content_type, "samples", _SAMPLE_COLUMNS, slices, lambda: window.next)


async def _answer(
    request: web.Request,
    content_type: str,
    name: str,
    columns: Sequence[str],
    slices: AsyncGenerator[list[Row]],
    following: Callable[[], str | None],
) -> web.StreamResponse:
    encode = _csv if content_type == _TYPES["csv"] else _lines
    async with aclosing(slices):
        nothing: list[Row] = []
        first = await anext(slices, nothing)  # what fails at once still has its status
        async with stream(request, content_type) as out:
            if content_type == _TYPES["json"]:
                await out.write(b'{"%s":[' % name.encode() + b",".join(map(dumps, first)))
                async for rows in slices:
                    await out.write(b"".join(b"," + dumps(item) for item in rows))
                    await asyncio.sleep(0)
                await out.write(b'],"next":' + orjson.dumps(following()) + b"}")
                return out.response
            if content_type == _TYPES["csv"]:
                await out.write(",".join(columns).encode() + b"\r\n")
            await out.write(encode(columns, first))
            async for rows in slices:
                await out.write(encode(columns, rows))
                await asyncio.sleep(0)
            if content_type == _TYPES["ndjson"] and following() is not None:
                await out.write(dumps({"next": following()}) + b"\n")
            return out.response


def _lines(_columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    return b"".join(dumps(item) + b"\n" for item in rows)


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    for item in rows:
        writer.writerow([_cell(item, column) for column in columns])
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(item: Row, column: str) -> Any:
    value = item.get(column)
    if column == "flags":
        return " ".join(value or ())
    if column == "type" and value is None and isinstance(item["value"], str):
        return "text"
    if value is None or isinstance(value, str):
        return value
    return dumps(value).decode()


def _negotiated(request: web.Request, asked: str | None) -> str:
    if asked is not None:
        return _TYPES[asked]
    accept = request.headers.get("Accept", "*/*")
    for item in sorted(accept.split(","), key=_quality, reverse=True):
        media = item.partition(";")[0].strip().lower()
        if _quality(item) > 0:
            for offered in _TYPES.values():
                if media in (offered, "*/*", f"{offered.partition('/')[0]}/*"):
                    return offered
    raise ApiError(406, "Samples come as application/json, application/x-ndjson or text/csv.")


def _quality(item: str) -> float:
    for parameter in item.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _tags_of(device: DeviceView, text: str | None) -> dict[int, str]:
    """Return series to tag of the tags asked for. A tag with a comma is asked for alone."""
    known = device.tags
    if text is None:
        return {series: tag for tag, series in known.items()}
    chosen = [text] if text in known else [part.strip() for part in text.split(",")]
    for tag in chosen:
        if tag not in known:
            raise ApiError(
                404, f'Device "{device.id}" has no tag "{tag}".', details=[{"field": "tags", "message": tag}]
            )
    return {known[tag]: tag for tag in chosen}


def _cursor(text: str | None) -> tuple[int, int] | None:
    try:
        return None if text is None else cursor_of(text)
    except ValueError as error:
        raise _invalid("cursor", str(error)) from None


def _invalid(field: str, message: str) -> ApiError:
    return ApiError(422, "A parameter is wrong; see details.", details=[{"field": field, "message": message}])


async def _buckets(request: web.Request, tags: dict[int, str], query: dict[str, Any]) -> list[Row]:
    width = query["bucket"]
    for field in ("cursor", "limit"):
        if field in query:
            raise _invalid(field, "goes with samples, not with buckets: choose the window and the width")
    to_us = query.get("to_us", request.app[GATEWAY].clock.wall_us())
    from_us = query.get("from_us", max(MIN_US, to_us - width * _DEFAULT_BUCKETS))
    if (to_us - from_us) // width > MAX_BUCKETS:
        raise _invalid("bucket", f"is too narrow: the window has more than {MAX_BUCKETS} of them")
    found = await request.app[GATEWAY].store.buckets(list(tags), from_us, to_us, width)
    return [
        {"tag": tags[series], "ts": ts, "min": low, "max": high, "avg": mean, "count": count}
        for series, ts, low, high, mean, count in found
    ]


async def _sliced(rows: list[Row]) -> AsyncGenerator[list[Row]]:
    for start in range(0, len(rows), _SLICE):
        yield rows[start : start + _SLICE]


HANDLERS = (list_samples,)
