"""How the payload of a message is laid out: which signals are always there, and which on which page."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gateway.model import Value
from gateway.protocols.can.database import Message, Signal
from gateway.protocols.can.generated import Bad, Decode, Field, compiled, may_be_bad, raw_value

_MOST_KNOWN = 4096


class Part:
    """Fields that are there together, and the multiplexers that say what else is."""

    def __init__(self, message: Message, fields: Sequence[Field], signals: Sequence[Signal]) -> None:
        """`fields`: those that are wanted of the whole message; `signals`: those that are here."""
        here = {signal.name for signal in signals}
        self.message = message
        self.fields = tuple(field for field in fields if field.signal.name in here)
        self.ends = tuple(field.signal.end for field in self.fields)
        self.may_be_bad = any(may_be_bad(field.signal, message) for field in self.fields)
        """Some raw values are none."""
        self.multiplexers = tuple(
            Multiplexer(message, fields, signal) for signal in signals if signal.multiplexer
        )

    @functools.cached_property
    def decode(self) -> Decode:
        return compiled(self.fields, self.message)


class Multiplexer:
    """A signal whose raw value says which page the payload holds."""

    def __init__(self, message: Message, fields: Sequence[Field], signal: Signal) -> None:
        self.signal = signal
        self.raw: Callable[[bytes], Any] = raw_value(signal, message)
        self._message = message
        self._fields = fields
        self._below = [each for each in message.signals if each.multiplexed_by == signal.name]
        self._pages: dict[tuple[str, ...], Part] = {}
        self._known: dict[int, Part | None] = {}

    def page(self, value: int) -> Part | None:
        """Return the page of a raw value; None: the database knows none."""
        try:
            return self._known[value]
        except KeyError:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[value] = self._found(value)
            return found

    def _found(self, value: int) -> Part | None:
        there = [each for each in self._below if any(first <= value <= last for first, last in each.pages)]
        if not there and value not in self.signal.texts:
            return None
        names = tuple(each.name for each in there)
        if names not in self._pages:
            self._pages[names] = Part(self._message, self._fields, there)
        return self._pages[names]


def layout(message: Message, fields: Sequence[Field] | None = None) -> Part:
    """Return what is always there; `fields`: what is wanted, every signal unless given."""
    if fields is None:
        fields = [Field(signal) for signal in message.signals]
    return Part(message, fields, [signal for signal in message.signals if not signal.multiplexed_by])


def fitted(payload: bytes, length: int) -> bytes:
    """Return a payload in the length of its message: cut, or filled up."""
    return payload[:length] if len(payload) >= length else payload.ljust(length, b"\xff")


def decoded(root: Part, payload: bytes) -> dict[str, "Value | Bad"]:
    """Return the values of one payload, by signal: what is wholly there, on pages that are known."""
    return dict(_each(root, fitted(payload, root.message.length), len(payload)))


def _each(part: Part, payload: bytes, there: int) -> Iterator[tuple[str, "Value | Bad"]]:
    for field, end, value in zip(part.fields, part.ends, part.decode(payload), strict=True):
        if end <= there:
            yield field.signal.name, value
    for multiplexer in part.multiplexers:
        if multiplexer.signal.end <= there and (page := multiplexer.page(multiplexer.raw(payload))):
            yield from _each(page, payload, there)
