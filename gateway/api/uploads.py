"""`/v1/uploads`: backlog, lag and last error of each upload, and what its target refused for good."""

import logging
from typing import Any

from aiohttp import web

from gateway.api.answers import found, json_answer
from gateway.api.contracts import UploadView
from gateway.api.errors import ApiError, wrong_parameter
from gateway.api.keys import GATEWAY
from gateway.api.queries import IdsQuery, NoQuery, QuarantineQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import Count, QuarantineList, UploadList
from gateway.api.tokens import Role
from gateway.api.values import sample_row
from gateway.model import Quarantined, UploadProblem

_log = logging.getLogger(__name__)


def upload_row(name: str, upload: UploadView) -> dict[str, Any]:
    return {
        "id": name,
        "kind": upload.kind,
        "url": upload.url,
        "insecure": upload.insecure,
        "health": upload.health,
        "status": upload.status(),
    }


@endpoint(
    "GET",
    "/v1/uploads",
    role=Role.READ,
    tag="uploads",
    summary="All uploads and how far they are",
    query=NoQuery,
    answers={200: UploadList},
)
async def list_uploads(request: web.Request) -> web.Response:
    uploads = request.app[GATEWAY].uploads
    return json_answer({"uploads": [upload_row(name, upload) for name, upload in uploads.items()]})


@endpoint(
    "GET",
    "/v1/uploads/{id}/quarantine",
    role=Role.READ,
    tag="uploads",
    summary="Samples that the target refused for good, newest first",
    query=QuarantineQuery,
    answers={200: QuarantineList},
    fails=(503,),
)
async def list_quarantine(request: web.Request) -> web.Response:
    query = request["querystring"]
    entries = await _upload_of(request).quarantine(before_id=query.get("cursor"), limit=query["limit"])
    following = entries[-1].id if len(entries) == query["limit"] else None
    return json_answer({"quarantine": [_entry_row(entry) for entry in entries], "next": following})


@endpoint(
    "POST",
    "/v1/uploads/{id}/quarantine",
    role=Role.OPERATE,
    tag="uploads",
    summary="Send refused samples again",
    query=IdsQuery,
    answers={200: Count},
    fails=(503,),
)
async def replay_quarantine(request: web.Request) -> web.Response:
    try:
        return json_answer({"count": await _upload_of(request).replay(_ids(request))})
    except UploadProblem as problem:
        raise ApiError(503, f"Nothing was lost; {problem}.", headers={"Retry-After": "10"}) from None


@endpoint(
    "DELETE",
    "/v1/uploads/{id}/quarantine",
    role=Role.ADMIN,
    tag="uploads",
    summary="Forget refused samples",
    query=IdsQuery,
    answers={200: Count},
    fails=(503,),
)
async def discard_quarantine(request: web.Request) -> web.Response:
    count = await _upload_of(request).discard(_ids(request))
    name = request["principal"].name
    _log.info('upload %s: "%s" let %d refused samples be forgotten', request.match_info["id"], name, count)
    return json_answer({"count": count})


def _upload_of(request: web.Request) -> UploadView:
    upload: UploadView = found("upload", request.match_info["id"], request.app[GATEWAY].uploads)
    return upload


def _ids(request: web.Request) -> list[int] | None:
    text = request["querystring"].get("ids")
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise wrong_parameter("ids", "is not a comma-separated list of entry ids")
    return [int(part) for part in parts]


def _entry_row(entry: Quarantined) -> dict[str, Any]:
    return {
        "id": entry.id,
        "device": entry.device,
        "sample": sample_row(entry.tag, entry.sample),
        "reason": entry.reason,
        "at_us": entry.at_us,
    }


HANDLERS = (list_uploads, list_quarantine, replay_quarantine, discard_quarantine)
