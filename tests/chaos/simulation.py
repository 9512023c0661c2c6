"""Hundreds of days of a box in a minute: real store, intake, forwarders; clock, disk and targets injected.

`python -m tests.chaos.simulation SEED DAYS [MUTANT]` in a process of its own; prints what happened as JSON.
Everything runs in one thread on simulated time, so a seed gives the same run again, to the byte.
"""

import asyncio
import hashlib
import json
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from gateway import uploaders
from gateway.forward import Forwarder
from gateway.intake import DeviceSession
from gateway.model import Batch, Flag, Sample
from gateway.own_time import OwnTime
from gateway.store import (
    Store,
    StoreProblem,
    StoreSettings,
    buckets,
    examine,
    history,
    outbox,
    reader,
    schema,
    segment,
    writer,
)
from gateway.store import store as store_module
from gateway.store.codec import Kind, decode
from gateway.supervise import Supervisor
from gateway.systemd import Notifier, Watchdog, Watched
from tests.chaos import simulated_target as targets
from tests.chaos import writers
from tests.chaos.oracle import EVERYTHING, START_US, TAGS, judge, samples, tags_of
from tests.chaos.simulated_disk import SimulatedDisk
from tests.chaos.simulated_target import TARGETS, Target, TargetSettings
from tests.chaos.simulated_time import InlineThread, SimulatedClock, SimulatedLoop, SteppedWriter, inline

YEAR_US = 31_557_600_000_000
DAY_S = 86_400
MAX_BYTES = 400_000
_WAL_BYTES = 5_000_000
FAR_US = 30 * YEAR_US
DEVICES = {"plc": 0, "ahead": FAR_US, "behind": -FAR_US}
"""Devices of numbered samples, and how far their clock is off."""
UPLOADS = ("cloud", "site")
DST_EDGES_S = (1_774_746_000, 1_792_890_000, 1_793_512_800, 1_806_195_600, 1_824_944_400)
"""Last Sundays of March and October 01:00 UTC, a New York edge, and the next ones."""


class Broken(AssertionError):
    """The promise was broken."""


class _Watchdog(Watchdog):
    stood = ""

    def standing(self) -> str:
        self.stood = super().standing() or self.stood
        return self.stood


class Source:
    """One device's numbered samples: what was issued, acknowledged, held back, and is gone for a reason."""

    def __init__(self) -> None:
        self.issued = 0
        self.acked: dict[int, float] = {}
        """Number to the running time when it was acknowledged."""
        self.later: deque[int] = deque()
        self.gone: set[int] = set()
        self.again: set[int] = set()
        self.given_up: set[int] = set()
        """Said to be lost when the store was closed on a failing disk; a COMMIT in doubt may have them."""


