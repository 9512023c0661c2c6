"""`DELETE /v1/devices/{id}/samples` and `/v1/deletions`: samples deleted on request, and who did it."""

import asyncio
import logging
from typing import Any

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.devices import device_of
from gateway.api.errors import ApiError, wrong_parameter
from gateway.api.keys import GATEWAY
from gateway.api.queries import DeleteQuery, DeletionsQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import DeletionAnswer, DeletionList
from gateway.api.tokens import Role
from gateway.api.windows import MAX_US, MIN_US
from gateway.store import Deletion, TooManyDeletions

_log = logging.getLogger(__name__)
COMMIT_S = 15
"""For the count, which takes up to 5 s, and the commit."""


@endpoint(
    "DELETE",
    "/v1/devices/{id}/samples",
    role=Role.ADMIN,
    tag="samples",
    summary="Delete samples of one tag; answered after the deletion is committed",
    description="One sample (`ts`), a window (`from`, `to`, or one of them), or the whole series "
    "(`all=true`). What is sent again afterwards is a new sample.",
    query=DeleteQuery,
    answers={200: DeletionAnswer},
    fails=(409, 503),
)
async def delete_samples(request: web.Request) -> web.Response:
    query, device = request["querystring"], device_of(request)
    from_us, to_us = _window(query)
    tag = query["tag"]
    if tag not in device.tags:
        details = [{"field": "tag", "message": tag}]
        raise ApiError(404, f'Device "{device.id}" has no tag "{tag}".', details=details)
    store, name = request.app[GATEWAY].store, request["principal"].name
    try:
        async with asyncio.timeout(COMMIT_S):
            made = await store.delete(device.tags[tag], name, from_us, to_us)
    except TimeoutError:
        sentence = (
            f"The deletion is not committed after {COMMIT_S} s; it may still be. It can be asked for again."
        )
        raise ApiError(503, sentence, headers={"Retry-After": str(COMMIT_S)}) from None
    except TooManyDeletions as problem:
        raise ApiError(409, f"Nothing was deleted: {problem}.") from None
    if made is None:
        raise ApiError(404, f'Tag "{tag}" of device "{device.id}" has no such sample.')
    _log.info('device %s: "%s" deleted of tag %s: %s', device.id, name, tag, _words(made))
    return json_answer(made)


@endpoint(
    "GET",
    "/v1/deletions",
    role=Role.READ,
    tag="history",
    summary="What was deleted on request and by whom, newest first",
    query=DeletionsQuery,
    answers={200: DeletionList},
    fails=(503,),
)
async def list_deletions(request: web.Request) -> web.Response:
    query = request["querystring"]
    made = await request.app[GATEWAY].store.deletions(
        device=query.get("device"), before_id=query.get("cursor"), limit=query["limit"]
    )
    following = made[-1].id if len(made) == query["limit"] else None
    return json_answer({"deletions": made, "next": following})


def _window(query: dict[str, Any]) -> tuple[int, int]:
    """Return the first and last time; exactly one way to say them is taken: nothing goes by forgetting."""
    one, window, whole = "ts_us" in query, "from_us" in query or "to_us" in query, query["whole"]
    if one + window + whole != 1:
        message = (
            "say what to delete: ts (one sample), from and to (a window), or all=true (the whole series)"
        )
        raise wrong_parameter("ts", message)
    if one:
        return query["ts_us"], query["ts_us"]
    from_us, to_us = query.get("from_us", MIN_US), query.get("to_us", MAX_US)
    if from_us > to_us:
        raise wrong_parameter("from", "lies after `to`")
    return from_us, to_us


def _words(made: Deletion) -> str:
    count = "an unknown number of" if made.count is None else made.count
    times = "all times" if made.from_us is None else f"{made.from_us} to {made.to_us}"
    return f"{count} samples, {times} (deletion {made.id})"


HANDLERS = (delete_samples, list_deletions)
