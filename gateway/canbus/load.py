"""How much of the bit rate the frames take (ISO 11898-1).

Stuffing bits are not counted, as in canbusload of can-utils.
"""

from collections import deque

from gateway.canbus.frames import EXTENDED, Frames

_FRAME_BITS = 47
"""A frame without its data: from its start to the end of the intermission."""
_TIMES = 10
_EXTENDED_BITS = 20
"""What an id of 29 bits takes more."""


class LoadMeter:
    """The time that the frames take on the wire. Without a bit rate it knows nothing."""

    def __init__(self, bitrate: int | None, data_bitrate: int | None) -> None:
        self._bit_s = 1 / bitrate if bitrate else 0.0
        self._data_bit_s = 1 / data_bitrate if data_bitrate else self._bit_s
        self._busy_s = 0.0
        self._times: deque[tuple[float, float]] = deque(maxlen=_TIMES)
        """Of late: busy, and in all."""
        self._extended = 0.0
        """Share of the ids of 29 bits, in what came last."""

    def seen(self, frames: Frames) -> None:
        """Learn of what kind the frames are."""
        if self._bit_s:
            self._extended = sum(can_id & EXTENDED > 0 for can_id in frames.ids) / len(frames)

    def count(self, frames: int, data_bytes: int) -> None:
        """Count frames with so many bytes of data together."""
        bits = frames * (_FRAME_BITS + _EXTENDED_BITS * self._extended)
        self._busy_s += bits * self._bit_s + 8 * data_bytes * self._data_bit_s

    def percent(self, elapsed_s: float) -> float | None:
        """Return the load of the last times, to which this one belongs; None without a bit rate."""
        self._times.append((self._busy_s, elapsed_s))
        self._busy_s = 0.0
        if not self._bit_s:
            return None
        busy_s, all_s = map(sum, zip(*self._times, strict=True))
        return min(100.0, 100 * busy_s / all_s)
