"""Messages that should come again and again, and do not: their old values must not look like new ones."""

from collections.abc import Sequence
from typing import Final

from gateway.model import Batch, Link
from gateway.protocols.can.reception import Reception

BAD_NO_COMMUNICATION: Final = 0x80310000
"""OPC UA StatusCode (Part 4, 7.39), as for a module of a RevPi that is gone."""
_CYCLES: Final = 5


class Overdue:
    """Watches the messages for which the database has a cycle time, from their first frame on."""

    def __init__(self, overdue_ms: int, link: Link) -> None:
        """`overdue_ms`: of patience; 0 watches nothing."""
        self._overdue_ms = overdue_ms
        self._link = link
        self._watched: dict[int, Reception] = {}
        self._heard_ns: dict[Reception, int] = {}
        self._gone: dict[Reception, int] = {}
        """Since when, in monotonic time."""

    def add(self, can_id: int, reception: Reception) -> None:
        if self._overdue_ms and reception.message.cycle_ms:
            self._watched[can_id] = reception

    def heard(self, ids: Sequence[int]) -> None:
        """Take note of the ids of a batch."""
        if not self._watched:
            return
        now_ns = self._link.clock.mono_ns()
        for can_id in self._watched.keys() & set(ids):
            reception = self._watched[can_id]
            self._heard_ns[reception] = now_ns
            self._gone.pop(reception, None)

    def look(self, now_us: int, batch: Batch) -> None:
        """Put into the batch that what is overdue has no value any more, now by the frames' clock."""
        now_ns = self._link.clock.mono_ns()
        for reception, heard_ns in self._heard_ns.items():
            if reception not in self._gone and now_ns - heard_ns > self._patience_ms(reception) * 1_000_000:
                self._gone[reception] = heard_ns
                _, flags = self._link.stamp()
                reception.end(BAD_NO_COMMUNICATION, now_us, flags, batch)

    def sentences(self) -> list[str]:
        now_ns = self._link.clock.mono_ns()
        return [
            f"{each.message.name} ({each.message.id_text}) has not come for {(now_ns - since_ns) // 10**9} s"
            f", and should every {each.message.cycle_ms} ms: is its sender on?"
            for each, since_ns in self._gone.items()
        ]

    def _patience_ms(self, reception: Reception) -> int:
        return max(self._overdue_ms, _CYCLES * (reception.message.cycle_ms or 0))
