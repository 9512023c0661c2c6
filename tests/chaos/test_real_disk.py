"""A disk that really fails: I/O errors of a loop-mounted ext4, and file systems that turn read-only.

Needs root, for the mounts. Where the kernel has no device mapper, the I/O errors come from an image whose own
disk is full: what the loop device cannot write, it reports as EIO.
"""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.model import Ticket
from gateway.store import Store
from tests.chaos.mounts import device, ext4, fail_new_blocks, mount, mounted, tmpfs
from tests.chaos.oracle import SETTINGS, judge_folder, judge_store, samples, tags_of

_RESUMES_S = 5.0
_BATCH = 50
_IMAGE_BYTES = 24_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


class Intake:
    """Numbered samples, a batch at a time."""

    def __init__(self, store: Store) -> None:
        self._store, self._tags = store, tags_of(store)
        self.tickets: list[Ticket] = []

    async def put(self) -> Ticket:
        first = len(self.tickets) * _BATCH
        self.tickets.append(await self._store.put(samples(range(first, first + _BATCH), self._tags)))
        return self.tickets[-1]

    async def commit(self, batches: int) -> None:
        """Put some, each once the one before is acknowledged."""
        for _ in range(batches):
            await (await self.put())

    def acknowledged(self) -> list[int]:
        done = (place for place, ticket in enumerate(self.tickets) if ticket.done)
        return [n for place in done for n in range(place * _BATCH, place * _BATCH + _BATCH)]

    @property
    def issued(self) -> int:
        return len(self.tickets) * _BATCH

    async def while_refused(self, for_s: float) -> None:
        """Put all the time, also what a disk that is used up only then still takes."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            await self.put()
            await asyncio.sleep(0.02)

    async def resumed(self) -> float:
        since = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*self.tickets), _RESUMES_S)
        return time.monotonic() - since


@pytest.fixture
def back(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "back", "40m") as disk:
        yield disk


async def after_a_power_cut(image: Path, cut: Path, acked: list[int], issued: int) -> object:
    """Judge what the disk has: an image of this moment, mounted anew."""
    disk = image.parent.parent / "disk"
    await asyncio.to_thread(subprocess.run, ["fsfreeze", "-f", disk], check=True)  # one moment of the image
    try:
        await asyncio.to_thread(shutil.copyfile, image, cut)
    finally:
        await asyncio.to_thread(subprocess.run, ["fsfreeze", "-u", disk], check=True)
    await asyncio.to_thread(subprocess.run, ["e2fsck", "-fp", cut], capture_output=True)
    with mounted(cut.with_name("after"), "-o", "loop", cut) as disk:
        return await judge_folder(disk / "store", acked, issued)


async def io_errors(back: Path, folder: Path) -> object:
    """Have I/O errors for some seconds, then none; judge what a power cut leaves."""
    with ext4(back / "image", folder / "disk", _IMAGE_BYTES, "-J", "size=4") as disk:
        async with Store.open(disk / "store", SETTINGS, SystemClock()) as store:
            intake = Intake(store)
            await intake.commit(20)
            filler = await asyncio.to_thread(fail_new_blocks, back / "image", disk)
            await intake.while_refused(3.5)
            before = intake.acknowledged()
            assert "I/O" in store.state().refusing and len(before) < intake.issued, store.state()
            await asyncio.sleep(1.2)
            # A copy may find room where the reserve and the old log had their places, which do not fail.
            anew = store._writer.generation > 0
            assert anew or intake.acknowledged() == before, "acknowledged while the disk failed"
            assert await judge_store(store, before, intake.issued), "what is there is served"
            filler.unlink()
            print("resumed after", round(await intake.resumed(), 2), "s")  # noqa: T201  # for -s
            assert not store.state().refusing
            await intake.commit(20)
            return await after_a_power_cut(
                back / "image", folder / "cut", intake.acknowledged(), intake.issued
            )


async def test_io_errors_end_nothing_and_are_resumed_from_within_five_seconds(
    back: Path, tmp_path: Path
) -> None:
    await io_errors(back, tmp_path)


async def test_what_is_acknowledged_after_io_errors_survives_a_power_cut(back: Path, tmp_path: Path) -> None:
    assert await io_errors(back, tmp_path)


async def test_a_file_system_that_turns_read_only_loses_nothing_that_was_acknowledged(
    back: Path, tmp_path: Path
) -> None:
    """As the kernel does it after an error (errors=remount-ro): until it is repaired, nothing is written."""
    folder = tmp_path / "disk"
    with ext4(back / "image", folder, _IMAGE_BYTES, "-J", "size=4", "-e", "remount-ro") as disk:
        async with Store.open(disk / "store", SETTINGS, SystemClock()) as store:
            intake = Intake(store)
            await intake.commit(10)
            await asyncio.to_thread(
                Path(f"/sys/fs/ext4/{device(disk).name}/trigger_fs_error").write_text, "a test"
            )
            await intake.while_refused(2.5)
            before = intake.acknowledged()
            assert store.state().refusing and len(before) < intake.issued
            assert await judge_store(store, before, intake.issued), "what is there is served"
    for _ in range(50):  # its loop device may be let go a little later
        repaired = await asyncio.to_thread(
            subprocess.run, ["e2fsck", "-fp", back / "image"], capture_output=True, text=True
        )
        if repaired.returncode <= 1:
            break
        await asyncio.sleep(0.2)
    assert repaired.returncode <= 1, repaired.stdout + repaired.stderr
    with mounted(folder, "-o", "loop", back / "image") as disk:
        assert await judge_folder(disk / "store", before, intake.issued)


async def test_a_read_only_remount_is_waited_for(back: Path, tmp_path: Path) -> None:
    with ext4(back / "image", tmp_path / "disk", _IMAGE_BYTES, "-J", "size=4") as disk:
        async with Store.open(disk / "store", SETTINGS, SystemClock()) as store:
            intake = Intake(store)
            await intake.commit(10)
            filler = await asyncio.to_thread(fail_new_blocks, back / "image", disk)
            await intake.while_refused(1.5)
            for _ in range(40):  # a file that is open for writing keeps it from being remounted
                if not (done := await asyncio.to_thread(mount, "-o", "remount,ro", disk)).returncode:
                    break
                await asyncio.sleep(0.05)
            assert not done.returncode, done.stderr
            filler.unlink()
            before = intake.acknowledged()
            await intake.while_refused(2.5)
            assert intake.acknowledged() == before and store.state().refusing, store.state()
            done = await asyncio.to_thread(mount, "-o", "remount,rw", disk)
            assert not done.returncode, done.stderr
            print("resumed after", round(await intake.resumed(), 2), "s")  # noqa: T201  # for -s
            assert await judge_store(store, range(intake.issued), intake.issued)
