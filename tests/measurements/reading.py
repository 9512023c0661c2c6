"""What a file and a live tap must hold, reckoned from the formulas alone."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.measurements import Sensor
from tests.measurements.node import count_of, frame_us

ADXL1001 = Sensor("acc100g_01", "Acceleration 100g", "g", "Acceleration", -100, 100, 0.33, 2.97, "ADXL1001")
ADXL358C = Sensor("acc40g_y", "Acceleration 40g Y", "g", "Acceleration", -40, 40, 0.1, 1.7, "ADXL358C")
TEMPERATURE = Sensor("temp_01", "Temperature", "°C", "Temperature", -40, 125, 0.772, 1.267, "ADXL358C")
SENSORS = (ADXL1001, ADXL358C, TEMPERATURE)
MASKS = [(bool(n & 1), bool(n & 2), bool(n & 4)) for n in range(1, 8)]


def physical(raw: int, sensor: Sensor, reference_v: float) -> float:
    """Return the physical value of a count, by the formulas of the facts, written out once more."""
    volts = raw * (reference_v / 65535)
    k2 = (sensor.phys_max - sensor.phys_min) / (sensor.volt_max - sensor.volt_min)
    return volts * k2 + (sensor.phys_max - k2 * sensor.volt_max)


def expected(mask: tuple[bool, bool, bool], frames: int, adc: AdcConfiguration) -> dict[str, list[Any]]:
    """Return the rows that the file of so many frames must have, and when each sample was taken."""
    active = sum(mask)
    values, each = (2, 1) if active == 2 else (3, 3 if active == 1 else 1)
    rate = adc.sample_rate_hz / values
    found: dict[str, list[Any]] = {"counter": [], "timestamp": [], "taken": [], "x": [], "y": [], "z": []}
    for n in range(frames):
        for sample in range(each):
            found["counter"].append(n % 256)
            found["timestamp"].append(frame_us(n, rate) - frame_us(0, rate))
            period_us = 1e6 * active / adc.sample_rate_hz
            found["taken"].append(frame_us(n, rate) - round((each - 1 - sample) * period_us))
            place = 0
            for axis, on, sensor in zip("xyz", mask, SENSORS, strict=True):
                if on:
                    raw = count_of(n * values + (sample if active == 1 else place))
                    found[axis].append(physical(raw, sensor, adc.reference_voltage_v))
                    place += 1
    return found


def table(path: Path) -> "np.ndarray[Any, Any]":
    with h5py.File(path, "r") as file:
        rows: np.ndarray[Any, Any] = file["acceleration"][:]
    return rows


def attributes(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        found = dict(file["acceleration"].attrs)
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
