"""A simulated sensor node (STH): what it answers, and the frames that it streams.

Source: MyTooliT protocol, as the icotronic library 4.1.0 speaks it.
"""

import random
import struct
from dataclasses import dataclass, field

from gateway.demo.bus.faults import Faults
from gateway.demo.bus.signals import count

NOT_AVAILABLE, GENERAL, UNSUPPORTED_FORMAT = 1, 2, 4
"""Numbers of error acknowledgements."""
_ADC_CLOCK_HZ = 38_400_000
_STREAM, _THREE_BYTES, _SETS = 0x80, 0x40, {0: 0, 1: 1, 2: 3}
_MOST_AT_ONCE = 2000


class ErrorAck(Exception):
    """The node answers with an error acknowledgement of this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class Product:
    """What never changes of a unit."""

    mac: bytes
    serial: str
    product_name: str
    firmware: tuple[int, int, int]
    hardware: tuple[int, int, int] = (1, 4, 0)
    release_name: str = "Valerie"

    def read(self, command: int) -> bytes:
        """Return the 8 bytes of a command of the block product data."""
        if command == 0x00:
            return (4_260_000_000_000).to_bytes(8, "little")
        if command in (0x01, 0x02):
            return bytes(5) + bytes(self.hardware if command == 0x01 else self.firmware)
        if command == 0x03:
            return self.release_name.encode().ljust(8, b"\0")
        if 0x04 <= command <= 0x07:
            return self.serial.encode().ljust(32, b"\0")[8 * (command - 0x04) :][:8]
        if 0x08 <= command <= 0x17:
            return self.product_name.encode().ljust(128, b"\0")[8 * (command - 0x08) :][:8]
        if 0x18 <= command <= 0x1F:
            return bytes(8)
        raise ErrorAck(NOT_AVAILABLE)


@dataclass(slots=True)
class StreamCount:
    """What became of the frames of the stream that runs, or ran last."""

    sent: int = 0
    lost: int = 0


@dataclass(slots=True)
class SensorNode:
    """A node; `sensors` None: old firmware that knows no sensors."""

    name: bytes
    product: Product
    rssi_dbm: int
    sensors: list[int] | None
    adc: bytearray = field(default_factory=lambda: bytearray((0, 2, 4, 6, 66, 0, 0, 0)))
    supply_count: int = 11_000
    energy: dict[int, bytes] = field(default_factory=lambda: {13: _times(300_000, 2000), 15: _times(10, 4)})
    streams: int | None = None
    """The format byte of the stream that runs."""
    counted: StreamCount = field(default_factory=StreamCount)
    loses: random.Random = field(default_factory=lambda: random.Random(1))
    _began_s: float = 0.0

    # -- configuration ---------------------------------------------------------------------------

    def configuration(self, command: int, data: bytes) -> bytes:
        """Answer ADC configuration (0x00) and channel-to-sensor map (0x01), read or set (bit 7)."""
        wanted = data.ljust(8, b"\0")
        if command == 0x00:
            if wanted[0] & 0x80:
                if not (1 <= wanted[1] <= 127 and wanted[2] <= 9 and wanted[3] <= 12 and wanted[4]):
                    raise ErrorAck(UNSUPPORTED_FORMAT)
                self.adc[1:5] = wanted[1:5]
            return bytes((wanted[0] & 0x80, *self.adc[1:]))
        if command == 0x01 and self.sensors is not None:
            if wanted[0] & 0x80:
                pairs = zip(wanted[1:4], self.sensors, strict=True)
                self.sensors = [new or before for new, before in pairs]
            return bytes((wanted[0] & 0x80, *self.sensors, 0, 0, 0, 0))
        raise ErrorAck(NOT_AVAILABLE)

    @property
    def values_hz(self) -> float:
        """ADC values a second, of all channels together."""
        _, prescaler, code, oversampling = self.adc[:4]
        acquisition = code + 1 if code <= 3 else 1 << code - 1
        return _ADC_CLOCK_HZ / ((prescaler + 1) * (acquisition + 13) * (1 << oversampling))

    # -- streaming -------------------------------------------------------------------------------

    def streaming(self, command: int, data: bytes, now_s: float) -> bytes | None:
        """Answer a request of the block streaming; None: the first frame of the stream is the answer."""
        if not data or data[0] & _THREE_BYTES or data[0] & 7 not in _SETS:
            raise ErrorAck(UNSUPPORTED_FORMAT)
        form = data[0]
        if command == 0x20:
            return bytes((form, 0)) + self.supply_count.to_bytes(2, "little")
        if command != 0x00:
            raise ErrorAck(NOT_AVAILABLE)
        if not _SETS[form & 7]:
            self.streams = None
            return data[:1]
        if not 1 <= _SETS[form & 7] * (form >> 3 & 7).bit_count() <= 3:
            raise ErrorAck(UNSUPPORTED_FORMAT)
        if not form & _STREAM:
            return self._frame(form, int(now_s * self.values_hz))
        self.streams, self._began_s, self.counted = form, now_s, StreamCount()
        return None

    def frames(self, now_s: float, faults: Faults) -> list[tuple[float, bytes]]:
        """Return the frames of the stream until now with their times; a lost one is left out."""
        if self.streams is None:
            return []
        rate_hz = self.values_hz / (_SETS[self.streams & 7] * (self.streams >> 3 & 7).bit_count())
        first = self.counted.sent + self.counted.lost
        end = min(int((now_s - self._began_s) * rate_hz) + 1, first + _MOST_AT_ONCE)
        sent = []
        for n in range(first, end):
            if faults.take("lose_frames") or (faults.frame_loss and self.loses.random() < faults.frame_loss):
                self.counted.lost += 1
                continue
            self.counted.sent += 1
            sent.append((self._began_s + n / rate_hz, self._frame(self.streams, n)))
        return sent

    def _frame(self, form: int, n: int) -> bytes:
        sensors = self.sensors or [1, 2, 3]
        chosen = [sensor for sensor, bit in zip(sensors, (0x20, 0x10, 0x08), strict=True) if form & bit]
        sets = _SETS[form & 7]
        values = [count(sensor, n * sets + k) for k in range(sets) for sensor in chosen]
        return struct.pack(f"<BB{len(values)}H", form, n & 0xFF, *values)


def _times(sleep_ms: int, advertisement: int) -> bytes:
    return struct.pack("<IH", sleep_ms, advertisement)
