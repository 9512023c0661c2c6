"""SAE J1939-21 transport protocol, listening: messages of up to 1785 bytes put together from their packets.

TP.CM (5.10.3, PGN 60416) announces or closes a message, TP.DT (5.10.4, PGN 60160) brings seven bytes of it.
A broadcast (BAM) comes once and in order; where a receiver asks (RTS/CTS) packets may come again.
"""

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.canbus import EXTENDED, REMOTE
from gateway.protocols.can.j1939 import GLOBAL, destination_of, pgn_of, source_of

CONNECTION: Final = 0xEC00
DATA: Final = 0xEB00
_BOTH: Final = {CONNECTION >> 8, DATA >> 8}
_RTS, _CTS, _END, _BAM, _ABORT = 16, 17, 19, 32, 255
_LEAST, _MOST = 9, 1785
_PACKET = 7
_BROADCAST_US, _ASKED_US = 750_000, 1_250_000
"""How long the next packet may take: T1, and T2 and T3 (5.10.2.4)."""
_MOST_OPEN = 256


def is_packet(can_id: int) -> bool:
    """Say whether an id is that of the transport protocol."""
    return can_id >> 16 & 0x3FF in _BOTH and can_id & EXTENDED > 0 and not can_id & REMOTE


class Assembled(NamedTuple):
    """A whole message."""

    pgn: int
    source: int
    payload: bytes

    @property
    def can_id(self) -> int:
        """The id that it would have in one frame."""
        return EXTENDED | 6 << 26 | self.pgn << 8 | self.source


@dataclass(slots=True)
class _Open:
    """A message under way."""

    pgn: int
    size: int
    packets: int
    until_us: int
    parts: dict[int, bytes] = field(default_factory=dict)


class Reassembly:
    """Messages of all senders, under way at the same time; one from each sender to each destination."""

    def __init__(self, wanted: Container[int]) -> None:
        """`wanted`: the parameter groups that are put together; others are nobody's loss."""
        self._wanted = wanted
        self._open: dict[tuple[int, int], _Open] = {}
        self.lost: Counter[int] = Counter()
        """How many messages were not whole, by PGN."""
        self.lost_us = 0
        """When the last of them was given up."""

    def take(self, can_id: int, payload: bytes, ts: int) -> Assembled | None:
        """Take a frame of TP.CM or TP.DT; return the message that it completes."""
        if len(payload) != 8:
            return None
        key = source_of(can_id), destination_of(can_id)
        if can_id >> 16 & 0xFF == DATA >> 8:
            return self._data(key, payload, ts)
        self._connection(key, payload, ts)
        return None

    def expire(self, now_us: int) -> None:
        """Give up what has waited too long for its next packet."""
        for key in [key for key, under_way in self._open.items() if now_us > under_way.until_us]:
            self._lose(key, now_us)

    def _connection(self, key: tuple[int, int], payload: bytes, ts: int) -> None:
        control = payload[0]
        pgn = pgn_of(int.from_bytes(payload[5:8], "little") << 8)
        back = key[1], key[0]
        if control == (_BAM if key[1] == GLOBAL else _RTS):
            self._begin(key, pgn, payload, ts)
        elif control == _CTS and back in self._open:
            self._open[back].until_us = ts + _ASKED_US
        elif control == _ABORT:
            for each in (key, back):
                if each in self._open and self._open[each].pgn == pgn:
                    self._lose(each, ts)
        elif control == _END and back in self._open:
            self._lose(back, ts)  # the receiver has it all, and we have not

    def _begin(self, key: tuple[int, int], pgn: int, payload: bytes, ts: int) -> None:
        if key in self._open:
            self._lose(key, ts)
        if pgn not in self._wanted:
            return
        size, packets = int.from_bytes(payload[1:3], "little"), payload[3]
        if not _LEAST <= size <= _MOST or packets != (size + _PACKET - 1) // _PACKET:
            self._count(pgn, ts)
            return
        if len(self._open) >= _MOST_OPEN:
            self._lose(next(iter(self._open)), ts)
        self._open[key] = _Open(pgn, size, packets, ts + self._patience_us(key))

    def _data(self, key: tuple[int, int], payload: bytes, ts: int) -> Assembled | None:
        under_way = self._open.get(key)
        if under_way is None:
            return None  # it began before we listened, or is lost already
        number, parts = payload[0], under_way.parts
        late = ts > under_way.until_us
        if late or not 1 <= number <= under_way.packets or (key[1] == GLOBAL and number != len(parts) + 1):
            self._lose(key, ts)
            return None
        parts[number] = payload[1:]
        under_way.until_us = ts + self._patience_us(key)
        if len(parts) < under_way.packets:
            return None
        del self._open[key]
        whole = b"".join(parts[each] for each in range(1, under_way.packets + 1))
        return Assembled(under_way.pgn, key[0], whole[: under_way.size])

    def _lose(self, key: tuple[int, int], ts: int) -> None:
        self._count(self._open.pop(key).pgn, ts)

    def _count(self, pgn: int, ts: int) -> None:
        self.lost[pgn] += 1
        self.lost_us = ts

    def _patience_us(self, key: tuple[int, int]) -> int:
        return _BROADCAST_US if key[1] == GLOBAL else _ASKED_US
