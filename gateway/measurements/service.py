"""Measurements: started and stopped, recorded into the store, finished into files, whatever comes between."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from gateway.clock import Clock
from gateway.controls.sensor_nodes import (
    AdcConfiguration,
    Recording,
    SensorNodes,
    Stream,
    Unsupported,
)
from gateway.measurements import metadata as meta
from gateway.measurements import names
from gateway.measurements.finishing import CHILD, FileProblem, Finisher
from gateway.measurements.incoming import check_room, clear_drafts
from gateway.measurements.inspection import FileFailed
from gateway.measurements.kept import understood
from gateway.measurements.live import Tap, Taps
from gateway.measurements.plan import MeasurementRefused, Plan
from gateway.measurements.record import EMPTY, RECORDED, RECORDING, WRITTEN, Measurement
from gateway.measurements.room import Room
from gateway.measurements.session import Session
from gateway.model import GatewayError, NotStored
from gateway.store import Store, StoreProblem, recordings
from gateway.supervise import Backoff, Keeper, Supervisor

_log = logging.getLogger(__name__)
C = TypeVar("C")

_LOOK_S = 1.0


class Find(Protocol):
    """Finds what a device's live session offers."""

    def __call__(self, device: str, contract: type[C], /) -> C | None:
        """Return it, or None where there is none now."""


