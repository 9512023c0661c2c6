"""What the databases of a bus say, as plain data: messages and signals, whatever format they came from."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from sys import intern
from types import MappingProxyType
from typing import Any

from gateway.canbus import EXTENDED

_NO_TEXTS: Mapping[int, str] = MappingProxyType({})
RAW = "raw"
"""In place of a signal's name: the whole payload."""


class Unreadable(Exception):
    """A file cannot be used; its text is a sentence that names the file and where known the line."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal and where its raw value lies.

    physical = raw * scale + offset, as integers where both are and the raw value is no float.
    """

    name: str
    start: int
    """The bit as a DBC counts (8 * byte + bit): the lowest, where big-endian the highest of the signal."""
    length: int
    """In bits."""
    big_endian: bool = False
    signed: bool = False
    is_float: bool = False
    """IEEE 754, of 16, 32 or 64 bits."""
    scale: int | float = 1
    offset: int | float = 0
    unit: str = ""
    low: float | None = None
    high: float | None = None
    """The range of the physical value as the database has it."""
    texts: Mapping[int, str] = field(default_factory=lambda: _NO_TEXTS)
    """Of raw values."""
    multiplexer: bool = False
    """Its raw value says which other signals the payload holds."""
    multiplexed_by: str = ""
    """The multiplexer that says whether it is there; "": it always is."""
    pages: tuple[tuple[int, int], ...] = ()
    """First and last of each range of that multiplexer's raw values with which it is there."""
    invalid: int | None = None
    """The raw value that stands for none."""
    comment: str = ""

    @property
    def end(self) -> int:
        """The number of bytes that a payload must have to hold it."""
        first = 8 * (self.start // 8) + 7 - self.start % 8 if self.big_endian else self.start
        return (first + self.length + 7) // 8


@dataclass(frozen=True, slots=True)
class Message:
    """A message (a frame's payload) and its signals in the database's order."""

    name: str
    can_id: int
    """As in linux/can.h, with EXTENDED for 29 bits."""
    length: int
    """In bytes."""
    signals: tuple[Signal, ...] = ()
    pgn: int | None = None
    """J1939: the parameter group number, by which its frames are known."""
    cycle_ms: int | None = None
    comment: str = ""
    file: str = ""

    @property
    def id_text(self) -> str:
        return id_text(self.can_id)


@dataclass(frozen=True, slots=True)
class Database:
    """Everything that is known of a bus. Names of messages and their ids occur once."""

    messages: tuple[Message, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences on what in the files is not used, and why."""


def id_text(can_id: int) -> str:
    """Return an id as it is written: 0x1A0 of 11 bits, 0x18FEF100 (8 digits) of 29."""
    return f"0x{can_id & 0x1FFFFFFF:08X}" if can_id & EXTENDED else f"0x{can_id & 0x7FF:03X}"


def packed(messages: Iterable[Message]) -> list[Any]:
    """Return messages as JSON can have them; what is as by default is left out."""
    return [_fields(message) | {"signals": [_fields(s) for s in message.signals]} for message in messages]


def unpacked(messages: Iterable[dict[str, Any]]) -> tuple[Message, ...]:
    """Return what `packed` was given."""
    return tuple(
        Message(**message | {"signals": tuple(map(_signal, message["signals"]))}) for message in messages
    )


def _signal(found: dict[str, Any]) -> Signal:
    made = dict(found)
    if texts := found.get("texts"):
        made["texts"] = {int(raw): text for raw, text in texts.items()}
    if pages := found.get("pages"):
        made["pages"] = tuple((first, last) for first, last in pages)
    for name in ("unit", "multiplexed_by"):  # of many signals the same
        if name in made:
            made[name] = intern(made[name])
    return Signal(**made)


def _fields(of: Signal | Message) -> dict[str, Any]:
    found = {}
    for each in fields(of):
        value = getattr(of, each.name)
        if value != each.default and (value or each.default_factory is MISSING):
            found[each.name] = value
    return found
