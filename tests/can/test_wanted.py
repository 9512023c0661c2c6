"""Which tags there are: those listed, or everything; values as the YAML scales them."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.config.check import check
from gateway.model import Device
from gateway.protocols.can import Settings
from gateway.protocols.can.database import Database, Message, Signal
from gateway.protocols.can.tags import DecodingSettings, TagSettings
from gateway.protocols.can.wanted import Wanted
from tests.can.decoding import DATABASES, Bench, read

EVERY = DecodingSettings(keep_interval_ms=0)
FRAME = 256, bytes([0x10, 0x27, 100, 0x32, 0, 1, 0, 0])


def test_listed_tags_are_scaled_named_and_alone() -> None:
    tags = {
        "speed": TagSettings(signal="EngineData.Speed"),
        "kilo": TagSettings(signal="EngineData.Speed", scale=0.001, offset=1, unit="krpm"),
        "by id": TagSettings(signal="0x100.Gear"),
    }
    bench = Bench(read("plain.dbc"), EVERY, tags)
    assert bench.names.tags == ["speed", "kilo", "by id"]  # they are there before any frame is
    assert bench.take((5, *FRAME), (6, 257, bytes(3))) == [
        ("speed", 5, 2500.0, 0), ("kilo", 5, 3.5, 0), ("by id", 5, 2, 0),
    ]  # fmt: skip
    assert bench.names.units == {"speed": "rpm", "kilo": "krpm", "by id": ""}
    assert bench.decoder.filters() == [(256, 0xC00007FF)]


def test_a_scaled_tag_is_not_in_the_unit_of_the_database() -> None:
    bench = Bench(read("plain.dbc"), EVERY, {"a": TagSettings(signal="EngineData.Speed", scale=2.0)})
    assert bench.names.units == {"a": ""}


def test_a_tag_that_no_database_has_is_named_with_its_line() -> None:
    tags = {"speed": TagSettings(signal="EngineData.Sped"), "gear": TagSettings(signal="EngineData.Gear")}
    wanted = Wanted(Device("bus", tags, {"speed": "gateway.yaml:7"}), EVERY, read("plain.dbc"))
    assert list(wanted.problems.values()) == [
        "speed (gateway.yaml:7): the databases have no signal EngineData.Sped; did you mean EngineData.Speed?"
    ]
    bench = Bench(read("plain.dbc"), EVERY, tags)
    assert len(bench.decoder.problems) == 1
    assert {tag: state.way for tag, state in bench.decoder.tag_states().items()} == {
        "speed": "bad", "gear": "subscribed",
    }  # fmt: skip
    assert bench.take((0, *FRAME)) == [("gear", 0, 2, 0)]


def test_however_many_tags_are_missing_the_event_loop_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved database in which the messages have other names: few hints, each among few names."""
    messages = tuple(
        Message(f"Axis{n}", n, 8, (Signal("DriveTemperature", 0, 8), Signal("DriveTorque", 8, 8)))
        for n in range(2000)
    )
    asked: list[int] = []
    compare = difflib.get_close_matches

    def counted(word: str, names: Sequence[str], n: int) -> list[str]:
        asked.append(len(names))
        return compare(word, names, n)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    tags = {f"t{n}": TagSettings(signal=f"Axis{n}.DriveTemprature") for n in range(1990, 2000)}
    tags |= {f"u{n}": TagSettings(signal=f"Axle{n}.DriveTorque") for n in range(1000)}
    problems = list(Wanted(Device("bus", tags), EVERY, Database(messages)).problems.values())
    assert len(problems) == 1010
    assert len(asked) == 5 and max(asked) <= 500
    # What is of the same message is compared first, however many names there are before it.
    assert problems[0].endswith("no signal Axis1990.DriveTemprature; did you mean Axis1990.DriveTemperature?")
    assert problems[-1].endswith("no signal Axle999.DriveTorque")
    decoder = Bench(Database(messages), EVERY, tags).decoder
    assert decoder.problems == (*problems[:5], "and 1005 more like these")
    assert len(decoder.tag_states()) == 1010


def test_a_source_address_is_for_j1939() -> None:
    bench = Bench(read("plain.dbc"), EVERY, {"a": TagSettings(signal="EngineData.Speed", source=1)})
    assert "EngineData is no J1939 message: remove `source`" in bench.decoder.problems[0]


def test_intervals_and_deadbands_are_those_of_the_tag() -> None:
    tags = {
        "each": TagSettings(signal="EngineData.Speed", keep_interval_ms=0),
        "thinned": TagSettings(signal="EngineData.Speed"),
        "coarse": TagSettings(signal="EngineData.Speed", keep_interval_ms=0, deadband=100.0),
    }
    bench = Bench(read("plain.dbc"), DecodingSettings(), tags)
    frames = [(n * 1000, 256, (4000 + 100 * n).to_bytes(2, "little") + bytes(6)) for n in range(10)]
    frames.append((10_000, *frames[-1][1:]))
    rows = bench.take(*frames) + bench.flush(1_000_000)
    found = {tag: [row[1:3] for row in rows if row[0] == tag] for tag in tags}
    speeds = [1000.0 + 25 * n for n in range(10)]
    assert found["each"] == [*((n * 1000, speed) for n, speed in enumerate(speeds)), (10_000, 1225.0)]
    assert found["thinned"] == [(0, 1000.0), (9000, 1225.0)]
    assert found["coarse"] == [(0, 1000.0), (5000, 1125.0)]