class Measurements:
    """All measurements of this gateway; one at a time of each device. Event loop only."""

    def __init__(
        self, store: Store, clock: Clock, supervisor: Supervisor, folder: Path, gateway: str, find: Find,
        *, child: Sequence[str] = CHILD, stamp: Callable[[], tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        """Use `open`."""
        self.folder = folder
        self._store, self._clock, self._supervisor = store, clock, supervisor
        self._stamp = stamp or (lambda: (clock.wall_us(), 0))
        self._gateway, self._find = gateway, find
        self._finisher, self._room = Finisher(store, folder, child), Room(store, folder)
        self._known: dict[str, Measurement] = {}
        self._sessions: dict[str, Session] = {}
        self._starting: dict[str, asyncio.Event] = {}
        """Set once the start has ended, well or not."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._taps: dict[str, Taps] = {}
        self._due = asyncio.Event()
        self._written: dict[str, asyncio.Event] = {}
        self.keeper: Keeper | None = None
        """Of what writes the files."""
        self._changing = WeakValueDictionary[str, asyncio.Lock]()
        self.on_written: Callable[[], None] = _nobody
        """Called when a file was written or changed."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, store: Store, clock: Clock, supervisor: Supervisor, folder: Path, gateway: str, find: Find,
        *, child: Sequence[str] = CHILD, stamp: Callable[[], tuple[int, int]] | None = None,
    ) -> AsyncIterator["Measurements"]:  # fmt: skip
        """Finish what an earlier run left, and take new ones; what runs at the end is kept as interrupted.

        `stamp`: the gateway's own time and its flags, by which frames come too; default: that of `clock`.
        """
        mine = cls(store, clock, supervisor, folder, gateway, find, child=child, stamp=stamp)
        with suppress(OSError):  # a process of an earlier run that still runs fails then, and is not missed
            await asyncio.to_thread(clear_drafts, folder)
        with suppress(StoreProblem):  # then what writes the files says so, and tries again
            await mine._load()
        mine.keeper = supervisor.keep("files of measurements", mine._finish, backoff=Backoff(1.0, 60.0))
        try:
            yield mine
        finally:
            await mine.close()

    async def close(self) -> None:
        """End what runs; its frames go to the store. No file is written then without the last of them."""
        if self.keeper is not None:
            await self.keeper.stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # What may be asked.

    async def start(self, device: str, plan: Plan) -> Measurement:
        """Start; returns once frames can come and the store knows of it.

        MeasurementRefused: one runs already, there is no node or no room. NodeProblem: what the node says.
        """
        if self.busy(device):
            raise MeasurementRefused(f"{device} is measuring already: stop that measurement first")
        started = self._starting[device] = asyncio.Event()
        try:
            return await self._start(device, plan)
        finally:
            del self._starting[device]
            started.set()
            if device not in self._sessions:
                self._room.release(device)

    async def stop(self, device: str) -> Measurement:
        """End what runs or starts; returns once all that came is committed. Its file follows."""
        session = self._sessions.get(device)
        if session is None and (starting := self._starting.get(device)) is not None:
            await starting.wait()
            session = self._sessions.get(device)
        if session is None:
            raise MeasurementRefused(f"{device} is not measuring")
        session.stop()
        await session.ended.wait()
        if not session.began:
            raise MeasurementRefused(f"the measurement of {device} did not begin")
        return session.measurement

    def busy(self, device: str) -> bool:
        """Say whether a measurement runs, starts or ends."""
        return device in self._starting or device in self._sessions

    def running(self, device: str) -> Measurement | None:
        """Return the measurement that runs."""
        session = self._sessions.get(device)
        if session is None or not session.began or session.ended.is_set():
            return None
        return session.measurement

    def find(self, name: str) -> Measurement | None:
        return self._known.get(name)

    def listed(self) -> list[Measurement]:
        """Return all that are known, the newest first."""
        return sorted(self._known.values(), key=lambda m: m.started_us, reverse=True)

    async def post_metadata(self, name: str, metadata: Mapping[str, Any] | None) -> Measurement:
        """Take what is known after a measurement, None: nothing; returns after COMMIT, the file follows.

        MeasurementRefused: there is no such measurement, or no file of it. ValueError: it cannot be kept.
        """
        if (m := self._known.get(name)) is not None:
            m.waits_for_metadata = False
        return await self.put_metadata(name, None, metadata)

    async def put_metadata(
        self, name: str, pre: Mapping[str, Any] | None, post: Mapping[str, Any] | None
    ) -> Measurement:
        """Take metadata in place of what was, None: it stays as it was. As `post_metadata`."""
        m = self._known.get(name)
        if m is None or m.state == EMPTY:
            raise MeasurementRefused(f"there is no file of a measurement {name}")
        for given in (pre, post):
            if given is not None:
                meta.check(given)
        m.metadata = pre if pre is not None else m.metadata
        m.post_metadata = post if post is not None else m.post_metadata
        if pre is not None or post is not None:
            m.metadata_due = m.state == WRITTEN
        await self._keep(m)
        self._due.set()
        return m

    async def finished(self, name: str) -> Measurement:
        """Wait until the file is written and verified, or it is known that there were no frames."""
        m = self._known[name]
        if m.state not in (WRITTEN, EMPTY) or m.metadata_due:
            await self._written.setdefault(name, asyncio.Event()).wait()
        return m

    def changing(self, file: str) -> asyncio.Lock:
        """Return what is held while a file that is there is changed or deleted."""
        return self._changing.setdefault(file, asyncio.Lock())

    def watch(self, device: str) -> AbstractContextManager[Tap]:
        """Look on at the measurements of a device while entered."""
        return self._taps.setdefault(device, Taps()).opened()

    # Starting.

    async def _start(self, device: str, plan: Plan) -> Measurement:
        recording, nodes = self._find(device, Recording), self._find(device, SensorNodes)
        if recording is None or nodes is None:
            raise MeasurementRefused(
                f"{device} cannot measure now: it is no ICOtronic device, or its STU is not reached"
            )
        if plan.metadata is not None:
            meta.check(plan.metadata)
        taken = await asyncio.to_thread(self._files)
        await self._reserve(device, plan, plan.adc or await nodes.adc())
        if plan.adc is not None:
            await nodes.set_adc(plan.adc)
        await _map_sensors(plan, nodes)
        session = Session(
            plan, recording, lambda stream: self._begin(device, plan, stream, taken),
            self._store, self._clock,
            lambda frames: self._room.take(device, frames, plan.values_per_frame),
            self._taps.setdefault(device, Taps()),
        )  # fmt: skip
        self._sessions[device] = session
        task = self._supervisor.start(f"measurement of {device}", self._run(device, session, plan, nodes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(session.opened)
        return session.measurement

    async def _reserve(self, device: str, plan: Plan, adc: AdcConfiguration) -> None:
        frames_s = adc.sample_rate_hz / plan.values_per_frame
        frames = None if plan.duration_s is None else round(frames_s * plan.duration_s)
        await self._room.reserve(device, frames, plan.values_per_frame)

    def _files(self) -> set[str]:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        return {file.name for file in self.folder.iterdir()}

    def _begin(self, device: str, plan: Plan, stream: Stream, files: set[str]) -> Measurement:
        now_us, _ = self._stamp()
        name = names.unique(
            names.cleaned(plan.name) or names.cleaned(device), self._gateway, now_us,
            lambda name: name in self._known or f"{name}{names.SUFFIX}" in files,
        )  # fmt: skip
        m = self._known[name] = Measurement(
            name=name, device=device, gateway=self._gateway, node=stream.node.name, mac=stream.node.mac,
            started_us=now_us, channels=plan.channels, adc=stream.adc, duration_s=plan.duration_s,
            metadata=plan.metadata, waits_for_metadata=plan.wait_for_post_metadata,
        )  # fmt: skip
        return m

    async def _run(self, device: str, session: Session, plan: Plan, nodes: SensorNodes) -> None:
        try:
            if await session.run() is None:
                begun = [m.name for m in self._known.values() if (m.device, m.state) == (device, RECORDING)]
                for name in begun:
                    del self._known[name]
                return
            if plan.disconnect_afterwards:
                await nodes.disconnect()
        except GatewayError as error:
            _log.warning("%s: the node could not be disconnected: %s", device, error)
        finally:
            del self._sessions[device]
            self._room.release(device)
            self._due.set()

    # Finishing.

    async def _keep(self, m: Measurement) -> None:
        text, done = m.text(), m.state in (WRITTEN, EMPTY)
        await self._store.ride(lambda tx: recordings.keep(tx, m.name, text, done=done))

    async def _load(self) -> None:
        """Take note of measurements that only the store knows: of an earlier run, or a damaged file."""
        for row in await self._store.measurements():
            if (known := self._known.get(row.name)) is not None:
                if known.state in (WRITTEN, EMPTY) and not row.done:  # out of a damaged file
                    await self._keep(known)
                continue
            m = await understood(self._store, row)
            if m is None:
                continue
            self._known[m.name] = m
            if m.state == RECORDING:
                m.state, m.interrupted = RECORDED, True
                m.ending = m.ending or "the gateway ended while it was recorded"

    async def _finish(self, keeper: Keeper) -> None:
        """Write the files that are due; where that fails, the supervisor tries again."""
        await self._load()
        while not await self._store.searched():
            keeper.report("waiting", "for a damaged file of the store to be searched")
            await self._clock.sleep(_LOOK_S)
        while True:
            self._due.clear()
            await self._load()
            for name in await self._store.read(recordings.leftover):
                await self._finisher.drop(name)
            problems = [problem for m in self._waiting() if (problem := await self._one(m))]
            if problems:
                raise FileProblem(problems[0])
            keeper.report("running")
            await self._due.wait()

    def _waiting(self) -> list[Measurement]:
        return [
            m for m in self._known.values() if m.state == RECORDED or (m.state == WRITTEN and m.metadata_due)
        ]

    async def _one(self, m: Measurement) -> str:
        """Finish a measurement; return why it could not be, or ""."""
        try:
            await asyncio.to_thread(self._files)
            if m.state == RECORDED:
                await self._finisher.write(m)
            else:
                async with self.changing(m.file):
                    size = await asyncio.to_thread(_size, self.folder / m.file)
                    await check_room(self.folder, size, own=True)
                    await self._finisher.change(m)
        except (FileProblem, FileFailed, OSError, NotStored) as error:
            m.problem = f"{m.name}: {error}"
            return m.problem
        _log.info(
            "measurement %s: %s", m.name,
            f"{m.file} is written" if m.file else f"no file: {m.ending or 'it had no frames'}",
        )  # fmt: skip
        self._forget()
        self.on_written()
        if not m.metadata_due and (event := self._written.pop(m.name, None)):
            event.set()
        return ""

    def _forget(self) -> None:
        """Keep no more measurements in memory than the store keeps."""
        done = [name for name, m in self._known.items() if m.state in (WRITTEN, EMPTY) and not m.metadata_due]
        for name in done[: max(0, len(done) - recordings.ROWS_KEPT)]:
            del self._known[name]


def _nobody() -> None:
    """Nobody is to be told."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _map_sensors(plan: Plan, nodes: SensorNodes) -> None:
    """Let the channels measure what is asked for: the node keeps what was asked of it before."""
    wanted = plan.sensor_map
    try:
        there = await nodes.sensor_map()
    except Unsupported:
        if not plan.own_sensors:
            raise
        return
    if any(number not in (0, now) for number, now in zip(wanted, there, strict=True)):
        await nodes.set_sensor_map(wanted)
