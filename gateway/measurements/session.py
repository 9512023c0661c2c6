"""One measurement while it runs: frames from the stream into the store, and to those who look on."""

import asyncio
import logging
from array import array
from collections.abc import Callable, Iterable
from itertools import chain

from gateway.clock import Clock
from gateway.controls.sensor_nodes import Recording, Stream, StreamFrames
from gateway.measurements.ift import Ift, IftRequest
from gateway.measurements.live import Ended, IftValues, LiveFrames, Loss, Taps
from gateway.measurements.plan import FrameCount, Plan, columns, conversions, loss
from gateway.measurements.record import RECORDED, Measurement
from gateway.model import GatewayError
from gateway.store import Store, recordings
from gateway.store.outbox import Transaction
from gateway.store.recordings import MeasurementRow

_log = logging.getLogger(__name__)

_PART_NS = 500_000_000
_PART_FRAMES = 4096
_TELL_NS = 1_000_000_000

Begin = Callable[[Stream], Measurement]


class Session:
    """Runs once. `begin` makes the measurement of an open stream."""

    def __init__(
        self,
        plan: Plan,
        recording: Recording,
        begin: Begin,
        store: Store,
        clock: Clock,
        room: Callable[[int], bool],
        taps: Taps,
    ) -> None:
        """`room`: counts frames, and says whether more may come."""
        self._plan, self._recording, self._begin = plan, recording, begin
        self._store, self._clock, self._room, self._taps = store, clock, room, taps
        self.measurement: Measurement
        self._row: MeasurementRow
        self._head = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends once frames can come and the store knows of it, or with why not."""
        self.ended = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self._stopping = self._complete = False
        self._count, self._told = FrameCount(), FrameCount()
        self._began_ns = self._told_ns = self._part_ns = 0
        self._pending = StreamFrames([], b"", array("H"))
        self._part = 0
        self._writing: set[asyncio.Future[None]] = set()
        self._ift: Ift | None = None
        self._ift_ts: list[int] = []

    @property
    def began(self) -> bool:
        """Say whether `opened` ended well."""
        opened = self.opened
        return opened.done() and not opened.cancelled() and opened.exception() is None

    def stop(self) -> None:
        """End it as if its time were over."""
        self._stopping = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)

    async def run(self) -> Measurement | None:
        """Record until it ends; None: it could not begin, which `opened` tells.

        Cancelled, as the gateway ends: what came is handed to the store all the same.
        """
        try:
            if not await self._record():
                return None
            await self._end()
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            self.ended.set()
            self.opened.cancel()
        return self.measurement

    async def _record(self) -> bool:
        try:
            async with self._recording.stream(self._plan.mask) as stream:
                await self._open(stream)
                await self._take_all(stream)
        except (GatewayError, OSError, TimeoutError) as error:
            if not self.opened.done():
                self.opened.set_exception(error)
                return False
            self._note(f"{error}", interrupted=not self._complete)
        return True

    async def _open(self, stream: Stream) -> None:
        self.measurement = m = self._begin(stream)
        self._began_ns = self._clock.mono_ns()
        request = self._plan.ift
        if request is not None:
            ift = _ift(request, m, stream)
            self._ift = ift if ift.possible else None
        self._row, self._head = MeasurementRow(m.name, 1, done=False, text=m.text()), m.head()
        kept = self._store.riding(lambda tx: recordings.keep(tx, m.name, self._row.text))
        self._store.hurry()
        await kept
        self._told_ns = self._part_ns = self._clock.mono_ns()
        self.opened.set_result(None)

    async def _take_all(self, stream: Stream) -> None:
        if self._stopping:
            return
        limit = asyncio.timeout(self._plan.duration_s)
        try:
            async with limit:
                self._limit = limit
                async for frames in stream:
                    self.measurement.clock_set_us = stream.clock_set_us
                    self._take(frames)
                    await self._write_if_due()
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._limit = None
        self._complete = True

    def _take(self, frames: StreamFrames) -> None:
        self._count.take(frames)
        self.measurement.received, self.measurement.lost = self._count.received, self._count.lost
        pending = self._pending
        pending.ts += frames.ts
        pending.counters += frames.counters
        pending.counts += frames.counts
        pending.lost += frames.lost
        self._show(frames)
        if not self._room(len(frames)) and not self._stopping:
            self._note("the store has no room for more frames: it was stopped")
            self.stop()

    async def _write_if_due(self) -> None:
        now = self._clock.mono_ns()
        if len(self._pending) >= _PART_FRAMES or now - self._part_ns >= _PART_NS:
            self._part_ns = now
            await self._write()

    async def _write(self) -> None:
        """Hand over all that came; what was not taken stays pending, also where this is cancelled."""
        while len(self._pending):
            part = _first(self._pending, _PART_FRAMES)
            self._wrote(await self._store.record(self._row, self._head, self._part, part), len(part))

    def _wrote(self, stored: "asyncio.Future[None]", frames: int) -> None:
        self._part += 1
        self._pending = _rest(self._pending, frames)
        self._writing.add(stored)
        stored.add_done_callback(self._stored)

    def _stored(self, stored: "asyncio.Future[None]") -> None:
        self._writing.discard(stored)
        if not stored.cancelled() and (error := stored.exception()) is not None:
            self._note(f"frames were given up: {error}", interrupted=True)

    def _note(self, sentence: str, *, interrupted: bool = False) -> None:
        m = self.measurement
        m.ending = m.ending or sentence
        m.interrupted = m.interrupted or interrupted
        _log.warning("measurement %s: %s", m.name, sentence)

    async def _end(self) -> None:
        """Have all that came committed; then nothing more comes."""
        await self._write()
        self._store.hurry()
        if self._writing:
            await asyncio.wait(self._writing)
        m = self.measurement
        text = self._closed()
        kept = self._store.riding(lambda tx: recordings.keep(tx, m.name, text))
        self._store.hurry()
        await kept
        self._show_end()
        _log.info(
            "measurement %s ended: %d frames, %d lost (%.2f %%)%s",
            m.name, m.received, m.lost, 100 * m.loss, m.ending and f"; {m.ending}",
        )  # fmt: skip

    def _closed(self) -> str:
        m = self.measurement
        m.state, m.ended_us = RECORDED, m.started_us + (self._clock.mono_ns() - self._began_ns) // 1000
        return m.text()

    def _abandon(self) -> None:
        """Hand over what there is; the store commits it as it closes."""
        if not self.opened.done():
            return
        if not self._complete:
            self._note("the gateway was stopped", interrupted=True)
        while len(self._pending):
            part = _first(self._pending, _PART_FRAMES)
            stored = self._store.try_record(self._row, self._head, self._part, part)
            if stored is None:
                self._note("there was no memory for its last frames")
                break
            self._wrote(stored, len(part))
        name, text = self.measurement.name, self._closed()

        def keep(tx: Transaction) -> None:
            recordings.keep(tx, name, text)

        self._store.post(keep)

    # What is shown.

    def _show(self, frames: StreamFrames) -> None:
        m = self.measurement
        by_channel = columns(frames.counts, m.active)
        each = len(by_channel[0]) // max(len(frames), 1)
        ts = sample_times(frames.ts, each, m.channel_rate_hz)
        if self._taps:
            converted = zip(by_channel, conversions(m.channels, m.adc), strict=True)
            found = iter([conversion.values(counts) for counts, conversion in converted])
            first, second, third = (next(found) if channel else None for channel in m.channels)
            self._taps.tell(LiveFrames(m.name, frames.ts, frames.counters, ts, (first, second, third)))
        if self._ift is not None and self._plan.ift is not None:
            place = sum(channel is not None for channel in m.channels[: self._plan.ift.channel])
            self._ift_ts += ts
            self._show_ift(self._ift.take(by_channel[place]))
        self._show_loss()

    def _show_ift(self, values: list[float]) -> None:
        if values:
            ts, self._ift_ts = self._ift_ts[: len(values)], self._ift_ts[len(values) :]
            self._taps.tell(IftValues(self.measurement.name, ts, values))

    def _show_loss(self) -> None:
        now = self._clock.mono_ns()
        if now - self._told_ns >= _TELL_NS:
            self._told_ns = now
            self._tell_loss()

    def _tell_loss(self) -> None:
        whole, told = self._count, self._told
        of_interval = loss(whole.received - told.received, whole.lost - told.lost)
        self._told = FrameCount(whole.received, whole.lost)
        self._taps.tell(Loss(self.measurement.name, of_interval, whole.loss))

    def _show_end(self) -> None:
        if self._ift is not None:
            self._show_ift(self._ift.end())
        self._tell_loss()
        self._taps.tell(Ended(self.measurement.name, self.measurement.ending, self._count.loss))


def _first(frames: StreamFrames, count: int) -> StreamFrames:
    """Return the first frames of some; what was lost counts for them."""
    if len(frames) <= count:
        return frames
    values = len(frames.counts) // len(frames)
    return StreamFrames(
        frames.ts[:count], frames.counters[:count], frames.counts[: count * values], frames.lost
    )


def _rest(frames: StreamFrames, count: int) -> StreamFrames:
    """Return the frames after the first ones."""
    values = len(frames.counts) // len(frames)
    return StreamFrames(frames.ts[count:], frames.counters[count:], frames.counts[count * values :])


def _ift(request: IftRequest, m: Measurement, stream: Stream) -> Ift:
    if request.raw:
        return Ift(request.window_s, m.adc.sample_rate_hz)
    place = sum(channel is not None for channel in m.channels[: request.channel])
    return Ift(request.window_s, stream.channel_rate_hz, conversions(m.channels, m.adc)[place].gain)


def sample_times(frame_ts: Iterable[int], each: int, rate_hz: float) -> list[int]:
    """Return when the samples of frames were taken: the last one of a frame at its time."""
    if each == 1:
        return list(frame_ts)
    before = [round(place * 1e6 / rate_hz) for place in range(each - 1, -1, -1)]
    return list(chain.from_iterable([ts - less for less in before] for ts in frame_ts))
