# SPDX-License-Identifier: Apache-2.0
"""Texas Instruments INA228: 20 bits, 0.05 % gain error, shunt ±163.84 mV, bus up to 85 V, and it sums energy itself.

::

    shunt_cal = 13107.2e6 · current_LSB · R_shunt               four times that in the range of ±40.96 mV
    current   = register · current_LSB                          20 bits signed, in the upper bits of 24
    power     = register · 3.2 · current_LSB                    24 bits
    energy    = register · 16 · 3.2 · current_LSB               40 bits, joules; wraps, and says so in DIAG_ALRT

The accumulator sees every conversion, so how often it is read does not matter for the energy: only the edges of a
window do. Its wrap is counted; it has 40 bits, which at the setup below are days.

Reference: data sheet SLYS021, sections 7.6 (registers) and 8.1 (application)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.energy.bus import Bus, read_unsigned, to_signed
from benchmarks.energy.reading import Sample, SensorFacts
from edge_contract.errors import MeasurementError, UsageError

__all__ = ["Ina228", "Setup"]

CONFIGURATION, ADC, SHUNT_CAL, TEMPERATURE_COEFFICIENT, SHUNT, BUS, DIE_TEMPERATURE, CURRENT = range(8)
POWER, ENERGY, CHARGE, DIAGNOSTICS = range(8, 12)
MANUFACTURER, DEVICE = 0x3E, 0x3F
RESET: Final = 0x8000
CLEAR: Final = 0x4000
FINE: Final = 0x0010
TEXAS: Final = 0x5449
THIS: Final = 0x228
MATH_OVERFLOW: Final = 1 << 9
_SHUNT_AND_BUS: Final = 0xB
AVERAGES: Final = (1, 4, 16, 64, 128, 256, 512, 1024)
TIMES_US: Final = (50, 84, 150, 280, 540, 1052, 2074, 4120)
ENERGY_BITS: Final = 40
_LIMIT: Final = (1 << 19) - 1


@dataclass(frozen=True)
class Setup:
    """What the chip is told.

    Attributes:
        shunt_ohm: Of the board; 0.015 on most breakouts.
        max_a: The largest current to expect; its drop decides the range.
        average, time_us: One value is so many conversions of shunt and bus, each so long.
        factor: Of a comparison with a better meter; 1 is none.
    """

    shunt_ohm: float = 0.015
    max_a: float = 10.0
    average: int = 4
    time_us: int = 540
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.average not in AVERAGES or self.time_us not in TIMES_US:
            fix = f"average one of {AVERAGES}, time_us one of {TIMES_US}"
            raise UsageError(f"average {self.average}, time_us {self.time_us}", where="ina228", fix=fix)
        if not 0 < self.shunt_ohm * self.max_a <= 0.16384:
            what = f"{self.max_a:g} A through {self.shunt_ohm:g} ohm is {1000 * self.max_a * self.shunt_ohm:.1f} mV"
            raise UsageError(what, where="ina228", fix="at most 163.84 mV: a smaller shunt, or a smaller max_a")

    @property
    def is_fine(self) -> bool:
        """The range of ±40.96 mV is enough."""
        return self.shunt_ohm * self.max_a <= 0.04096

    @property
    def shunt_cal(self) -> int:
        """The calibration register, 15 bits.

        Example:
            >>> Setup(shunt_ohm=0.0162, max_a=10.0).shunt_cal  # the data sheet's design
            4050
        """
        wanted = self.max_a / (1 << 19)
        return min(int(13107.2e6 * wanted * self.shunt_ohm * (4 if self.is_fine else 1) + 1e-9), 0x7FFF)

    @property
    def current_lsb(self) -> float:
        """Amperes of a step, after the calibration register was cut to a whole number."""
        return self.shunt_cal / (13107.2e6 * self.shunt_ohm * (4 if self.is_fine else 1))

    @property
    def adc(self) -> int:
        """The ADC_CONFIG register: shunt and bus continuously, conversion times, averaging."""
        pace = TIMES_US.index(self.time_us)
        return _SHUNT_AND_BUS << 12 | pace << 9 | pace << 6 | pace << 3 | AVERAGES.index(self.average)

    @property
    def rate_hz(self) -> float:
        """New values a second."""
        return round(1e6 / (2 * self.time_us * self.average), 1)


class Ina228:
    """An INA228, set up for continuous averages; energy comes from its own accumulator.

    Raises:
        MeasurementError: The chip at this address is none, or did not take its registers.
    """

    def __init__(self, bus: Bus, setup: Setup | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._bus, self.setup, self._clock = bus, setup or Setup(), clock
        maker, device = read_unsigned(bus, MANUFACTURER), read_unsigned(bus, DEVICE)
        if maker != TEXAS or device >> 4 != THIS:
            what = (
                f"no INA228: manufacturer 0x{maker:04x} and device 0x{device:04x}, not 0x{TEXAS:04x} and 0x{THIS:03x}x"
            )
            raise MeasurementError(what, where=bus.name, fix="is the address right? see 'i2cdetect -y 1'")
        bus.write(CONFIGURATION, RESET.to_bytes(2, "big"))
        bus.write(CONFIGURATION, (CLEAR | (FINE if self.setup.is_fine else 0)).to_bytes(2, "big"))
        bus.write(SHUNT_CAL, self.setup.shunt_cal.to_bytes(2, "big"))
        bus.write(ADC, self.setup.adc.to_bytes(2, "big"))
        if read_unsigned(bus, SHUNT_CAL) != self.setup.shunt_cal:
            raise MeasurementError("the calibration register did not keep its value", where=f"ina228 on {bus.name}")
        lsb = self.setup.current_lsb
        self._power_lsb = 3.2 * lsb * self.setup.factor
        self._last, self._wraps = 0, 0
        self.facts = SensorFacts(
            name=f"ina228 on {bus.name}",
            method="ina228",
            rate_hz=self.setup.rate_hz,
            accuracy="about 0.1 % (0.05 % chip, shunt not included)",
            calibration=f"shunt {self.setup.shunt_ohm:g} ohm, current LSB {lsb * 1e6:.4f} uA, "
            f"SHUNT_CAL {self.setup.shunt_cal}, factor {self.setup.factor:g}, energy of the chip's accumulator",
            full_scale_w=self.setup.max_a * 85.0,
            lsb_w=self._power_lsb,
        )

    def read(self) -> Sample:
        """Return power and accumulated energy.

        Raises:
            MeasurementError: The arithmetic overflowed (MATHOF bit), or the shunt's range is full.
            OSError: It does not answer.
        """
        before = self._clock()
        if read_unsigned(self._bus, DIAGNOSTICS) & MATH_OVERFLOW:
            raise MeasurementError("overflow: the current is beyond max_a", where=self.facts.name)
        current = to_signed(read_unsigned(self._bus, CURRENT, 3), 24) >> 4
        if abs(current) >= _LIMIT:
            raise MeasurementError("the shunt's range is full", where=self.facts.name, fix="raise max_a")
        watts = read_unsigned(self._bus, POWER, 3) * self._power_lsb
        counted = read_unsigned(self._bus, ENERGY, 5)
        self._wraps += counted < self._last
        self._last = counted
        joules = ((self._wraps << ENERGY_BITS) + counted) * 16 * self._power_lsb
        return Sample((before + self._clock()) // 2, -watts if current < 0 else watts, joules)

    def close(self) -> None:
        """Let go of the bus; the chip goes on."""
        self._bus.close()