def test_raw_payloads_where_they_are_asked_for() -> None:
    tags = {
        "frame": TagSettings(signal="EngineData.raw"),
        "strange": TagSettings(signal="0x5A5.raw"),
        "long": TagSettings(signal="0x000005A5.raw"),
    }
    bench = Bench(read("plain.dbc"), EVERY, tags)
    frames = [(0, *FRAME), (1, 0x5A5, b"\x01\x02"), (2, 0x800005A5, b""), (3, 0x5A6, b"\x01")]
    assert bench.take(*frames) == [
        ("frame", 0, FRAME[1], 0), ("strange", 1, b"\x01\x02", 0), ("long", 2, b"", 0),
    ]  # fmt: skip
    assert sorted(bench.decoder.filters()) == [
        (0x100, 0xC00007FF), (0x5A5, 0xC00007FF), (0x800005A5, 0xDFFFFFFF),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raw_frames", "tags"),
    [
        ("off", ["Short.A", "Short.B"]),
        ("unknown", ["Short.A", "Short.B", "0x5A5.raw"]),
        ("all", ["Short.A", "Short.B", "Short.raw", "0x5A5.raw"]),
    ],
)
def test_raw_frames_of_a_device(raw_frames: str, tags: list[str]) -> None:
    settings = DecodingSettings(keep_interval_ms=0, raw_frames=raw_frames)  # type: ignore[arg-type]
    bench = Bench(read("plain.dbc"), settings)
    assert {row[0] for row in bench.take((0, 257, b"\x01\x02\x03"), (1, 0x5A5, b"\x01"))} == set(tags)
    assert bool(bench.decoder.filters()) == (raw_frames == "off")


def test_payloads_with_a_page_that_is_not_known_are_kept_raw() -> None:
    settings = DecodingSettings(keep_interval_ms=0, raw_frames="unknown")
    bench = Bench(read("multiplexed.dbc"), settings)
    rows = bench.take(
        (0, 400, bytes([9, 2]) + bytes(6)), (1, 400, bytes(8)), (2, 400, bytes([77]) + bytes(7))
    )
    raw = [row[1:3] for row in rows if row[0] == "Diagnosis.raw"]
    assert raw == [(0, bytes([9, 2]) + bytes(6)), (2, bytes([77]) + bytes(7))]
    assert {row[1] for row in rows if row[0] == "Diagnosis.Page"} == {0, 1, 2}


def test_raw_frames_are_kept_on_change_as_signals_are() -> None:
    bench = Bench(read("plain.dbc"), DecodingSettings(raw_frames="all"))
    rows = bench.take(*((n * 400_000, 0x5A5, bytes([n // 2])) for n in range(6))) + bench.flush(2**62)
    assert rows == [
        ("0x5A5.raw", 0, b"\x00", 0),
        ("0x5A5.raw", 800_000, b"\x01", 0),
        ("0x5A5.raw", 1_600_000, b"\x02", 0),
    ]


def test_a_flood_of_ids_takes_no_memory_without_end() -> None:
    bench = Bench(read("plain.dbc"), DecodingSettings(raw_frames="all"))
    kept = 0
    for start in range(0, 20_000, 1000):
        kept += len(bench.take(*((n, 0x80000000 | n, b"\x01") for n in range(start, start + 1000))))
    assert len(bench.names.tags) <= 4098
    assert kept <= 4100


def test_the_kernel_takes_512_filters() -> None:
    tags = {f"t{n}": TagSettings(signal=f"0x{n:03X}.raw") for n in range(512)}
    assert len(Bench(read("plain.dbc"), EVERY, tags).decoder.filters()) == 512
    tags["more"] = TagSettings(signal="0x7FF.raw")
    assert Bench(read("plain.dbc"), EVERY, tags).decoder.filters() == []


@pytest.mark.parametrize("signal", ["Speed", ".Speed", "Engine.", ""])
def test_a_signal_is_written_with_its_message(signal: str) -> None:
    from gateway.protocols.can.tags import _check_signal

    with pytest.raises(ValueError, match="write its message before it"):
        _check_signal(signal)


def test_something_has_to_say_what_frames_mean() -> None:
    with pytest.raises(ValueError, match="nothing says what the frames mean"):
        Settings()
    assert Settings(raw_frames="unknown").databases == ()


def test_what_listed_tags_can_give_is_known_before() -> None:
    tags = {"a": TagSettings(signal="M.a"), "b": TagSettings(signal="M.b", keep_interval_ms=100)}
    assert DecodingSettings().most_samples_per_s(tags) == 11
    assert DecodingSettings().most_samples_per_s({}) is None
    assert DecodingSettings(raw_frames="all").most_samples_per_s(tags) is None
    tags["c"] = TagSettings(signal="M.c", keep_interval_ms=0)
    assert DecodingSettings().most_samples_per_s(tags) is None


def test_check_reads_the_databases(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    tags = "{speed: EngineData.Sped, gear: EngineData.Gear}"
    file.write_text(f"devices:\n  press:\n    can: {DATABASES / 'plain.dbc'}\n    tags: {tags}\n")
    checked = check(file, {})
    assert checked.code == 0
    assert checked.lines[0] == (
        f"{file}:2: device press: speed ({file}:4): the databases have no signal EngineData.Sped; "
        "did you mean EngineData.Speed? (a warning)"
    )
    (tmp_path / "bad.dbc").write_text("BO_ nonsense")
    file.write_text("devices:\n  press: {can: bad.dbc}\n")
    broken = f"{file}:2: device press: {tmp_path}/bad.dbc:1:5: this is not understood"
    assert check(file, {}).lines[0].startswith(broken)
