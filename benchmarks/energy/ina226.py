# SPDX-License-Identifier: Apache-2.0
"""Texas Instruments INA226: 16 bits, 0.1 % gain error, shunt ±81.92 mV, bus up to 36 V.

::

    calibration = 0.00512 / (current_LSB · R_shunt)
    current     = shunt voltage · calibration / 2048            shunt voltage in steps of 2.5 µV
    power       = current · bus voltage / 20000                 bus voltage in steps of 1.25 mV, power in 25 current_LSB

Reference: data sheet SBOS547, sections 7.5 (programming) and 7.6 (registers)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.energy.bus import Bus, read_unsigned, to_signed
from benchmarks.energy.reading import Sample, SensorFacts
from edge_contract.errors import MeasurementError, UsageError

__all__ = ["Ina226", "Setup"]

CONFIGURATION, SHUNT, BUS, POWER, CURRENT, CALIBRATION, MASK = range(7)
MANUFACTURER, DIE = 0xFE, 0xFF
RESET: Final = 0x8000
TEXAS: Final = 0x5449
THIS: Final = 0x2260
OVERFLOW: Final = 1 << 2
_FIXED: Final = 0x4000
_CONTINUOUS: Final = 7
AVERAGES: Final = (1, 4, 16, 64, 128, 256, 512, 1024)
TIMES_US: Final = (140, 204, 332, 588, 1100, 2116, 4156, 8244)
_FULL_SHUNT_V: Final = 0.08192


@dataclass(frozen=True)
class Setup:
    """What the chip is told.

    Attributes:
        shunt_ohm: Of the board: 0.1 or 0.01 on most breakouts, 0.002 on some.
        max_a: The largest current to expect; at most 81.92 mV may fall over the shunt.
        average, time_us: One value is so many conversions of shunt and bus, each so long.
        factor: Of a comparison with a better meter; 1 is none.
    """

    shunt_ohm: float = 0.1
    max_a: float = 0.8
    average: int = 4
    time_us: int = 588
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.average not in AVERAGES or self.time_us not in TIMES_US:
            fix = f"average one of {AVERAGES}, time_us one of {TIMES_US}"
            raise UsageError(f"average {self.average}, time_us {self.time_us}", where="ina226", fix=fix)
        if not 0 < self.shunt_ohm * self.max_a <= _FULL_SHUNT_V:
            what = f"{self.max_a:g} A through {self.shunt_ohm:g} ohm is {1000 * self.max_a * self.shunt_ohm:.1f} mV"
            raise UsageError(what, where="ina226", fix="at most 81.92 mV: a smaller shunt, or a smaller max_a")

    @property
    def calibration(self) -> int:
        """The calibration register, 15 bits.

        Example:
            >>> Setup(shunt_ohm=0.002, max_a=32.768).calibration  # a step of 1 mA, the data sheet's design
            2560
        """
        return min(int(0.00512 / (self.max_a / (1 << 15) * self.shunt_ohm) + 1e-9), 0x7FFF)

    @property
    def current_lsb(self) -> float:
        """Amperes of a step, after the calibration register was cut to a whole number."""
        return 0.00512 / (self.calibration * self.shunt_ohm)

    @property
    def configuration(self) -> int:
        """The configuration register: averaging, conversion times, continuous.

        Example:
            >>> hex(Setup(average=1, time_us=1100).configuration)  # what the chip has after a reset
            '0x4127'
        """
        pace = TIMES_US.index(self.time_us)
        return _FIXED | AVERAGES.index(self.average) << 9 | pace << 6 | pace << 3 | _CONTINUOUS

    @property
    def rate_hz(self) -> float:
        """New values a second."""
        return round(1e6 / (2 * self.time_us * self.average), 1)


class Ina226:
    """An INA226, set up for continuous averages.

    Raises:
        MeasurementError: The chip at this address is none, or did not take its registers.
    """

    def __init__(self, bus: Bus, setup: Setup | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._bus, self.setup, self._clock = bus, setup or Setup(), clock
        maker, die = read_unsigned(bus, MANUFACTURER), read_unsigned(bus, DIE)
        if (maker, die) != (TEXAS, THIS):
            what = f"no INA226: manufacturer 0x{maker:04x} and die 0x{die:04x}, not 0x{TEXAS:04x} and 0x{THIS:04x}"
            raise MeasurementError(what, where=bus.name, fix="is the address right? see 'i2cdetect -y 1'")
        bus.write(CONFIGURATION, RESET.to_bytes(2, "big"))
        bus.write(CALIBRATION, self.setup.calibration.to_bytes(2, "big"))
        bus.write(CONFIGURATION, self.setup.configuration.to_bytes(2, "big"))
        if read_unsigned(bus, CALIBRATION) != self.setup.calibration:
            raise MeasurementError("the calibration register did not keep its value", where=f"ina226 on {bus.name}")
        lsb = self.setup.current_lsb
        self._power_lsb = 25 * lsb * self.setup.factor
        self._limit = min(0x7FFF, 0x7FFF * self.setup.calibration // 2048)
        self.facts = SensorFacts(
            name=f"ina226 on {bus.name}",
            method="ina226",
            rate_hz=self.setup.rate_hz,
            accuracy="about 0.2 % (0.1 % chip, shunt not included)",
            calibration=f"shunt {self.setup.shunt_ohm:g} ohm, current LSB {lsb * 1e6:.3f} uA, "
            f"calibration 0x{self.setup.calibration:04x}, factor {self.setup.factor:g}",
            full_scale_w=self.setup.max_a * 36.0,
            lsb_w=self._power_lsb,
        )

    def read(self) -> Sample:
        """Return the power of the last conversion.

        Raises:
            MeasurementError: The arithmetic overflowed (OVF bit), or the shunt's range is full.
            OSError: It does not answer.
        """
        before = self._clock()
        if read_unsigned(self._bus, MASK) & OVERFLOW:
            raise MeasurementError("overflow: the current is beyond max_a", where=self.facts.name)
        # The power register has no sign: the chip multiplies the current's size.
        watts = read_unsigned(self._bus, POWER) * self._power_lsb
        current = to_signed(read_unsigned(self._bus, CURRENT), 16)
        if abs(current) >= self._limit:
            raise MeasurementError("the shunt's 81.92 mV are full", where=self.facts.name, fix="raise max_a")
        return Sample((before + self._clock()) // 2, -watts if current < 0 else watts)

    def close(self) -> None:
        """Let go of the bus; the chip goes on."""
        self._bus.close()
