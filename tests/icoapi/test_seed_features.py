"""The table of docs/icoapi.md: it is as the tests have it, and each test it names is there."""

import itertools

import pytest

from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.measurements.plan import Conversion
from tests.icoapi.seed_features import PAGE, ROWS, in_page, missing
from tests.measurements.reading import ADXL1001


def test_every_row_is_here_and_the_page_has_them() -> None:
    assert [row.number for row in ROWS] == list(range(1, 45))
    assert missing() == []
    page = PAGE.read_text(encoding="utf-8")
    assert in_page(page) == page, "python -m tests.icoapi.seed_features writes it"


def test_the_middle_of_the_scale_is_nearly_0_g() -> None:
    (value,) = Conversion.of(ADXL1001, 3.3).values([32768])
    assert value == pytest.approx(0.0019, abs=0.00005)


def test_the_sample_rate_is_that_of_the_formula() -> None:
    settings = itertools.product((1, 2, 5, 127), (1, 4, 8, 64, 256), (1, 64, 4096))
    for prescaler, acquisition, oversampling in settings:
        adc = AdcConfiguration(prescaler, acquisition, oversampling)
        expected = 38_400_000 / ((prescaler + 1) * (acquisition + 13) * oversampling)
        assert adc.sample_rate_hz == pytest.approx(expected, rel=1e-12)
    assert AdcConfiguration(2, 8, 64).sample_rate_hz == pytest.approx(9523.8, abs=0.05)
