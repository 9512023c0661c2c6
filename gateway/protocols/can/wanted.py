"""What is to be taken of a bus: from the YAML's tags, or from all that the databases know."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.canbus import EXTENDED
from gateway.model import Device
from gateway.protocols.can.database import RAW, Database, Message, Signal
from gateway.protocols.can.tags import DecodingSettings, TagSettings

_MOST_HINTS = 5
_MOST_NEAR = 500
"""Names that a wrong one is compared with: each costs up to a millisecond of the event loop."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A tag and what it is made of: a signal, or the whole payload."""

    tag: str
    settings: TagSettings
    signal: Signal | None = None


class Wanted:
    """The tags of a device by message, or by the id of frames that no database knows."""

    def __init__(self, device: Device, settings: DecodingSettings, database: Database) -> None:
        self.problems: dict[str, str] = {}
        """Sentences on listed tags that cannot be found, by tag."""
        self.listed = bool(device.tags)
        self._raw_frames = settings.raw_frames
        self._by_message: dict[str, list[Wish]] = {}
        self._by_id: dict[int, list[Wish]] = {}
        self._signals = dict(_named(database))
        for tag, wanted in device.tags.items():
            try:
                self._list(tag, wanted)
            except ValueError as error:
                where = device.where.get(tag)
                self.problems[tag] = f"{tag} ({where}): {error}" if where else f"{tag}: {error}"

    @property
    def everything(self) -> bool:
        """Say whether frames are taken that no database knows."""
        return self._raw_frames != "off"

    @property
    def ids(self) -> list[int]:
        """Ids that no database knows and of which the payload is wanted."""
        return list(self._by_id)

    def of(self, message: Message, source: int | None, *, main: bool) -> list[Wish]:
        """Return what is wanted of a message from a sender; `main`: that whose tags have the plain names."""
        if self.listed:
            wishes = [
                wish
                for wish in self._by_message.get(message.name, ())
                if (main if wish.settings.source is None else wish.settings.source == source)
            ]
        else:
            name = _sender(message, source, main=main)
            wishes = [
                Wish(f"{name}.{each.name}", TagSettings(signal=f"{message.name}.{each.name}"), each)
                for each in message.signals
            ]
        if self._raw_frames == "all":
            wishes.append(_raw(_sender(message, source, main=main)))
        return wishes

    def of_strange(self, message: Message, source: int | None, *, main: bool) -> Wish | None:
        """Return what is wanted of frames whose page the database does not know, beside their signals."""
        if self._raw_frames != "unknown" or not any(signal.multiplexer for signal in message.signals):
            return None
        return _raw(_sender(message, source, main=main))

    def wants(self, message: Message) -> bool:
        """Say whether anything is wanted of a message, from any sender."""
        return not self.listed or message.name in self._by_message or self.everything

    def of_unknown(self, can_id: int, name: str) -> list[Wish]:
        """Return what is wanted of an id that no database knows."""
        wishes = list(self._by_id.get(can_id, ()))
        return [*wishes, _raw(name)] if self.everything else wishes

    def all_listed(self) -> Iterator[Wish]:
        for wishes in (*self._by_message.values(), *self._by_id.values()):
            yield from wishes

    def _list(self, tag: str, wanted: TagSettings) -> None:
        found = self._signals.get(wanted.signal)
        if found is not None:
            message, signal = found
            if wanted.source is not None and message.pgn is None:
                raise ValueError(f"{message.name} is no J1939 message: remove `source`, or set `j1939: true`")
            self._by_message.setdefault(message.name, []).append(Wish(tag, wanted, signal))
            return
        name, _, part = wanted.signal.rpartition(".")
        if part == RAW and (can_id := _id(name)) is not None:
            self._by_id.setdefault(can_id, []).append(Wish(tag, wanted))
            return
        raise ValueError(f"the databases have no signal {wanted.signal}{self._hint(name, part)}")

    def _hint(self, message: str, signal: str) -> str:
        """Return what may have been meant, of the first tags that are not found: there may be thousands."""
        if len(self.problems) >= _MOST_HINTS:
            return ""
        start, end = f"{message}.", f".{signal}"
        likely = sorted(self._signals, key=lambda name: (not name.startswith(start), not name.endswith(end)))
        near = difflib.get_close_matches(f"{message}.{signal}", likely[:_MOST_NEAR], 1)
        return f"; did you mean {near[0]}?" if near else ""


def _named(database: Database) -> Iterator[tuple[str, tuple[Message, Signal | None]]]:
    """Yield every name of each signal, by message and id; a signal called raw goes before the payload."""
    for message in database.messages:
        for name in (message.name, message.id_text):
            yield f"{name}.{RAW}", (message, None)
            for signal in message.signals:
                yield f"{name}.{signal.name}", (message, signal)


def _sender(message: Message, source: int | None, *, main: bool) -> str:
    """Return the first part of the names of tags."""
    return message.name if main or source is None else f"{message.name}@0x{source:02X}"


def _raw(name: str) -> Wish:
    return Wish(f"{name}.{RAW}", TagSettings(signal=f"{name}.{RAW}"))


def _id(text: str) -> int | None:
    """Return an id as id_text writes it; None: it is none."""
    if not text.startswith("0x") or len(text) not in (5, 10):
        return None
    try:
        number = int(text, 16)
    except ValueError:
        return None
    if len(text) == 10:
        return number | EXTENDED if number < 1 << 29 else None
    return number if number < 1 << 11 else None
