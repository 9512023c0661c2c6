"""ICOapi's `WS /measurement/stream`: points of one measurement, and a normal close at its end.

Better than there: each sample of each frame is a point, and a client that aborts or lags is alone with it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

from aiohttp import web

from gateway.api.auth import Principal
from gateway.api.compat.icoapi.units import SETTINGS, unit_of
from gateway.api.keys import GATEWAY
from gateway.api.sockets import TOO_SLOW, Closing, both_ways, hear_nothing, send, serve_socket, watched
from gateway.api.values import dumps
from gateway.measurements import Ended, IftValues, LiveFrames, LiveItem, Loss, Tap

_EMPTY: Final = {
    "timestamp": None,
    "first": None,
    "second": None,
    "third": None,
    "ift": None,
    "counter": None,
    "dataloss": None,
}
_MOST_IFT: Final = 20_000
"""Points of the one message with all IFT values: beyond, every second one goes, and again."""


class IftPoints:
    """IFT values of a whole measurement, thinned so that memory stays flat however long it lasts."""

    def __init__(self) -> None:
        self._ts: list[int] = []
        self._values: list[float] = []
        self._stride, self._seen = 1, 0

    def add(self, ts: Sequence[int], values: Sequence[float]) -> None:
        first = -self._seen % self._stride
        self._seen += len(ts)
        self._ts += ts[first :: self._stride]
        self._values += values[first :: self._stride]
        while len(self._ts) > _MOST_IFT:
            del self._ts[1::2], self._values[1::2]
            self._stride *= 2

    def row(self, start_us: int) -> dict[str, Any] | None:
        """Return the message's one point, None where there are no values."""
        if not self._ts:
            return None
        pairs = zip(self._ts, self._values, strict=True)
        points = [{"x": (ts - start_us) / 1e6, "y": value} for ts, value in pairs]
        return _EMPTY | {"ift": points, "counter": 1, "timestamp": 1}


async def stream(request: web.Request) -> web.StreamResponse:
    device = unit_of(request).id

    async def talk(socket: web.WebSocketResponse, principal: Principal, _: object) -> None:
        with request.app[GATEWAY].measurements.watch(device) as tap:
            writing = _write(request, socket, tap)
            await both_ways(hear_nothing(socket), writing, watched(request, principal))

    return await serve_socket(request, talk)


async def _write(request: web.Request, socket: web.WebSocketResponse, tap: Tap) -> None:
    pause_s, loop = 1 / request.app[SETTINGS].updates_per_s, asyncio.get_running_loop()
    waiting: list[dict[str, Any]] = []
    ift, name, start_us, next_s = IftPoints(), "", 0, loop.time()
    async for item in tap:
        if (
            item.measurement != name
        ):  # the end of the one before may be among what this client was too slow for
            ift, name, start_us = IftPoints(), item.measurement, 0
        if isinstance(item, LiveFrames) and item.missed:
            raise Closing(TOO_SLOW, "the client reads too slowly")  # there is no message that tells of a hole
        if not start_us and isinstance(item, LiveFrames):
            found = request.app[GATEWAY].measurements.find(item.measurement)
            # The first frame came with the acknowledgement, before the measurement was one.
            start_us = min(item.sample_ts[0], found.started_us if found is not None else item.ts[0])
        if isinstance(item, IftValues):
            ift.add(item.ts, item.values)
            continue
        waiting += _points(item, start_us)
        if loop.time() >= next_s or not isinstance(item, LiveFrames):
            next_s = loop.time() + pause_s
            if waiting:
                await send(socket, dumps(waiting).decode())
                waiting = []
        if isinstance(item, Ended):
            await _end(socket, item, ift.row(start_us))
            return


def _points(item: LiveItem, start_us: int) -> Iterator[dict[str, Any]]:
    if isinstance(item, Loss):
        yield _EMPTY | {"dataloss": item.of_interval}
    elif isinstance(item, Ended):
        yield _EMPTY | {"dataloss": item.overall_loss}
    elif isinstance(item, LiveFrames):
        each = len(item.sample_ts) // max(1, len(item.ts))
        first, second, third = item.values
        for n, ts in enumerate(item.sample_ts):
            yield {
                "timestamp": (ts - start_us) / 1e6,
                "first": first[n] if first is not None else None,
                "second": second[n] if second is not None else None,
                "third": third[n] if third is not None else None,
                "ift": None,
                "counter": item.counters[n // each],
                "dataloss": None,
            }


async def _end(socket: web.WebSocketResponse, ended: Ended, ift: dict[str, Any] | None) -> None:
    if ift is not None:
        await send(socket, dumps([ift]).decode())
    if ended.reason:
        error = {"error": True, "type": "StreamingTimeoutError", "message": ended.reason}
        await send(socket, dumps(error).decode())
    await socket.close()


ROUTES = (("GET", "/measurement/stream", stream),)
