# SPDX-License-Identifier: Apache-2.0
"""Energy of an inference: power sensors behind one door, read by a thread of the process that watches.

Standard library only: a board needs no package for it.
"""

from benchmarks.energy.meter import PowerMeter, check
from benchmarks.energy.opening import found, open_sensor
from benchmarks.energy.reading import EnergyReading, Sample, Sensor, SensorFacts, Window

__all__ = [
    "EnergyReading",
    "PowerMeter",
    "Sample",
    "Sensor",
    "SensorFacts",
    "Window",
    "check",
    "found",
    "open_sensor",
]
