"""What is decoded, compared with what cantools decodes. Only the child process imports this."""

import dataclasses
import math
import random
from collections.abc import Iterator
from typing import Any

from cantools.database import DecodeError
from cantools.database.can import Message as Theirs
from cantools.database.can import Signal as TheirSignal

from gateway.protocols.can.database import Message, Signal
from gateway.protocols.can.layout import decoded, layout

_RANDOM = 8
_MOST_PAGES = 64


def disagreeing(theirs: Theirs, message: Message) -> set[str]:
    """Return the signals that are decoded otherwise than cantools does it, over some payloads."""
    bare = without_statuses(message)
    root, signals = layout(bare), {signal.name: signal for signal in bare.signals}
    alone = {signal.name: _alone(signal, message.length) for signal in theirs.signals}
    wrong = set()
    for payload in payloads(bare):
        ours, judged = decoded(root, payload), _judged(theirs, payload)
        for name, value in ours.items():
            if judged is not None and name in judged and same(value, judged[name], signals[name]):
                continue
            # Where signals overlap, cantools decodes the whole message wrongly and each signal alone rightly.
            other = _judged(alone[name], payload)
            if other is None or not same(value, other[name], signals[name]):
                wrong.add(name)
        wrong |= ((judged or {}).keys() & signals.keys()) - ours.keys()
    return wrong


def without_statuses(message: Message) -> Message:
    """Return a message whose raw values are all values: cantools knows nothing of statuses."""
    signals = tuple(dataclasses.replace(signal, invalid=None) for signal in message.signals)
    return dataclasses.replace(message, pgn=None, signals=signals)


def same(ours: Any, theirs: Any, signal: Signal) -> bool:
    """Say whether two values are the same, bit for bit and of one type."""
    if isinstance(ours, bytes):
        return bool(int.from_bytes(ours, "big" if signal.big_endian else "little") == theirs)
    if isinstance(ours, float) and isinstance(theirs, float) and math.isnan(ours):
        return math.isnan(theirs)
    if isinstance(theirs, int) and not -(2**63) <= theirs < 2**64:
        return bool(ours == float(theirs))
    return type(ours) is type(theirs) and bool(ours == theirs)


def payloads(message: Message) -> Iterator[bytes]:
    """Yield payloads of a message: all bits clear and set, random ones, and some for each page."""
    rng = random.Random(message.can_id)
    yield bytes(message.length)
    yield b"\xff" * message.length
    for _ in range(_RANDOM):
        yield rng.randbytes(message.length)
    by_name = {signal.name: signal for signal in message.signals}
    pages = {(signal.multiplexed_by, first) for signal in message.signals for first, _ in signal.pages}
    for name, value in sorted(pages)[:_MOST_PAGES]:
        payload, chain = rng.randbytes(message.length), [(name, value)]
        while chain and len(chain) <= len(by_name) and (signal := by_name.get(chain[-1][0])):
            payload = placed(payload, signal, chain[-1][1])
            if not signal.pages:  # this multiplexer is always there, others are on a page themselves
                break
            chain.append((signal.multiplexed_by, signal.pages[0][0]))
        yield payload


def placed(payload: bytes, signal: Signal, raw: int) -> bytes:
    """Return a payload with the raw value of a signal put in."""
    mask = (1 << signal.length) - 1
    order, shift = "little", signal.start
    if signal.big_endian:
        first = 8 * (signal.start // 8) + 7 - signal.start % 8
        order, shift = "big", 8 * len(payload) - first - signal.length
    whole = int.from_bytes(payload, order) & ~(mask << shift) | (raw & mask) << shift  # type: ignore[arg-type]
    return whole.to_bytes(len(payload), order)  # type: ignore[arg-type]


def _alone(signal: TheirSignal, length: int) -> Theirs:
    copy = TheirSignal(
        signal.name,
        signal.start,
        signal.length,
        signal.byte_order,
        signal.is_signed,
        conversion=signal.conversion,
    )
    return Theirs(0, "alone", length, [copy], strict=False)


def _judged(theirs: Theirs, payload: bytes) -> dict[str, Any] | None:
    """Return what cantools decodes; None where it refuses, as with a page that it does not know."""
    try:
        return dict(theirs.decode_simple(payload, decode_choices=False))
    except (DecodeError, OverflowError):
        return None
