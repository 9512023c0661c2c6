"""The load of a bus, against the lengths of frames that ISO 11898-1 gives."""

import pytest

from gateway.canbus.frames import EXTENDED, Frames
from gateway.canbus.load import LoadMeter


@pytest.mark.parametrize(
    ("ids", "frames", "data_bytes", "percent"),
    [
        ([1], 4504, 36_032, 100),  # 111 bits each at 500 kbit/s: a full bus of 8 bytes a frame
        ([1], 1000, 0, 9.4),
        ([EXTENDED | 1], 1000, 8000, 26.2),
        ([1, EXTENDED | 1], 1000, 8000, 24.2),
        ([1], 100_000, 0, 100),
    ],
)
def test_percent(ids: list[int], frames: int, data_bytes: int, percent: float) -> None:
    meter = LoadMeter(500_000, None)
    meter.seen(Frames([0] * len(ids), ids, [b""] * len(ids)))
    meter.count(frames, data_bytes)
    assert meter.percent(1.0) == pytest.approx(percent, abs=0.02)


def test_it_is_that_of_the_last_ten_times() -> None:
    meter = LoadMeter(500_000, None)
    meter.count(1000, 0)
    assert meter.percent(1.0) == pytest.approx(9.4)
    assert meter.percent(1.0) == pytest.approx(4.7)
    assert [meter.percent(1.0) for _ in range(9)][-2:] == [pytest.approx(0.94), 0]


def test_data_at_the_faster_rate() -> None:
    meter = LoadMeter(500_000, 2_000_000)
    meter.count(1000, 64_000)
    assert meter.percent(1.0) == pytest.approx(100 * (0.094 + 0.256))


def test_nothing_is_known_without_a_bit_rate() -> None:
    meter = LoadMeter(None, None)
    meter.count(1000, 8000)
    assert meter.percent(1.0) is None
