"""`GET /v1/devices/{id}/samples`: committed samples of a window, or buckets of them, streamed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web

from gateway.api.answers import stream
from gateway.api.contracts import DeviceView
from gateway.api.devices import device_of
from gateway.api.errors import ApiError, wrong_parameter
from gateway.api.formats import TYPES, Format, format_of, negotiated
from gateway.api.keys import GATEWAY
from gateway.api.queries import SamplesQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import SampleList
from gateway.api.tokens import Role
from gateway.api.values import Row, row
from gateway.api.windows import MAX_US, MIN_US, cursor_of, cursor_text
from gateway.model import Batch
from gateway.store import Store

T = TypeVar("T")

JSON_LIMIT: Final = 10_000
MAX_BUCKETS: Final = 20_000
_DEFAULT_BUCKETS: Final = 100
_SLICE: Final = 1000
_PIECE_BYTES: Final = 256 * 1024
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

    async def batches(self, store: Store) -> AsyncGenerator[Batch]:
        """Yield samples by the thousand. One more than asked for is read, to know whether to go on."""
        left = self.limit
        ask = None if left is None else left + 1
        last: tuple[int, int] | None = None
        async with aclosing(self._read(store, ask)) as batches:
            async for batch in batches:
                count = len(batch) if left is None else min(left, len(batch))
                if count:
                    yield batch if count == len(batch) else batch.part(0, count)
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

    def written(self, form: Format, batch: Batch, between: bytes) -> Iterator[bytes]:
        """Yield the bytes of samples: plain ones at once, others one by one."""
        whole = form.part(batch, self.tags)
        if whole is not None:
            return iter((between + whole,))
        rows = (
            row(self.tags[series], ts, value, status, flags)
            for series, ts, value, status, flags in zip(*batch.columns(), strict=True)
        )
        return _pieces(form, rows, between)


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
    content_type = negotiated(request.headers.get("Accept", "*/*"), query.get("format"))
    tags = _tags_of(device, query.get("tags"))
    if "bucket" in query:
        rows = await _buckets(request, tags, query)
        form = format_of(content_type, "buckets", _BUCKET_COLUMNS)
        return await _answer(request, content_type, form, _at_once(rows), _pieces, lambda: None)
    limit = query.get("limit", JSON_LIMIT if content_type == TYPES["json"] else None)
    window = _Window(
        tags, query.get("from_us", MIN_US), query.get("to_us", MAX_US), _cursor(query.get("cursor")), limit
    )
    batches = window.batches(request.app[GATEWAY].store)
    form = format_of(content_type, "samples", _SAMPLE_COLUMNS)
    return await _answer(request, content_type, form, batches, window.written, lambda: window.next)


async def _answer(
    request: web.Request,
    content_type: str,
    form: Format,
    slices: AsyncGenerator[T],
    written: Callable[[Format, T, bytes], Iterator[bytes]],
    following: Callable[[], str | None],
) -> web.StreamResponse:
    async with aclosing(slices):
        some = await anext(slices, None)  # what fails at once still has its status
        async with stream(request, content_type) as out:
            await out.write(form.head)
            between = b""
            while some is not None:
                for piece in written(form, some, between):
                    await out.write(piece)
                    await asyncio.sleep(0)
                between = form.between
                some = await anext(slices, None)
            await out.write(form.tail(following()))
            return out.response


def _pieces(form: Format, rows: Iterable[Row], between: bytes) -> Iterator[bytes]:
    """Yield the rows' bytes in pieces that a memory can hold, however long a text is."""
    piece = bytearray()
    for count, item in enumerate(rows, 1):
        piece += between
        piece += form.row(item)
        between = form.between
        if len(piece) >= _PIECE_BYTES or not count % _SLICE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


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
        raise wrong_parameter("cursor", str(error)) from None


async def _buckets(request: web.Request, tags: dict[int, str], query: dict[str, Any]) -> Iterator[Row]:
    width = query["bucket"]
    for field in ("cursor", "limit"):
        if field in query:
            raise wrong_parameter(
                field, "goes with samples, not with buckets: choose the window and the width"
            )
    to_us = query.get("to_us", request.app[GATEWAY].clock.wall_us())
    from_us = query.get("from_us", max(MIN_US, to_us - width * _DEFAULT_BUCKETS))
    if (to_us - from_us) // width * len(tags) > MAX_BUCKETS:
        raise wrong_parameter(
            "bucket", f"is too narrow: {len(tags)} tags would give more than {MAX_BUCKETS} of them"
        )
    found = await request.app[GATEWAY].store.buckets(list(tags), from_us, to_us, width)
    return (
        {"tag": tags[series], "ts": ts, "min": low, "max": high, "avg": mean, "count": count}
        for series, ts, low, high, mean, count in found
    )


async def _at_once(rows: Iterator[Row]) -> AsyncGenerator[Iterator[Row]]:
    yield rows


HANDLERS = (list_samples,)
