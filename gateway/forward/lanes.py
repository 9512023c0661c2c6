"""The two lanes: the live head first, the backlog with what is left."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from gateway.forward import cuts
from gateway.forward.cuts import Limits, Span
from gateway.forward.gate import TURN_S, Gate
from gateway.forward.lane import Cut, Lane
from gateway.forward.upload import Upload
from gateway.store.outbox import Transaction

T = TypeVar("T")

_LOOK_S = 0.1
_NEARLY = 0.8
"""A unit is due a little early: waiting for one more commit would double the interval that was asked for."""
_BACKLOG_TIMES = 4
"""A backlog unit may be this much larger than a live one, where that is below 2 MiB."""
_BACKLOG_BYTES = 2 << 20
_APART_NS = 250_000_000
"""Between commits on behalf of the backlog."""


class LiveLane(Lane):
    """The head: the newest unit's worth, as soon as it is due."""

    name = "live"

    def __init__(self, upload: Upload, limits: Limits, gate: Gate, gather_s: float) -> None:
        super().__init__(upload, limits, gate)
        self._gather_s = gather_s
        self._cut_ns = self._clock.mono_ns() - int(gather_s * 1e9)
        self._head = -1
        self.quiet = asyncio.Event()
        """Set while nothing of the head waits for the target."""
        self.quiet.set()

    async def _due(self) -> None:
        """Wait for samples, and then for enough of them or for the time since the last unit.

        Asked for while samples wait for their commit, the ride that follows joins it and adds none.
        """
        seen = -1
        while True:
            state, aged = self._store.state(), self._aged()
            if aged and (state.pending_samples or state.newest_seq > self._head):
                return
            if not aged and state.newest_seq > seen:
                seen = state.newest_seq
                span = await self._store.read(lambda conn, newest=seen: self._waiting(conn, newest))  # type: ignore[misc]
                if span is not None and self._enough(span):
                    return
            self.turn()
            await self._clock.sleep(min(_LOOK_S, self._gather_s))

    def _aged(self) -> bool:
        return self._clock.mono_ns() - self._cut_ns >= self._gather_s * _NEARLY * 1e9

    def _enough(self, span: Span) -> bool:
        return span.bytes >= self._limits.bytes * _NEARLY

    def _waiting(self, conn: sqlite3.Connection, newest_seq: int) -> Span | None:
        return cuts.live(conn, self._upload.upload, newest_seq, self._limits)

    def _next(self, conn: sqlite3.Connection, newest_seq: int) -> Span | None:
        span = self._waiting(conn, newest_seq)
        return span if span is not None and (self._aged() or self._enough(span)) else None

    def _looked(self, cut: Cut) -> None:
        if cut.row is not None:
            self._cut_ns = self._clock.mono_ns()
        if cut.row is not None or self._aged():
            self._head = cut.newest_seq

    async def _may_send(self) -> None:
        self.quiet.clear()
        await super()._may_send()

    def _rest(self) -> None:
        self.quiet.set()


class BacklogLane(Lane):
    """What is older than the head, oldest first, while the head has nothing waiting."""

    name = "backlog"

    def __init__(self, upload: Upload, limits: Limits, gate: Gate, live: LiveLane) -> None:
        most = max(limits.bytes, min(limits.bytes * _BACKLOG_TIMES, _BACKLOG_BYTES))
        super().__init__(upload, replace(limits, bytes=most), gate)
        self._live = live
        self._rode_ns = self._clock.mono_ns()

    async def _due(self) -> None:
        while True:
            newest_seq = self._store.state().newest_seq
            if await self._store.read(lambda conn, newest=newest_seq: self._next(conn, newest)):  # type: ignore[misc]
                return
            self.turn()
            await self._clock.sleep(1.0)

    async def ride(self, job: Callable[[Transaction], T]) -> T:
        """Do not wait for a tick far away: a unit an interval would bound the drain. It costs some flash."""
        left_s = (self._rode_ns + _APART_NS - self._clock.mono_ns()) / 1e9
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self._store.hurry)
        try:
            return await super().ride(job)
        finally:
            timer.cancel()
            self._rode_ns = self._clock.mono_ns()

    def _next(self, conn: sqlite3.Connection, newest_seq: int) -> Span | None:
        return cuts.backlog(conn, self._upload.upload, newest_seq, self._limits)

    async def _may_send(self) -> None:
        while True:
            await super()._may_send()
            if self._live.quiet.is_set():
                return
            try:
                async with asyncio.timeout(TURN_S):
                    await self._live.quiet.wait()
            except TimeoutError:
                self.turn()
