"""Numbered samples into a real store, a forwarder as the daemon keeps it, and the check of the ledger."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.forward import Forwarder
from gateway.model import Batch
from gateway.settings import Secret
from gateway.store import Store
from gateway.store.settings import StoreSettings
from gateway.supervise import Backoff, Supervisor
from gateway.uploaders import dataspace, http
from tests.peers.receiver import Receiver


class Plant:
    """Writes numbered values: tag k of round n holds n * 1000 + k, stamped n milliseconds after the start."""

    def __init__(self, store: Store, tags: int = 3) -> None:
        self.store = store
        self.series = [store.series("press", f"t{k}", "mm") for k in range(tags)]
        self.written: dict[tuple[str, int], Any] = {}
        self.rounds = 0

    async def write(self, rounds: int, *, value: Any = None, wait: bool = True) -> None:
        """Write and wait for the commit."""
        batch = Batch()
        for _ in range(rounds):
            self.rounds += 1
            for k, series in enumerate(self.series):
                ts = 1_763_690_000_000_000 + self.rounds * 1000
                what = value if value is not None else self.rounds * 1000 + k
                batch.add(series, ts, what)
                self.written[f"t{k}", ts] = what
        ticket = await self.store.put(batch)
        if wait:
            await ticket


async def until(
    check: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str, seconds: float = 4
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = check()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        await asyncio.sleep(0.03)
    raise AssertionError(f"not within {seconds} s: {what}")


async def delivered(peer: Receiver, plant: Plant, *, but: int = 0) -> bool:
    """Say whether as many samples arrived as were written, `but` so many."""
    return peer.alive and (await peer.counts())["samples"] >= len(plant.written) - but


def check_ledger(plant: Plant, samples: list[dict[str, Any]]) -> None:
    """Every written sample is there exactly once, and in order within a lane and tag."""
    arrived = [(s["tag"], s["ts"]) for s in samples]
    missing = plant.written.keys() - set(arrived)
    assert not missing, f"{len(missing)} samples are missing, first {min(missing)}"
    assert len(arrived) == len(set(arrived)), f"{len(arrived) - len(set(arrived))} samples arrived twice"
    for sample in samples:
        assert sample["value"] == plant.written[sample["tag"], sample["ts"]]
    for lane in ("live", "backlog"):
        for tag in {s["tag"] for s in samples}:
            stamps = [s["ts"] for s in samples if (s["lane"], s["tag"]) == (lane, tag)]
            assert stamps == sorted(stamps), f"{tag} is out of order in the {lane} lane"


def http_settings(peer: Receiver, **more: Any) -> http.Settings:
    return http.Settings(**{"url": f"{peer.url}/ingest", "timeout_s": 2.0, "gather_s": 0.1, **more})


def dataspace_settings(peer: Receiver, **more: Any) -> dataspace.Settings:
    password = Secret("file password", "right")
    return dataspace.Settings(
        **{"url": peer.url, "user": "hall-3", "password": password, "timeout_s": 3.0, "gather_s": 0.1, **more}
    )


@asynccontextmanager
async def forwarding(store: Store, settings: Any, others: Sequence[str] = ()) -> AsyncIterator[Forwarder]:
    """Keep a forwarder running as the daemon does."""
    kind = "http" if isinstance(settings, http.Settings) else "dataspace"
    clock = SystemClock()
    store.pin(["cloud", *others])
    forwarder = Forwarder("cloud", kind, settings, store, clock, "gw-1", Backoff(first_s=0.05, cap_s=0.5))
    supervisor = Supervisor(clock)
    supervisor.keep("upload cloud", forwarder.run)
    try:
        yield forwarder
    finally:
        await supervisor.close()


@asynccontextmanager
async def open_store(folder: Path, **settings: Any) -> AsyncIterator[Store]:
    chosen = StoreSettings(**{"commit_interval_s": 0.05, **settings})
    async with Store.open(folder, chosen, SystemClock()) as store:
        yield store
