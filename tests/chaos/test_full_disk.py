"""A disk that is really full: a tmpfs of 4 MB. Needs root, for the mount."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.model import Ticket
from gateway.store import Store
from tests.chaos.oracle import SETTINGS, judge_folder, judge_store, samples, tags_of

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
