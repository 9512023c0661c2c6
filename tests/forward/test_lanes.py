"""The two lanes: live first, order, retention, the watchdog's turns, downgrades."""

import asyncio
import itertools
import logging
import random
import time
from pathlib import Path

import pytest
from aiohttp import web

from gateway.clock import SystemClock
from gateway.forward.backlog import BacklogCounter
from gateway.forward.cuts import Limits, backlog, live
from gateway.store import Store, outbox
from gateway.store.outbox import Transaction
from gateway.uploaders import http
from gateway.uploaders.columns import decode
from tests.forward.plant import Plant, check_ledger, delivered, forwarding, http_settings, open_store, until
from tests.peers.receiver import Receiver


async def test_fresh_samples_go_first_while_a_backlog_drains(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    for _ in range(40):
        await plant.write(60)
    await peer.faults(delay_s=0.1)
    fresh: dict[tuple[str, int], float] = {}
    async with forwarding(store, http_settings(peer, gather_bytes=300)) as forwarder:
        await until(lambda: forwarder.counters.units > 1, "something is sent")
        for _ in range(10):
            known = set(plant.written)
            await plant.write(1)
            fresh |= dict.fromkeys(plant.written.keys() - known, time.time())
            await asyncio.sleep(0.1)
        busy = forwarder.status()
        await until(lambda: delivered(peer, plant), "everything delivered")
        await until(lambda: forwarder.status().backlog.samples == 0, "an empty backlog")
    assert busy.backlog.samples > 500, (
        "the backlog was gone before the fresh samples came: nothing was tested"
    )
    samples = await peer.samples()
    check_ledger(plant, samples)
    assert {s["lane"] for s in samples} == {"live", "backlog"}
    at = {d["key"]: d["at"] for d in await peer.deliveries()}
    late = [at[s["key"]] - fresh[s["tag"], s["ts"]] for s in samples if (s["tag"], s["ts"]) in fresh]
    assert len(late) == 30
    assert max(late) < 0.8, f"a fresh sample was {max(late):.2f} s late"


async def test_while_the_head_cannot_be_sent_the_backlog_does_not_try(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    for _ in range(10):
        await plant.write(60)
    await peer.faults(answers=[{"status": 503, "count": 8}])
    async with forwarding(store, http_settings(peer, gather_bytes=300)):
        await until(lambda: delivered(peer, plant), "everything delivered")
    requests = await peer.requests()
    assert len({request["key"] for request in requests[:9]}) == 1
    check_ledger(plant, await peer.samples())


async def test_a_backlog_that_fails_waits_longer_each_time_though_the_head_is_taken(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    plant = Plant(store)
    for _ in range(10):
        await plant.write(60)
    caplog.set_level(logging.INFO, logger="gateway.supervise")
    async with TakesOneLane() as target:
        settings = http.Settings(url=target.url, gather_s=0.1, gather_bytes=300)
        async with forwarding(store, settings) as forwarder:
            while len(target.failed_s) < 8:
                await plant.write(1)
                await asyncio.sleep(0.05)
            failing = forwarder.health
            assert (failing.state, failing.detail) == ("failed", f"{target.url} answered 500: not this one")
            told = [record.getMessage() for record in caplog.records if "upload cloud" in record.getMessage()]
            target.refuses = ""
            await until(lambda: forwarder.health.state == "running", "it recovers", 8)
    sixth_s, last_s = target.failed_s[6] - target.failed_s[5], target.failed_s[7] - target.failed_s[6]
    assert min(sixth_s, last_s) >= 0.25, "a seventh wait is between half of 0.5 s and all of it"
    assert target.taken_between(target.failed_s[0], target.failed_s[7]) >= 3, "the head did not go on"
    assert len([line for line in told if "running" in line]) <= 1, f"its state flips: {told}"


class TakesOneLane:
    """A real server that answers 500 to what comes in one lane."""

    def __init__(self) -> None:
        self.refuses, self.url = "backlog", ""
        self.failed_s: list[float] = []
        self._taken_s: list[float] = []

    def taken_between(self, from_s: float, to_s: float) -> int:
        return sum(from_s < at_s < to_s for at_s in self._taken_s)

    async def _take(self, request: web.Request) -> web.Response:
        document, _ = decode(await request.read())
        failing = document["lane"] == self.refuses
        (self.failed_s if failing else self._taken_s).append(time.monotonic())
        return web.Response(status=500, text="not this one") if failing else web.json_response({})

    async def __aenter__(self) -> "TakesOneLane":
        app = web.Application()
        app.router.add_post("/in", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}/in".format(*self._runner.addresses[0][:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def test_the_head_is_cut_in_the_commit_of_its_newest_block(store: Store, peer: Receiver) -> None:
    """No commit of its own where samples flow: as many commits as blocks, about."""
    plant = Plant(store)
    async with forwarding(store, http_settings(peer, gather_s=0.02)) as forwarder:
        await plant.write(1)
        await until(lambda: forwarder.counters.units >= 1, "the first unit")
        units, blocks = forwarder.counters.units, store.state().newest_seq
        for _ in range(40):
            await plant.write(1)
        units, blocks = forwarder.counters.units - units, store.state().newest_seq - blocks
        await until(lambda: delivered(peer, plant), "everything delivered")
    assert blocks <= 41
    assert units >= blocks // 4
    lag = await lag_of_units(peer)
    assert lag < 0.5


async def lag_of_units(peer: Receiver) -> float:
    at = [d["at"] for d in await peer.deliveries()]
    return max(b - a for a, b in itertools.pairwise(at))


async def test_units_gather_by_time_and_by_size(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    async with forwarding(store, http_settings(peer, gather_s=1.0)) as forwarder:
        for _ in range(40):
            await plant.write(1)
        await until(lambda: delivered(peer, plant), "everything delivered")
        assert forwarder.counters.units <= 6, "forty commits in two seconds were not gathered"
    plant.written.clear()
    async with forwarding(store, http_settings(peer, gather_s=60.0, gather_bytes=300)) as forwarder:
        await plant.write(1)
        await until(lambda: forwarder.counters.units == 1, "the first unit goes at once")
        await plant.write(2)
        await asyncio.sleep(0.5)
        assert forwarder.counters.units == 1, "sent before it was due"
        for _ in range(10):
            await plant.write(100)
        await until(lambda: forwarder.counters.units >= 2, "a unit that is large enough goes at once")


async def test_a_unit_closed_by_the_store_while_it_waits_is_given_up(tmp_path: Path, peer: Receiver) -> None:
    await peer.faults(answers=[{"status": 503, "count": -1}])
    async with open_store(tmp_path / "s", max_bytes=1_000_000) as store:
        plant = Plant(store, tags=1)
        async with forwarding(store, http_settings(peer, gather_bytes=20_000)) as forwarder:
            for _ in range(80):
                await plant.write(1, value=random.randbytes(20_000))
            await until(lambda: store.state().oldest_seq > 3, "retention has dropped what was in flight")
            await peer.faults(reset=True)
            await until(lambda: forwarder.counters.closed >= 1, "the unit is given up")
            await until(lambda: forwarder.status().backlog.blocks == 0, "the rest is delivered")
            await until(lambda: forwarder.health.state == "running", "it runs")
            gaps = [gap for _, gap in await store.gaps(upload="cloud", limit=1000)]
    arrived = {s["ts"] for s in await peer.samples()}
    lost = {ts for _, ts in plant.written} - arrived
    assert lost, "nothing was lost: nothing was tested"
    for ts in lost:
        assert any(gap.from_us <= ts <= gap.to_us for gap in gaps), "a loss without a gap record"
    assert sum(gap.count or 0 for gap in gaps) == len(lost)
    assert len(arrived) == len(await peer.samples())


async def test_a_gap_without_a_block_of_its_own_changes_no_unit_in_flight(
    store: Store, peer: Receiver
) -> None:
    """An upload is removed while the newest block is on its way to another: the record comes later."""
    plant = Plant(store)
    store.pin(["cloud", "other"])
    await peer.faults(forget=3)
    async with forwarding(store, http_settings(peer), ["other"]) as forwarder:
        await plant.write(5)
        await until(lambda: forwarder.counters.failures >= 1, "stored, and its answer lost")
        store.pin(["cloud"])
        await store.flush()
        await until(lambda: forwarder.counters.units >= 1, "delivered")
    async with forwarding(store, http_settings(peer)):
        await plant.write(5)

        async def arrived() -> bool:
            return bool(await peer.gaps())

        await until(arrived, "the gap record")
    assert (await peer.counts())["bodies_per_key"] == 1
    assert [(gap["upload"], gap["count"]) for gap in await peer.gaps()] == [("other", 15)]


async def test_a_unit_of_a_newer_version_waits_with_a_sentence(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    await plant.write(5)
    newer = '{"name":"columns","version":9,"options":{}}'
    await store.ride(lambda tx: outbox.cut(tx, "cloud", "live", 0, tx.newest_seq, newer))
    async with forwarding(store, http_settings(peer)) as forwarder:
        await until(lambda: forwarder.counters.failures >= 1, "a problem")
        assert "version 9" in forwarder.status().last_error
        assert forwarder.health.state == "failed"
    assert (await peer.counts())["deliveries"] == 0


async def test_back_off_turns_and_a_hung_send_does_not(
    store: Store, peer: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = Plant(store)
    monkeypatch.setattr("gateway.forward.gate.TURN_S", 0.1)
    await peer.faults(answers=[{"status": 503, "count": -1, "headers": {"Retry-After": "100"}}])
    clock = SystemClock()
    async with forwarding(store, http_settings(peer)) as forwarder:
        await plant.write(5)
        await until(lambda: forwarder.counters.failures >= 1, "back-off")
        await asyncio.sleep(1.0)
        assert clock.mono_ns() - forwarder.turned_ns < 0.5e9, "back-off is a turn"
    await peer.faults(reset=True, hang=-1)
    async with forwarding(store, http_settings(peer, timeout_s=5.0)) as forwarder:
        await until(lambda: "sending" in [lane.state for lane in forwarder.status().lanes], "sending")
        await asyncio.sleep(1.0)
        assert clock.mono_ns() - forwarder.turned_ns > 0.8e9, "a hung send is no turn"


async def test_a_disk_that_holds_the_commit_up_is_a_turn(
    store: Store, peer: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = Plant(store)
    monkeypatch.setattr("gateway.forward.turning.TURN_S", 0.1)
    clock = SystemClock()
    for started in (False, True):  # from its first commit on
        if not started:
            store.post(lambda tx: time.sleep(2.5))
        async with forwarding(store, http_settings(peer)) as forwarder:
            if started:
                await plant.write(1)
                await asyncio.sleep(0.3)
                await plant.write(1, wait=False)
                store.post(lambda tx: time.sleep(2.5))
            oldest_ns = 0
            for _ in range(24):
                await asyncio.sleep(0.1)
                oldest_ns = max(oldest_ns, clock.mono_ns() - forwarder.turned_ns)
            assert oldest_ns < 1.5e9


async def test_an_idle_forwarder_turns_and_reports_what_it_is(store: Store, peer: Receiver) -> None:
    clock = SystemClock()
    async with forwarding(store, http_settings(peer)) as forwarder:
        plant = Plant(store)
        await plant.write(1)
        await until(lambda: delivered(peer, plant), "delivered")
        await until(lambda: forwarder.status().backlog.blocks == 0, "counted")
        await asyncio.sleep(1.2)
        assert clock.mono_ns() - forwarder.turned_ns < 2e9
        status = forwarder.status()
    assert (status.state, status.last_error, status.lag_s) == ("running", "", 0.0)
    assert [lane.lane for lane in status.lanes] == ["live", "backlog"]
    assert status.counters.samples == 3
    assert forwarder.insecure and forwarder.url == f"{peer.url}/ingest"


async def test_a_store_without_uploads_left_is_delivered_from_its_beginning(
    store: Store, peer: Receiver
) -> None:
    plant = Plant(store)
    for _ in range(5):
        await plant.write(20)
    async with forwarding(store, http_settings(peer)):
        await until(lambda: delivered(peer, plant), "what was there before the upload")
    check_ledger(plant, await peer.samples())


async def test_a_removed_upload_is_forgotten_and_its_return_doubles_nothing(
    store: Store, peer: Receiver
) -> None:
    plant = Plant(store)
    async with forwarding(store, http_settings(peer)) as forwarder:
        await plant.write(5)
        await until(lambda: delivered(peer, plant), "delivered")
        await until(lambda: forwarder.status().backlog.blocks == 0, "settled")
    store.pin([])
    await store.flush()
    await plant.write(5)
    async with forwarding(store, http_settings(peer, gather_bytes=2048)):
        await plant.write(5)
        await until(lambda: delivered(peer, plant), "what came since")
        await asyncio.sleep(0.5)
    check_ledger(plant, await peer.samples())


async def test_the_backlog_is_counted_as_sql_counts_it(store: Store) -> None:
    plant = Plant(store)
    for _ in range(30):
        await plant.write(2)
    store.pin(["cloud"])
    await store.flush()
    newest = store.state().newest_seq

    def mark(tx: Transaction) -> None:
        for start in range(1, newest, 7):
            outbox.acknowledge(tx.conn, "cloud", start, start + 2)

    await store.ride(mark)
    monkey = BacklogCounter("cloud")
    for _ in range(2):  # the second time from what it remembers
        counted, whole = await store.read(lambda conn: monkey.count(conn, newest))
        blocks, size, samples, _ = await store.read(lambda conn: outbox.backlog(conn, "cloud"))
        assert whole
        assert (counted.blocks, counted.bytes, counted.samples) == (blocks, size, samples)


async def test_cuts_take_whole_blocks_within_the_limits(store: Store) -> None:
    plant = Plant(store)
    for _ in range(20):
        await plant.write(10)
    store.pin(["cloud"])
    await store.flush()
    newest = store.state().newest_seq
    one = await store.read(lambda conn: live(conn, "cloud", newest, Limits(1)))
    assert one is not None and (one.from_seq, one.to_seq) == (newest, newest)
    all_ = await store.read(lambda conn: live(conn, "cloud", newest, Limits(1 << 20)))
    assert all_ is not None and (all_.from_seq, all_.to_seq) == (0, newest)
    assert await store.read(lambda conn: backlog(conn, "cloud", newest, Limits(1))) is None
    few = await store.read(lambda conn: live(conn, "cloud", newest, Limits(1 << 20, samples=75)))
    assert few is not None and few.blocks == 2
    await store.ride(lambda tx: outbox.acknowledge(tx.conn, "cloud", newest - 4, newest))
    old = await store.read(lambda conn: backlog(conn, "cloud", newest, Limits(1 << 20, samples=75)))
    assert old is not None and (old.from_seq, old.blocks) == (0, 2)
    assert await store.read(lambda conn: live(conn, "cloud", newest, Limits(1))) is None
