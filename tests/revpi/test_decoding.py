"""Bytes to values: bit for bit as revpimodio2 reads them, and where the driver says they lie."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import revpimodio2
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Device, DeviceProblem, Value
from gateway.protocols import revpi
from gateway.protocols.revpi.decoding import Decoder
from gateway.protocols.revpi.layout import Point, configuration_file, read_layout
from gateway.protocols.revpi.tags import found
from tests.opcua.recording import RecordingLink
from tests.revpi import plant

BOXES = {
    "core": lambda: (plant.core(), plant.aio(31, "_l"), plant.dio(32), plant.mio(33), plant.aio(34)),
    "connect": lambda: (plant.core(105, "RevPi Connect"), plant.gate(31), plant.dio(32), plant.virtual(64)),
    "connect 4": lambda: (plant.connect4(), plant.dio(32, "_a"), plant.dio(33, "_b")),
    "compact": lambda: (plant.compact(),),
}


@st.composite
def modules(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to four modules of any inputs and outputs side by side."""
    products = st.sampled_from([96, 103, 118, 97])
    made, number = [plant.core(draw(st.sampled_from([95, 105])))], 0
    for position in range(32, 32 + draw(st.integers(1, 4))):
        parts: list[list[plant.Io]] = [[], []]
        byte = 0
        for part in parts:
            for bits in draw(st.lists(st.sampled_from([1, 8, 16, 24, 32, 64, 96]), max_size=8)):
                number += 1
                # From the first to the last: revpimodio2 itself reads past its end where PiCtory left a gap.
                places = draw(st.sets(st.integers(0, 15))) | {0, 15} if bits == 1 else [""]
                for place in places:
                    part.append((f"io{number}_{place}", bits, byte, str(place), draw(st.booleans())))
                byte += 2 if bits == 1 else bits // 8
        if any(parts):
            made.append(plant.module("LEFT_RIGHT", draw(products), position, f"m{position}", *parts))
    return made


def as_revpimodio2_reads(rsc: Path, image: Path) -> dict[str, Any]:
    own = revpimodio2.RevPiModIO(procimg=str(image), configrsc=str(rsc), monitoring=True, debug=False)
    own.readprocimg()
    values = {io.name: io.value for io in own.io}
    own.cleanup()
    return values


