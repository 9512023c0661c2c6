"""Frames of a stream from the bus to counters and counts, and what is missing among them; pure.

A frame is `[format, counter, u16 little-endian...]`: three consecutive samples of one channel, or one sample
of each active channel.
"""

import sys
from array import array
from collections.abc import Sequence
from itertools import compress

from gateway.controls.sensor_nodes import StreamFrames

_COUNTERS = 256
_RING = bytes(range(_COUNTERS)) * 64
_SILENCE_US = 1_000_000
"""The radio hands frames over in bursts: a shorter pause need not be a loss."""


class Decoder:
    """Decodes the frames of one stream; `period_us` is the time between two."""

    def __init__(self, form: int, values_per_frame: int, period_us: float) -> None:
        self._form = form
        self._length = 2 + 2 * values_per_frame
        self._period_us = period_us
        self._newest: tuple[bytes, int] | None = None
        """The newest frame and its time."""

    def decode(self, ts: list[int], data: Sequence[bytes], passed_us: int) -> StreamFrames:
        """Return what the frames hold. What is no frame of this stream is left out.

        `passed_us`: monotonic time since the call before, which judges what the frames' own times say.
        """
        joined = b"".join(data)
        if len(joined) != len(data) * self._length or self._foreign(joined):
            ts, joined = self._own(ts, data)
        lost = 0
        if not self._complete(ts, joined):
            ts, joined = self._single(ts, joined)
            lost = self._missing(ts, joined, passed_us)
        if ts:
            self._newest = joined[-self._length :], ts[-1]
        counts = array("H", joined)
        del counts[:: self._length // 2]
        if sys.byteorder == "big":
            counts.byteswap()
        return StreamFrames(ts, joined[1 :: self._length], counts, lost)

    def _foreign(self, joined: bytes) -> bool:
        return joined[:: self._length].count(self._form) * self._length != len(joined)

    def _own(self, ts: list[int], data: Sequence[bytes]) -> tuple[list[int], bytes]:
        own = [len(each) == self._length and each[0] == self._form for each in data]
        return list(compress(ts, own)), b"".join(compress(data, own))

    def _complete(self, ts: Sequence[int], joined: bytes) -> bool:
        """Say whether each frame is the next one after that before, without a silence."""
        counters = joined[1 :: self._length]
        if not counters:
            return True
        frame, at_us = self._newest or (b"", ts[0])
        first = frame[1] + 1 & 0xFF if frame else counters[0]
        return counters == _RING[first : first + len(counters)] and ts[-1] - at_us < _SILENCE_US

    def _single(self, ts: list[int], joined: bytes) -> tuple[list[int], bytes]:
        """Leave out what came twice: a controller repeats a frame in whose last bit it saw an error."""
        frames = [joined[at : at + self._length] for at in range(0, len(joined), self._length)]
        before = [self._newest[0] if self._newest else b"", *frames]
        new = [one != other for one, other in zip(frames, before, strict=False)]
        return list(compress(ts, new)), b"".join(compress(frames, new))

    def _missing(self, ts: Sequence[int], joined: bytes, passed_us: int) -> int:
        """Count the frames that are missing between these and before them.

        A counter has eight bits: how often it went round in a silence, only time can tell, and a step of the
        wall clock is no silence.
        """
        lost = 0
        newest = self._newest
        for at_us, counter in zip(ts, joined[1 :: self._length], strict=True):
            if newest is not None:
                missing = counter - newest[0][1] - 1 & 0xFF
                silence_us = min(at_us - newest[1], passed_us)
                if silence_us >= _SILENCE_US:
                    rounds = round((silence_us / self._period_us - 1 - missing) / _COUNTERS)
                    missing += _COUNTERS * max(0, rounds)
                lost += missing
            newest = bytes((0, counter)), at_us
        return lost
