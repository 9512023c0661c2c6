"""A Python function for some signals of a payload: faster than any general one, as all is known beforehand.

For `Speed: 8|12@1+ (0.1,-40)` and `Gear: 20|4@1+ (1,0)` it is

    def decode(d):
        l = from_bytes(d, "little")
        return ((l >> 8 & 4095) * 0.1 + -40, d[2] >> 4,)

Of what a database says, only numbers go into the text.
"""

import dataclasses
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from gateway.model import Value
from gateway.protocols.can.database import Message, Signal
from gateway.protocols.can.j1939 import indicators
from gateway.scaling import Scaling


@dataclass(frozen=True, slots=True)
class Bad:
    """In place of a value: there is none, and this status says why."""

    status: int


NOT_AVAILABLE = Bad(0x809E0000)
FAILURE = Bad(0x808C0000)
INVALID = Bad(0x808B0000)
"""OPC UA StatusCodes (Part 4, 7.39; Part 8, 6.3): BadDataUnavailable for what a J1939 sender has not,
BadSensorFailure for its error indicator, BadDeviceFailure for the raw value that a database calls invalid."""

Decode: TypeAlias = Callable[[bytes], "tuple[Value | Bad, ...]"]
"""Takes a payload of exactly the message's length; gives the values in their order."""

UNSCALED: Final = Scaling()
LONGEST_NUMBER: Final = 64
"""An integer of more bits is given as its bytes, in the order of the payload."""
FLOAT_CODES: Final = {16: "e", 32: "f", 64: "d"}
_ORDERS: Final = {"l": "little", "b": "big"}
_MOST, _LEAST = 2**64 - 1, -(2**63)
"""Of the integers that a sample may hold (model.Value)."""


class Field(NamedTuple):
    """A signal to decode, and the scaling of its tag on top of the database's."""

    signal: Signal
    scaling: Scaling = UNSCALED
    tag: str = ""


def compiled(fields: Sequence[Field], message: Message) -> Decode:
    """Return the function for some signals, each within the length of the message."""
    writer = _Writer(message)
    values = "".join(f"{writer.value(field)}, " for field in fields)
    whole = [f' {name} = from_bytes(d, "{_ORDERS[name]}")' for name in sorted(writer.whole)]
    text = "\n".join(["def decode(d):", *whole, f" return ({values})"])
    namespace = dict(_NAMESPACE)
    exec(text, namespace)  # noqa: S102  # nothing of it comes from outside but numbers
    decode: Decode = namespace["decode"]
    return decode


def raw_value(signal: Signal, message: Message) -> Callable[[bytes], Any]:
    """Return the function for the raw value of a signal."""
    bare = dataclasses.replace(signal, scale=1, offset=0, invalid=None)
    decode = compiled([Field(bare)], dataclasses.replace(message, pgn=None))
    return lambda payload: decode(payload)[0]


