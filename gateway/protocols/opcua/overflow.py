"""Values that the server dropped from its queues, told as one gap for some seconds."""

from gateway.model import Link
from gateway.protocols.opcua.backfill import Backfill
from gateway.protocols.opcua.items import Item

_REPORT_US = 10_000_000
_NOTABLE_US = 1_000_000


def notable_us(offset_us: int | None) -> int:
    """Return what a server's clock is ahead of ours, where that is more than the way to it explains."""
    return offset_us if offset_us is not None and abs(offset_us) > _NOTABLE_US else 0


class Overflow:
    """Gathers the tags whose queue at the server overflowed."""

    def __init__(self, link: Link, backfill: Backfill, offset_us: int | None) -> None:
        """`offset_us`: what the server's clock is ahead of ours, which gap records go by."""
        self._offset_us = notable_us(offset_us)
        self._link = link
        self._backfill = backfill
        self._items: dict[int, Item] = {}
        self._from_us = self._to_us = self._told_us = 0

    def add(self, item: Item, ts: int | None) -> None:
        """Note an overflow before the value of that time; to be called before the value is taken."""
        now = self._link.clock.wall_us()
        before = self._ours(item.last.ts if item.last is not None else None) or now
        self._from_us = min(self._from_us, before) if self._items else before
        self._to_us = max(self._to_us, self._ours(ts) or now)
        if item.series not in self._items:
            self._backfill.begin(item)
        self._items[item.series] = item

    def _ours(self, ts: int | None) -> int | None:
        return None if ts is None else ts - self._offset_us

    def tell(self, *, now: bool = False) -> None:
        """Tell what was gathered, unless something was told only just now."""
        at_us = self._link.clock.wall_us()
        if not self._items or (not now and 0 <= at_us - self._told_us < _REPORT_US):
            return
        items = list(self._items.values())
        more = f" and {len(items) - 3} more" if len(items) > 3 else ""
        self._backfill.missed(
            items,
            self._from_us,
            f"the server's queue overflowed for {', '.join(item.named() for item in items[:3])}{more}: "
            "give a larger `queue_size` or a longer `sampling_interval`",
            to_us=self._to_us,
        )
        self._items.clear()
        self._told_us, self._to_us = at_us, 0
