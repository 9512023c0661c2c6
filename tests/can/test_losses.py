"""Losses become gap records: one for those that follow each other, one a minute for those that go on."""

from typing import Any

import pytest

from gateway.canbus.losses import Loss
from gateway.model import Batch
from gateway.protocols.can.losses import Losses

Gaps = list[tuple[int, int, str, int | None]]


class Time:
    """A clock and a link that records gaps."""

    def __init__(self) -> None:
        self.s = 0.0
        self.set_by_us = 0
        self.gaps: Gaps = []
        self.clock = self

    def mono_ns(self) -> int:
        return int(self.s * 1e9)

    def wall_us(self) -> int:
        return int(self.s * 1e6) + self.set_by_us

    def try_emit(self, _batch: Batch) -> None:
        """Have no room."""

    def gap(self, *record: Any) -> None:
        self.gaps.append(record)


@pytest.fixture
def link() -> Time:
    return Time()


def lose(link: Time, seconds: list[float], until_s: float) -> Loss:
    """Lose 10 frames at each of some times, looked at each half second; since 0.1 s before."""
    loss = Loss(link, "{} frames")  # type: ignore[arg-type]
    for tenth in range(int(until_s * 10) + 1):
        link.s = tenth / 10
        if link.s in seconds:
            loss.add(10, link.wall_us() - 100_000)
        if tenth % 5 == 0:
            loss.settle()
    return loss


def test_those_that_follow_each_other_are_one(link: Time) -> None:
    loss = lose(link, [1.0, 1.7, 2.4], 10)
    assert link.gaps == [(900_000, 2_400_000, "30 frames", 30)]
    assert loss.total == 30


def test_those_apart_are_two(link: Time) -> None:
    lose(link, [1.0, 5.0], 10)
    assert [gap[3] for gap in link.gaps] == [10, 10]


def test_those_that_go_on_are_told_each_minute(link: Time) -> None:
    lose(link, [n / 2 for n in range(300)], 160)
    assert len(link.gaps) == 3
    assert sum(gap[3] or 0 for gap in link.gaps) == 3000


def test_at_the_end_they_are_told_at_once(link: Time) -> None:
    loss = lose(link, [1.0], 1.0)
    assert link.gaps == []
    loss.settle(at_once=True)
    loss.settle(at_once=True)
    assert [gap[3] for gap in link.gaps] == [10]


def test_a_clock_that_is_set_in_between_makes_them_no_longer(link: Time) -> None:
    loss = Loss(link, "{} frames")  # type: ignore[arg-type]
    for link.s, set_by_us in ((10.0, 0), (10.5, 10**12)):
        link.set_by_us = set_by_us
        loss.add(10, link.wall_us() - 100_000)
    loss.settle(at_once=True)
    assert link.gaps == [(10**12 + 9_900_000, 10**12 + 10_500_000, "20 frames", 20)]


def test_the_gap_of_samples_holds_all_their_times(link: Time) -> None:
    """A change waits for up to its interval; the clock of another machine may be ahead."""
    losses = Losses(link)  # type: ignore[arg-type]
    for link.s, ts in ((100.0, [99_500_000, 108_000_000]), (100.9, [99_100_000, 100_800_000])):
        batch = Batch()
        for at_us in ts:
            batch.add(1, at_us, 5.0)
        assert not losses.emit(batch)
    losses.settle(at_once=True)
    [(from_us, to_us, _, count)] = link.gaps
    assert (from_us, to_us, count) == (99_100_000, 108_000_000, 4)
