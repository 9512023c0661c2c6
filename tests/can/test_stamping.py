"""Times of frames: steps of the machine's clock, and clocks of others that wrap, step and drift."""

import random
from itertools import pairwise

import pytest

from gateway.canbus.frames import Frames
from gateway.canbus.stamping import Stamping
from gateway.model import Flag
from gateway.own_time import OwnTime

NOW_US = 1_760_000_000_000_000
WRAP_US = 2**32
HOUR_US = 3_600_000_000


class Machine:
    """A clock that is moved by hand."""

    wall_us_now = NOW_US
    mono_us = 5_000_000
    synced = True

    def wall_us(self) -> int:
        return self.wall_us_now

    def mono_ns(self) -> int:
        return self.mono_us * 1000

    def synchronised(self) -> bool:
        return self.synced

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def passes(self, us: int) -> None:
        self.wall_us_now += us
        self.mono_us += us


def frames(*ts: int) -> Frames:
    return Frames([*ts], [1] * len(ts), [b""] * len(ts))


@pytest.fixture
def machine() -> Machine:
    return Machine()


def foreign(stamping: Stamping, flag: Flag, *ts: int) -> Frames:
    batch = frames(*ts)
    stamping.foreign(batch, flag)
    return batch


def test_a_hardware_clock_that_wraps_takes_no_frame_into_the_future(machine: Machine) -> None:
    """gs_usb counts microseconds in 32 bits: each 71.6 minutes a batch has times of before and of after."""
    stamping = Stamping(machine, None)
    foreign(stamping, Flag.OWN_TIME, WRAP_US - 5_000_000)
    machine.passes(5_050_000)
    batch = foreign(stamping, Flag.OWN_TIME, WRAP_US - 40_000, WRAP_US - 20_000, 1_000, 30_000)
    ago_us = [machine.wall_us() - ts for ts in batch.ts]
    assert ago_us == [90_000, 70_000, 29_000, 0]
    machine.passes(1_000_000)
    assert foreign(stamping, Flag.OWN_TIME, 1_030_000).ts == [machine.wall_us()]


@pytest.mark.parametrize("step_us", [HOUR_US, -HOUR_US])
def test_a_server_whose_clock_steps_away_and_back(machine: Machine, step_us: int) -> None:
    stamping = Stamping(machine, None)
    before, after = NOW_US - 50_000, NOW_US + step_us - 10_000
    batch = foreign(stamping, Flag.SERVER_TIME, before, after)
    assert batch.ts == [before, NOW_US]
    machine.passes(100_000)
    assert foreign(stamping, Flag.SERVER_TIME, after + 80_000).flags == Flag.OWN_TIME
    # Set right, its times count as they are.
    machine.passes(100_000)
    batch = foreign(stamping, Flag.SERVER_TIME, NOW_US + 170_000)
    assert (batch.ts, batch.flags) == ([NOW_US + 170_000], Flag.SERVER_TIME)


@pytest.mark.parametrize("drift", [-100e-6, 0.0, 100e-6])
def test_a_card_whose_clock_drifts_is_followed_without_a_jump(machine: Machine, drift: float) -> None:
    """Two days with a batch each 10 s; frames are fetched up to 100 ms late, once in a while far later."""
    stamping, rng = Stamping(machine, None), random.Random(4)
    started_us, errors_us = machine.mono_us, []
    for number in range(2 * 8640):
        machine.passes(10_000_000)
        sent_us, counted_us = machine.wall_us(), round((machine.mono_us - started_us) * (1 + drift))
        machine.passes(rng.randrange(100_000) if number % 500 else 2_000_000)
        at_us = foreign(stamping, Flag.OWN_TIME, 17_000_000 + counted_us).ts[0]
        errors_us.append(at_us - sent_us)
        assert at_us <= machine.wall_us()
    settled = errors_us[2:]
    assert min(settled) >= -1_150_000 and max(settled) <= 2_000_000
    assert max(abs(after - before) for before, after in pairwise(settled)) < 150_000


def test_the_clock_of_a_server_is_not_followed(machine: Machine) -> None:
    stamping = Stamping(machine, None)
    for ahead_us in (-9_000_000, 9_000_000):
        batch = foreign(stamping, Flag.SERVER_TIME, NOW_US + ahead_us)
        assert (batch.ts, batch.flags) == ([NOW_US + ahead_us], Flag.SERVER_TIME)


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("set_to_us", [NOW_US + 30 * 24 * HOUR_US, NOW_US - 30 * 24 * HOUR_US])
@pytest.mark.parametrize("some_after", [False, True])
def test_frames_stamped_before_the_clock_was_set_are_set_with_it(
    machine: Machine, set_to_us: int, synced: bool, some_after: bool
) -> None:
    machine.synced = False
    own = OwnTime(machine, NOW_US - 365 * 24 * HOUR_US, lambda _: None)
    stamping = Stamping(machine, own)
    stamping.own(frames(NOW_US - 20_000))
    machine.passes(100_000)
    machine.wall_us_now, machine.synced = set_to_us, synced
    batch = frames(NOW_US + 30_000, NOW_US + 60_000, *([set_to_us - 10_000] if some_after else []))
    stamping.own(batch)
    assert [own()[0] - ts for ts in batch.ts] == [70_000, 40_000, *([10_000] if some_after else [])]
    machine.passes(100_000)
    batch = frames(machine.wall_us() - 30_000)
    stamping.own(batch)
    assert own()[0] - batch.ts[0] == 30_000


def test_stamps_of_this_machine_are_taken_as_they_are(machine: Machine) -> None:
    """However late they are fetched."""
    stamping = Stamping(machine, None)
    machine.passes(60_000_000)
    batch = frames(NOW_US, NOW_US + 20_000_000)
    stamping.own(batch)
    assert batch.ts == [NOW_US, NOW_US + 20_000_000]