class _Writer:
    """Writes the expression for each value; `whole` collects what it takes: the payload as one integer."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self.whole: set[str] = set()

    def value(self, field: Field) -> str:
        signal = field.signal
        if signal.length > LONGEST_NUMBER:
            return self._bytes(signal)
        raw = self._float(signal) if signal.is_float else _signed(signal, self._bits(signal))
        bad = self._bad(signal)
        text = _scaled(field, "x" if bad else raw)
        return f"({bad.replace('RAW', raw)} else {text})" if bad else text

    def _bits(self, signal: Signal) -> str:
        """Return the unsigned raw value."""
        big, length, bits = signal.big_endian, signal.length, 8 * self._message.length
        first = 8 * (signal.start // 8) + 7 - signal.start % 8 if big else signal.start
        last = first + length - 1
        mask = (1 << length) - 1
        if first // 8 == last // 8:
            above, below = (first % 8, 7 - last % 8) if big else (7 - last % 8, first % 8)
            text = f"d[{first // 8}]"
        else:
            above, below = (first, bits - 1 - last) if big else (bits - 1 - last, first)
            text = "b" if big else "l"
            self.whole.add(text)
        text = f"{text} >> {below}" if below else text
        return f"({text} & {mask})" if above else f"({text})"

    def _float(self, signal: Signal) -> str:
        letter, order = FLOAT_CODES[signal.length], "big" if signal.big_endian else "little"
        edge = 7 if signal.big_endian else 0
        if signal.start % 8 == edge:
            return f"{order}_{letter}(d, {signal.start // 8})[0]"
        return f"{order}_{letter}({self._bits(signal)}.to_bytes({signal.length // 8}, '{order}'))[0]"

    def _bytes(self, signal: Signal) -> str:
        order = "big" if signal.big_endian else "little"
        return f"{self._bits(signal)}.to_bytes({(signal.length + 7) // 8}, '{order}')"

    def _bad(self, signal: Signal) -> str:
        """Return what stands before the value where it may be none; RAW is the raw value, x keeps it."""
        if signal.invalid is not None:
            return f"INVALID if (x := RAW) == {signal.invalid}"
        found = indicators(signal) if self._message.pgn is not None else None
        if found is None:
            return ""
        return f"NOT_AVAILABLE if (x := RAW) >= {found[0]} else FAILURE if x >= {found[1]}"


def _signed(signal: Signal, bits: str) -> str:
    if not signal.signed:
        return bits
    sign = 1 << signal.length - 1
    return f"(({bits} ^ {sign}) - {sign})"


def _scaled(field: Field, raw: str) -> str:
    """Return the physical value as cantools has it, and what the tag makes of it."""
    signal, (scale, offset) = field.signal, (field.scaling.scale, field.scaling.offset)
    text = raw
    if (signal.scale, signal.offset) != (1, 0):
        whole = not signal.is_float and float(signal.scale).is_integer() and float(signal.offset).is_integer()
        factors = (int(signal.scale), int(signal.offset)) if whole else (signal.scale, signal.offset)
        text = f"({raw} * {factors[0]!r} + {factors[1]!r})"
        if whole and not _fits(signal, *map(int, factors)):
            text = f"fitting{text}"
    return text if field.scaling.identity else f"({text} * {scale!r} + {offset!r})"


def _fits(signal: Signal, scale: int, offset: int) -> bool:
    low, high = (-(1 << signal.length - 1), (1 << signal.length - 1) - 1) if signal.signed else (
        0, (1 << signal.length) - 1)  # fmt: skip
    return all(_LEAST <= raw * scale + offset <= _MOST for raw in (low, high))


def _fitting(value: int) -> int | float:
    """Return an integer, as a float where no sample can hold it."""
    return value if _LEAST <= value <= _MOST else float(value)


def may_be_bad(signal: Signal, message: Message) -> bool:
    """Say whether a raw value may stand for none."""
    return signal.invalid is not None or (message.pgn is not None and indicators(signal) is not None)


def usable(signal: Signal, message: Message) -> str:
    """Return why a signal cannot be decoded, or ""."""
    if not 0 < signal.length <= 8 * message.length or signal.start < 0 or signal.end > message.length:
        return f"it does not fit into the {message.length} bytes of the message"
    if signal.is_float and signal.length not in FLOAT_CODES:
        return f"a float has 16, 32 or 64 bits, this one {signal.length}"
    if signal.multiplexer and (signal.is_float or signal.length > LONGEST_NUMBER):
        return "a multiplexer is an integer of at most 64 bits"
    for factor in (signal.scale, signal.offset):
        if not math.isfinite(factor) or abs(factor) > 1e200:
            return f"it is scaled with {factor!r}"
    return ""


_NAMESPACE: Final[dict[str, Any]] = {
    "__builtins__": {},
    "from_bytes": int.from_bytes,
    "fitting": _fitting,
    "NOT_AVAILABLE": NOT_AVAILABLE,
    "FAILURE": FAILURE,
    "INVALID": INVALID,
} | {
    f"{order}_{letter}": struct.Struct(f"{mark}{letter}").unpack_from
    for order, mark in (("little", "<"), ("big", ">"))
    for letter in FLOAT_CODES.values()
}
