"""Frames to samples: what a session asks for each batch of frames."""

from collections.abc import Mapping
from typing import Final

from gateway.canbus import EXTENDED, Frames
from gateway.canbus.frames import EXTENDED_BITS, REMOTE, STANDARD_BITS
from gateway.controls.devices import TagAbout, TagState
from gateway.model import Batch, Device, Link
from gateway.protocols.can.abouts import about
from gateway.protocols.can.database import Database, Message, id_text
from gateway.protocols.can.j1939 import pgn_filter
from gateway.protocols.can.keeping import Keeper
from gateway.protocols.can.matching import Matching
from gateway.protocols.can.overdue import Overdue
from gateway.protocols.can.reception import Reception
from gateway.protocols.can.tags import DecodingSettings
from gateway.protocols.can.transport import CONNECTION, DATA, Reassembly, is_packet
from gateway.protocols.can.wanted import Wanted, Wish

_EXACTLY: Final = {
    False: STANDARD_BITS | EXTENDED | REMOTE,
    True: EXTENDED_BITS | EXTENDED | REMOTE,
}
_MOST_IDS: Final = 8192
_MOST_SENDERS: Final = 4096
_MOST_SOURCES: Final = 32
"""Of one J1939 message: each makes tags of its own."""
_MOST_FILTERS: Final = 512
"""CAN_RAW_FILTER_MAX of the kernel."""
_LONGEST_UNIT: Final = 64
_MOST_SENTENCES: Final = 5
_RECENT_US: Final = 60_000_000
_FOR_EVER_US: Final = 2**62


class Decoder:
    """Decodes the frames of one bus; not thread-safe."""

    def __init__(self, device: Device, settings: DecodingSettings, database: Database, link: Link) -> None:
        self._device = device
        self._settings = settings
        self._link = link
        self._wanted = Wanted(device, settings, database)
        self.problems = tuple(_few(list(self._wanted.problems.values())))
        """Sentences on listed tags that the databases do not have; `tag_states` has that of each."""
        self.database = database
        self.matching = Matching(database)
        self._groups = frozenset(
            pgn for pgn, all_of in self.matching.groups.items() if any(map(self._wanted.wants, all_of))
        )
        """Parameter groups of which anything is wanted."""
        self._reassembly = Reassembly(self._groups) if self._groups else None
        self._mains: dict[str, int] = link.memory.setdefault("can sources", {})
        """Whose frames of a J1939 message have the plain names: the first sender that was heard."""
        self._sources: dict[str, int] = {}
        """How many senders a message has."""
        self._receptions: dict[int, Reception | None] = {}
        self._senders: dict[tuple[str, int | None], Reception | None] = {}
        self._waiting: set[Keeper] = set()
        self._keepers: dict[str, tuple[Wish, Keeper]] = {}
        self._touched: list[Reception] = []
        self._watch = Overdue(settings.overdue_ms, link)
        self._crowd: list[str] = []
        """Sentences on senders whose frames are not kept."""
        for wish in self._wanted.all_listed():
            self._keeper(wish)

    def take(self, frames: Frames) -> Batch:
        """Return the samples to keep of some frames."""
        if self._reassembly is not None:
            frames = _put_together(self._reassembly, frames)
        receptions, touched = self._receptions, self._touched
        for ts, can_id, payload in zip(frames.ts, frames.ids, frames.data, strict=True):
            try:
                reception = receptions[can_id]
            except KeyError:
                reception = self._met(can_id)
            if reception is None or reception.last == payload:
                continue
            if reception.compared:
                reception.last = payload
            if not reception.ts:
                touched.append(reception)
            reception.ts.append(ts)
            reception.payloads.append(payload)
        batch = Batch()
        for reception in touched:
            reception.take(frames.flags, batch)
        touched.clear()
        self._watch.heard(frames.ids)
        return batch

    def forget(self) -> None:
        """Samples of before did not get into the store: of every signal the next value is kept."""
        for _, keeper in self._keepers.values():
            keeper.forget()
        for reception in self._senders.values():
            if reception is not None:
                reception.last = None

    def flush(self, now_us: int) -> Batch:
        """Return the changes that waited for their interval to pass, as of a time of the frames' clock."""
        batch = self._released(now_us)
        if self._reassembly is not None:
            self._reassembly.expire(now_us)
        self._watch.look(now_us, batch)
        return batch

    def rest(self) -> Batch:
        """Return the changes that wait: no more frames come."""
        return self._released(_FOR_EVER_US)

    def _released(self, now_us: int) -> Batch:
        batch = Batch()
        for keeper in list(self._waiting):
            keeper.release(now_us, batch)
        return batch

    def filters(self) -> list[tuple[int, int]]:
        """Return (can_id, mask) of what is decoded, as in linux/can/raw.h; [] for every frame."""
        if self._wanted.everything:
            return []
        matching = self.matching
        exact = [each for each, message in matching.by_id.items() if self._wanted.wants(message)]
        exact += self._wanted.ids
        found = [(each, _EXACTLY[bool(each & EXTENDED)]) for each in exact]
        for pgn in (*self._groups, *([CONNECTION, DATA] if self._groups else ())):
            number, mask = pgn_filter(pgn)
            found.append((number, mask | EXTENDED | REMOTE))
        return found if len(found) <= _MOST_FILTERS else []

    def sentences(self, now_us: int) -> list[str]:
        """Say what of the last minute did not fit the databases, with counts since the session began."""
        misfits: list[str] = []
        for reception in self._senders.values():
            if reception is not None and now_us - reception.trouble_us < _RECENT_US:
                misfits += _misfits(reception)
        said, packets = _few(misfits), self._reassembly
        if packets is not None and now_us - packets.lost_us < _RECENT_US:
            said += _few(
                [
                    f"PGN {pgn}: {count} messages of the transport protocol came without all their packets"
                    for pgn, count in packets.lost.items()
                ]
            )
        return [*said, *_few(self._watch.sentences()), *_few(self._crowd)]

    def tag_states(self) -> Mapping[str, TagState]:
        """Return the state of every tag that was listed or heard (controls.TagStates)."""
        found = {
            tag: TagState("subscribed", wish.settings.signal, alive=keeper.heard, about=_about(wish))
            for tag, (wish, keeper) in self._keepers.items()
        }
        for tag, sentence in self._wanted.problems.items():
            found[tag] = TagState("bad", self._device.tags[tag].signal, detail=sentence)
        return found

    def collected(self) -> dict[str, int]:
        """Return the series of the signals that are stored unscaled, by their names in the database."""
        return {
            wish.settings.signal: keeper.series
            for wish, keeper in reversed(self._keepers.values())
            if (wish.settings.scale, wish.settings.offset) == (1, 0)
        }

    # -- which message a frame is ------------------------------------------------------------------

    def _met(self, can_id: int) -> Reception | None:
        """Return what takes the frames of an id that comes first."""
        found = self._reception(can_id)
        if len(self._receptions) < _MOST_IDS:
            self._receptions[can_id] = found
            if found is not None:
                self._watch.add(can_id, found)
        return found

    def _reception(self, can_id: int) -> Reception | None:
        message, source = self.matching.message(can_id)
        if message is None:
            return self._unknown(can_id)
        key = message.name, source
        if key not in self._senders:
            count = self._sources[message.name] = self._sources.get(message.name, 0) + 1
            if count > _MOST_SOURCES:
                if count == _MOST_SOURCES + 1:
                    self._crowd.append(
                        f"{message.name} comes from more than {_MOST_SOURCES} source addresses: those that "
                        "came first are kept"
                    )
                return None
            main = source is None or self._mains.setdefault(message.name, source) == source
            wishes = self._wanted.of(message, source, main=main)
            if not wishes and not main and self._wanted.of(message, None, main=True):
                first = self._mains[message.name]
                self._crowd.append(
                    f"{message.name} comes from source address 0x{source:02X} too, and only that of "
                    f"0x{first:02X} is kept: give the tags a `source`"
                )
            strange = self._wanted.of_strange(message, source, main=main)
            self._senders[key] = Reception(message, wishes, self._keeper, strange) if wishes else None
        return self._senders[key]

    def _unknown(self, can_id: int) -> Reception | None:
        name = id_text(can_id)
        key = name, None
        if key in self._senders:
            return self._senders[key]
        wishes = self._wanted.of_unknown(can_id, name)
        if not wishes or can_id & REMOTE or len(self._senders) >= _MOST_SENDERS:
            return None
        found = self._senders[key] = Reception(Message(name, can_id, 0), wishes, self._keeper)
        return found

    def _keeper(self, wish: Wish) -> Keeper:
        """Return the tag of what is wanted, made on first use."""
        found = self._keepers.get(wish.tag)
        if found is not None:
            return found[1]
        own, signal = wish.settings, wish.signal
        keep_ms = self._settings.keep_interval_ms if own.keep_interval_ms is None else own.keep_interval_ms
        scaled = (own.scale, own.offset) != (1, 0)
        unit = own.unit or ("" if signal is None or scaled else signal.unit)
        series = self._link.tag(wish.tag, unit=unit[:_LONGEST_UNIT])
        keeper = Keeper(series, keep_ms * 1000, own.deadband, self._waiting)
        self._keepers[wish.tag] = wish, keeper
        return keeper


