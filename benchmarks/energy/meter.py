# SPDX-License-Identifier: Apache-2.0
"""Reads a sensor in a thread of its own, and says what the inferences cost.

The thread belongs into the process that watches, never into the one that is timed: the clocks of both are the same
monotonic one, so the windows of the timed process are cut out of the samples afterwards, and loading and warming up
stay outside. After ``start`` nothing is raised: a sensor that vanishes is a fault, and the latency is kept.
"""

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

from benchmarks.energy.faults import MIN_SAMPLES, MIN_WINDOW_S, faults_of
from benchmarks.energy.integral import energy_j, inside
from benchmarks.energy.reading import EnergyReading, Sample, Sensor, Window
from edge_contract.errors import MeasurementError, StropError, UsageError

__all__ = ["PowerMeter", "check"]

_LOST_READS = 5
"""So many reads in a row without an answer: it is gone."""
_LATE = 1.5
_SELDOM = 0.01
_SLACK = 0.01
"""So much below idle is the noise of two means; more says that the board was busy before."""


class PowerMeter:
    """A sensor that is asked again and again.

    Args:
        sensor: Where the numbers come from; closed by ``close``.
        rate_hz: How often to ask; default: as often as it has new values.
        least_s: The shortest window that is believed, seconds.
        clock: Nanoseconds, the clock of the samples.
    """

    def __init__(
        self,
        sensor: Sensor,
        *,
        rate_hz: float | None = None,
        least_s: float = MIN_WINDOW_S,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.facts = sensor.facts
        self.rate_hz = rate_hz or sensor.facts.rate_hz
        if self.rate_hz <= 0:
            raise UsageError(f"a rate of {self.rate_hz} Hz", where=sensor.facts.name)
        self._sensor, self._least_s, self._clock = sensor, least_s, clock
        self._samples: list[Sample] = []
        self._failed: list[str] = []
        self._lost = ""
        self._idle_w: float | None = None
        self._idle_faults: tuple[str, ...] = ()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def idle(self, seconds: float = MIN_WINDOW_S) -> float | None:
        """Measure the idle board; before the first launch. Return watts, or None: the reading will say why.

        Raises:
            MeasurementError: The meter runs already.
        """
        self.start()
        time.sleep(1.5 / self.rate_hz)
        begin = self._clock()
        time.sleep(seconds)
        end = self._clock()
        time.sleep(1.5 / self.rate_hz)
        self._join()
        found = self._lost_words() or faults_of(
            self.facts, self._samples, [(begin, end)], self.rate_hz, min(seconds, self._least_s)
        )
        self._idle_faults = tuple(f"while idle: {fault}" for fault in found)
        self._idle_w = None if found else energy_j(self._samples, (begin, end)) / ((end - begin) / 1e9)
        return self._idle_w

    def start(self) -> None:
        """Begin to ask; what was there before is forgotten, but for the idle power.

        Raises:
            MeasurementError: The meter runs already.
        """
        if self._thread is not None:
            raise MeasurementError("the meter runs already", where=self.facts.name, fix="call stop() first")
        self._samples, self._failed, self._lost = [], [], ""
        self._over.clear()
        self._thread = threading.Thread(target=self._ask, name="power-meter", daemon=True)
        self._thread.start()

    def latest_mw(self) -> float | None:
        """Return the last power that was seen, milliwatts; of a sensor that only counts, of its last two counts."""
        last = self._samples[-2:]
        if not last or last[-1].watts is not None or len(last) < 2:
            watts = last[-1].watts if last else None
            return None if watts is None else 1000.0 * watts
        return 1000.0 * energy_j(last, (last[0].at_ns, last[1].at_ns)) / ((last[1].at_ns - last[0].at_ns) / 1e9)

    def stop(self, windows: Sequence[Window], runs: int) -> EnergyReading:
        """End, and return the energy of one inference.

        Args:
            windows: From the start of the first measured run to the end of the last one, for each launch; nanoseconds
                of the meter's clock.
            runs: Inferences in all windows together.
        """
        self._join()
        samples, seconds = self._samples, sum(end - begin for begin, end in windows) / 1e9
        kept = [inside(samples, window) for window in windows]
        found = [*self._lost_words(), *self._idle_faults]
        if not windows or runs < 1 or any(end <= begin for begin, end in windows):
            found.append(f"{runs} runs in {len(windows)} windows: nothing was measured")
        elif not self._lost_words():  # what a bad sensor left says nothing more
            found += faults_of(self.facts, samples, windows, self.rate_hz, self._least_s)
        joules = 0.0 if found else sum(energy_j(samples, window) for window in windows)
        if not found and self._idle_w is not None and joules < (1 - _SLACK) * self._idle_w * seconds:
            mean = joules / seconds
            found.append(f"idle took {self._idle_w:.3f} W and the runs {mean:.3f} W: the board was not idle before")
        return self._reading(found, joules, seconds, runs, kept)

    def close(self) -> None:
        """End, and let go of the sensor."""
        self._join()
        self._sensor.close()

    def samples(self) -> tuple[Sample, ...]:
        """Return what was seen since ``start``."""
        return tuple(self._samples)

    def _reading(
        self, found: Sequence[str], joules: float, seconds: float, runs: int, kept: Sequence[Sequence[Sample]]
    ) -> EnergyReading:
        count, facts = sum(map(len, kept)), self.facts
        period = 1e9 / self.rate_hz
        late = [b.at_ns - a.at_ns for part in kept for a, b in pairwise(part) if b.at_ns - a.at_ns > _LATE * period]
        net = None if found or self._idle_w is None else 1000 * (joules - self._idle_w * seconds) / runs
        return EnergyReading(
            gross_mj=None if found else 1000 * joules / runs,
            net_mj=net,
            idle_w=self._idle_w,
            mean_w=None if found else joules / seconds,
            samples=count,
            missed=sum(round(gap / period) - 1 for gap in late),
            rate_hz=round(count / seconds, 2) if seconds > 0 else 0.0,
            seconds=seconds,
            runs=runs,
            method=facts.method,
            sensor=facts.name,
            accuracy=facts.accuracy,
            calibration=facts.calibration,
            domain=facts.domain,
            faults=tuple(found),
        )

    def _lost_words(self) -> list[str]:
        """Return why the samples are no good whatever they say: gone, wrong by its own word, or seldom there."""
        if self._lost:
            return [self._lost]
        wrong = [words for words in self._failed if words]
        if wrong:
            return [f"{len(wrong)} reads were refused: {wrong[0]}"]
        if len(self._failed) > _SELDOM * (len(self._samples) + len(self._failed)):
            return [f"{len(self._failed)} reads had no answer, and {len(self._samples)} had one: a bad contact or bus"]
        return []

    def _ask(self) -> None:
        """Ask on a fixed grid of times until it is over, or the sensor is gone."""
        period, begin, failed = 1e9 / self.rate_hz, self._clock(), 0
        turn = 0
        while not self._over.is_set():
            try:
                self._samples.append(self._sensor.read())
                failed = 0
            except (OSError, StropError, ValueError) as error:
                failed += 1
                self._failed.append("" if isinstance(error, OSError) else str(error))
                if failed >= _LOST_READS:
                    after = (self._clock() - begin) / 1e9
                    self._lost = f"{self.facts.name} vanished after {after:.1f} s ({error})"
                    return
            now = self._clock()
            turn = max(turn + 1, int((now - begin) // period))  # a slot that has passed is missed, not made up for
            self._over.wait(max(0.0, (begin + turn * period - now) / 1e9))

    def _join(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def check(meter: PowerMeter, seconds: float = 2.0) -> EnergyReading:
    """Watch a sensor for a moment; its ``mean_w`` and ``faults`` tell whether it works."""
    meter.start()
    time.sleep(2 / meter.rate_hz)
    begin = time.monotonic_ns()
    time.sleep(max(seconds, (MIN_SAMPLES + 2) / meter.rate_hz))
    end = time.monotonic_ns()
    time.sleep(1.5 / meter.rate_hz)
    return meter.stop([(begin, end)], runs=1)
