"""Values that did not come though their messages did, told as one gap for some seconds."""

from gateway.model import Link
from gateway.protocols.opcua.backfill import Backfill, Ends
from gateway.protocols.opcua.items import Item
from gateway.protocols.opcua.values import Reading

_REPORT_US = 10_000_000
_REPORT_UNDECODED_US = 60_000_000
"""They come with every change of a tag: a row for each would leave no room for other gaps."""
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
        self._holes: dict[str, list[Ends]] = {}
        """By tag the values around each loss, in order of time."""
        self._unknown: set[str] = set()
        """Tags with a loss that no source times limit."""
        self._from_us = self._to_us = self._told_us = 0

    def add(self, item: Item, new: Reading) -> None:
        """Note an overflow before that value; to be called before the value is taken."""
        now = self._link.clock.wall_us()
        last = item.last
        before = self._ours(last.ts if last is not None else None) or now
        self._from_us = min(self._from_us, before) if self._items else before
        self._to_us = max(self._to_us, self._ours(new.ts) or now)
        self._items[item.series] = item
        ends = _ends(last, new)
        holes = self._holes.setdefault(item.tag, [])
        if ends is None or (holes and ends[0] < holes[-1][1]):
            self._unknown.add(item.tag)
        else:
            holes.append(ends)

    def _ours(self, ts: int | None) -> int | None:
        return None if ts is None else ts - self._offset_us

    def tell(self, *, now: bool = False) -> None:
        """Tell what was gathered, unless something was told only just now."""
        at_us = self._link.clock.wall_us()
        if not self._items or (not now and 0 <= at_us - self._told_us < _REPORT_US):
            return
        items = list(self._items.values())
        more = f" and {len(items) - 3} more" if len(items) > 3 else ""
        self._backfill.dropped(
            items,
            {tag: holes for tag, holes in self._holes.items() if tag not in self._unknown},
            self._from_us,
            self._to_us,
            f"the server's queue overflowed for {', '.join(item.named() for item in items[:3])}{more}: "
            "give a larger `queue_size` or a longer `sampling_interval`",
        )
        self._items.clear()
        self._holes.clear()
        self._unknown.clear()
        self._told_us, self._to_us = at_us, 0


class Undecoded:
    """Gathers the values that could not be decoded."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._names: dict[str, None] = {}
        self._sentence = ""
        self._more = False
        self._lost = self._from_us = self._to_us = self._told_us = 0

    def add(self, name: str, sentence: str, lost: int, from_us: int) -> None:
        """Note a value of that tag since that time, and how many were lost with it; `sentence` says why."""
        if not self._names:
            self._sentence, self._from_us = sentence, from_us
        self._names[name] = None
        self._lost += lost
        self._more = self._more or lost > 1
        self._to_us = self._link.clock.wall_us()

    def tell(self, *, now: bool = False) -> None:
        """Tell what was gathered, unless something was told only just now."""
        at_us = self._link.clock.wall_us()
        if not self._names or (not now and 0 <= at_us - self._told_us < _REPORT_UNDECODED_US):
            return
        reason = self._sentence
        if others := list(self._names)[1:]:
            reason += f", nor of {', '.join(others[:3])}"
            reason += f" and {len(others) - 3} more" * (len(others) > 3)
        if self._more:
            reason += "; what came after it in a message is lost too"
        self._link.gap(self._from_us, self._to_us, reason, self._lost)
        self._names.clear()
        self._more = False
        self._lost, self._told_us = 0, at_us


def _ends(last: Reading | None, new: Reading) -> Ends | None:
    """Return the source times around what was dropped; None where they do not limit it."""
    if last is None or last.flags or new.flags or last.ts is None or new.ts is None or last.ts >= new.ts:
        return None
    return last.ts, new.ts
