"""The IFT value against its formula, to 1e-12; what it is not given for."""

import random
import statistics
from fractions import Fraction

import numpy as np
import pytest

from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.measurements import Channel, Ended, IftRequest, IftValues, Plan
from gateway.measurements.ift import Ift, ift
from gateway.measurements.plan import Conversion
from tests.measurements.conftest import Gateway
from tests.measurements.node import DEVICE, Node
from tests.measurements.reading import ADXL358C, ADXL1001, expected


def formula(x: list[float], window: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return the sample variance of x[i..i+window], the last one repeated, each window by itself."""
    whole = [statistics.variance(map(Fraction, x[i : i + window + 1])) for i in range(len(x) - window)]
    return np.array([float(y) for y in whole + whole[-1:] * window])


SIGNALS = {
    "noise": lambda rng, n: rng.randrange(65536),
    "a machine that stands still": lambda rng, n: 32_000 + rng.randrange(2),
    "a crash, then quiet": lambda rng, n: rng.randrange(65536) if n < 300 else 40_000 + rng.randrange(3),
    "a ramp": lambda rng, n: n * 13 % 65536,
}


@pytest.mark.seed_row(19)
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(("window_s", "rate_hz"), [(0.005, 1000.0), (0.0999, 317.46), (1.0, 250.0)])
def test_it_is_the_formula_to_1e_12(signal: str, window_s: float, rate_hz: float) -> None:
    rng = random.Random(signal)
    counts = [SIGNALS[signal](rng, n) for n in range(700)]
    conversion = Conversion.of(ADXL1001, 3.3)
    window = int(window_s * rate_hz)
    raw = np.array(ift(counts, window_s, rate_hz))
    np.testing.assert_allclose(raw, formula([float(count) for count in counts], window), rtol=1e-12, atol=0)
    exact = [Fraction(conversion.k1) * Fraction(conversion.k2) * count for count in counts]
    physical = np.array(ift(counts, window_s, rate_hz, conversion.gain))
    want = [float(statistics.variance(exact[i : i + window + 1])) for i in range(0, 700 - window, 50)]
    np.testing.assert_allclose(physical[: 700 - window : 50], want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_it_does_not_matter_how_the_samples_come(batch: int) -> None:
    rng = random.Random(batch)
    counts = [rng.randrange(65536) for _ in range(2000)]
    running, found = Ift(0.1, 500.0), list[float]()
    for first in range(0, 2000, batch):
        found += running.take(counts[first : first + batch])
    assert found + running.end() == ift(counts, 0.1, 500.0)
    assert len(found) == 2000 - 50, "as soon as they can be known"


def test_after_hours_it_is_as_exact_as_at_first() -> None:
    running = Ift(0.005, 1000.0)
    for _ in range(300):
        running.take([65535] * 1000)
    last = [3, 1, 4, 1, 5, 9]
    assert running.take([*last])[-1] == pytest.approx(statistics.variance(last), rel=1e-15)


@pytest.mark.parametrize(
    ("count", "window_s", "rate_hz"), [(600, 0.1, 1000.0), (100_000, 0.1, 199.9), (0, 0.1, 1000.0)]
)
def test_there_is_none_of_too_few_samples(count: int, window_s: float, rate_hz: float) -> None:
    assert ift([n % 100 for n in range(count)], window_s, rate_hz) == []


def test_there_is_none_of_other_windows() -> None:
    for window_s in (0.0049, 1.01, -1.0, float("nan")):
        with pytest.raises(ValueError, match="window of the IFT value"):
            IftRequest(0, window_s)
    with pytest.raises(ValueError, match="which is not active"):
        Plan((Channel(1), None, None), ift=IftRequest(1, 0.1))


async def test_below_200_samples_a_second_nothing_is_kept_for_it(gateway: Gateway, node: Node) -> None:
    node.configuration = AdcConfiguration(2, 256, 4096)
    async with gateway.opened() as (measurements, _):
        m = await measurements.start(DEVICE, Plan((Channel(1), None, None), ift=IftRequest(0, 0.1)))
        assert m.channel_rate_hz < 200 and measurements._sessions[DEVICE]._ift is None
        await measurements.stop(DEVICE)


@pytest.mark.parametrize("raw", [False, True])
async def test_it_is_told_while_it_is_measured(gateway: Gateway, node: Node, raw: bool) -> None:
    node.frames, node.configuration = 3000, AdcConfiguration(2, 8, 128)
    found: list[IftValues] = []
    asked = Plan((Channel(1, ADXL1001), Channel(2, ADXL358C), None), ift=IftRequest(1, 0.05, raw=raw))
    async with gateway.opened() as (measurements, _):
        with measurements.watch(DEVICE) as tap:
            await measurements.start(DEVICE, asked)
            assert node.streaming is not None
            await node.streaming.drained.wait()
            await measurements.stop(DEVICE)
            async for item in tap:
                if isinstance(item, IftValues):
                    found.append(item)
                if isinstance(item, Ended):
                    break
    want = expected((True, True, False), 3000, node.configuration)
    rate = node.configuration.sample_rate_hz / (1 if raw else 2)
    x = [float((n * 2 + 1) * 40_503 % 65_536) for n in range(3000)] if raw else want["y"]
    assert [ts for item in found for ts in item.ts] == want["taken"]
    values = [value for item in found for value in item.values]
    window = int(0.05 * rate)
    whole = np.var(np.lib.stride_tricks.sliding_window_view(x, window + 1), axis=1, ddof=1).tolist()
    np.testing.assert_allclose(values, whole + whole[-1:] * window, rtol=1e-12, atol=0)
