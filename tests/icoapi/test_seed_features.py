"""Rows of the seeds' feature table that ask for more than the tests of the contract see."""

import itertools

import pytest

from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.measurements.plan import Conversion
from tests.measurements.reading import ADXL1001


@pytest.mark.seed_row(15)
def test_the_middle_of_the_scale_is_nearly_0_g() -> None:
    (value,) = Conversion.of(ADXL1001, 3.3).values([32768])
    assert value == pytest.approx(0.0019, abs=0.00005)


@pytest.mark.seed_row(16)
def test_the_sample_rate_is_that_of_the_formula() -> None:
    settings = itertools.product((1, 2, 5, 127), (1, 4, 8, 64, 256), (1, 64, 4096))
    for prescaler, acquisition, oversampling in settings:
        adc = AdcConfiguration(prescaler, acquisition, oversampling)
        expected = 38_400_000 / ((prescaler + 1) * (acquisition + 13) * oversampling)
        assert adc.sample_rate_hz == pytest.approx(expected, rel=1e-12)
    assert AdcConfiguration(2, 8, 64).sample_rate_hz == pytest.approx(9523.8, abs=0.05)
