"""Requests of the MyTooliT protocol and what their acknowledgements hold; pure.

Source: MyTooliT protocol (documentation of the ICOtronic system), as the icotronic library 4.1.0 speaks it.
An id is 29 bits: block << 22 | command << 14 | acknowledge << 13 | error << 12 | sender << 6 | receiver.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from gateway.canbus import EXTENDED
from gateway.controls.sensor_nodes import AdcConfiguration, SensorMap

STH, SPU, STU = 1, 15, 17
"""Numbers of the connected sensor node, of us and of the transceiver unit."""
SELF: Final = 0xFF
"""As number of a Bluetooth node: the unit that is asked."""
NAME_BYTES: Final = 8
NO_MAC: Final = "00-00-00-00-00-00"
"""Of a number that no node has."""

_RESERVED = 1 << 28 | 1 << 11 | 1 << 5
_REQUEST, _ERROR = 1 << 13, 1 << 12
_FROM_TO = EXTENDED | _RESERVED | _REQUEST | 0x1F << 6 | 0x1F
FILTERS: Final = tuple((EXTENDED | sender << 6 | SPU, _FROM_TO) for sender in (STH, STU))
"""What we receive: answers of the STU and of the connected node to us."""
DATA_ID: Final = EXTENDED | 0x04 << 22 | STH << 6 | SPU
"""Of the frames of a stream, and of the answers to requests that start and stop it."""

_ERRORS = {
    1: "not available",
    2: "general error",
    3: "writing is not allowed",
    4: "unsupported format",
    5: "wrong key",
    7: "its EEPROM is defect",
}
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}([-:]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}|[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True)
class Request:
    """A question to the STU or to the connected node."""

    what: str
    """What it is for, behind "was asked to"."""
    block: int
    command: int
    receiver: int
    data: bytes = bytes(8)
    expected: tuple[int | None, ...] = ()
    """The first bytes of the acknowledgement; None where it may be anything."""
    least: int = 0
    """So many bytes the acknowledgement has at least."""
    most: int = 8
    takes_s: float = 0.0
    """So long it takes to answer, where that is no matter of a moment."""
    can_id: int = field(init=False)
    ack_id: int = field(init=False)

    def __post_init__(self) -> None:
        what = EXTENDED | self.block << 22 | self.command << 14
        object.__setattr__(self, "can_id", what | _REQUEST | SPU << 6 | self.receiver)
        object.__setattr__(self, "ack_id", what | self.receiver << 6 | SPU)

    @property
    def error_id(self) -> int:
        return self.ack_id | _ERROR

    def answered_by(self, data: bytes) -> bool:
        """Say whether a payload under `ack_id` answers this, and no other request of the same command."""
        if not max(self.least, len(self.expected)) <= len(data) <= self.most:
            return False
        return all(want in (None, got) for want, got in zip(self.expected, data, strict=False))


def error_text(data: bytes) -> str:
    """Return what an error acknowledgement says."""
    number = data[0] if data else 0
    return _ERRORS.get(number, f"error {number}")


# -- Bluetooth (block System, command 0x0B) ----------------------------------------------------------

ACTIVATE, COUNT, SET_NAME_1, SET_NAME_2, NAME_1, NAME_2 = 1, 2, 3, 4, 5, 6
CONNECT, CONNECTED, DEACTIVATE, RSSI, MAC = 7, 8, 9, 12, 17
_WRONG_NUMBER = (SET_NAME_2, MAC)
"""Their acknowledgements repeat the number wrongly (firmware; icotronic, spu.py)."""


def bluetooth(what: str, receiver: int, sub: int, number: int = 0, value: bytes = b"") -> Request:
    """Return the request of a Bluetooth subcommand; its answer is `[sub, number, 6 bytes]`."""
    expected = (sub, None if sub in _WRONG_NUMBER else number)
    data = bytes((sub, number)) + value.ljust(6, b"\0")
    return Request(what, 0x00, 0x0B, receiver, data, expected, 8 if sub == MAC else 3)


def text(data: bytes) -> str:
    """Return a text that ends at the first null byte; what is no UTF-8 or not printable is replaced.

    Names come by radio from whoever is in range, and go into logs and tags.
    """
    said = data.partition(b"\0")[0].decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "\ufffd" for each in said).strip()


def name_bytes(name: str) -> bytes:
    """Return a node's name as 8 bytes. ValueError: it is none."""
    raw = name.encode()
    if not name.strip() or not name.isprintable() or len(raw) > NAME_BYTES:
        raise ValueError(
            f"the name {name!r} will not do: that of a sensor node has 1 to {NAME_BYTES} printable bytes"
        )
    return raw.ljust(NAME_BYTES, b"\0")


def mac_text(answer: bytes) -> str:
    """Return the MAC, as 08-6B-D7-01-DE-81, of the 6 reversed bytes that end an acknowledgement."""
    return answer[:-7:-1].hex("-").upper()


def as_mac(node: str) -> str | None:
    """Return how a MAC is written here, or None where the text is none."""
    if not _MAC.fullmatch(node):
        return None
    digits = node.replace("-", "").replace(":", "").upper()
    return "-".join(digits[n : n + 2] for n in range(0, 12, 2))


# -- configuration -----------------------------------------------------------------------------------


def adc_bytes(adc: AdcConfiguration) -> bytes:
    """Return the payload that sets an ADC configuration."""
    cycles = adc.acquisition_time
    code = cycles - 1 if cycles <= 3 else cycles.bit_length()
    oversampling = adc.oversampling_rate.bit_length() - 1
    return bytes((0x80, adc.prescaler, code, oversampling, round(adc.reference_voltage_v * 20), 0, 0, 0))


def adc_configuration(answer: bytes) -> AdcConfiguration:
    """Return the configuration of an acknowledgement. ValueError: it is out of range."""
    _, prescaler, code, oversampling, voltage = answer[:5]
    if code > 9 or oversampling > 12:
        raise ValueError(f"the ADC configuration {answer.hex(' ')} is out of range")
    return AdcConfiguration(
        prescaler=prescaler,
        acquisition_time=code + 1 if code <= 3 else 2 ** (code - 1),
        oversampling_rate=2**oversampling,
        reference_voltage_v=voltage / 20,
    )


def sensor_map_bytes(sensors: SensorMap) -> bytes:
    """Return the payload that sets the channel-to-sensor map. ValueError: a number is none."""
    if not all(0 <= sensor <= 255 for sensor in sensors):
        raise ValueError(f"the sensors {sensors} are out of range: each is 1 to 255, or 0 to stay as it is")
    return bytes((0x80, *sensors, 0, 0, 0, 0))


# -- streaming ---------------------------------------------------------------------------------------

STOP: Final = 0x80


def stream_format(channels: tuple[bool, bool, bool]) -> int:
    """Return the format byte: streaming, 2 bytes a value, 3 data sets for one channel, else 1."""
    first, second, third = channels
    sets = 2 if sum(channels) == 1 else 1
    return 0x80 | first << 5 | second << 4 | third << 3 | sets
