"""What the tests of decoding share: the corpus, a link that keeps names, and cantools as the judge."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cantools.database
from cantools.database.can import Database as TheirDatabase
from cantools.database.can import Message as Theirs
from cantools.database.can import Signal as TheirSignal

from gateway.canbus import EXTENDED, Frames
from gateway.model import Batch, Device
from gateway.protocols.can import from_cantools
from gateway.protocols.can.database import Database
from gateway.protocols.can.decoder import Decoder
from gateway.protocols.can.loading import Read, merged
from gateway.protocols.can.tags import DecodingSettings, TagSettings

DATABASES = Path(__file__).parent / "databases"
CORPUS = sorted(DATABASES.iterdir())


class Time:
    """A clock that stands until it is moved (of clock.Clock what a decoder uses)."""

    us = 1_000_000_000

    def mono_ns(self) -> int:
        return self.us * 1000


class Names:
    """The part of a link that a decoder uses: it makes series of tags, and stamps."""

    def __init__(self) -> None:
        self.clock = Time()
        self.memory: dict[str, Any] = {}
        self.tags: list[str] = []
        self.units: dict[str, str | None] = {}

    def tag(self, name: str, *, unit: str | None = "") -> int:
        self.tags.append(name)
        self.units[name] = unit
        return len(self.tags) - 1

    def stamp(self) -> tuple[int, int]:
        return self.clock.us, 0


class Bench:
    """A decoder and what it made."""

    def __init__(
        self,
        database: Database,
        settings: DecodingSettings | None = None,
        tags: Mapping[str, TagSettings] | None = None,
        names: Names | None = None,
    ) -> None:
        self.names = names or Names()
        settings = settings or DecodingSettings(keep_interval_ms=0)
        self.decoder = Decoder(Device("bus", tags or {}), settings, database, self.names)  # type: ignore[arg-type]

    def take(self, *frames: tuple[int, int, bytes]) -> list[tuple[str, int, Any, int]]:
        """Take frames of (ts, id, payload); return the samples as (tag, ts, value, status)."""
        ts, ids, data = zip(*frames, strict=True)
        return self.named(self.decoder.take(Frames(list(ts), list(ids), list(data))))

    def flush(self, now_us: int) -> list[tuple[str, int, Any, int]]:
        return self.named(self.decoder.flush(now_us))

    def named(self, batch: Batch) -> list[tuple[str, int, Any, int]]:
        return [(self.names.tags[each.series], each.ts, each.value, each.status) for each in batch]


def read(name: str, **how: Any) -> Database:
    """Read a file of the corpus in this process."""
    path = DATABASES / name
    messages, notes = from_cantools.read(path, path.read_bytes(), how.get("encoding"), j1939=how.get("j1939"))
    return merged([Read(tuple(messages), tuple(notes))])


def judge(path: Path) -> TheirDatabase:
    """Read a file with cantools alone."""
    database = cantools.database.load_file(path, strict=False)
    assert isinstance(database, TheirDatabase)
    return database


def expected(theirs: Theirs, payload: bytes) -> dict[str, Any]:
    """Return what cantools makes of a payload: of each signal alone, where its tree says that it is there.

    So short payloads, overlapping signals and pages that are not known are judged too.
    """
    signals = {signal.name: signal for signal in theirs.signals}
    return dict(_walk(theirs, theirs.signal_tree, signals, payload))


def _walk(
    theirs: Theirs, tree: Sequence[Any], signals: Mapping[str, TheirSignal], payload: bytes
) -> Iterator[tuple[str, Any]]:
    for node in tree:
        name = node if isinstance(node, str) else next(iter(node))
        found = _alone(signals[name], theirs.length).decode(
            payload, decode_choices=False, allow_truncated=True
        )
        assert isinstance(found, dict)
        yield from found.items()
        if isinstance(node, dict) and found:
            yield from _walk(theirs, node[name].get(found[name], ()), signals, payload)


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


def id_of(theirs: Theirs) -> int:
    return theirs.frame_id | (EXTENDED if theirs.is_extended_frame else 0)


def payloads(theirs: Theirs, rng: random.Random, count: int) -> Iterable[bytes]:
    """Return random payloads, some of which begin with the number of a page, a few too short or too long."""
    for number in range(count):
        payload = bytearray(rng.randbytes(theirs.length))
        if payload and number % 2:
            payload[0] = rng.choice((0, 1, 2, 3, 5, 7, 16, 18, 34, 254))
        if number % 10 == 9:
            payload = payload[: rng.randrange(theirs.length + 1)]
        elif number % 10 == 8:
            payload += rng.randbytes(3)
        yield bytes(payload)
