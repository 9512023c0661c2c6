"""A disk that is really full: a tmpfs of 4 or 12 MB. Needs root, for the mount."""

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.model import Batch, Sample, Ticket
from gateway.store import Store
from gateway.store import disk as disk_module
from tests.chaos.mounts import tmpfs
from tests.chaos.oracle import EVERYTHING, SETTINGS, START_US, judge_folder, judge_store, samples, tags_of
from tests.store.folding import eager, folded

_RESUMES_S = 5.0
_BATCH = 50

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "chaos", tmp_path], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def fill(disk: Path) -> Path:
    """Leave not a byte free."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler


async def refused(store: Store, tags: dict[int, int], tickets: list[Ticket], disk: Path) -> None:
    """Put until the disk refuses, also after the store's reserve and what else was given back is filled."""
    deadline, since = time.monotonic() + 20, 0.0
    while not since or time.monotonic() - since < 1.5:
        assert time.monotonic() < deadline, "the disk never was full"
        await asyncio.to_thread(fill, disk)
        first = len(tickets) * _BATCH
        tickets.append(await store.put(samples(range(first, first + _BATCH), tags)))
        await asyncio.sleep(0.05)
        since = (since or time.monotonic()) if store.state().refusing else 0.0


def acknowledged(tickets: list[Ticket]) -> list[int]:
    return [
        n
        for place, ticket in enumerate(tickets)
        if ticket.done
        for n in range(place * _BATCH, place * _BATCH + _BATCH)
    ]


async def test_a_full_disk_acknowledges_nothing_and_is_resumed_within_five_seconds(small_disk: Path) -> None:
    folder, tickets = small_disk / "store", list[Ticket]()
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        tags = tags_of(store)
        for _ in range(3):  # full, and full again
            filler = await asyncio.to_thread(fill, small_disk)
            await refused(store, tags, tickets, small_disk)
            before = acknowledged(tickets)
            await asyncio.sleep(2.2)  # tried again meanwhile
            assert acknowledged(tickets) == before, "acknowledged on a full disk"
            assert "full" in store.state().refusing
            assert await judge_store(store, before, len(tickets) * _BATCH), "what is there is served"
            filler.unlink()
            since = time.monotonic()
            await asyncio.wait_for(asyncio.gather(*tickets), _RESUMES_S)
            print("resumed after", round(time.monotonic() - since, 2), "s")  # noqa: T201  # for -s
            assert store.state().refusing == ""
    assert await judge_folder(folder, range(len(tickets) * _BATCH), len(tickets) * _BATCH)


async def test_a_store_opens_on_a_full_disk_and_takes_samples_once_there_is_room(small_disk: Path) -> None:
    folder = small_disk / "store"
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        await (await store.put(samples(range(_BATCH), tags_of(store))))
    filler = await asyncio.to_thread(fill, small_disk)
    async with asyncio.timeout(20), Store.open(folder, SETTINGS, SystemClock()) as store:
        assert await judge_store(store, range(_BATCH), _BATCH)
        tickets = [await store.put(samples(range(_BATCH), tags_of(store)))]
        await refused(store, tags_of(store), tickets, small_disk)
        filler.unlink()
        await asyncio.wait_for(asyncio.gather(*tickets), _RESUMES_S)
    assert await judge_folder(folder, range(len(tickets) * _BATCH), len(tickets) * _BATCH)


async def test_a_store_on_a_disk_with_no_room_at_all_waits_for_it(small_disk: Path) -> None:
    filler = await asyncio.to_thread(fill, small_disk)

    async def first_samples() -> None:
        async with Store.open(small_disk / "store", SETTINGS, SystemClock()) as store:
            await (await store.put(samples(range(_BATCH), tags_of(store))))

    opening = asyncio.create_task(first_samples())
    await asyncio.sleep(1.5)
    assert not opening.done(), "it ended on a full disk"
    filler.unlink()
    await asyncio.wait_for(opening, _RESUMES_S)
    assert await judge_folder(small_disk / "store", range(_BATCH), _BATCH)


