"""Fetches from the server's history what did not arrive; what it cannot fetch becomes a gap record."""

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from asyncua import ua

from gateway.model import Batch, Flag, Hole, Link, Run
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.history import historic, pages
from gateway.protocols.opcua.items import Item, take
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.values import microseconds, reading

_log = logging.getLogger(__name__)

_NODES_AT_ONCE = 100
_TRIES = 4
_AGAIN_S = 1.0
_LOOK_S = 0.05
_INFO_BITS = 0x0FFF
"""Of a StatusCode: how a historian came by the value (Part 11, 6.4.3), which a live value does not tell."""
_MISSING = "opcua missing"
_BROKEN = "opcua broken fills"
_MOST_BROKEN = 3
"""Sessions in a row that may end while the history is read."""
_MOST_PATIENCE_S = 30.0
_AHEAD_US = 1_000_000
_SEAM = "its history does not meet the values before and after"
_NO_SOURCE_TIME = Flag.OWN_TIME | Flag.SERVER_TIME

Ends = tuple[int, int]
"""Source times of the last value before a hole and of the first one after it."""
_FIRST = itemgetter(1)


@dataclass(slots=True)
class _Loss:
    """What did not arrive: of which tags, and the gap record that it becomes."""

    items: Sequence[Item]
    from_us: int
    to_us: int
    reason: str
    holes: Mapping[str, Sequence[Ends]] | None = None
    """By tag, in order of time; None: one hole each, that ends with the tag's first value since."""


@dataclass(slots=True)
class _Fill:
    """One tag being filled: from the newest value that is known to the first one after the last hole."""

    scratch: Item
    """A copy that takes the old values, while `item` takes the live ones."""
    item: Item
    since: int
    holes: Sequence[Ends] = ()
    """Where the values around each are known; else it is one, up to the item's first value."""
    met: bool = False
    """The value before the hole was found in the history."""
    after: int = 0
    """Up to this time it is filled."""
    reached: int = 0
    """Newest time that the history had, at least `since`."""
    problem: str = ""

    def __post_init__(self) -> None:
        self.reached = self.since

    def wants(self, ts: int) -> bool:
        """Say whether a value of that time lies in a hole, and was not taken before."""
        if ts <= self.after:
            return False
        if not self.holes:
            return self.item.first is None or ts < self.item.first
        place = bisect_right(self.holes, ts, key=_FIRST)
        return place < len(self.holes) and ts > self.holes[place][0]

    def reach(self, ts: int) -> None:
        self.met = self.met or ts == self.since
        self.reached = max(self.reached, ts)

    def complete(self) -> bool:
        """Say whether the history met the known values at both ends, so that nothing can be missing."""
        first = self.holes[-1][1] if self.holes else self.item.first
        if first == self.since:
            return True  # nothing was written in between, perhaps for longer than the history is asked for
        return self.met and (first is None or self.reached >= first)


