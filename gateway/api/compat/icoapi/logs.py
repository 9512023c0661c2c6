"""ICOapi's `/logs` and `/sensor`: those of `/v1`, but a line of the live log is a message."""

from aiohttp import web

from gateway.api import documents, logs
from gateway.api.answers import json_answer
from gateway.api.auth import Principal
from gateway.api.compat.icoapi.answers import WrongBody, missing_field, wrong
from gateway.api.errors import ApiError
from gateway.api.keys import GATEWAY
from gateway.api.sockets import both_ways, hear_nothing, send, serve_socket, watched
from gateway.api.tokens import Role
from gateway.logs.feed import Follower

_MOST_LINES = 20_000


def _may(request: web.Request) -> None:
    """Raise ApiError 403 for who may look on only: the log tells of everybody."""
    if request["principal"].role < Role.OPERATE:
        raise ApiError(403, "The log needs the role operate.")


async def list_logs(request: web.Request) -> web.Response:
    _may(request)
    return await logs.list_logs(request)


async def view(request: web.Request) -> web.Response:
    _may(request)
    file, limit = request.query.get("file"), request.query.get("limit", "0")
    if file is None:
        raise missing_field("query", "file")
    if not limit.isascii() or not limit.isdigit():
        raise WrongBody([wrong("int_parsing", ["query", "limit"], "It is no number of lines.", limit)])
    if not int(limit[:9]):
        return json_answer({"filename": file, "content": await logs.whole_log(request, file)})
    request["querystring"] = {"file": file, "limit": min(int(limit[:9]), _MOST_LINES)}
    return await logs.view_log(request)


async def download(request: web.Request) -> web.StreamResponse:
    _may(request)
    return await logs.download_log(request)


async def download_all(request: web.Request) -> web.Response:
    _may(request)
    return await logs.zip_logs(request)


async def stream(request: web.Request) -> web.StreamResponse:
    _may(request)
    feed = request.app[GATEWAY].logs
    if feed is None:
        raise ApiError(404, "This gateway keeps no log.")

    async def talk(socket: web.WebSocketResponse, principal: Principal, _: object) -> None:
        with feed.feed.followed() as follower:
            await both_ways(hear_nothing(socket), _write(socket, follower), watched(request, principal))

    return await serve_socket(request, talk)


async def _write(socket: web.WebSocketResponse, follower: Follower) -> None:
    async for heard in logs.followed(follower):
        if heard.skipped:
            await send(
                socket, f"{heard.skipped} lines are missing here: they came faster than they were read"
            )
        for line in heard.lines:
            await send(socket, line)


async def list_sensors(request: web.Request) -> web.Response:
    return await documents.list_sensors(request)


ROUTES = (
    ("GET", "/sensor", list_sensors),
    ("GET", "/logs", list_logs),
    ("GET", "/logs/view", view),
    ("GET", "/logs/download/{file}", download),
    ("GET", "/logs/all", download_all),
    ("GET", "/logs/stream", stream),
)
