"""One judge for all: numbered samples whose value is a function of the number.

The n-th sample: tag n % TAGS of device "plc", time START_US + n * 1000. What was acknowledged must be there,
once, with its value; nothing may be there that was never issued.
"""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.clock import SystemClock
from gateway.controls.sensor_nodes import StreamFrames
from gateway.model import Batch, Sample, Value
from gateway.store import Store, StoreSettings
from gateway.store.recording import decode_part, name_of
from gateway.store.recordings import part_of

TAGS = 20
START_US = 1_795_000_000_000_000
EVERYTHING = (-(2**62), 2**62)
SETTINGS = StoreSettings(commit_interval_s=0.01)  # type: ignore[arg-type]


def value(n: int) -> Value:
    """Return the payload of the n-th sample."""
    return ((n * 2_654_435_761 % 2**32) / 7, n * 7_919, f"state {n * n}", n % 2 == 0, [n, -n])[n % 5]


def unit(tag: int) -> str:
    return f"unit-{tag}"


def samples(numbers: Iterable[int], series: dict[int, int]) -> Batch:
    """Return numbered samples; `series` maps tags to the store's numbers."""
    batch = Batch()
    for n in numbers:
        batch.add(series[n % TAGS], START_US + n * 1000, value(n), n % 3)
    return batch


def frames(begun: int, part: int) -> StreamFrames:
    """Return the frames of a block of the measurement that was begun at a number."""
    first = begun * 100 + part * 8
    ts = [START_US + (first + n) * 315 + n % 3 for n in range(8)]
    counts = array("H", ((first * 3 + n) * 2_654_435_761 >> 8 & 0xFFFF for n in range(24)))
    return StreamFrames(ts, bytes((first + n) % 256 for n in range(8)), counts, part % 2)


def judge_block(data: bytes) -> tuple[str, int]:
    """Return the measurement and the number of a block. ValueError: it is not as it was put."""
    part = decode_part(data)
    name, number = name_of(part.head), part_of(part.header.seq)
    if part.frames != frames(int(name[1:]), number):
        raise ValueError(f"block {number} of measurement {name} is wrong")
    return name, number


def tags_of(store: Store) -> dict[int, int]:
    """Return tag to series, made where they are not there."""
    return {tag: store.series("plc", f"tag-{tag}", unit(tag)) for tag in range(TAGS)}


@dataclass(slots=True)
class Verdict:
    """Numbers that break the promise, by how."""

    missing: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    never_issued: list[int] = field(default_factory=list)
    stored: int = 0

    def __bool__(self) -> bool:
        """Say whether the promise is kept."""
        return not (self.missing or self.doubled or self.wrong or self.never_issued)


def judge(stored: Iterable[tuple[str, Sample]], acked: Iterable[int], issued: int) -> Verdict:
    """Judge stored samples, each with the name of its tag; numbers below `issued` were issued."""
    verdict, seen = Verdict(), Counter[int]()
    for tag, sample in stored:
        n, rest = divmod(sample.ts - START_US, 1000)
        if rest or not 0 <= n < issued:
            verdict.never_issued.append(n)
            continue
        seen[n] += 1
        right = (f"tag-{n % TAGS}", value(n), type(value(n)), n % 3, 0)
        if (tag, sample.value, type(sample.value), sample.status, sample.flags) != right:
            verdict.wrong.append(f"{n} as {tag}: {sample}")
    verdict.stored = sum(seen.values())
    verdict.doubled = sorted(n for n, times in seen.items() if times > 1)
    verdict.missing = sorted(set(acked) - seen.keys())
    return verdict


async def judge_store(store: Store, acked: Iterable[int], issued: int) -> Verdict:
    """Judge what an open store serves: windows, and the newest of each tag."""
    names = {series: tag for tag, series in store.series_of("plc").items()}
    stored: list[tuple[str, Sample]] = []
    async for batch in store.samples(list(names), *EVERYTHING):
        stored += [(names[sample.series], sample) for sample in batch]
    verdict = judge(stored, acked, issued)
    newest = [(names[series], sample) for series in names if (sample := store.last(series)) is not None]
    verdict.wrong += judge(newest, (), issued).wrong
    verdict.never_issued += judge(newest, (), issued).never_issued
    return verdict


async def numbers(store: Store) -> set[int]:
    """Return the numbers of the samples that an open store serves."""
    found: set[int] = set()
    async for batch in store.samples(list(store.series_of("plc").values()), *EVERYTHING):
        found.update((ts - START_US) // 1000 for ts in batch.ts)
    return found


async def judge_folder(folder: Path, acked: Iterable[int], issued: int) -> Verdict:
    """Open the store of a folder and judge it."""
    async with Store.open(folder, SETTINGS, SystemClock()) as store:
        return await judge_store(store, acked, issued)


async def judge_again(store: Store, kept: list[int], deleted: list[int], issued: int) -> Verdict:
    """Judge a store; put the last samples again, and new ones, and judge once more.

    `kept` must be served, `deleted` must not.
    """
    verdict = await judge_store(store, kept, issued)
    verdict.wrong += [f"{n} was deleted" for n in sorted(await numbers(store) & set(deleted))]
    again = sorted({*range(max(0, issued - TAGS), issued + TAGS)} - set(deleted))
    await (await store.put(samples(again, tags_of(store))))
    after = await judge_store(store, {*kept, *again}, issued + TAGS)
    verdict.missing += after.missing
    verdict.doubled += after.doubled
    verdict.wrong += after.wrong
    return verdict