class Backfill:
    """The losses of one session, filled one after another."""

    def __init__(self, session: Session, settings: Settings, link: Link) -> None:
        self._session = session
        self._settings = settings
        self._link = link
        self.caught_up = asyncio.Event()
        """What the server could send again has come: what is missing now is missing."""
        self._uncovered: list[Item] = []
        self._ended = False
        self._losses: asyncio.Queue[_Loss] = asyncio.Queue()
        self._since: dict[str, int] = link.memory.setdefault(_MISSING, {})
        """By tag the time of the last value before what is missing; it outlives the session."""

    def begin(self, item: Item) -> None:
        """Note that values of a tag are missing after its last one, before the next one is taken."""
        if item.last is not None and item.last.ts is not None and not item.last.flags:
            self._since.setdefault(item.tag, item.last.ts)
        item.first = None

    def missed(self, items: Sequence[Item], from_us: int, reason: str) -> None:
        """Take a loss that nobody can send again; from then until now is its gap record."""
        for item in items:
            self.begin(item)
        self._lost(_Loss(list(items), from_us, self._link.clock.wall_us(), reason))

    def dropped(
        self,
        items: Sequence[Item],
        holes: Mapping[str, Sequence[Ends]],
        from_us: int,
        to_us: int,
        reason: str,
    ) -> None:
        """Take a loss between known values; what `holes` does not have cannot be filled.

        `from_us`, `to_us`: of its gap record.
        """
        self._lost(_Loss(list(items), from_us, to_us, reason, holes))

    def _lost(self, loss: _Loss) -> None:
        if self._ended:
            self._record(loss, "")
        else:
            self._losses.put_nowait(loss)

    def before(self, items: Sequence[Item]) -> None:
        """Note what may be missing of these tags from before this session; to be called before it brings any.

        A tag that never had a value misses nothing that we know of.
        """
        for item in items:
            newest = self._link.last(item.series)
            if newest is None:
                continue
            self._uncovered.append(item)
            if not newest.flags & _NO_SOURCE_TIME:
                self._since.setdefault(item.tag, newest.ts)

    async def run(self, hole: Hole | None) -> None:
        """Fill the hole before this session, then whatever is lost in it, for ever."""
        try:
            await self.caught_up.wait()
            if hole is not None:
                left = await self._left(self._uncovered)
                hole.close("" if left is None else f"{hole.reason}{left}")
            while True:
                await self._fill_or_record(await self._losses.get())
        finally:
            self._ended = True
            while not self._losses.empty():
                self._record(self._losses.get_nowait(), "")

    async def _fill_or_record(self, loss: _Loss) -> None:
        left: str | None = ""
        try:
            left = await self._left(loss.items, loss.holes)
        finally:
            self._record(loss, left)

    def _record(self, loss: _Loss, left: str | None) -> None:
        if left is not None:
            self._link.gap(loss.from_us, loss.to_us, f"{loss.reason}{left}")

    async def _left(
        self, items: Sequence[Item], holes: Mapping[str, Sequence[Ends]] | None = None
    ) -> str | None:
        """Fill these tags; return None where nothing is missing any more, else how much of it was fetched."""
        if not items:
            return None
        since = self._since if holes is None else {tag: ends[0][0] for tag, ends in holes.items()}
        able = await self._able(items, since)
        fills = [
            _Fill(
                replace(item, newest={}, filtered=False),
                item,
                since[item.tag],
                (holes or {}).get(item.tag, ()),
            )
            for item in able
        ]
        if fills:
            if holes is None:
                await self._settled(able)
            broken = self._link.memory.get(_BROKEN, 0)
            self._link.memory[_BROKEN] = broken + 1  # unless it comes back from there
            async with self._link.run("backfill") as run:
                await self._fill(fills, run)
            self._link.memory[_BROKEN] = 0
        if holes is None:
            for item in items:
                self._since.pop(item.tag, None)
        bad = [fill for fill in fills if not fill.complete()]
        if not fills:
            return ""
        if len(fills) - len(bad) == len(items):
            return None
        done = f"; {len(fills) - len(bad)} of {len(items)} tags were filled from the server's history"
        named = [f"{fill.item.named()}: {fill.problem or _SEAM}" for fill in bad[:3]]
        return f"{done}, not {'; '.join(named)}" if named else done

    async def _able(self, items: Sequence[Item], since: Mapping[str, int]) -> list[Item]:
        if not self._settings.backfill_s:
            return []
        if self._link.memory.get(_BROKEN, 0) >= _MOST_BROKEN:
            _log.warning(
                "%s: its history is left alone for once: reading it ended sessions", self._link.device
            )
            self._link.memory[_BROKEN] = 0
            return []
        asked = [item for item in items if item.historic is None and item.node is not None]
        if asked:
            try:
                found = await historic(self._session, [item.node for item in asked])
            except ua.UaStatusCodeError:
                found = [False] * len(asked)
            for item, has_history in zip(asked, found, strict=True):
                item.historic = has_history
        able = [item for item in items if item.historic and not item.problem and item.tag in since]
        return sorted(able, key=lambda item: since[item.tag])

    async def _settled(self, items: Sequence[Item]) -> None:
        """Wait until each tag has its first value after the hole, or some publishes went without one."""
        patience_s = min(1.0 + 2 * self._settings.publishing_interval_ms / 1000, _MOST_PATIENCE_S)
        until = time.monotonic() + patience_s
        while time.monotonic() < until and any(item.first is None for item in items):
            await self._link.clock.sleep(_LOOK_S)

    async def _fill(self, fills: Sequence[_Fill], run: Run) -> None:
        now_us = await self._server_now_us()
        oldest_us = now_us - round(self._settings.backfill_s * 1e6)
        going = list(fills)
        for attempt in range(_TRIES):
            if attempt:
                # The server's history may come after its live values.
                await self._link.clock.sleep(_AGAIN_S)
            for fill in going:
                fill.after = fill.reached
            for start in range(0, len(going), _NODES_AT_ONCE):
                chunk = going[start : start + _NODES_AT_ONCE]
                from_us = max(min(fill.reached for fill in chunk), oldest_us)
                await self._read(chunk, from_us, now_us, run)
            going = [fill for fill in going if fill.met and not fill.problem and not fill.complete()]
            if not going:
                return

    async def _read(self, fills: Sequence[_Fill], from_us: int, to_us: int, run: Run) -> None:
        async for page in pages(self._session, [fill.item.node for fill in fills], from_us, to_us):
            fill = fills[page.place]
            fill.problem = fill.problem or page.problem
            batch = Batch()
            for data in page.values:
                new = reading(data)
                if (ts := new.ts) is not None:
                    new = new._replace(status=new.status & ~_INFO_BITS, flags=new.flags | Flag.HISTORY)
                    if fill.wants(ts):
                        take(fill.scratch, new, self._link, batch)
                        if isinstance(data.Value.Value, ua.ExtensionObject | list):
                            await asyncio.sleep(0)  # structures become JSON there
                    fill.reach(ts)
            if len(batch):
                run.add(len(batch))
                await self._link.emit(batch)

    async def _server_now_us(self) -> int:
        """Return the time of the server's own clock, by which its values are stamped."""
        node = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)
        (data,) = await self._session.read([ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)])
        moment = microseconds(data.Value.Value if data.Value is not None else None)
        return (moment if moment is not None else self._link.clock.wall_us()) + _AHEAD_US
