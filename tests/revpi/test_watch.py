"""What is kept of what is seen."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Sample
from gateway.protocols.revpi.bridge import BAD_NO_COMMUNICATION, UNCERTAIN_NO_COMMUNICATION, Verdict
from gateway.protocols.revpi.layout import Point
from gateway.protocols.revpi.watch import Stamp, Tag, Watch
from gateway.scaling import Scaling

GOOD = Verdict()
BYTE = Point("a", 32, False, 0, 1)


def tag(keep_ms: int = 0, *, deadband: float = 0.0, scale: float = 1.0, point: Point = BYTE) -> Tag:
    return Tag(1, point, Scaling(scale), deadband, keep_ms * 1_000_000)


def at(ms: int) -> Stamp:
    return Stamp(ms * 1000, 2, ms * 1_000_000)


def seen(watch: Watch, *images: tuple[int, int]) -> list[tuple[int, object]]:
    """Look at (ms, value) after another; return (ms of the sample, its value)."""
    kept: list[Sample] = []
    for ms, value in images:
        kept.extend(watch.look(bytes([value]), GOOD, at(ms)))
    return [(sample.ts // 1000, sample.value) for sample in kept]


def test_only_changes_are_kept() -> None:
    watch = Watch([tag()])
    assert seen(watch, (0, 5), (100, 5), (200, 6), (300, 6), (400, 5)) == [(0, 5), (200, 6), (400, 5)]


def test_a_pulse_on_a_quiet_input_keeps_both_edges_with_their_times() -> None:
    watch = Watch([tag(1000)])
    looks = [(0, 0), (5000, 1), (5100, 0), *((ms, 0) for ms in range(5200, 6300, 100))]
    assert seen(watch, *looks) == [(0, 0), (5000, 1), (5100, 0)]


def test_what_keeps_changing_is_thinned_and_its_end_is_kept() -> None:
    watch = Watch([tag(1000)])
    looks = [(ms, ms // 100 % 250) for ms in range(0, 3050, 100)] + [
        (ms, 30) for ms in range(3100, 5000, 100)
    ]
    kept = seen(watch, *looks)
    assert kept == [(0, 0), (1000, 10), (2000, 20), (3000, 30)]


def test_a_change_that_was_undone_while_it_waited_is_not_kept() -> None:
    watch = Watch([tag(1000)])
    assert seen(watch, (0, 1), (100, 2), (200, 1), (1500, 1)) == [(0, 1)]


def test_what_waits_keeps_the_time_at_which_it_was_seen() -> None:
    watch = Watch([tag(1000)])
    assert seen(watch, (0, 1), (100, 2)) == [(0, 1)]
    assert watch.waiting
    other = Verdict({99: BAD_NO_COMMUNICATION})  # every tag is judged anew
    assert not len(watch.look(b"\x02", other, at(200)))
    assert [row.ts for row in watch.look(b"\x02", other, at(1000))] == [100_000]
    assert not watch.waiting


def test_a_deadband_counts_from_the_kept_value_in_the_unit_of_the_tag() -> None:
    watch = Watch([tag(deadband=0.5, scale=0.1)])
    creeping = [(ms, 100 + ms // 100) for ms in range(0, 1300, 100)]
    assert [value for _, value in seen(watch, *creeping)] == pytest.approx([10.0, 10.6, 11.2])


def test_a_bit_knows_no_deadband_and_a_bad_value_is_none() -> None:
    watch = Watch([tag(deadband=3.0)])
    assert seen(watch, (0, 7), (100, 9)) == [(0, 7)]
    bad = Verdict({32: BAD_NO_COMMUNICATION}, ("gone",))
    rows = [*watch.look(b"\x09", bad, at(200)), *watch.look(b"\x09", bad, at(300))]
    rows += [*watch.look(b"\x09", Verdict({31: BAD_NO_COMMUNICATION}), at(400))]
    unsure = Verdict({32: UNCERTAIN_NO_COMMUNICATION})
    rows += [*watch.look(b"\x09", unsure, at(500))]
    assert [(row.ts, row.value, row.status) for row in rows] == [
        (200_000, None, BAD_NO_COMMUNICATION), (400_000, 9, 0), (500_000, 9, UNCERTAIN_NO_COMMUNICATION),
    ]  # fmt: skip


def test_a_poll_gives_every_tag() -> None:
    watch = Watch([tag(1000), tag(1000)])
    assert len(watch.look(b"\x01", GOOD, at(0))) == 2
    assert not len(watch.look(b"\x02", GOOD, at(100)))
    assert [row.value for row in watch.all(b"\x02", GOOD, at(200))] == [2, 2]
    assert not len(watch.look(b"\x02", GOOD, at(2000)))


@given(
    st.lists(st.tuples(st.integers(10, 700), st.integers(0, 3)), max_size=60), st.sampled_from([0, 300, 1000])
)
def test_any_course(steps: list[tuple[int, int]], keep_ms: int) -> None:
    """No two samples are closer than the interval as kept, each was seen, the last state is always kept."""
    watch, ms, kept, states = Watch([tag(keep_ms)]), 0, [], {}
    kept_at: list[int] = []
    for wait, value in steps:
        ms += wait
        states[ms] = value
        rows = list(watch.look(bytes([value]), GOOD, at(ms)))
        kept += rows
        kept_at += [ms] * len(rows)
    assert all(b - a >= keep_ms for a, b in pairwise(kept_at))
    assert all(states[row.ts // 1000] == row.value for row in kept)
    assert all(a.ts < b.ts and a.value != b.value for a, b in pairwise(kept))
    if states:
        kept += list(watch.look(bytes([value]), GOOD, at(ms + keep_ms)))
        assert kept[-1].value == value