_MAX = replace(SETTINGS, commit_interval_s=0.05, chunk_minutes=0, max_bytes=20_000_000)
"""More than the whole disk; folded at once."""
_ROUNDS, _A_ROUND = 100, 4
_ALL = list(range(_ROUNDS * _A_ROUND))


@pytest.fixture
def own_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    eager(monkeypatch)
    with tmpfs(tmp_path / "own", "12m") as disk:
        yield disk


async def fill_with_history(store: Store, rounds: int, first: int = 0) -> None:
    """Put samples of 50 kB that do not pack, twice the disk in all rounds, each acknowledged."""
    series = store.series("plc", "noise")
    for n in range(first * _A_ROUND, (first + rounds) * _A_ROUND, _A_ROUND):
        noise = [Sample(series, START_US + n + part, os.urandom(50_000)) for part in range(_A_ROUND)]
        await asyncio.wait_for(await store.put(Batch.of(noise)), 20)


async def kept(store: Store) -> list[int]:
    return [
        ts - START_US
        async for batch in store.samples([store.series("plc", "noise")], *EVERYTHING)
        for ts in batch.ts
    ]


async def test_the_stores_own_history_does_not_fill_the_disk(
    own_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(disk_module, "_LOOK_NS", 0)
    async with Store.open(own_disk, _MAX, SystemClock()) as store:
        await fill_with_history(store, _ROUNDS)
        state, there = store.state(), await kept(store)
        assert there == _ALL[-len(there) :], "the oldest goes"
        assert state.bytes_used <= state.bytes_budget + 200_000 < 12_000_000, "what it may use is told"
        assert state.segments and len(there) > 20 and not await store.gaps()
    assert "refuses" not in caplog.text


async def test_a_disk_that_its_own_history_has_filled_is_relieved_of_the_oldest(
    own_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(disk_module, "_LOOK_NS", 2**62)  # full before anybody has looked
    async with Store.open(own_disk, _MAX, SystemClock()) as store:
        await fill_with_history(store, _ROUNDS)
        there = await kept(store)
        assert there == _ALL[-len(there) :] and len(there) > 20
        assert not store.state().refusing and not await store.gaps()
    assert "the disk is full: the oldest history segment 000001.db is dropped" in caplog.text


async def fill_with_segments(store: Store) -> None:
    for part in range(6):
        await fill_with_history(store, 4, part * 4)
        await folded(store)
    assert store.state().segments >= 4


async def test_what_others_fill_leaves_a_tenth_to_the_store(
    own_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "_LOOK_NS", 0)
    tenth, tickets = int(12 * 2**20 / 10), list[Ticket]()
    async with Store.open(own_disk, _MAX, SystemClock()) as store:
        await fill_with_segments(store)
        assert store.state().bytes_used > 3 * tenth

        async def go_on() -> None:
            await asyncio.to_thread(fill, own_disk)
            first = len(tickets) * _BATCH
            tickets.append(await store.put(samples(range(first, first + _BATCH), tags_of(store))))
            await asyncio.sleep(0.05)

        async with asyncio.timeout(30):
            while store.state().bytes_used > tenth:
                await go_on()
        for _ in range(40):
            await go_on()
        state = store.state()
        assert (state.bytes_budget, state.disk.free_bytes) == (tenth, 0)
        assert state.segments and len(await kept(store)) > 5, "not all of the history"
        (own_disk / "filler").unlink()
        await asyncio.wait_for(asyncio.gather(*tickets), _RESUMES_S)


async def test_a_store_that_cannot_begin_on_a_full_disk_drops_its_oldest_history(own_disk: Path) -> None:
    async with Store.open(own_disk, _MAX, SystemClock()) as store:
        await fill_with_segments(store)
        before = await kept(store)
    for gone in ("reserve", "hot.db", "hot.db-wal", "hot.db-shm"):  # a new one has to be made
        (own_disk / gone).unlink(missing_ok=True)
    await asyncio.to_thread(fill, own_disk)
    async with asyncio.timeout(20), Store.open(own_disk, _MAX, SystemClock()) as store:
        there = await kept(store)
        assert there == [n for n in before if n >= there[0]][: len(there)] and 0 < len(there) < len(before)
        await fill_with_history(store, 1, 24)
