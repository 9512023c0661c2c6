"""What the simulated sensors measure: known functions, so that every count can be computed."""

import functools
import math
from array import array

FULL_SCALE = 65_535


@functools.cache
def _period(sensor: int) -> "array[int]":
    length = 997 + 16 * sensor
    amplitude = 20_000 - 50 * sensor
    turns = (2 * math.pi * n / length for n in range(length))
    if sensor % 3 == 0:
        return array("H", (round(amplitude * n / length) * 2 + 1000 for n in range(length)))
    if sensor % 3 == 1:
        return array("H", (round(32_768 + amplitude * math.sin(turn)) for turn in turns))
    return array("H", (round(32_768 + amplitude * math.sin(turn) * math.sin(5 * turn)) for turn in turns))


def count(sensor: int, n: int) -> int:
    """Return the raw ADC count (0 to 65535) of sample `n` since the stream began, of a sensor (1 to 255).

    Sensors 1, 4, 7... are sines, 2, 5, 8... their beat, 3, 6, 9... ramps, each with a period of its own:
    997 + 16 * sensor samples.
    """
    period = _period(sensor)
    return period[n % len(period)]
