"""A stream of the connected node, between the bus and who takes it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from gateway.clock import Clock
from gateway.controls.sensor_nodes import AdcConfiguration, ConnectedNode, StreamFrames
from gateway.model import GatewayError
from gateway.protocols.icotronic.frames import Decoder
from gateway.protocols.icotronic.messages import stream_format
from gateway.protocols.icotronic.steady import SteadyTime

_MOST_WAITING_S = 20.0
"""So much of a stream waits for who takes it; what is older is dropped and counted as lost."""


class NodeStream:
    """Frames as they come (controls.Stream); `queued` False where nobody iterates."""

    def __init__(
        self,
        node: ConnectedNode,
        channels: tuple[bool, bool, bool],
        adc: AdcConfiguration,
        clock: Clock,
        *,
        queued: bool,
    ) -> None:
        active = sum(channels)
        self.node = node
        self.channels = channels
        self.adc = adc
        self.form = stream_format(channels)
        self.samples_per_frame = 3 if active == 1 else 1
        self.values_per_frame = active * self.samples_per_frame
        self.received = 0
        self.lost = 0
        self.dropped = 0
        """Of the lost: they arrived, but were not taken in time."""
        self.heard_ns = clock.mono_ns()
        self._clock = clock
        self._queued = queued
        period_us = 1e6 / self.frame_rate_hz
        self._time = SteadyTime(period_us)
        self._decoder = Decoder(self.form, self.values_per_frame, period_us)
        self._waiting: deque[StreamFrames] = deque()
        self._waiting_frames = 0
        self._most_waiting = max(1000, int(_MOST_WAITING_S * self.frame_rate_hz))
        self._news = asyncio.Event()
        self._error: GatewayError | None = None

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second."""
        return self.adc.sample_rate_hz / self.values_per_frame

    @property
    def channel_rate_hz(self) -> float:
        """Samples a second of each active channel."""
        return self.frame_rate_hz * self.samples_per_frame

    @property
    def clock_set_us(self) -> int:
        """By how much the clock was set meanwhile."""
        return self._time.set_by_us

    def take(self, ts: list[int], data: list[bytes]) -> StreamFrames:
        """Take frames from the bus, hand them to who iterates, and return them decoded.

        Who iterates gets times that go on as they began; what is returned has those of the clock.
        """
        now_ns = self._clock.mono_ns()
        passed_us = (now_ns - self.heard_ns) // 1000
        frames = self._decoder.decode(ts, data, passed_us)
        if not frames:
            return frames
        self.heard_ns = now_ns
        self.received += len(frames)
        self.lost += frames.lost
        if self._queued:
            self._queue(replace(frames, ts=self._time.of(frames.ts, passed_us)))
        return frames

    def fail(self, error: GatewayError) -> None:
        """End the iteration with an error, behind what is waiting."""
        self._error = self._error or error
        self._news.set()

    def __aiter__(self) -> AsyncIterator[StreamFrames]:
        return self

    async def __anext__(self) -> StreamFrames:
        while not self._waiting:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        frames = self._waiting.popleft()
        self._waiting_frames -= len(frames)
        return frames

    def _queue(self, frames: StreamFrames) -> None:
        self._waiting.append(frames)
        self._waiting_frames += len(frames)
        while self._waiting_frames > self._most_waiting and len(self._waiting) > 1:
            self._drop(self._waiting.popleft())
        self._news.set()

    def _drop(self, frames: StreamFrames) -> None:
        """Count the oldest frames as missing before those that follow, which may be the tags' too."""
        count, following = len(frames), self._waiting[0]
        self._waiting[0] = replace(following, lost=following.lost + frames.lost + count)
        self._waiting_frames -= count
        self.received -= count
        self.lost += count
        self.dropped += count
