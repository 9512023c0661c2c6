"""`/v1/runs` and `/v1/gaps`: what was done and what is missing, newest first."""

from typing import Any

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.keys import GATEWAY
from gateway.api.queries import GapsQuery, RunsQuery
from gateway.api.routing import endpoint
from gateway.api.schemas import GapList, RunList
from gateway.api.tokens import Role
from gateway.model import Gap


@endpoint(
    "GET",
    "/v1/runs",
    role=Role.READ,
    tag="history",
    summary="Runs of all devices, newest first",
    query=RunsQuery,
    answers={200: RunList},
    fails=(503,),
)
async def list_runs(request: web.Request) -> web.Response:
    query = request["querystring"]
    runs = await request.app[GATEWAY].store.runs(
        device=query.get("device"),
        status=query.get("status"),
        from_us=query.get("from_us"),
        to_us=query.get("to_us"),
        before_id=query.get("cursor"),
        limit=query["limit"],
    )
    following = runs[-1].id if len(runs) == query["limit"] else None
    return json_answer({"runs": runs, "next": following})


@endpoint(
    "GET",
    "/v1/gaps",
    role=Role.READ,
    tag="history",
    summary="Known holes of devices and uploads, newest first",
    query=GapsQuery,
    answers={200: GapList},
    fails=(503,),
)
async def list_gaps(request: web.Request) -> web.Response:
    query = request["querystring"]
    gaps = await request.app[GATEWAY].store.gaps(
        device=query.get("device"),
        upload=query.get("upload"),
        from_us=query.get("from_us"),
        to_us=query.get("to_us"),
        before_id=query.get("cursor"),
        limit=query["limit"],
    )
    following = gaps[-1][0] if len(gaps) == query["limit"] else None
    return json_answer({"gaps": [_gap_row(number, gap) for number, gap in gaps], "next": following})


def _gap_row(number: int, gap: Gap) -> dict[str, Any]:
    return {
        "id": number,
        "device": gap.device,
        "upload": gap.upload,
        "from_us": gap.from_us,
        "to_us": gap.to_us,
        "count": gap.count,
        "reason": gap.reason,
    }


HANDLERS = (list_runs, list_gaps)