class Simulation:
    """One box."""

    def __init__(self, seed: int, days: int, mutant: str, root: Path) -> None:
        self.rng, self.days, self.mutant, self.root = random.Random(seed), days, mutant, root
        self.clock = SimulatedClock(START_US)
        self.disk = SimulatedDisk(random.Random(seed + 1), self.clock.pass_s)
        for number, upload in enumerate(UPLOADS):
            TARGETS[upload] = Target(random.Random(seed + 2 + number))
        self.settings = StoreSettings(
            commit_interval_s=self.rng.choice((0.5, 1.0)), max_bytes=MAX_BYTES, chunk_minutes=15,
            keep_days=self.rng.choice((0, 5, 20)), memory_bytes=1_000_000,
        )  # fmt: skip
        self.sources = {name: Source() for name in DEVICES}
        self.own = Source()
        self.found = Counter[str]()
        self.running_s = self._began_s = 0.0
        self._peak = 0
        self._lives = 0
        self._files: dict[str, bytes] = {}
        self._boot = UUID(int=1)
        self.store: Store
        self._undelivered: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        """(upload, device) to the numbers that it will never get, each in a gap record."""

    # Its life.

    async def run(self) -> None:
        """Live all days, then let everything come back and look once more."""
        store_module._boot_id = lambda: self._boot
        while self._day() < self.days:
            async with self._life():
                ending = ""
                while not ending and self._day() < self.days:
                    ending = await self._step()
                    self._look()
                await self._end(ending or "stopped")
            if ending == "power cut":
                self._reboot()
        self.disk.failing, self.disk.slow_s, self.disk.most_bytes = 0.0, 0.0, None
        async with self._life():
            for target in TARGETS.values():
                target.up, target.flaky = True, 0.0
            await self._drain()
            await self._check()
            await self._arrived()
            await self._end("stopped")

    def _day(self) -> float:
        return self.clock.lived_ns / 1e9 / DAY_S

    def _now_running_s(self) -> float:
        return self.running_s + self.clock.lived_ns / 1e9 - self._began_s

    @asynccontextmanager
    async def _life(self) -> AsyncIterator[None]:
        self._lives += 1
        folder = self.root / f"life-{self._lives}"
        self.disk.begin(folder, self._files)
        self._began_s = self.clock.lived_ns / 1e9
        async with Store.open(folder, self.settings, self.clock) as self.store:
            own_time = OwnTime(self.clock, self.store.newest_own_us, self.store.gap)
            self.store.pin(UPLOADS)
            self.sessions = {
                name: DeviceSession(
                    name, "opcua", store=self.store, clock=self.clock, own_time=own_time, state=folder,
                    gateway_id="gw", listeners=[],
                )
                for name in (*DEVICES, "own")
            }  # fmt: skip
            for session in self.sessions.values():
                await session.take_over()
            tags = {tag: self.store.series("plc", f"tag-{tag}", f"unit-{tag}") for tag in range(TAGS)}
            assert tags == tags_of(self.store)
            supervisor = Supervisor(self.clock)
            forwarders = [
                Forwarder(upload, "simulated", TargetSettings(), self.store, self.clock, "gw")
                for upload in UPLOADS
            ]
            for forwarder in forwarders:
                supervisor.keep(forwarder.upload, forwarder.run)
            watched = [
                Watched("writer", self.store, 60.0),
                *(Watched(f.upload, f, 120.0) for f in forwarders),
            ]
            self._watchdog = _Watchdog(Notifier(), self.clock, lambda: watched)
            supervisor.start("watchdog", self._watchdog.run(5.0))
            self._supervisor = supervisor
            try:
                yield
            finally:
                await supervisor.close()
        self.running_s = self._now_running_s()
        if not self.disk.dead:
            self._files = self.disk.cut(whole=True)
        shutil.rmtree(folder)
        if any("corrupt" in name for name in self._files):
            raise Broken("a file was set aside")

    async def _end(self, how: str) -> None:
        self.found[how] += 1
        if how == "stopped":
            return
        self._files = self.disk.cut(whole=how == "killed")
        await self._supervisor.close()

    def _reboot(self) -> None:
        self._boot = UUID(int=self.rng.getrandbits(128))
        self.clock.reboot(self.rng.choice((0, 5, 3600, 300_000)))
        if self.rng.random() < 0.5:
            self._set_clock(self.rng.choice((5_000_000, self.clock.wall_us() - 3_600_000_000)), synced=False)

    # What happens.

    async def _step(self) -> str:
        what = self.rng.choices(
            ("burst", "leap", "clock", "target", "disk", "late", "check", "stopped", "killed", "power cut"),
            (12, 5, 5, 3, 2, 2, 1, 0.4, 0.7, 0.8),
        )[0]  # fmt: skip
        match what:
            case "burst":
                await self._burst(self.rng.randint(1, 12))
            case "leap":
                self.clock.pass_s(self.rng.expovariate(1 / 20_000))
                await asyncio.sleep(self.rng.uniform(1, 40))
            case "clock":
                self._step_clock()
                await asyncio.sleep(self.rng.uniform(0, 3))
            case "target":
                target = self.rng.choice(list(TARGETS.values()))
                # What is never dropped undelivered cannot be kept silent.
                target.up = not target.up and (self.mutant != "silent" or self._day() > self.days / 2)
            case "disk":
                self._change_disk()
            case "late":
                await self._late()
            case "check":
                await self._check()
            case _:
                if what != "stopped" and self.rng.random() < 0.8:
                    self.disk.cut_after(self.rng.randrange(60), whole=what == "killed")
                    await self._burst(4)
                return what
        return ""

    async def _burst(self, ticks: int) -> None:
        for _ in range(ticks):
            for name, source in self.sources.items():
                if name == "plc" or self.rng.random() < 0.1:
                    count = self.rng.randint(1, 40 if name == "plc" else 3)
                    numbers = list(range(source.issued, source.issued + count))
                    source.issued += count
                    held = [n for n in numbers if self.rng.random() < 0.03]
                    source.later += held
                    await self._emit(name, [n for n in numbers if n not in held])
            await self._emit_own(self.rng.randint(1, 3))
            await asyncio.sleep(self.rng.uniform(0, 1.5))

    async def _late(self) -> None:
        """What was held back comes, and something comes again."""
        source = self.sources["plc"]
        late = [source.later.popleft() for _ in range(min(len(source.later), 60))]
        again = [n for n in range(max(0, source.issued - 400), source.issued) if self.rng.random() < 0.2]
        known = [n for n in late + again if n in source.acked and n not in source.gone]
        await self._note_gone(source, known)
        source.again.update(again)
        self.rng.shuffle(late)
        await self._emit("plc", late + again)
        await asyncio.sleep(1)

    async def _note_gone(self, source: Source, numbers: list[int]) -> None:
        """Take note of what retention took before it comes again: it is a new sample then."""
        there: set[int] = set()
        span = START_US + min(numbers, default=0) * 1000, START_US + max(numbers, default=0) * 1000
        try:
            async for batch in self.store.samples(list(self.store.series_of("plc").values()), *span):
                there.update((ts - START_US) // 1000 for ts in batch.ts)
        except StoreProblem:
            return  # the disk fails just now
        await self._allowed("plc", source, [n for n in numbers if n not in there])

    async def _emit(self, name: str, numbers: list[int]) -> None:
        source, running_s = self.sources[name], self._now_running_s()
        if name == "plc":
            series = tags_of(self.store)
        else:
            series = {tag: self.store.series(name, f"tag-{tag}") for tag in range(TAGS)}
        batch = samples(numbers, series)
        batch.ts = [ts + DEVICES[name] for ts in batch.ts]

        def told(kept: bool) -> None:
            if kept:
                source.acked |= {n: running_s for n in numbers if n not in source.acked}
            else:
                source.later.extend(numbers)
                source.given_up.update(numbers)

        session = self.sessions[name]
        async with session.run("cycle") as run:
            run.add(len(numbers))
            ticket = session.try_emit(batch)
        if ticket is None:
            source.later.extend(numbers)
        else:
            ticket.add_done_callback(told)

    async def _emit_own(self, count: int) -> None:
        source, running_s, session = self.own, self._now_running_s(), self.sessions["own"]
        numbers = range(source.issued, source.issued + count)
        series, batch = session.tag("n"), Batch()
        for n in numbers:
            ts, flags = session.stamp()
            batch.add(series, ts, n, 0, flags)
        ticket = session.try_emit(batch)
        if ticket is None:
            return
        source.issued += count
        ticket.add_done_callback(
            lambda kept: source.acked.update(dict.fromkeys(numbers, running_s)) if kept else None
        )

    def _step_clock(self) -> None:
        hour_us, now, choose = 3_600_000_000, self.clock.wall_us(), self.rng
        self.found["clock steps"] += 1
        true_us = START_US + self.clock.lived_ns // 1000
        match choose.randrange(8):
            case 0:
                self._set_clock(now + choose.choice((-1, 1)) * hour_us, synced=choose.random() < 0.5)
            case 1:
                self._set_clock(now + choose.choice((-10, 10)) * YEAR_US, synced=choose.random() < 0.5)
            case 2:
                self._set_clock(5_000_000, synced=False)
            case 3:
                self._set_clock(choose.choice(DST_EDGES_S) * 1_000_000 - 1_000_000, synced=True)
            case 4:
                self._set_clock(now - 1_000_000, synced=True)  # a leap second, not smeared
            case 5:
                self._set_clock(now + int(choose.gauss(0, 5) * hour_us), synced=choose.random() < 0.5)
            case _:
                self._set_clock(true_us, synced=True)

    def _set_clock(self, wall_us: int, *, synced: bool) -> None:
        self.clock.set(max(wall_us, 0), synced=synced)

    def _change_disk(self) -> None:
        disk = self.disk
        disk.failing, disk.slow_s, disk.most_bytes = 0.0, 0.0, None
        match self.rng.randrange(6):
            case 0:
                disk.failing = self.rng.choice((0.002, 0.05))
            case 1:
                disk.slow_s = 3.0
            case 2:
                disk.most_bytes = disk.used_bytes + self.rng.randint(0, 30_000)

    # What must hold.

    def _look(self) -> None:
        """Look after each step."""
        state = self.store.state()
        self.found["steps"] += 1
        self._peak = max(self._peak, state.bytes_used)
        self.found["most bytes"] = max(self.found["most bytes"], state.bytes_used)
        if state.bytes_used > MAX_BYTES * 1.5:
            raise Broken(f"{state.bytes_used} bytes are used of {MAX_BYTES}")
        if self.disk.used_bytes > 2 * MAX_BYTES + _WAL_BYTES:
            raise Broken(f"the files have {self.disk.sizes()}")
        if state.pending_bytes > self.settings.memory_bytes:
            raise Broken(f"{state.pending_bytes} bytes wait in memory")
        if self._watchdog.stood:
            raise Broken(f"the watchdog would fire: {self._watchdog.stood}")

    async def _settled(self) -> None:
        """Wait until the disk takes everything, and what can be folded is."""
        self.disk.failing, self.disk.slow_s, self.disk.most_bytes = 0.0, 0.0, None
        await asyncio.sleep(2)
        await self.store.flush()

    async def _check(self) -> None:
        """Compare the store with what was acknowledged."""
        self.found["checks"] += 1
        await self._settled()
        self._look()
        stored: dict[str, list[tuple[str, Sample]]] = {name: [] for name in (*DEVICES, "own")}
        for name, found in stored.items():
            names = {series: tag for tag, series in self.store.series_of(name).items()}
            async for batch in self.store.samples(list(names), *EVERYTHING):
                found += [(names[sample.series], sample) for sample in batch]
        for name, source in self.sources.items():
            moved = (
                (tag, s._replace(ts=s.ts - DEVICES[name], flags=s.flags & ~Flag.IMPLAUSIBLE))
                for tag, s in stored[name]
            )
            verdict = judge(moved, source.acked.keys() - source.gone, source.issued)
            if verdict.doubled or verdict.wrong or verdict.never_issued:
                raise Broken(f"{name}: {verdict}")
            await self._allowed(name, source, verdict.missing)
        numbers = Counter(sample.value for _, sample in stored["own"])
        if doubled := [n for n, times in numbers.items() if times > 1]:
            raise Broken(f"own: doubled {doubled}")
        await self._allowed("own", self.own, sorted(self.own.acked.keys() - self.own.gone - numbers.keys()))
        await self.store.read(self._in_order)
        self._peak = self.store.state().bytes_used

    async def _allowed(self, name: str, source: Source, missing: list[int]) -> None:
        """Judge what is missing: gone for room or age, and where an upload lacks it, with a gap."""
        if not missing:
            return
        now_s, keep_s = self._now_running_s(), self.settings.keep_days * DAY_S
        aged = bool(keep_s) and all(now_s - source.acked[n] > keep_s for n in missing)
        if not aged and self._peak < MAX_BYTES * 0.6:
            raise Broken(f"{name}: {len(missing)} acknowledged samples are gone for nothing: {missing[:5]}")
        source.gone.update(missing)
        self.found["gone"] += len(missing)
        self.found["gone by age"] += len(missing) * aged
        for upload in UPLOADS:
            await self._excused(upload, name, self._lacking(upload, name, missing))

    async def _excused(self, upload: str, name: str, lacking: list[int]) -> None:
        """What an upload will never get must be in its gap records, each sample counted."""
        fresh = set(lacking) - self._undelivered[upload, name]
        if not fresh:
            return
        self._undelivered[upload, name] |= fresh
        self.found["never delivered"] += len(fresh)
        gaps = await self.store.read(lambda conn: _gaps(conn, upload))
        counted = sum(gap[2] for gap in gaps)
        alone = [n for n in fresh if not self._covered(name, n, gaps)]
        if alone or counted < sum(len(known) for (u, _), known in self._undelivered.items() if u == upload):
            raise Broken(f"{upload} lacks {len(fresh)} of {name} ({min(fresh)}), its gaps count {counted}")

    def _covered(self, name: str, n: int, gaps: list[tuple[int, int, int]]) -> bool:
        if name == "own":
            return bool(gaps)
        ts = START_US + n * 1000 + DEVICES[name]
        return any(start <= ts <= end for start, end, _ in gaps)

    def _lacking(self, upload: str, name: str, numbers: list[int]) -> list[int]:
        there = self._there(upload, name)
        return [n for n in numbers if n not in there]

    def _there(self, upload: str, name: str) -> set[int]:
        target = TARGETS[upload]
        if name == "own":
            return {n for lane in target.own.values() for n in lane}
        return {
            (ts - START_US - DEVICES[name]) // 1000 for device, _, ts, _ in target.samples if device == name
        }

    def _in_order(self, conn: Any) -> None:
        """Own numbers were issued in order: so they stand in the blocks, whatever the clock said."""
        own = self.store.find_series("own", "n")
        last = -1
        for (data,) in conn.execute("SELECT data FROM block WHERE kind = ? ORDER BY seq", (Kind.SAMPLES,)):
            numbers = [s.value for s in decode(data)[1] if s.series == own]
            for n in sorted(numbers):
                if n <= last:
                    raise Broken(f"own number {n} stands after {last}")
                last = n

    async def _drain(self) -> None:
        for _ in range(3000):
            await asyncio.sleep(1)
            await self.store.flush()
            newest = self.store.state().newest_seq
            if not await self.store.read(lambda conn, n=newest: _backlog(conn, n)):
                return
        raise Broken("the uploads do not drain")

    async def _arrived(self) -> None:
        """Each upload has each sample once, or a gap."""
        for upload, target in TARGETS.items():
            if target.problems:
                raise Broken(f"{upload}: {target.problems[:3]}")
            for name, source in [*self.sources.items(), ("own", self.own)]:
                kept = source.acked.keys() - source.gone
                await self._excused(upload, name, self._lacking(upload, name, sorted(kept)))
            for (device, tag, ts, _), times in target.samples.items():
                if times > 1 and device != "own":
                    n = (ts - START_US - DEVICES[device]) // 1000
                    source = self.sources[device]
                    if n not in source.given_up and n not in source.again & source.gone:
                        raise Broken(f"{upload} got {n} of {device} {tag} {times} times")
            for lane, numbers in target.own.items():
                if numbers != sorted(set(numbers)):
                    raise Broken(f"{upload}: own numbers are out of order or double in the {lane} lane")
            self.found[f"{upload} units"] = len(target.bodies)
            self.found[f"{upload} repeats"] = target.repeats


def _gaps(conn: Any, upload: str) -> list[tuple[int, int, int]]:
    return conn.execute("SELECT from_us, to_us, count FROM gap WHERE upload = ?", (upload,)).fetchall()


def _backlog(conn: Any, newest_seq: int) -> bool:
    return any(list(outbox.unacked(outbox.acked(conn, upload), 0, newest_seq)) for upload in UPLOADS)


# The mutants that must be caught.


class _AcknowledgesBeforeCommit(SteppedWriter):
    def _commit(self, closing: bool) -> None:
        for intake in self._work.intakes:
            intake.ticket.resolve(writers.Receipt(0, 0, 0))
        self._clock.pass_s(0.005)  # type: ignore[attr-defined]
        super()._commit(closing)


class _RetainsByTheWall(SteppedWriter):
    def _now_running_s(self) -> float:
        return self._clock.wall_us() / 1e6


def _unsynced(connect: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A fold's COMMIT that does not wait until the journal's removal has reached the disk."""

    def connect_with(path: Path) -> Any:
        conn = connect(path)
        conn.execute("PRAGMA synchronous=FULL")
        return conn

    return connect_with


def use(mutant: str) -> None:
    """Put simulated time in the place of threads, and a mutant in the place of what it is of."""
    asyncio.to_thread = inline
    examine.Examination.thread = InlineThread  # type: ignore[assignment, misc]
    history._LEAST_BYTES = 32 * 1024
    writers.use("normal" if mutant == "normal" else "")
    store_module.Writer = {
        "early": _AcknowledgesBeforeCommit, "wall": _RetainsByTheWall
    }.get(mutant, SteppedWriter)  # type: ignore[misc]  # fmt: skip
    if mutant == "fold":
        segment.connect_writer = _unsynced(segment.connect_writer)
    if mutant == "silent":
        outbox.record_unsent = lambda *_: 0  # type: ignore[assignment]
    uploaders.UPLOADERS["simulated"] = targets.__name__  # type: ignore[index]


def main(seed: int, days: int, mutant: str) -> None:
    """Run one simulation; print what happened."""
    use(mutant)
    random.seed(seed)
    tokens = random.Random(seed)
    schema.secrets = SimpleNamespace(token_hex=lambda n: tokens.randbytes(n).hex())
    writer.secrets = SimpleNamespace(randbits=tokens.getrandbits)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        simulation = Simulation(seed, days, mutant, Path(root))
        reader.time = buckets.time = SimpleNamespace(monotonic=lambda: simulation.clock.mono_ns() / 1e9)
        broken = ""
        with asyncio.Runner(loop_factory=lambda: SimulatedLoop(simulation.clock)) as runner:
            try:
                runner.run(simulation.run())
            except Broken as error:
                broken = str(error)
    digest = hashlib.sha256()
    for name, content in sorted(simulation._files.items()):
        digest.update(name.encode() + content)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        **simulation.found, "day": round(simulation._day(), 1), "broken": broken,
        "samples": sum(s.issued for s in [*simulation.sources.values(), simulation.own]),
        "syncs": simulation.disk.syncs, "refused": simulation.disk.refused, "digest": digest.hexdigest(),
        "keep_days": simulation.settings.keep_days,
    }  # fmt: skip
    sys.stderr.write(f"cpu {used.ru_utime + used.ru_stime:.1f} s, memory {used.ru_maxrss // 1024} MiB\n")
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