def _put_together(reassembly: Reassembly, frames: Frames) -> Frames:
    """Return the frames with each message that their packets complete, behind the last of these."""
    packets = set(filter(is_packet, set(frames.ids)))
    if not packets:
        return frames
    found = [
        (place, ts, whole)
        for place, (ts, can_id, payload) in enumerate(zip(frames.ts, frames.ids, frames.data, strict=True), 1)
        if can_id in packets and (whole := reassembly.take(can_id, payload, ts)) is not None
    ]
    if not found:
        return frames
    made = Frames([*frames.ts], [*frames.ids], [*frames.data], frames.flags)
    for place, ts, whole in reversed(found):
        made.ts.insert(place, ts)
        made.ids.insert(place, whole.can_id)
        made.data.insert(place, whole.payload)
    return made


def _few(sentences: list[str]) -> list[str]:
    """Return sentences of one kind, and of many the first and how many more there are."""
    if len(sentences) <= _MOST_SENTENCES:
        return sentences
    return [*sentences[:_MOST_SENTENCES], f"and {len(sentences) - _MOST_SENTENCES} more like these"]


def _misfits(reception: Reception) -> list[str]:
    message, said = reception.message, []
    if reception.short:
        said.append(
            f"{message.name} ({message.id_text}): {reception.short} frames were shorter than the "
            f"{message.length} bytes of the database; signals that are not wholly there have no value"
        )
    if reception.unknown_pages:
        said.append(
            f"{message.name} ({message.id_text}): {reception.unknown_pages} frames had a multiplexer value "
            "that the database does not know"
        )
    return said


def _about(wish: Wish) -> TagAbout:
    return TagAbout(type="bytes") if wish.signal is None else about(wish.signal)
