"""The frames of one message from one sender, and what is kept of them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby, repeat
from typing import Any

from gateway.model import GOOD, Batch
from gateway.protocols.can.database import Message
from gateway.protocols.can.generated import Field
from gateway.protocols.can.keeping import Keeper
from gateway.protocols.can.layout import Multiplexer, Part, fitted, layout
from gateway.protocols.can.wanted import Wish
from gateway.scaling import Scaling


class _Tags:
    """The tags of what is there together."""

    __slots__ = ("all_at_once", "keepers", "series")

    def __init__(self, keepers: list[Keeper], part: Part) -> None:
        self.keepers = keepers
        self.series = [keeper.series for keeper in keepers]
        self.all_at_once = all(keeper.every for keeper in keepers) and not part.may_be_bad
        """Each value of each is kept, and is one: nothing is to be decided."""
        for keeper in keepers if self.all_at_once else ():
            keeper.heard = True


class Reception:
    """Gathers the frames of a batch, then takes them at once: the columns of its signals one by one."""

    __slots__ = (
        "_keeper_of", "_keepers", "_parts", "_raw", "_root", "_strange", "_strangers", "_wishes", "compared",
        "last", "message", "payloads", "short", "trouble_us", "ts", "unknown_pages",
    )  # fmt: skip

    def __init__(
        self,
        message: Message,
        wishes: Sequence[Wish],
        keeper_of: Callable[[Wish], Keeper],
        strange: Wish | None = None,
    ) -> None:
        """`keeper_of` makes a tag of what is wanted: when its message comes first, on a page that has it.

        `strange`: what is wanted of payloads with a page that the database does not know.
        """
        self.message = message
        self.ts: list[int] = []
        self.payloads: list[bytes] = []
        self.last: bytes | None = None
        """The payload before, where frames are compared with it: one that is the same brings nothing new."""
        self.short = 0
        """Frames too short for some signals."""
        self.unknown_pages = 0
        """Frames with a multiplexer's value that the database does not know."""
        self.trouble_us = 0
        """When one of these came last."""
        self._keeper_of = keeper_of
        self._wishes = {wish.tag: wish for wish in wishes}
        self._strange = strange
        self._strangers: list[tuple[int, bytes]] = []
        self._keepers: dict[str, Keeper] = {}
        self._parts: dict[Part, _Tags] = {}
        self._raw = [self._keeper(wish.tag) for wish in wishes if wish.signal is None]
        fields = [
            Field(wish.signal, Scaling(wish.settings.scale, wish.settings.offset), wish.tag)
            for wish in wishes
            if wish.signal is not None
        ]
        self._root = layout(message, fields) if fields else None
        if self._root is not None:
            self._in(self._root)
        self.compared = not any(keeper.every for keeper in self._keepers.values()) and not (
            self._root is not None and self._root.multiplexers
        )

    def take(self, flags: int, batch: Batch) -> None:
        """Put into the batch what is to be kept of the frames gathered."""
        ts, payloads = self.ts, self.payloads
        self.ts, self.payloads = [], []
        for keeper in self._raw:
            keeper.take(payloads, ts, flags, batch)
        if self._root is None:
            return
        length = self.message.length
        if set(map(len, payloads)) == {length}:
            self._take(self._root, payloads, ts, flags, batch)
        else:
            self._take_mixed(self._root, payloads, ts, flags, batch)
        if self._strange is not None and self._strangers:
            times, strangers = zip(*self._strangers, strict=True)
            self._strangers.clear()
            self._keeper_of(self._strange).take(strangers, times, flags, batch)

    def _take_mixed(
        self, root: Part, payloads: Sequence[bytes], ts: Sequence[int], flags: int, batch: Batch
    ) -> None:
        """Take payloads some of which are shorter or longer than the message."""
        length, start = self.message.length, 0
        for whole, run in groupby(payloads, lambda payload: len(payload) >= length):
            group = [fitted(payload, length) for payload in run]
            end = start + len(group)
            if whole:
                self._take(root, group, ts[start:end], flags, batch)
            else:
                self.short += len(group)
                self.compared, self.last = False, None  # each of them is counted
                self.trouble_us = ts[end - 1]
                for place in range(start, end):
                    there = len(payloads[place])
                    self._take_short(root, group[place - start], there, ts[place], flags, batch)
            start = end

    def end(self, status: int, ts: int, flags: int, batch: Batch) -> None:
        """Its frames do not come any more: say so of each tag, and of the next frame all is kept anew."""
        self.last = None
        for keeper in self._keepers.values():
            keeper.end(status, ts, flags, batch)

    def _take(
        self, part: Part, payloads: Sequence[bytes], ts: Sequence[int], flags: int, batch: Batch
    ) -> None:
        tags = self._in(part)
        if tags.keepers:
            columns = zip(*map(part.decode, payloads), strict=True)
            if tags.all_at_once:
                _add_all(tags.series, columns, ts, flags, batch)
            else:
                for keeper, values in zip(tags.keepers, columns, strict=True):
                    keeper.take(values, ts, flags, batch)
        for multiplexer in part.multiplexers:
            for page, (some, times) in self._by_page(multiplexer, payloads, ts).items():
                self._take(page, some, times, flags, batch)

    def _by_page(
        self, multiplexer: Multiplexer, payloads: Sequence[bytes], ts: Sequence[int]
    ) -> dict[Part, tuple[list[bytes], list[int]]]:
        found: dict[Part, tuple[list[bytes], list[int]]] = {}
        for payload, at_us in zip(payloads, ts, strict=True):
            page = multiplexer.page(multiplexer.raw(payload))
            if page is None:
                self.unknown_pages += 1
                self.trouble_us = at_us
                if self._strange is not None:
                    self._strangers.append((at_us, payload))
                continue
            group = found.get(page)
            if group is None:
                found[page] = [payload], [at_us]
            else:
                group[0].append(payload)
                group[1].append(at_us)
        return found

    def _take_short(
        self, part: Part, payload: bytes, there: int, at_us: int, flags: int, batch: Batch
    ) -> None:
        """Take what is wholly there of a payload of `there` bytes that was filled up."""
        values = part.decode(payload)
        for keeper, end, value in zip(self._in(part).keepers, part.ends, values, strict=True):
            if end <= there:
                keeper.take((value,), (at_us,), flags, batch)
        for multiplexer in part.multiplexers:
            if multiplexer.signal.end <= there:
                for page in self._by_page(multiplexer, (payload,), (at_us,)):
                    self._take_short(page, payload, there, at_us, flags, batch)

    def _in(self, part: Part) -> "_Tags":
        """Return the tags of a part's fields."""
        found = self._parts.get(part)
        if found is None:
            found = self._parts[part] = _Tags([self._keeper(field.tag) for field in part.fields], part)
        return found

    def _keeper(self, tag: str) -> Keeper:
        if tag not in self._keepers:
            self._keepers[tag] = self._keeper_of(self._wishes[tag])
        return self._keepers[tag]


def _add_all(
    series: Sequence[int], columns: Iterable[Any], ts: Sequence[int], flags: int, batch: Batch
) -> None:
    """Add every value, signal by signal: so the store packs them best."""
    frames, samples = len(ts), len(series) * len(ts)
    batch.series.extend(chain.from_iterable(map(repeat, series, repeat(frames))))
    batch.ts.extend(chain.from_iterable(repeat(ts, len(series))))
    batch.values.extend(chain.from_iterable(columns))
    batch.statuses.extend(repeat(GOOD, samples))
    batch.flags.extend(repeat(flags, samples))
