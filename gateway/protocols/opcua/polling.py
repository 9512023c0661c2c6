"""Cyclic reads on an absolute schedule, and reads on request."""

import asyncio
import functools
import time
from collections.abc import Callable, Sequence

from asyncua import ua

from gateway.model import Batch, Link, Run
from gateway.protocols.opcua.datavalues import Decoded
from gateway.protocols.opcua.faults import NO_SUCH_TAG, TOO_MUCH, sentence, status_text
from gateway.protocols.opcua.items import Condition, Item
from gateway.protocols.opcua.reads import Reads
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.taking import take_read
from gateway.protocols.opcua.values import Reading
from gateway.sampling import emit_sampled


class Poller:
    """Reads the values of items."""

    def __init__(self, session: Session, link: Link, condition: Condition) -> None:
        self._session = session
        self._link = link
        self._condition = condition
        self._reads = Reads(session)

    async def cycle(self, interval_ms: int, items: Callable[[], Sequence[Item]]) -> None:
        """Read the items of the moment every interval, for ever; a late cycle leaves out missed slots."""
        interval_s = interval_ms / 1000
        due = time.monotonic()
        while True:
            current = items()
            if current:
                async with self._link.run("cycle") as run:
                    await self.read(current, run, interval_ms)
                self._condition.report()
            due = max(due + interval_s, time.monotonic() - (time.monotonic() - due) % interval_s)
            await self._link.clock.sleep(max(0.0, due - time.monotonic()))

    async def on_request(self, items: Callable[[], Sequence[Item]]) -> None:
        """Read every item once whenever a poll is asked for, for ever."""
        while True:
            run_id = await self._link.polls.next()
            async with self._link.run("poll", run_id) as run:
                await self.read(items(), run)
            self._condition.report()

    async def read(self, items: Sequence[Item], run: Run, interval_ms: int | None = None) -> None:
        """Read once; what is new is emitted. `interval_ms`: they are to be read so often."""
        readable = [item for item in items if item.node is not None]
        for item in items:
            if item.node is None:
                run.problem(f"{item.named()}: {item.problem}")
        size = self._session.limits["read"]
        for start in range(0, len(readable), size):
            await self._read_chunk(readable[start : start + size], run, interval_ms)

    async def _read_chunk(self, items: Sequence[Item], run: Run, interval_ms: int | None) -> None:
        try:
            decoded = await self._reads.read(items)
        except ua.UaStatusCodeError as error:
            if error.code not in TOO_MUCH or len(items) == 1:
                raise
            half = len(items) // 2
            self._session.limits["read"] = min(self._session.limits["read"], max(1, half))
            await self._halves(items, run, interval_ms)
            return
        except (ua.UaError, ValueError, TypeError) as error:
            # One value that asyncua cannot decode spoils the whole answer: it is found by halving.
            if len(items) == 1:
                self._undecodable(items[0], sentence(error), run)
            else:
                await self._halves(items, run, interval_ms)
            return
        await self._keep(items, decoded, run, interval_ms)

    async def _halves(self, items: Sequence[Item], run: Run, interval_ms: int | None) -> None:
        half = len(items) // 2
        await self._read_chunk(items[:half], run, interval_ms)
        await self._read_chunk(items[half:], run, interval_ms)

    async def _keep(self, items: Sequence[Item], decoded: Decoded, run: Run, interval_ms: int | None) -> None:
        batch = Batch()
        special = functools.partial(self._look, run)
        for columns in filter(len, decoded.slices):
            start = columns.keys[0]
            take_read(columns, items[start : start + len(columns)], self._link, batch, special)
            if len(decoded.slices) > 1:
                await asyncio.sleep(0)  # structures become JSON there
        run.add(len(batch))
        if len(batch) and interval_ms is not None:
            await emit_sampled(self._link, batch, interval_ms)
        elif len(batch):
            await self._link.emit(batch)
        if len(items) == 1 and decoded.broken:
            self._undecodable(items[0], decoded.broken[0].why, run)
            return
        # The answer as a whole may have been too much, or where a value ends is not known: both are asked
        # for again.
        again = [item for key, lost, _ in decoded.broken for item in items[key : key + lost]]
        if len(again) == len(items):
            await self._halves(items, run, interval_ms)
        elif again:
            await self._read_chunk(again, run, interval_ms)

    def _look(self, run: Run, item: Item, new: Reading) -> bool:
        """Look at a reading that is not plain; False: the server has no such tag."""
        if new.status & 0xFFFF0000 in NO_SUCH_TAG:
            item.problem = f"node {item.spec}: {status_text(new.status)}"
            run.problem(f"{item.named()}: {item.problem}")
            return False
        if item.polled:
            item.problem = ""
        return True

    def _undecodable(self, item: Item, reason: str, run: Run) -> None:
        item.problem = f"its value cannot be decoded: {reason}"
        run.problem(f"{item.named()}: {item.problem}")
