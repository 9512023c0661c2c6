"""What is on a bus: each id with its rate, lengths, changes, and what a database makes of it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.canbus import REMOTE, Frames
from gateway.controls.devices import HeardId
from gateway.model import Value
from gateway.protocols.can.database import Message, id_text
from gateway.protocols.can.generated import Bad
from gateway.protocols.can.hints import canopen_nodes, of_id, of_payloads
from gateway.protocols.can.layout import decoded, layout
from gateway.protocols.can.matching import Matching
from gateway.protocols.can.transport import Reassembly, is_packet

_REMEMBERED = 256
_MOST_IDS = 4096


@dataclass(slots=True)
class _Heard:
    """The frames of one id."""

    first_us: int
    last_us: int = 0
    frames: int = 0
    changes: int = 0
    lengths: set[int] = field(default_factory=set)
    payloads: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Census:
    """Counts frames by their ids."""

    def __init__(self, matching: Matching) -> None:
        self.not_counted = 0
        """Frames of ids beyond those that are counted."""
        self.frames = 0
        self._matching = matching
        self._heard: dict[int, _Heard] = {}
        self._reassembly = Reassembly(matching.groups)

    def take(self, frames: Frames) -> None:
        reassembly = self._reassembly if self._matching.groups else None
        self.frames += len(frames)
        for ts, can_id, payload in zip(frames.ts, frames.ids, frames.data, strict=True):
            self._count(ts, can_id, payload)
            if reassembly is not None and is_packet(can_id):
                whole = reassembly.take(can_id, payload, ts)
                if whole is not None:
                    self._count(ts, whole.can_id, whole.payload)

    def _count(self, ts: int, can_id: int, payload: bytes) -> None:
        found = self._heard.get(can_id)
        if found is None:
            if len(self._heard) >= _MOST_IDS:
                self.not_counted += 1
                return
            found = self._heard[can_id] = _Heard(ts)
        elif found.payloads[-1] != payload:
            found.changes += 1
        found.last_us = ts
        found.frames += 1
        found.lengths.add(len(payload))
        found.payloads.append(payload)

    def heard(self) -> list[HeardId]:
        """Return what was heard by its id, those of 11 bits first."""
        nodes = canopen_nodes({can_id: each.payloads[-1] for can_id, each in self._heard.items()})
        return [self._row(can_id, self._heard[can_id], nodes) for can_id in sorted(self._heard)]

    def matched(self) -> set[str]:
        """Return the names of the messages that were heard."""
        found = (self._matching.message(can_id)[0] for can_id in self._heard)
        return {message.name for message in found if message is not None}

    def _row(self, can_id: int, heard: _Heard, nodes: set[int]) -> HeardId:
        message, source = (None, None) if can_id & REMOTE else self._matching.message(can_id)
        span_us = heard.last_us - heard.first_us
        return HeardId(
            id=id_text(can_id),
            message=message.name if message is not None else "",
            source=source,
            frames=heard.frames,
            rate_hz=(heard.frames - 1) * 1e6 / span_us if span_us > 0 else None,
            lengths=tuple(sorted(heard.lengths)),
            changes=heard.changes,
            payload=heard.payloads[-1],
            hints=tuple(_hints(can_id, heard, message, nodes)),
            values=_values(message, heard.payloads) if message is not None else {},
            kind=self._kind(can_id),
        )

    def _kind(self, can_id: int) -> Literal["data", "remote", "packets"]:
        if can_id & REMOTE:
            return "remote"
        return "packets" if self._matching.groups and is_packet(can_id) else "data"


def _hints(can_id: int, heard: _Heard, message: Message | None, nodes: set[int]) -> list[str]:
    if can_id & REMOTE:
        return ["remote frames: they ask for the frame of this id"]
    if message is not None:
        wrong = [str(length) for length in sorted(heard.lengths) if length < message.length]
        if not wrong or message.pgn is not None:
            return []
        return [f"{' or '.join(wrong)} bytes, the database says {message.length}"]
    said = of_id(can_id, nodes)
    return [*([said] if said else []), *of_payloads(heard.payloads)]


def _values(message: Message, payloads: Sequence[bytes]) -> dict[str, Value]:
    """Return the newest value of each signal, also of pages that come in turn."""
    root, found = layout(message), dict[str, Value]()
    recent = [payloads[-1]] if not root.multiplexers else payloads
    for payload in recent:
        for name, value in decoded(root, payload).items():
            found[name] = None if isinstance(value, Bad) else value
    return found
