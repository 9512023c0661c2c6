"""What the driver's words mean for the values."""

from pathlib import Path

import pytest

from gateway.protocols.revpi import bridge
from gateway.protocols.revpi.layout import Layout, read_layout
from tests.revpi import plant
from tests.revpi.plant import EXTRA, MISMATCH, MISSING, RUNNING


def layout(folder: Path, *modules: dict[str, object]) -> Layout:
    return read_layout(plant.save(folder / "config.rsc", plant.core(), *modules))


def image(of: Layout, status: int, errors: int = 0) -> bytes:
    return bytes([status, 0]) + errors.to_bytes(2, "little") + bytes(of.length)


def test_all_is_well(tmp_path: Path) -> None:
    of = layout(tmp_path, plant.dio(32))
    for missing in (None, frozenset[int]()):
        assert bridge.judge(of, image(of, RUNNING), missing) == bridge.Verdict()


def test_the_driver_does_not_run(tmp_path: Path) -> None:
    of = layout(tmp_path, plant.dio(32))
    verdict = bridge.judge(of, image(of, 0), frozenset())
    assert verdict.status(0) == verdict.status(32) == bridge.BAD_COMMUNICATION_ERROR
    assert "does not run" in verdict.sentences[0]


def test_the_driver_names_the_module_that_is_gone(tmp_path: Path) -> None:
    of = layout(tmp_path, plant.dio(32), plant.aio(33), plant.virtual(64))
    verdict = bridge.judge(of, image(of, RUNNING | MISSING), frozenset({33, 99}))
    assert verdict.statuses == {33: bridge.BAD_NO_COMMUNICATION}
    assert "RevPi AIO (position 33)" in verdict.sentences[0] and "not connected" in verdict.sentences[0]
    wrong = bridge.judge(of, image(of, RUNNING | MISSING | MISMATCH), frozenset({33}))
    assert "not as configured" in wrong.sentences[0]
    # A virtual device sets the bit in the driver though nothing is amiss.
    assert bridge.judge(of, image(of, RUNNING | MISSING), frozenset()) == bridge.Verdict()


def test_without_the_drivers_list_the_bits_have_to_do(tmp_path: Path) -> None:
    one = layout(tmp_path, plant.dio(32))
    assert bridge.judge(one, image(one, RUNNING | MISSING), None).statuses == {
        32: bridge.BAD_NO_COMMUNICATION
    }
    two = layout(tmp_path, plant.dio(32), plant.aio(33))
    verdict = bridge.judge(two, image(two, RUNNING | MISMATCH), None)
    assert verdict.statuses == dict.fromkeys((32, 33), bridge.UNCERTAIN_NO_COMMUNICATION)
    assert verdict.sentences[0].startswith("one of RevPi DIO (position 32), RevPi AIO (position 33)")
    for other in (plant.virtual(64), plant.gate(31)):
        of = layout(tmp_path, plant.dio(32), other)
        assert bridge.judge(of, image(of, RUNNING | MISSING), None) == bridge.Verdict()


def test_a_module_too_many_is_said(tmp_path: Path) -> None:
    of = layout(tmp_path, plant.dio(32))
    verdict = bridge.judge(of, image(of, RUNNING | EXTRA), frozenset())
    assert not verdict.statuses and "PiCtory does not know" in verdict.sentences[0]


def test_a_compact_has_no_status(tmp_path: Path) -> None:
    of = read_layout(plant.save(tmp_path / "config.rsc", plant.compact()))
    assert bridge.judge(of, bytes(of.length), None) == bridge.Verdict()
    assert bridge.Errors().sentence(of, bytes(of.length), 0) == ""


def test_transmission_errors_of_the_last_minute(tmp_path: Path) -> None:
    of, errors = layout(tmp_path, plant.dio(32)), bridge.Errors()

    def said(count: int, s: int) -> str:
        return errors.sentence(of, image(of, RUNNING, count), s * 1_000_000_000)

    assert said(500, 0) == ""  # from before: not ours to judge
    assert said(501, 1).startswith("1 transmission error on")
    assert said(504, 30).startswith("4 transmission errors")
    assert said(504, 60).startswith("4 transmission errors")
    assert said(504, 61).startswith("3 transmission errors")
    assert said(504, 90) == ""
    assert said(0, 91) == ""  # the driver was reset
    assert said(2, 92).startswith("2 ")


@pytest.mark.parametrize("mask", [RUNNING, MISSING, EXTRA])
def test_each_bit_counts(mask: int, tmp_path: Path) -> None:
    of = layout(tmp_path, plant.dio(32))
    usual = RUNNING
    assert bridge.judge(of, image(of, usual ^ mask), None) != bridge.judge(of, image(of, usual), None)