def as_driver_reads(rsc: Path, image: bytes) -> dict[str, int]:
    return {
        name: int.from_bytes(image[byte : byte + max(1, bits // 8)], "little") >> bit & (1 << bits) - 1
        for name, (byte, bit, bits) in plant.variables(rsc).items()
    }


def same(point: Point, value: Value, other: int) -> bool:
    if isinstance(value, bytes):
        value = int.from_bytes(value, "little", signed=point.signed)
    return value == other


def check(folder: Path, made: list[dict[str, Any]], image: bytes) -> None:
    rsc = plant.save(folder / "config.rsc", *made)
    (folder / "image").write_bytes(image)
    layout = read_layout(rsc)
    points = list(layout.points.values())
    values = Decoder(points)(image)
    own, driver = as_revpimodio2_reads(rsc, folder / "image"), as_driver_reads(rsc, image)
    assert {point.name for point in points} == own.keys() - {
        name for m in made for name, *_ in m["mem"].values()
    }
    for point, value in zip(points, values, strict=True):
        assert same(point, value, own[point.name]), (point, value, own[point.name])
        assert isinstance(value, bool) == (point.bit is not None)
        unsigned = driver[point.name] - (point.signed and driver[point.name] >> 8 * point.length - 1) * (
            1 << 8 * point.length
        )
        assert same(point, value, unsigned), (point, value, unsigned)


@pytest.mark.filterwarnings("default")
@settings(max_examples=60, deadline=None)
@given(modules(), st.integers(0, 2**32))
def test_any_configuration_is_decoded_as_by_revpimodio2_and_the_driver(made: Any, seed: int) -> None:
    with TemporaryDirectory() as folder:
        check(Path(folder), made, Random(seed).randbytes(4096))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("box", BOXES)
def test_each_box(box: str, tmp_path: Path) -> None:
    check(tmp_path, list(BOXES[box]()), bytes((n * 37 + n // 256) % 256 for n in range(4096)))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("wrong", ["bit", "byte", "sign"])
def test_the_comparison_sees_a_wrong_place(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Decoder):
        def __init__(self, points: Any) -> None:
            amiss = {
                "bit": lambda p: p.bit is None or {"bit": 7 - p.bit},
                "byte": lambda p: p.bit is not None or {"offset": p.offset + 1},
                "sign": lambda p: p.bit is not None or {"signed": not p.signed},
            }[wrong]
            super().__init__([replace(p, **c) if isinstance(c := amiss(p), dict) else p for p in points])

    monkeypatch.setitem(globals(), "Decoder", Wrong)
    with pytest.raises(AssertionError):
        check(tmp_path, list(BOXES["core"]()), bytes((n * 37 + 201) % 256 for n in range(4096)))


def test_two_tags_of_the_same_bytes() -> None:
    word = Point("a", 32, False, 1, 2)
    points = [
        word,
        replace(word, name="b", signed=True),
        Point("c", 32, False, 2, 1, bit=7),
        Point("d", 32, False, 0, 1),
    ]
    assert Decoder(points)(b"\x05\xff\x80") == [0x80FF, 0x80FF - 0x10000, True, 5]


def test_hints_are_few_however_many_tags_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "config.rsc"
    plant.save(path, *BOXES["core"]())
    tags = {f"t{n}": revpi.TagSettings(io=f"InputValu_{n}") for n in range(100)}
    link = RecordingLink("box", tmp_path)
    taken, problems = found(Device("box", tags), revpi.Settings(), read_layout(path), link)
    assert not taken
    assert ["did you mean" in problem for problem in problems] == [True] * 5 + [False] * 95


def test_types_and_flags(tmp_path: Path) -> None:
    layout = read_layout(plant.save(tmp_path / "config.rsc", plant.core(), plant.aio(32), plant.virtual(64)))
    assert layout.points["InputValue_1"].type == "int16"
    assert layout.points["RS485ErrorCnt"].type == "uint16"
    assert layout.points["Label"].type == "bytes"
    assert layout.points["RevPiStatus"].exported and not layout.points["RS485ErrorCnt"].exported
    assert layout.points["OutputValue_1"].output and not layout.points["InputValue_1"].output
    assert (layout.status_at, layout.errors_at) == (0, 2)
    assert layout.modules[32].name == "RevPi AIO"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is no JSON"),
        ('{"App": {', "is no JSON"),
        ("[]", 'no list of "Devices"'),
        ('{"Devices": 3}', 'no list of "Devices"'),
        ('{"Devices": []}', "no configuration of PiCtory that can be used .KeyError"),
        ('{"App": {}, "Summary": {}, "Devices": [{"offset": 0}]}', "no configuration of PiCtory"),
        ('{"App": {}, "Summary": {}, "Devices": [{"offset": "x"}]}', "no configuration of PiCtory"),
        ('{"App": {}, "Summary": {}, "Devices": [7]}', "no configuration of PiCtory"),
    ],
)
def test_a_configuration_that_will_not_do(content: str, sentence: str, tmp_path: Path) -> None:
    rsc = tmp_path / "config.rsc"
    rsc.write_text(content)
    with pytest.raises(DeviceProblem, match=sentence) as raised:
        read_layout(rsc)
    assert str(rsc) in str(raised.value)


@pytest.mark.filterwarnings("default")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_configuration_is_a_sentence_never_another_error(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        rsc = plant.save(Path(folder) / "config.rsc", plant.core(), plant.dio(32), plant.aio(33))
        content = json.loads(rsc.read_text())
        junk = st.sampled_from([None, "", "x", -1, 1.5, 10**9, [], {}, True, "99999", "-3"])
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(list(keys)))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 3)):
                place = place[key]
                continue
            place[key] = data.draw(junk)
            break
        rsc.write_text(json.dumps(content))
        try:
            layout = read_layout(rsc)
        except DeviceProblem:
            return
        Decoder(list(layout.points.values()))(bytes(layout.length))


def test_two_inputs_of_one_name_and_a_point_beyond_the_image(tmp_path: Path) -> None:
    rsc = plant.save(tmp_path / "config.rsc", plant.core(), plant.dio(32), plant.dio(33))
    with pytest.raises(DeviceProblem, match="I_1 already exists"):
        read_layout(rsc)
    far = plant.module("LEFT_RIGHT", 103, 32, "m", [("word", 16, 0, "", True)])
    content = plant.configuration(plant.core(), far)
    far["offset"] = 4094
    rsc.write_text(json.dumps(content))
    assert read_layout(rsc).length == 4096
    far["offset"] = 4095
    rsc.write_text(json.dumps(content))
    with pytest.raises(DeviceProblem, match="no configuration of PiCtory that can be used"):
        read_layout(rsc)


def test_what_revpimodio2_leaves_out_is_said(tmp_path: Path) -> None:
    twice = plant.module("LEFT_RIGHT", 96, 32, "m", [("a", 8, 0, "", True), ("b", 16, 0, "", True)])
    layout = read_layout(plant.save(tmp_path / "config.rsc", plant.core(), twice))
    assert "b" not in layout.points and any("'b'" in note for note in layout.notes)


def test_where_the_configuration_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = tmp_path / "etc.rsc", tmp_path / "opt.rsc"
    monkeypatch.setattr("gateway.protocols.revpi.layout.PLACES", (new, old))
    with pytest.raises(DeviceProblem, match="start configuration"):
        configuration_file(None)
    old.touch()
    assert configuration_file(None) == old
    new.touch()
    assert configuration_file(None) == new
    assert configuration_file(str(old)) == old
