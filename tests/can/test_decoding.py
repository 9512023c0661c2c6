"""Generated decoding equals cantools on every frame of a corpus of databases."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import cantools.database
import pytest
from cantools.database.can import Database as TheirDatabase
from cantools.database.can import Message as Theirs
from cantools.database.can import Signal as TheirSignal
from cantools.database.conversion import BaseConversion

from gateway.protocols.can import from_cantools
from gateway.protocols.can.checking import disagreeing, same, without_statuses
from gateway.protocols.can.database import Database, Message, Signal
from gateway.protocols.can.loading import load
from gateway.protocols.can.tags import DecodingSettings
from tests.can.decoding import CORPUS, Bench, expected, id_of, judge, payloads, read

FRAMES = 200


def differences(database: Database, theirs: TheirDatabase, seed: int = 1, frames: int = FRAMES) -> list[str]:
    """Decode random frames of every message; return what differs from cantools."""
    bench, rng, found = Bench(database), random.Random(seed), []
    signals = {m.name: {s.name: s for s in m.signals} for m in database.messages}
    judged: dict[int, dict[str, Any]] = {}
    sent = []
    for message in theirs.messages:
        for payload in payloads(message, rng, frames):
            ts = len(sent)
            sent.append((ts, id_of(message), payload))
            judged[ts] = {f"{message.name}.{name}": v for name, v in expected(message, payload).items()}
    ours: dict[int, dict[str, Any]] = {ts: {} for ts in judged}
    for start in range(0, len(sent), 50):
        for tag, ts, value, status in bench.take(*sent[start : start + 50]):
            assert status == 0
            ours[ts][tag] = value
    for ts, values in judged.items():
        if ours[ts].keys() != values.keys():
            found.append(f"{sent[ts]}: {sorted(ours[ts])} instead of {sorted(values)}")
            continue
        for tag, value in values.items():
            message_name, _, name = tag.partition(".")
            if not same(ours[ts][tag], value, signals[message_name][name]):
                found.append(f"{sent[ts]}: {tag} is {ours[ts][tag]!r} instead of {value!r}")
    return found


def plain(database: Database) -> Database:
    """Return a database whose raw values are all values, as cantools takes them."""
    return replace(database, messages=tuple(map(without_statuses, database.messages)))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
async def test_every_frame_is_decoded_as_by_cantools(path: Path) -> None:
    database = await load("bus", DecodingSettings(database=path), {})
    assert not database.notes
    theirs = judge(path)
    assert len(database.messages) == len(theirs.messages)
    wrong = await asyncio.to_thread(differences, plain(database), theirs)
    assert not wrong, wrong[:3]


@pytest.mark.parametrize("name", ["plain.dbc", "multiplexed.dbc", "big_endian.dbc", "fd.dbc"])
def test_whole_frames_equal_what_cantools_decodes_at_once(name: str) -> None:
    """The judge above asks cantools signal by signal; here it decodes each message as its users do."""
    theirs, bench, rng = judge(CORPUS[0].parent / name), Bench(read(name)), random.Random(2)
    for message in theirs.messages:
        for ts in range(100):
            payload = rng.randbytes(message.length)
            try:
                values = message.decode(payload, decode_choices=False)
            except cantools.database.DecodeError:
                continue  # a page that it does not know
            assert isinstance(values, dict)
            got = {
                tag.partition(".")[2]: value for tag, _, value, _ in bench.take((ts, id_of(message), payload))
            }
            for name_, value in values.items():
                ours = got.pop(name_)
                big = (
                    theirs.get_message_by_name(message.name).get_signal_by_name(name_).byte_order
                    == "big_endian"
                )
                assert same(ours, value, Signal(name_, 0, 1, big_endian=big))
            assert not got


MUTATIONS: dict[str, Any] = {
    "one bit on": lambda s: replace(s, start=s.start + 1),
    "one bit less": lambda s: replace(s, length=s.length - 1),
    "the other sign": lambda s: replace(s, signed=not s.signed),
    "the other byte order": lambda s: replace(s, big_endian=not s.big_endian),
    "another scale": lambda s: replace(s, scale=s.scale * 1.0000001),
    "another offset": lambda s: replace(s, offset=s.offset + 1),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_notices_any_mistake(mutation: str) -> None:
    database, theirs = read("big_endian.dbc"), judge(CORPUS[0].parent / "big_endian.dbc")
    message = database.messages[0]
    index, signal = next((i, s) for i, s in enumerate(message.signals) if s.name == "Signed")
    signals = [*message.signals[:index], MUTATIONS[mutation](signal), *message.signals[index + 1 :]]
    mutated = replace(message, signals=tuple(signals))
    assert differences(Database((mutated, *database.messages[1:])), theirs, frames=30)
    # The child process leaves out a signal that it finds decoded otherwise.
    assert disagreeing(theirs.get_message_by_name(message.name), mutated) == {"Signed"}
    assert not disagreeing(theirs.get_message_by_name(message.name), message)


def test_a_page_too_many_is_noticed() -> None:
    database, theirs = read("multiplexed.dbc"), judge(CORPUS[0].parent / "multiplexed.dbc")
    message = database.messages[0]
    signals = [replace(s, pages=((0, 1),)) if s.pages == ((0, 0),) else s for s in message.signals]
    mutated = replace(message, signals=tuple(signals))
    assert differences(Database((mutated, database.messages[1])), theirs, frames=30)


def random_message(rng: random.Random, number: int) -> Theirs:
    """Make a message of signals anywhere, also over each other."""
    length = rng.choice((1, 2, 5, 8, 8, 8, 12, 64))
    signals = []
    for index in range(rng.randint(1, 12)):
        kind = rng.random()
        size = rng.choice((32, 64)) if kind < 0.15 else rng.randint(1, min(64, 8 * length))
        big = rng.random() < 0.5
        if size > 8 * length:
            continue
        first = rng.randrange(8 * length - size + 1)
        conversion = BaseConversion.factory(
            scale=rng.choice((1, 1, 2, 0.1, -0.5, 1e-6, 1000)), offset=rng.choice((0, 0, -40, 0.5, 7)),
            is_float=kind < 0.15,
        )  # fmt: skip
        start = 8 * (first // 8) + 7 - first % 8 if big else first
        order = "big_endian" if big else "little_endian"
        signed = kind < 0.15 or rng.random() < 0.5
        signals.append(TheirSignal(f"S{index}", start, size, order, signed, conversion=conversion))  # type: ignore[arg-type]
    return Theirs(number, f"M{number}", length, signals, strict=False)


@pytest.mark.parametrize("seed", range(4))
def test_random_databases_are_decoded_as_by_cantools(seed: int) -> None:
    rng = random.Random(seed)
    made = TheirDatabase([random_message(rng, number + 1) for number in range(40)], strict=False)
    text = made.as_dbc_string()
    messages, notes = from_cantools.read(Path("random.dbc"), text.encode(), None, j1939=None)
    assert not notes
    theirs = cantools.database.load_string(text, "dbc", strict=False)
    assert isinstance(theirs, TheirDatabase)
    wrong = differences(Database(tuple(messages)), theirs, seed, frames=20)
    assert not wrong, wrong[:3]


def test_integers_of_64_bits_stay_exact_and_what_no_sample_can_hold_is_a_float() -> None:
    bench = Bench(read("wide.dbc"))
    top = b"\xff" * 8
    values = {
        tag: value for tag, _, value, _ in bench.take(*((0, each, top) for each in (360, 361, 362, 364)))
    }
    assert values["Counter.Ticks"] == 2**64 - 1
    assert values["SignedCounter.Ticks"] == -1
    assert values["Exact.Serial"] == 2 * (2**56 - 1) + 1
    assert values["Scaled.Nano"] == float(10 * (2**63 - 1) + 3)
    assert isinstance(values["Scaled.Nano"], float)
    [(_, _, exact, _), *_] = bench.take((1, 362, (2**60 - 1).to_bytes(8, "little")))
    assert exact == 10 * (2**60 - 1) + 3


def test_a_long_signal_is_its_bytes_in_the_order_of_the_payload() -> None:
    bench = Bench(read("fd.dbc"))
    payload = bytes(range(20))
    values = {tag: value for tag, _, value, _ in bench.take((0, 431, payload))}
    assert values["Twenty.Bytes"] == payload[:12]


def test_frames_too_short_are_counted_and_what_is_there_is_taken() -> None:
    bench = Bench(read("plain.dbc"))
    got = bench.take((0, 256, bytes(8)), (10, 256, b"\x10\x00"), (20, 256, b""), (30, 256, bytes(9)))
    assert [tag for tag, ts, _, _ in got if ts == 10] == ["EngineData.Speed"]
    assert not [tag for tag, ts, _, _ in got if ts == 20]
    assert len([tag for tag, ts, _, _ in got if ts == 30]) == 7
    [sentence] = bench.decoder.sentences(40)
    assert sentence.startswith("EngineData (0x100): 2 frames were shorter than the 8 bytes")
    assert not bench.decoder.sentences(61_000_000)


def test_short_frames_are_counted_though_they_are_all_the_same() -> None:
    bench = Bench(read("plain.dbc"), DecodingSettings())
    rows = [row for n in range(100) for row in bench.take((n * 1_000_000, 256, b"\x10\x27"))]
    assert [row[1:3] for row in rows] == [(0, 2500.0)]
    assert "100 frames were shorter" in bench.decoder.sentences(99_000_000)[0]


def test_pages_that_the_database_does_not_know_are_counted() -> None:
    bench = Bench(read("multiplexed.dbc"))
    got = bench.take((0, 400, bytes([9, 2, 0, 0, 0, 0, 0, 0])), (1, 400, bytes([7, 2, 0, 0, 0, 0, 0, 0])))
    assert [(tag, value) for tag, _, value, _ in got] == [
        ("Diagnosis.Page", 9), ("Diagnosis.Page", 7), ("Diagnosis.Always", 1.0), ("Diagnosis.Always", 1.0),
    ]  # fmt: skip
    [sentence] = bench.decoder.sentences(10)
    assert "Diagnosis (0x190): 1 frames had a multiplexer value that the database does not know" in sentence


def test_a_raw_value_that_a_database_calls_invalid_is_no_value() -> None:
    bench = Bench(read("press.arxml"))
    got = bench.take((0, 496, b"\x00\x80" + bytes(6)), (1, 496, b"\x04\x00" + bytes(6)))
    assert [row[2:] for row in got if row[0] == "StrokeFrame.Height"] == [(None, 0x808B0000), (-1.0, 0)]


def test_values_stay_numbers_and_their_texts_are_told_beside_them() -> None:
    bench = Bench(read("cp1252.dbc"))
    got = bench.take((0, 460, bytes([0xF6, 0xFF, 2, 0, 0, 0, 0, 0])))
    assert got == [("Kessel.Temperatur", 0, -1.0, 0), ("Kessel.Zustand", 0, 2, 0)]
    states = bench.decoder.tag_states()
    assert bench.names.units["Kessel.Temperatur"] == "°C"
    about = states["Kessel.Zustand"].about
    assert about is not None
    assert about.enum == {"0": "Aus", "1": "Heizlüfter", "2": "Störung"}
    told = states["Kessel.Temperatur"].about
    assert told is not None
    assert (told.type, told.unit, told.range) == ("int16", "°C", (-40.0, 300.0))


def test_a_message_of_nothing_and_remote_frames_give_nothing() -> None:
    bench = Bench(read("plain.dbc"))
    assert not bench.take((0, 258, b""), (1, 259, bytes(8)), (2, 256 | 0x40000000, b""), (3, 0x7FF, b"\x01"))


def test_of_many_sentences_the_first_are_told_and_how_many_more_there_are() -> None:
    """Twelve messages come too short."""
    messages = tuple(Message(f"M{n:02}", n, 8, (Signal("A", 0, 8),)) for n in range(12))
    bench = Bench(Database(messages))
    for count, told in ((5, 5), (12, 6)):
        bench.take(*((1, n, b"x") for n in range(count)))
        said = bench.decoder.sentences(2)
        assert len(said) == told and said[0].startswith("M00 (0x000): ")
    assert said[-1] == "and 7 more like these"
