"""The OPC UA protocol over the real intake and the real store, in this process: holes and gaps are true."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.intake import DeviceSession
from gateway.model import Device, Flag, Gap, Sample
from gateway.own_time import OwnTime
from gateway.protocols import opcua
from gateway.store import Store, StoreSettings
from gateway.supervise import Backoff, Keeper, Supervisor
from tests.peers.opcua_peer import Peer

Row = tuple[str, int, Any]
SINCE_EVER, FOR_EVER = -(2**62), 2**62


class Plant:
    """One device that is kept running."""

    def __init__(self, store: Store, session: DeviceSession, keeper: Keeper) -> None:
        self.store, self.session, self.keeper = store, session, keeper

    async def samples(self) -> list[Sample]:
        await self.store.flush()
        parts = self.store.samples(list(self.session.tags.values()), SINCE_EVER, FOR_EVER)
        return [sample async for part in parts for sample in part]

    async def rows(self) -> Counter[Row]:
        """Return everything that is stored as (tag, ts, value)."""
        names = {series: name for name, series in self.session.tags.items()}
        return Counter((names[s.series], s.ts, s.value) for s in await self.samples())

    async def fetched(self) -> int:
        """Return how many samples came from the server's history."""
        return sum(bool(sample.flags & Flag.HISTORY) for sample in await self.samples())

    async def gaps(self) -> list[Gap]:
        await self.store.flush()
        return [gap for _id, gap in await self.store.gaps(limit=10_000)]

    async def until(self, condition: Any, timeout: float = 30.0) -> None:
        """Wait until an awaitable condition holds."""
        try:
            async with asyncio.timeout(timeout):
                while not await condition():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(
                f"not so within {timeout} s: {self.keeper.health}, hole {self.session.hole}, "
                f"gaps {(await self.gaps())[-3:]}"
            ) from None

    async def has(self, server: Peer, timeout: float = 30.0) -> None:
        """Wait until the last write of the server is stored."""
        tag, ts, _value = server.ledger[-1]

        async def there() -> bool:
            last = self.store.last(self.session.tag(tag))
            return last is not None and last.ts >= ts

        await self.until(there, timeout)

    async def running(self) -> bool:
        return self.keeper.health.state in ("running", "degraded")

    async def whole(self) -> None:
        """Wait until no hole is open any more."""

        async def closed() -> bool:
            return self.session.hole is None

        await self.until(closed)

    async def complete(self, server: Peer) -> bool:
        """Say whether nothing is missing."""
        return (await self.judged(server))[0] == 0

    async def judged(self, server: Peer, *, skew_us: int = 0) -> tuple[int, int]:
        """Return (missing, unreported) against the server's ledger; what is stored besides raises."""
        rows, gaps = await self.rows(), await self.gaps()
        ledger = Counter(server.ledger)
        extra = rows - ledger
        assert not extra, f"stored what was never written, or twice: {list(extra.items())[:5]}"
        first = min(ts for _tag, ts, _value in rows)
        missing = [row for row in ledger - rows if row[1] > first]
        unreported = [
            row for row in missing if not any(g.from_us <= row[1] - skew_us <= g.to_us for g in gaps)
        ]
        return len(missing), len(unreported)


@asynccontextmanager
async def plant(
    folder: Path,
    settings: opcua.Settings,
    tags: dict[str, opcua.TagSettings],
    *,
    backoff: Backoff | None = None,
) -> AsyncIterator[Plant]:
    """Enter a device that is collected from, with everything behind it."""
    clock = SystemClock()
    folder.mkdir(exist_ok=True)
    async with Store.open(folder, StoreSettings(commit_interval_s=0.05), clock) as store:
        where = {name: f"gateway.yaml:{line}" for line, name in enumerate(tags, 10)}
        device = Device("mill", tags, where)
        session = DeviceSession(
            "mill", "opcua", store=store, clock=clock, own_time=OwnTime(clock, 0, store.gap),
            state=folder, gateway_id="test-gateway", listeners=[], tags=tags,
        )  # fmt: skip
        await session.take_over()
        supervisor = Supervisor(clock)

        async def attempt(keeper: Keeper) -> None:
            session.attempt_began(keeper)
            await opcua.run(device, settings, session)

        keeper = supervisor.keep(
            "device mill", attempt, backoff=backoff or Backoff(0.2, 1.0), ended=session.attempt_ended
        )
        session.keeper = keeper
        try:
            yield Plant(store, session, keeper)
        finally:
            await keeper.stop()
