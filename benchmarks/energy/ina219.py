# SPDX-License-Identifier: Apache-2.0
"""Texas Instruments INA219: 12 bits, ±0.5 % at best (B grade), shunt amplifier of 40 to 320 mV, bus up to 26 V.

The chip multiplies itself once it is calibrated::

    calibration = trunc(0.04096 / (current_LSB · R_shunt))      its bit 0 is always 0
    current     = shunt voltage · calibration / 4096            shunt voltage in steps of 10 µV
    power       = current · bus voltage / 5000                  bus voltage in steps of 4 mV, power in 20 current_LSB

Reference: data sheet SBOS448, sections 8.5 (programming) and 8.6 (registers)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.energy.bus import Bus, read_unsigned, to_signed
from benchmarks.energy.reading import Sample, SensorFacts
from edge_contract.errors import MeasurementError, UsageError

__all__ = ["Ina219", "Setup"]

CONFIGURATION, SHUNT, BUS, POWER, CURRENT, CALIBRATION = range(6)
RESET: Final = 0x8000
AFTER_RESET: Final = 0x399F
_CONTINUOUS: Final = 7
_TIMES_US: Final = {1: 532, 2: 1060, 4: 2130, 8: 4260, 16: 8510, 32: 17020, 64: 34050, 128: 68100}
"""Samples averaged → conversion time, of shunt and bus each."""
_GAINS: Final = (0.040, 0.080, 0.160, 0.320)
"""Volts over the shunt that fill the amplifier, by the code of the PGA bits."""


@dataclass(frozen=True)
class Setup:
    """What the chip is told.

    Attributes:
        shunt_ohm: Of the board; 0.1 on most breakouts.
        max_a: The largest current to expect: it sets the gain and the step.
        average: 1, 2, 4 … 128 samples of one value.
        factor: Of a comparison with a better meter; 1 is none.
    """

    shunt_ohm: float = 0.1
    max_a: float = 3.2
    average: int = 4
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.average not in _TIMES_US:
            raise UsageError(
                f"average of {self.average}", where="ina219", fix=f"one of {', '.join(map(str, _TIMES_US))}"
            )
        if not 0 < self.shunt_ohm * self.max_a <= _GAINS[-1] + 1e-9:
            what = f"{self.max_a:g} A through {self.shunt_ohm:g} ohm is {1000 * self.max_a * self.shunt_ohm:.0f} mV"
            raise UsageError(what, where="ina219", fix="at most 320 mV: a smaller shunt, or a smaller max_a")

    @property
    def current_lsb(self) -> float:
        """Amperes of a step, after the calibration register was cut to whole numbers."""
        return 0.04096 / (self.calibration * self.shunt_ohm)

    @property
    def calibration(self) -> int:
        """The calibration register: its bit 0 cannot be set.

        Example:
            The data sheet's design: 2 milliohm, 10 A nominal, a step of 1 mA.

            >>> hex(int(0.04096 / (0.001 * 0.002)))
            '0x5000'
        """
        wanted = self.max_a / (1 << 15)
        return min(int(0.04096 / (wanted * self.shunt_ohm)), 0xFFFE) & 0xFFFE

    @property
    def full_shunt_v(self) -> float:
        """The smallest range of the amplifier that ``max_a`` fits into, volts."""
        return next(volts for volts in _GAINS if self.max_a * self.shunt_ohm <= volts + 1e-9)

    @property
    def configuration(self) -> int:
        """The configuration register: 32 V, gain, averaging of both, continuous."""
        gain = _GAINS.index(self.full_shunt_v)
        steps = 0x8 | self.average.bit_length() - 1
        return 1 << 13 | gain << 11 | steps << 7 | steps << 3 | _CONTINUOUS

    @property
    def rate_hz(self) -> float:
        """New values a second: shunt and bus are converted one after the other."""
        return round(1e6 / (2 * _TIMES_US[self.average]), 1)


class Ina219:
    """An INA219, set up for continuous averages.

    Raises:
        MeasurementError: The chip at this address is none, or did not take its registers.
    """

    def __init__(self, bus: Bus, setup: Setup | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._bus, self.setup, self._clock = bus, setup or Setup(), clock
        self._reset()
        bus.write(CALIBRATION, self.setup.calibration.to_bytes(2, "big"))
        bus.write(CONFIGURATION, self.setup.configuration.to_bytes(2, "big"))
        if read_unsigned(bus, CALIBRATION) != self.setup.calibration:
            raise MeasurementError("the calibration register did not keep its value", where=f"ina219 on {bus.name}")
        lsb = self.setup.current_lsb
        self._power_lsb = 20 * lsb * self.setup.factor
        self._limit = min(0x7FFF, round(self.setup.full_shunt_v / 10e-6) * self.setup.calibration // 4096)
        self.facts = SensorFacts(
            name=f"ina219 on {bus.name}",
            method="ina219",
            rate_hz=self.setup.rate_hz,
            accuracy="about 1 % (0.5 % chip, shunt not included)",
            calibration=f"shunt {self.setup.shunt_ohm:g} ohm, current LSB {lsb * 1e6:.3f} uA, "
            f"calibration 0x{self.setup.calibration:04x}, factor {self.setup.factor:g}",
            full_scale_w=self.setup.max_a * 32.0,
            lsb_w=self._power_lsb,
        )

    def read(self) -> Sample:
        """Return the power of the last conversion.

        Raises:
            MeasurementError: The arithmetic overflowed (OVF bit), or the amplifier is full.
            OSError: It does not answer.
        """
        before = self._clock()
        bus = read_unsigned(self._bus, BUS)
        if bus & 1:
            raise MeasurementError("overflow: the current is beyond max_a", where=self.facts.name)
        # The power register has no sign: the chip multiplies the current's size.
        watts = read_unsigned(self._bus, POWER) * self._power_lsb
        current = to_signed(read_unsigned(self._bus, CURRENT), 16)
        if abs(current) >= self._limit:
            raise MeasurementError("the shunt amplifier is at its end", where=self.facts.name, fix="raise max_a")
        return Sample((before + self._clock()) // 2, -watts if current < 0 else watts)

    def close(self) -> None:
        """Let go of the bus; the chip goes on."""
        self._bus.close()

    def _reset(self) -> None:
        self._bus.write(CONFIGURATION, RESET.to_bytes(2, "big"))
        found = read_unsigned(self._bus, CONFIGURATION)
        if found != AFTER_RESET:
            what = f"no INA219: after a reset its configuration is 0x{found:04x} and not 0x{AFTER_RESET:04x}"
            raise MeasurementError(what, where=self._bus.name, fix="is the address right? see 'i2cdetect -y 1'")
