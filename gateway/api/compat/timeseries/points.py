"""Points of a series as samples of a device, and back."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from gateway.api.compat.timeseries.series import Series
from gateway.api.contracts import GatewayView
from gateway.api.errors import RETRY_AFTER_S, ApiError
from gateway.api.push import push_of
from gateway.api.values import carry
from gateway.controls.devices import Push, PushedSample
from gateway.model import Batch, Value
from gateway.store import Deletion, TooManyDeletions
from gateway.store.tombstones import FIRST_US, LAST_US

Point: TypeAlias = tuple[int, dict[str, Any]]
"""Its time, which is its id too, and its fields as JSON carries them."""
COMMIT_S: Final = 15
_FLUSH_S: Final = 2
_BURST_US: Final = 1_000_000
_COUNT_NS: Final = 3_600_000_000_000
_TAG: Final = re.compile(r"([0-9]{1,15})/(.*)", re.ASCII | re.DOTALL)


@dataclass(slots=True)
class _Tally:
    """How many points a series has: up to `until_us` counted in the store, later ones as they came."""

    until_us: int
    looked_ns: int
    points: int = 0
    oldest_us: int | None = None
    """The oldest of them when it was looked for last."""


class Points:
    """The points of all series. A point is one microsecond in which fields of its series have samples."""

    def __init__(self, gateway: GatewayView) -> None:
        self._gateway, self._store = gateway, gateway.store
        self._last_us = 0
        self._tallies: dict[int, _Tally] = {}
        self._counted: dict[int, _Tally] = {}
        """Those being made: they count only once they are whole."""
        self._counting = asyncio.Lock()

    def first_free_id(self) -> int:
        """Return the least id of a series under which no sample stands, whatever the file of series says."""
        tags = (tag for device in self._gateway.devices.values() for tag in device.tags)
        return max((int(found[1]) for tag in tags if (found := _TAG.fullmatch(tag))), default=0) + 1

    async def put(self, series: Series, fields: Mapping[str, Value]) -> int:
        """Store a point of now; return its id after COMMIT."""
        push = await push_of(self._gateway, series.device)
        if push is None:
            raise ApiError(
                503,
                f'Device "{series.device}" of series {series.id} takes no points now: it is not configured '
                "or does not run.",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        ts, flags = self._stamp(push)
        samples = [PushedSample(f"{series.id}/{name}", value, ts, 0, flags) for name, value in fields.items()]
        try:
            await push.push(samples)
        except ValueError as error:
            raise ApiError(400, f"Nothing was stored; {error}.") from None
        self._add(series.id, ts, 1)
        return ts

    def _stamp(self, push: Push) -> tuple[int, int]:
        """Return a time that no other point has: it is the point's id."""
        ts, flags = push.stamp()
        if self._last_us - _BURST_US < ts <= self._last_us:
            ts = self._last_us + 1
        self._last_us = ts
        return ts, flags

    async def within(self, series: Series, from_us: int, to_us: int) -> AsyncGenerator[list[Point]]:
        """Yield the points of a window (ends included) in order of time, some at a time."""
        tags = self._tags(series)
        if not tags:
            return
        at, fields = LAST_US, dict[str, Any]()
        batches: AsyncIterator[Batch] = self._store.samples(list(tags), from_us, to_us)
        async for batch in batches:
            points = []
            for number, ts, value in zip(batch.series, batch.ts, batch.values, strict=True):
                if ts != at and fields:
                    points.append((at, fields))
                    fields = {}
                at = ts
                fields[tags[number]] = carry(value)[0]
            yield points
        if fields:
            yield [(at, fields)]

    async def at(self, among: Sequence[Series], point_id: int) -> tuple[Series, Point] | None:
        """Return the point of that id and its series."""
        places = {number: (each, field) for each in among for number, field in self._tags(each).items()}
        if not places:
            return None
        found: dict[str, Any] = {}
        of: Series | None = None
        async for batch in self._store.samples(list(places), point_id, point_id):
            for number, value in zip(batch.series, batch.values, strict=True):
                each, field = places[number]
                of = of or each
                if each is of:
                    found[field] = carry(value)[0]
        return None if of is None else (of, (point_id, found))

    async def delete(self, series: Series, by: str, from_us: int = FIRST_US, to_us: int = LAST_US) -> bool:
        """Delete the points of a window, or all; returns after COMMIT whether there were any."""
        deleting = (self._store.delete(number, by, from_us, to_us) for number in self._tags(series))
        try:
            async with asyncio.timeout(COMMIT_S):
                made = await asyncio.gather(*deleting, return_exceptions=True)
        except TimeoutError:
            sentence = f"The deletion is not committed after {COMMIT_S} s; it may still be. Ask for it again."
            raise ApiError(503, sentence, headers={"Retry-After": str(COMMIT_S)}) from None
        for each in made:
            if isinstance(each, TooManyDeletions):
                raise ApiError(409, f"Not everything was deleted: {each}.")
            if isinstance(each, BaseException):
                raise each
        return any(isinstance(each, Deletion) for each in made)

    def deleted(self, series: Series, points: int | None = None) -> None:
        """Take note that points are gone; None: all."""
        for tallies in (self._tallies, self._counted):
            if points is None:
                tallies.pop(series.id, None)
            elif (tally := tallies.get(series.id)) is not None:
                tally.points -= points

    async def counts(self, wanted: Sequence[Series]) -> list[int]:
        """Return how many points each series has. What retention took is noticed within an hour."""
        async with self._counting:
            now_ns = self._gateway.clock.mono_ns()
            stale = [each for each in wanted if not await self._holds(each, now_ns)]
            if stale:
                await self._count(stale, now_ns)
        return [self._tallies[each.id].points if each.id in self._tallies else 0 for each in wanted]

    async def _holds(self, series: Series, now_ns: int) -> bool:
        """Say whether a count still does. What retention takes is the oldest: where that is there, all is."""
        tally = self._tallies.get(series.id)
        if tally is None:
            return False
        if now_ns - tally.looked_ns >= _COUNT_NS:
            if await self._oldest_us(series) != tally.oldest_us:
                return False
            tally.looked_ns = now_ns
        return True

    async def _oldest_us(self, series: Series) -> int | None:
        async with contextlib.aclosing(self.within(series, FIRST_US, LAST_US)) as batches:
            async for points in batches:
                if points:
                    return points[0][0]
        return None

    async def _count(self, stale: Sequence[Series], now_ns: int) -> None:
        until_us = max(self._last_us, self._store.newest_own_us)
        self._counted = {series.id: _Tally(until_us, now_ns) for series in stale}
        try:
            with contextlib.suppress(TimeoutError):  # a disk that refuses: what waits for it is not counted
                async with asyncio.timeout(_FLUSH_S):
                    await self._store.flush()
            for series in stale:
                tally = self._counted.get(series.id) or _Tally(until_us, now_ns)
                async for points in self.within(series, FIRST_US, until_us):
                    tally.points += len(points)
                tally.oldest_us = await self._oldest_us(series)
            self._tallies.update(self._counted)
        finally:
            self._counted = {}

    def _add(self, series_id: int, ts: int, points: int) -> None:
        for tallies in (self._tallies, self._counted):
            tally = tallies.get(series_id)
            if tally is not None and ts > tally.until_us:
                tally.points += points

    def _tags(self, series: Series) -> dict[int, str]:
        """Return the store's series of each field."""
        prefix = f"{series.id}/"
        tags = self._store.series_of(series.device)
        return {number: tag[len(prefix) :] for tag, number in tags.items() if tag.startswith(prefix)}
