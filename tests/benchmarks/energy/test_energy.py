# SPDX-License-Identifier: Apache-2.0
"""Energy from samples of known curves, and every way in which a sensor may lie or go."""

import math
import random
import time
from collections.abc import Callable
from itertools import count

import pytest

from benchmarks.energy import EnergyReading, PowerMeter, Sample, SensorFacts, faults, open_sensor
from benchmarks.energy.faults import faults_of
from benchmarks.energy.integral import energy_j, gap_ns, powers
from edge_contract.errors import MeasurementError, UsageError
from tests.benchmarks.energy.chips import Chip226, Chip228

FACTS = SensorFacts("sensor", "test", 200.0, "exact", full_scale_w=20.0, lsb_w=0.001)
S = 1_000_000_000


def sampled(curve: Callable[[float], float], seconds: float = 12.0, rate: float = 200.0) -> list[Sample]:
    """Return samples of a power curve, with the last digit's noise that every real converter has."""
    draw = random.Random(0)
    return [
        Sample(round(k / rate * S), curve(k / rate) + draw.choice((-1, 0, 1)) * 0.001)
        for k in range(int(seconds * rate) + 1)
    ]


def test_piecewise_linear_power_is_integrated_exactly() -> None:
    points = [(0, 1.0), (2, 3.0), (5, 3.0), (6, 0.5), (10, 4.5)]
    samples = [Sample(t * S, p) for t, p in points]
    assert energy_j(samples, (0, 10 * S)) == pytest.approx(4.0 + 9.0 + 1.75 + 10.0, abs=1e-12)
    # Cut inside of two pieces: [1, 2] holds 2.5 J, [2, 5] 9 J, [5, 5.5] (3 + 1.75)/2/2 J.
    assert energy_j(samples, (S, 5 * S + S // 2)) == pytest.approx(2.5 + 9.0 + 1.1875, abs=1e-12)


def test_a_window_is_the_sum_of_its_parts_and_a_counter_agrees_with_its_power() -> None:
    curve = lambda t: 3 + math.sin(t)  # noqa: E731
    samples = [Sample(round(k / 1000 * S), curve(k / 1000)) for k in range(12001)]
    exact = 3 * 10 + math.cos(1) - math.cos(11)
    assert energy_j(samples, (S, 11 * S)) == pytest.approx(exact, rel=1e-6)
    parts = [energy_j(samples, (S + k * S // 7, S + (k + 1) * S // 7)) for k in range(70)]
    assert sum(parts) == pytest.approx(exact, rel=1e-6)
    counted = [Sample(s.at_ns, joules=3 * s.at_ns / S + 1 - math.cos(s.at_ns / S)) for s in samples[::20]]
    assert energy_j(counted, (S, 11 * S)) == pytest.approx(exact, rel=1e-4)
    assert max(p for _, p in powers(counted)) == pytest.approx(4.0, abs=1e-3)


def test_the_longest_hole_counts_the_edges() -> None:
    samples = [Sample(t * S, 1.0) for t in (2, 3, 7)]
    assert gap_ns(samples, (0, 8 * S)) == 4 * S
    assert gap_ns(samples, (0, 3 * S)) == 2 * S
    assert gap_ns(samples, (8 * S, 20 * S)) == 12 * S


def test_a_good_sensor_has_no_fault() -> None:
    steps = lambda t: 2.5 if t % 1 < 0.5 else 5.0  # noqa: E731  # a load that goes on and off
    assert not faults_of(FACTS, sampled(steps), [(S, 12 * S)], 200.0, 10.0)


def spike(samples: list[Sample], at: int, watts: float) -> list[Sample]:
    return [*samples[:at], Sample(samples[at].at_ns, watts), *samples[at + 1 :]]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([Sample(k * 5_000_000, 2.5) for k in range(2401)], "times the same 2.5000 W"),
        (sampled(lambda t: -2.0 + t / 10), "power below zero"),
        (sampled(lambda t: 25.0 if t > 6 else 3.0), "beyond the sensor's 20.000 W"),
        (spike(sampled(lambda _: 3.0), 1000, 14.0), "1 single samples"),
        (spike(sampled(lambda _: 3.0), 1000, 0.0), "1 single samples"),
        (sampled(lambda _: 3.0, rate=50.0), "50.1 samples a second of sensor, which promises 200"),
        (sampled(lambda _: 3.0, seconds=9.0), "no sample for 3.00 s"),
        ([s for s in sampled(lambda _: 3.0) if not 3 * S < s.at_ns < 4 * S], "no sample for 1.0"),
        (sampled(lambda _: 3.0)[:10], "10 samples in"),
        ([], "0 samples in"),
    ],
)
def test_a_sensor_that_lies_is_found_out(samples, words) -> None:
    found = faults_of(FACTS, samples, [(0, 12 * S)], 200.0, 10.0)
    assert found and words in found[0], found


def test_a_short_window_is_refused() -> None:
    (found,) = faults_of(FACTS, sampled(lambda _: 3.0), [(0, 4 * S), (5 * S, 8 * S)], 200.0, 10.0)
    assert "7.00 s" in found and "10 s" in found


@pytest.fixture
def patient(monkeypatch):
    """Where a real thread reads, a machine with company may stop it for a while: that is not what is tested there."""
    monkeypatch.setattr(faults, "_LEAST_GAP_S", 10.0)
    monkeypatch.setattr(faults, "_SLOW", 0.02)
    monkeypatch.setattr(faults, "MIN_SAMPLES", 3)


class Played:
    """A sensor that says a power, with noise of its last digit; may go, or answer nonsense."""

    def __init__(self, watts: float, rate_hz: float = 200.0) -> None:
        self.facts = SensorFacts("played", "test", rate_hz, "exact", full_scale_w=20.0, lsb_w=0.001)
        self.watts, self.turn = watts, count()
        self.gone_from, self.wrong_at, self.silent_every, self.is_closed = math.inf, -1, 0, False

    def read(self) -> Sample:
        turn = next(self.turn)
        if turn >= self.gone_from or (self.silent_every and turn % self.silent_every == 1):
            raise OSError(5, "Input/output error")
        if turn == self.wrong_at:
            raise MeasurementError("overflow", where="played")
        return Sample(time.monotonic_ns(), self.watts + turn % 3 * 0.001)

    def close(self) -> None:
        self.is_closed = True


def watch(sensor: Played, *, idle_w: float | None = None, seconds: float = 0.4, runs: int = 100) -> EnergyReading:
    with PowerMeter(sensor, least_s=0.2) as meter:
        if idle_w is not None:
            loaded, sensor.watts = sensor.watts, idle_w
            meter.idle(0.3)
            sensor.watts = loaded
        meter.start()
        time.sleep(0.1)  # loading and warming up: outside of the window
        begin = time.monotonic_ns()
        time.sleep(seconds)
        end = time.monotonic_ns()
        time.sleep(0.03)
        reading = meter.stop([(begin, end)], runs)
    assert sensor.is_closed
    return reading


def test_gross_and_net_of_a_known_load(patient) -> None:
    reading = watch(Played(5.0), idle_w=2.0)
    assert not reading.faults and reading.to_text().startswith(f"{reading.gross_mj:.4g} mJ gross")
    assert reading.idle_w == pytest.approx(2.001, abs=0.001)
    assert reading.gross_mj == pytest.approx(1000 * 5.001 * reading.seconds / 100, rel=1e-3)
    assert reading.net_mj == pytest.approx(1000 * 3.0 * reading.seconds / 100, rel=1e-3)
    assert EnergyReading.from_json(reading.to_json()) == reading
    with pytest.raises(MeasurementError, match="idle_w"):
        EnergyReading.from_json({key: value for key, value in reading.to_json().items() if key != "idle_w"})


def test_a_sensor_that_vanishes_leaves_a_reason_and_no_energy(patient) -> None:
    sensor = Played(3.0)
    sensor.gone_from = 5
    reading = watch(sensor)
    assert reading.gross_mj is None and reading.net_mj is None and reading.is_refused
    assert len(reading.faults) == 1 and "vanished after " in reading.faults[0] and "Input/output" in reading.faults[0]
    assert reading.to_text().startswith("energy refused: played vanished")


def test_a_single_overflow_and_many_silent_reads_refuse(patient) -> None:
    wrong = Played(3.0)
    wrong.wrong_at = 3
    assert "1 reads were refused: played: overflow" in watch(wrong, seconds=0.2).faults[0]
    silent = Played(3.0)
    silent.silent_every = 4
    assert "reads had no answer" in watch(silent, seconds=0.2).faults[0]


def test_idle_that_was_not_idle_refuses_and_says_so(patient) -> None:
    assert "was not idle" in watch(Played(5.0), idle_w=6.0, seconds=0.2).faults[0]
    reading = watch(Played(3.0), idle_w=-1.0, seconds=0.2)
    assert reading.idle_w is None and reading.faults[0].startswith("while idle: power below zero")
    same = watch(Played(5.0), idle_w=5.0, seconds=0.2)  # a load that is not seen: about 0, and no fault
    assert not same.faults and abs(same.net_mj) < 0.05 * same.gross_mj


def test_nothing_measured_and_a_meter_that_runs_already() -> None:
    meter = PowerMeter(Played(3.0), least_s=0.1)
    assert meter.latest_mw() is None
    meter.start()
    with pytest.raises(MeasurementError, match="runs already"):
        meter.start()
    until = time.monotonic() + 10
    while meter.latest_mw() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert meter.latest_mw() == pytest.approx(3001, abs=2)
    assert "nothing was measured" in meter.stop([], 0).faults[0]
    meter.close()
    with pytest.raises(UsageError, match="rate"):
        PowerMeter(Played(1.0, rate_hz=0.0))


@pytest.mark.parametrize(
    ("spec", "chip", "shunt"), [("ina226:shunt=0.02,max=4", Chip226, 0.02), ("ina228:shunt=0.015", Chip228, 0.015)]
)
def test_a_simulated_chip_is_metered_from_end_to_end(spec, chip, shunt, patient) -> None:
    """A current that ripples around 0.8 A at 5 V, through registers, thread, window and integral."""
    ripple = lambda t: 0.8 + 0.1 * math.sin(40 * t)  # noqa: E731
    meter = open_sensor(spec, bus_of=lambda *_: chip(5.0, ripple, shunt, time.monotonic_ns), least_s=0.3)
    with meter:
        meter.start()
        time.sleep(0.1)
        begin = time.monotonic_ns()
        time.sleep(0.5)
        end = time.monotonic_ns()
        time.sleep(0.06)
        reading = meter.stop([(begin, end)], runs=10)
    assert not reading.faults
    # Nobody knows the ripple's phase in the window, which may be worth 0.1/0.8 · 2/40/0.5 of it.
    assert reading.mean_w == pytest.approx(4.0, rel=0.02)
    assert reading.gross_mj == pytest.approx(100 * reading.mean_w * reading.seconds, rel=1e-9)
