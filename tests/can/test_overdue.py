"""A message that should come again and does not: its old values must not look like new ones."""

import pytest

from gateway.protocols.can.tags import DecodingSettings, TagSettings
from tests.can.decoding import Bench, Names, read

BAD_NO_COMMUNICATION = 0x80310000
FRAME = bytes([0x10, 0x27, 100, 0, 0, 0, 0, 0])
TAGS = {"speed": TagSettings(signal="EngineData.Speed"), "a": TagSettings(signal="Short.A")}


def bench(**how: int) -> tuple[Bench, Names]:
    """EngineData comes every 20 ms, says the database; of Short it says nothing."""
    names = Names()
    return Bench(read("plain.dbc"), DecodingSettings(**how), TAGS, names), names


def after(bench: Bench, names: Names, seconds: float) -> list[tuple[str, int, object, int]]:
    names.clock.us += int(seconds * 1e6)
    return bench.flush(names.clock.us)


@pytest.mark.parametrize("keep_interval_ms", [0, 1000])
def test_its_tags_have_no_value_any_more_until_it_comes_again(keep_interval_ms: int) -> None:
    it, names = bench(keep_interval_ms=keep_interval_ms)
    assert len(it.take((0, 256, FRAME), (0, 257, bytes(3)))) == 2
    assert not after(it, names, 4.9)
    assert not it.decoder.sentences(0)
    assert after(it, names, 0.2) == [("speed", names.clock.us, None, BAD_NO_COMMUNICATION)]
    assert not after(it, names, 60)
    assert it.decoder.sentences(0) == [
        "EngineData (0x100) has not come for 65 s, and should every 20 ms: is its sender on?"
    ]
    # The same payload as before is news now.
    assert it.take((names.clock.us, 256, FRAME)) == [("speed", names.clock.us, 2500.0, 0)]
    assert not it.decoder.sentences(0)
    assert not after(it, names, 4.9)
    assert len(after(it, names, 0.2)) == 1


def test_what_comes_unchanged_is_not_overdue() -> None:
    it, names = bench()
    for _ in range(10):
        it.take((names.clock.us, 256, FRAME))
        assert not after(it, names, 2)


def test_a_change_that_waited_is_kept_before() -> None:
    it, names = bench()
    it.take((0, 256, bytes(8)), (100_000, 256, FRAME))
    names.clock.us += 6_000_000
    assert it.flush(500_000) == [
        ("speed", 100_000, 2500.0, 0), ("speed", 500_000, None, BAD_NO_COMMUNICATION),
    ]  # fmt: skip


def test_it_is_behind_the_last_value_where_the_frames_clock_is_ahead() -> None:
    it, names = bench()
    ahead_us = 8_000_000
    it.take((names.clock.us + ahead_us, 256, FRAME))
    names.clock.us += 5_100_000
    bad_us = names.clock.us + ahead_us
    assert it.flush(bad_us) == [("speed", bad_us, None, BAD_NO_COMMUNICATION)]


def test_patience_is_at_least_five_cycles_and_may_be_for_ever() -> None:
    it, names = bench(overdue_ms=1)
    it.take((0, 256, FRAME))
    assert not after(it, names, 0.09)
    assert len(after(it, names, 0.02)) == 1
    it, names = bench(overdue_ms=0)
    it.take((0, 256, FRAME))
    assert not after(it, names, 86_400)


def test_a_message_that_never_came_is_not_missed() -> None:
    it, names = bench()
    it.take((0, 257, bytes(3)))
    assert not after(it, names, 60)


@pytest.mark.parametrize(
    ("kind", "cycle_ms"),
    [
        ("Cyclic", 20),
        ("CyclicAndSpontan", 20),
        ("OnEvent", None),
        ("CyclicIfActive", None),
        ("cyclic-if-active", None),
    ],
)
def test_what_comes_on_events_or_while_active_has_no_cycle(kind: str, cycle_ms: int | None) -> None:
    from tests.can.decoding import DATABASES
    from tests.can.test_loading import from_text

    kinds = f'BA_DEF_ BO_ "GenMsgSendType" ENUM "Other","{kind}";'
    default = f'BA_DEF_DEF_ "GenMsgSendType" "{kind}";'
    text = (DATABASES / "plain.dbc").read_text()
    text = text.replace("BA_DEF_DEF_", f"{kinds}\nBA_DEF_DEF_", 1)
    text = text.replace('BA_ "GenMsgCycle', f'{default}\nBA_ "GenMsgCycle')
    messages, _ = from_text(text)
    assert next(each for each in messages if each.name == "EngineData").cycle_ms == cycle_ms
