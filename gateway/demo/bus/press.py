"""A simulated press that sends what press.dbc describes."""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.demo.bus.frames import EXTENDED, Timed

DATABASE = Path(__file__).with_name("press.dbc")
_STROKE_S = 1.5
_PRESSING = 0.1
"""The part of a stroke, around its lowest point, in which there is force."""


def position_mm(t_s: float) -> float:
    """Return where the ram is: 0 at the lowest point."""
    return 150 * (1 + math.cos(2 * math.pi * t_s / _STROKE_S))


def force_kn(t_s: float) -> float:
    """Return the force of the ram."""
    phase = t_s / _STROKE_S % 1 - 0.5
    return 1800 * math.cos(math.pi * phase / _PRESSING) if abs(phase) < _PRESSING / 2 else 0.0


def _status(t_s: float, n: int) -> bytes:
    force, phase = round(force_kn(t_s) * 10), t_s / _STROKE_S % 1
    state = 3 if force else 2 if phase < 0.5 else 1
    door = t_s % 60 > 57
    return struct.pack("<hHBxxx", force, round(position_mm(t_s) * 100), state | door << 3 | (n & 15) << 4)


def _drive(t_s: float, _n: int) -> bytes:
    speed = round((1450 - 40 * (force_kn(t_s) > 0)) * 2)
    return struct.pack(">Hxx", speed) + struct.pack("<f", 12 + force_kn(t_s) / 10)


def _temperatures(t_s: float, n: int) -> bytes:
    middle = (58.0, 44.5, 71.0, -3.5)[n % 4]
    return struct.pack("<Bh", n % 4, round((middle + 2 * math.sin(t_s / 40 + n % 4)) * 10))


def _counters(t_s: float, _n: int) -> bytes:
    return struct.pack("<II", int(t_s / _STROKE_S), int(t_s * 0.42))


@dataclass(slots=True)
class _Message:
    can_id: int
    period_s: float
    payload: Callable[[float, int], bytes]
    """Of the time since the press was switched on, and the number of the frame."""
    sent: int = 0


@dataclass(slots=True)
class Press:
    """Sends each message in its cycle; takes no notice of others."""

    messages: list[_Message] = field(
        default_factory=lambda: [
            _Message(288, 0.01, _status),
            _Message(289, 0.05, _drive),
            _Message(290, 0.5, _temperatures),
            _Message(EXTENDED | 0x18FEFF01, 1.0, _counters),
        ]
    )
    _since_s: float | None = None

    def receive(self, now_s: float, can_id: int, data: bytes) -> None:
        """Ignore it."""

    def due(self, now_s: float) -> list[Timed]:
        """Return the frames until now; cycles that were missed for more than a second are left out."""
        if self._since_s is None:
            self._since_s = now_s
        frames = []
        for message in self.messages:
            due = int((now_s - self._since_s) / message.period_s + 1e-6) + 1
            for n in range(max(message.sent, due - int(1 / message.period_s)), due):
                t_s = n * message.period_s
                frames.append(Timed(self._since_s + t_s, message.can_id, message.payload(t_s, n)))
            message.sent = max(message.sent, due)
        return frames
