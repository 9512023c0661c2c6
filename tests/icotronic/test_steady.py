"""The times of a recorded stream while somebody sets the clock; those of the tags follow the clock."""

import struct
from array import array
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.controls.sensor_nodes import AdcConfiguration, ConnectedNode, StreamFrames
from gateway.protocols.icotronic.messages import stream_format
from gateway.protocols.icotronic.steady import SteadyTime
from gateway.protocols.icotronic.stream import NodeStream
from tests.test_base import HandClock

START_US, PERIOD_US, BATCH = 1_760_000_000_000_000, 315, 100
STEPS = [3_600_000_000, -3_600_000_000, 259_200_000_000, -1_500_000, 1_700_000, 10**15]


def settled(steady: SteadyTime, true_us: list[int], step_us: int, passed_us: int) -> list[int]:
    return steady.of([us + step_us for us in true_us], passed_us)


def frames(first: int, count: int = BATCH) -> list[int]:
    return [START_US + n * PERIOD_US for n in range(first, first + count)]


@pytest.mark.parametrize("step_us", STEPS)
@pytest.mark.parametrize("among", [0, 1, 50, 99])
def test_a_step_before_or_among_frames_is_left_out(step_us: int, among: int) -> None:
    steady, passed_us = SteadyTime(PERIOD_US), BATCH * PERIOD_US
    got = settled(steady, frames(0), 0, passed_us)
    assert got == frames(0)
    batch = frames(BATCH)
    got += steady.of([us + step_us * (n >= among) for n, us in enumerate(batch)], passed_us)
    for n in range(2, 5):
        got += settled(steady, frames(n * BATCH), step_us, passed_us)
    assert steady.set_by_us == pytest.approx(step_us, abs=passed_us)
    assert all(PERIOD_US <= b - a <= passed_us for a, b in pairwise(got))


def test_a_silence_of_the_node_is_no_step_and_stays_one_where_the_clock_is_set_in_it() -> None:
    for step_us in (0, *(step for step in STEPS if abs(step) > 5_000_000)):
        steady, silence_us = SteadyTime(PERIOD_US), 5_000_000
        before = settled(steady, frames(0), 0, BATCH * PERIOD_US)
        later = [us + silence_us for us in frames(BATCH)]
        after = settled(steady, later, step_us, silence_us + BATCH * PERIOD_US)
        assert after[0] - before[-1] == pytest.approx(silence_us, abs=2 * PERIOD_US), step_us


@given(st.lists(st.integers(0, 9_000_000), min_size=1, max_size=20))
def test_frames_that_are_read_late_keep_their_times(stalls_us: list[int]) -> None:
    """What the loop did not read for a while comes in one go, and then some more at once."""
    steady, at_us = SteadyTime(PERIOD_US), START_US
    for stall_us in accumulate([0, *stalls_us]):
        there = list(range(at_us, START_US + stall_us + 1, PERIOD_US))
        for first in range(0, len(there), 512):
            part = there[first : first + 512]
            assert steady.of(part, 0 if first else part[-1] - at_us) == part
        at_us = there[-1] + PERIOD_US if there else at_us
    assert steady.set_by_us == 0


def test_the_recording_goes_on_as_it_began_and_tags_follow_the_clock() -> None:
    clock, channels = HandClock(), (True, False, False)
    stream = NodeStream(ConnectedNode("n", "m"), channels, AdcConfiguration(), clock, queued=True)
    data = [struct.pack("<BB3H", stream_format(channels), n & 255, 1, 2, 3) for n in range(3 * BATCH)]
    tags: list[int] = []
    for n, step_us in enumerate((0, 86_400_000_000, 86_400_000_000)):
        clock.pass_s(BATCH * PERIOD_US / 1e6)
        ts = [us + step_us for us in frames(n * BATCH)]
        tags += stream.take(ts, data[n * BATCH : (n + 1) * BATCH]).ts
        assert tags[-BATCH:] == ts
    kept = StreamFrames([], b"", array("H"))
    for part in stream._waiting:
        kept.ts += part.ts
    assert len(kept) == 3 * BATCH and stream.lost == 0 and stream.received == 3 * BATCH
    assert kept.ts[-1] - kept.ts[0] == pytest.approx(3 * BATCH * PERIOD_US, abs=BATCH * PERIOD_US)
    assert stream.clock_set_us == pytest.approx(86_400_000_000, abs=BATCH * PERIOD_US)
