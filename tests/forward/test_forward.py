"""Store to target and back to the ledger: every sample once after the key, whatever the target does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Gap
from gateway.store import Store
from tests.forward.plant import (
    Plant,
    check_ledger,
    delivered,
    forwarding,
    http_settings,
    open_store,
    until,
)
from tests.peers.receiver import Receiver


async def bad_times(peer: Receiver, plant: Plant) -> None:
    """Dead at first, then back with 500s, then losing answers after storing, all while samples come."""
    for _ in range(5):
        await plant.write(10)
    await peer.start()
    await peer.faults(answers=[{"status": 500, "count": 2}])
    for _ in range(5):
        await plant.write(10)
    await peer.faults(forget=2)
    for _ in range(10):
        await plant.write(10)
        await asyncio.sleep(0.1)


async def test_every_sample_arrives_once_after_the_key(
    store: Store, peer: Receiver, settings_of: Callable[..., Any]
) -> None:
    plant = Plant(store)
    await peer.kill()
    async with forwarding(store, settings_of(peer)) as forwarder:
        await bad_times(peer, plant)
        await until(lambda: delivered(peer, plant), "everything delivered")
        await until(lambda: not forwarder.status().backlog.blocks, "an empty backlog", 5)
        status = forwarder.status()
    counts = await peer.counts()
    assert counts["repeated"] >= 1, "no delivery was repeated: the test has not tested the key"
    assert counts["bodies_per_key"] == 1
    check_ledger(plant, await peer.samples())
    assert status.counters.repeats >= 1 and status.counters.failures >= 1
    assert status.state == "running" and status.last_error and status.last_success_us


async def test_a_receiver_without_the_key_check_fails_the_ledger(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    await peer.faults(dedupe=False, forget=2)
    async with forwarding(store, http_settings(peer)):
        await plant.write(10)
        await until(lambda: delivered(peer, plant), "everything delivered")
        await asyncio.sleep(1.5)
    with pytest.raises(AssertionError, match="arrived twice"):
        check_ledger(plant, await peer.samples())


async def test_a_restart_between_send_and_settle_sends_the_same_bytes_again(
    tmp_path: Path, peer: Receiver, settings_of: Callable[..., Any]
) -> None:
    await peer.faults(die_after_stores=1)
    async with open_store(tmp_path / "s") as store:
        plant = Plant(store)
        async with forwarding(store, settings_of(peer)):
            await plant.write(100)
            await until(lambda: not peer.alive, "stored by the target, which then dies")
    await peer.start()
    async with open_store(tmp_path / "s") as store:
        plant.store = store
        async with forwarding(store, settings_of(peer, gather_bytes=4096)) as forwarder:
            await plant.write(10)
            await until(lambda: delivered(peer, plant), "the rest delivered")
            await until(lambda: forwarder.counters.repeats == 1, "the unit in flight sent again")
    counts = await peer.counts()
    assert counts["bodies_per_key"] == 1
    if isinstance(settings_of(peer), type(http_settings(peer))):
        assert counts["repeated"] == 1
    check_ledger(plant, await peer.samples())


async def test_a_deletion_leaves_a_unit_in_flight_as_it_is_and_what_is_not_cut_without_it(
    tmp_path: Path, peer: Receiver, settings_of: Callable[..., Any]
) -> None:
    """The target has the unit and dies before it says so: its repeat must be the same body."""
    await peer.faults(die_after_stores=1)
    async with open_store(tmp_path / "s") as store:
        plant = Plant(store)
        async with forwarding(store, settings_of(peer)):
            await plant.write(20)
            await until(lambda: not peer.alive, "stored by the target, which then dies")
        sent = set(plant.written)
        await plant.write(20)
        waiting = sorted(ts for tag, ts in plant.written.keys() - sent if tag == "t1")
        deleted = await store.delete(plant.series[1], "ann", waiting[0] - 3000, waiting[4])
        assert deleted is not None and deleted.count == 8
    await peer.start()
    async with open_store(tmp_path / "s") as store, forwarding(store, settings_of(peer)) as forwarder:
        for ts in waiting[:5]:
            del plant.written["t1", ts]
        await until(lambda: delivered(peer, plant), "the rest delivered")
        await until(lambda: not forwarder.status().backlog.blocks, "an empty backlog", 5)
    assert (await peer.counts())["bodies_per_key"] == 1 and forwarder.counters.repeats == 1
    samples = await peer.samples()
    check_ledger(plant, [x for x in samples if (x["tag"], x["ts"]) in plant.written])
    assert len(samples) == len(plant.written)


async def test_the_target_dies_while_storing_and_comes_back(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    async with forwarding(store, http_settings(peer)):
        for _ in range(3):
            await peer.faults(die_after_stores=1)
            await plant.write(20)
            await until(lambda: not peer.alive, "the target is dead")
            await peer.start()
            await until(lambda: delivered(peer, plant), "everything delivered")
    assert (await peer.counts())["repeated"] >= 1
    check_ledger(plant, await peer.samples())


async def test_restarts_at_any_moment_change_nothing(
    tmp_path: Path, peer: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a reload: another forwarder takes over while the last one's settling is with the writer still."""
    async with open_store(tmp_path / "s", commit_interval_s=0.2) as store:
        plant = Plant(store)
        for n in range(12):
            async with forwarding(store, http_settings(peer, gather_s=0.02)):
                await plant.write(3)
                await plant.write(3)
                await asyncio.sleep(0.01 * n)
                await plant.write(3, wait=False)
        async with forwarding(store, http_settings(peer, gather_s=0.02)):
            await until(lambda: delivered(peer, plant), "everything delivered")
    assert (await peer.counts())["bodies_per_key"] == 1
    check_ledger(plant, await peer.samples())
    assert not [record for record in caplog.records if record.levelname != "INFO"]


async def test_gaps_are_uploaded_also_where_there_are_no_samples(store: Store, peer: Receiver) -> None:
    async with forwarding(store, http_settings(peer)) as forwarder:
        store.gap(Gap(1, 2, "the line was cut", device="press", count=7))
        await store.flush()

        async def arrived() -> bool:
            return bool(await peer.gaps())

        await until(arrived, "the gap record")
        assert forwarder.counters.units >= 1
    assert await peer.gaps() == [
        {"device": "press", "upload": None, "from": 1, "to": 2, "count": 7, "reason": "the line was cut"}
    ]
