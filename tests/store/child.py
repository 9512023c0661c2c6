"""Processes that write numbered samples into a store, to be killed.

The n-th sample: series 1 + n % SERIES, time START_US + n * 1000, value a function of n.
"""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from gateway.clock import SystemClock
from gateway.model import Batch, Receipt, Ticket, Value
from gateway.store import Store, StoreSettings, compact, deletions
from gateway.store import store as store_module
from gateway.store import writer as writer_module
from gateway.store.writer import Writer

SERIES = 100
START_US = time.time_ns() // 1000 // 86_400_000_000 * 86_400_000_000 - 86_400_000_000


SETTINGS = {"commit_interval_s": 0.01}


def value(n: int) -> Value:
    """Return the payload of the n-th sample."""
    return ((n * 2_654_435_761 % 2**32) / 7, n, f"state {n % 7}", n % 2 == 0)[n % 4]


def batch(numbers: Iterable[int]) -> Batch:
    made = Batch()
    for n in numbers:
        made.add(1 + n % SERIES, START_US + n * 1000, value(n))
    return made


class AcknowledgesBeforeCommit(Writer):
    """The mutant that the kill test must catch."""

    def _commit(self, closing: bool) -> None:
        tickets = [intake.ticket for intake in self._work.intakes]
        self._tell(lambda: [ticket.resolve(Receipt(0, 0, 0)) for ticket in tickets] and None)
        time.sleep(0.02)
        super()._commit(closing)


def open_store(folder: str) -> Store:
    return Store.open(Path(folder), StoreSettings(**SETTINGS), SystemClock())  # type: ignore[return-value]


async def numbered(folder: str, start: str) -> None:
    """Write from `start` on, ten a batch, and print the last number of each batch after its ticket."""
    async with open_store(folder) as store:  # type: ignore[attr-defined]
        for tag in range(SERIES):
            store.series("plc", str(tag))
        acknowledgements: asyncio.Queue[tuple[int, Ticket]] = asyncio.Queue(50)
        printing = asyncio.create_task(_print_each(acknowledgements))
        n = int(start)
        while not printing.done():
            ticket = await store.put(batch(range(n, n + 10)))
            n += 10
            await acknowledgements.put((n, ticket))
            await asyncio.sleep(0.0005)


async def _print_each(acknowledgements: "asyncio.Queue[tuple[int, Ticket]]") -> None:
    while True:
        n, ticket = await acknowledgements.get()
        await ticket
        os.write(1, b"%d\n" % n)


async def deleting(folder: str, start: str) -> None:
    """Write ten a batch, delete the first of each, and print the last number once both are acknowledged."""
    async with open_store(folder) as store:  # type: ignore[attr-defined]
        for tag in range(SERIES):
            store.series("plc", str(tag))
        n = int(start)
        while True:
            await (await store.put(batch(range(n, n + 10))))
            first = next(iter(batch([n])))
            made = await store.delete(first.series, "child", first.ts, first.ts)
            assert made is not None and made.count == 1
            n += 10
            os.write(1, b"%d\n" % n)


async def fill(folder: str, count: str) -> None:
    """Write numbers 0 to `count`, print "done", and wait to be killed."""
    async with open_store(folder) as store:  # type: ignore[attr-defined]
        for tag in range(SERIES):
            store.series("plc", str(tag))
        tickets = [await store.put(batch(range(n, n + 5000))) for n in range(0, int(count), 5000)]
        for ticket in tickets:
            await ticket
        while SETTINGS.get("chunk_minutes") == 0 and store.state().blocks > 5:
            await asyncio.sleep(0.05)
            await store.flush()
        os.write(1, b"done\n")
        await asyncio.sleep(100)


async def again(folder: str, count: str) -> None:
    """Send the same numbers in a scrambled order; print the sums of the receipts and the growth of RSS."""
    size = 1 << (int(count) - 1).bit_length()
    scrambled = [0]
    async with open_store(folder) as store:  # type: ignore[attr-defined]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tickets: list[Ticket] = []
        numbers: list[int] = []
        for _ in range(size):
            scrambled[0] = (scrambled[0] * 1_664_525 + 1_013_904_223) % size  # a full cycle: each number once
            if scrambled[0] < int(count):
                numbers.append(scrambled[0])
            if len(numbers) == 5000:
                tickets.append(await store.put(batch(numbers)))
                numbers = []
        tickets.append(await store.put(batch(numbers)))
        receipts = [await ticket for ticket in tickets]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        sums = [sum(column) for column in zip(*receipts, strict=True)]
        os.write(1, b"%d %d %d %d\n" % (*sums, grown))


async def limited(folder: str, limit: str) -> None:
    """Write numbers while no file may grow beyond `limit` bytes; lift it when told by a line on stdin."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with open_store(folder) as store:  # type: ignore[attr-defined]
        for tag in range(SERIES):
            store.series("plc", str(tag))
        tickets: list[Ticket] = []
        while not store.state().refusing:
            tickets.append(await store.put(batch(range(len(tickets) * 100, len(tickets) * 100 + 100))))
            await asyncio.sleep(0.005)
            if len(tickets) == 20:
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        await asyncio.sleep(1.5)  # tried again meanwhile
        acknowledged = sum(ticket.done for ticket in tickets)
        ride = asyncio.ensure_future(store.ride(lambda tx: tx.newest_seq))
        await asyncio.sleep(0.1)
        assert not ride.done()
        os.write(1, f"{acknowledged} {len(tickets)} {store.state().refusing}\n".encode())
        await asyncio.to_thread(sys.stdin.readline)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        receipts = [await ticket for ticket in tickets]
        await ride
        added = sum(receipt.added for receipt in receipts)
        os.write(1, f"{added} {sum(r.same for r in receipts)} {store.state().refusing or '-'}\n".encode())


def fold_eagerly(samples: int) -> None:
    """Fold as soon as some thousand samples are there, so that kills hit folds and deletions."""
    writer_module._SNAPSHOT_NS = 0
    compact.LOOK_NS = 0
    compact.MOST_SAMPLES = samples
    SETTINGS["chunk_minutes"] = 0


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    if mode.startswith("folding-"):
        mode = mode.removeprefix("folding-")
        fold_eagerly(200_000 if mode == "fill" else 3000)
    if mode == "mutant":
        mode = "numbered"
        store_module.Writer = AcknowledgesBeforeCommit  # type: ignore[misc]
    if mode == "deleting-forgetting":
        mode = "deleting"
        deletions.keep = lambda conn, them: None
    asyncio.run(
        {"numbered": numbered, "deleting": deleting, "fill": fill, "again": again, "limited": limited}[mode](
            *arguments
        )
    )
