# SPDX-License-Identifier: Apache-2.0
"""The Raspberry Pi 5's power management chip: an estimate, and called so.

``vcgencmd pmic_read_adc`` tells volts and amperes of the rails behind the chip. What the chip itself, the USB ports and
the losses before it take is not in them, so their sum is too low; a fit against wall power, 1.1451 · sum + 0.588 W, was
published for one board. Until the fit is made on this very board (``slope`` and ``offset``), ten per cent is what the
figure is good for. The program takes some milliseconds of a core for each look: four looks a second.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Final

from benchmarks.energy.reading import Sample, SensorFacts
from edge_contract.errors import MeasurementError

__all__ = ["OFFSET_W", "SLOPE", "Pmic", "rails_w"]

SLOPE: Final = 1.1451
OFFSET_W: Final = 0.588
"""Reference: jfikar, RPi5-power (measured against a wall meter; quoted in pi-top's documentation)."""
_RATE_HZ: Final = 4.0
_LINE: Final = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=([-+0-9.eE]+)[AV]\s*$", re.MULTILINE)


def rails_w(text: str) -> float:
    r"""Return the sum of volts × amperes over the rails that have both.

    Raises:
        MeasurementError: No rail, or a current without its voltage.

    Example:
        >>> round(rails_w("VDD_CORE_A current(7)=2.0A\n VDD_CORE_V volt(15)=0.75V\n EXT5V_V volt(24)=5.1V"), 3)
        1.5
    """
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    for rail, unit, number in _LINE.findall(text):
        (amperes if unit == "A" else volts)[rail] = float(number)
    lacking = sorted(set(amperes) - set(volts))
    if not amperes or lacking:
        what = f"no voltage of {', '.join(lacking)}" if lacking else "no rail with a current"
        raise MeasurementError(what, where="vcgencmd pmic_read_adc", fix="only a Raspberry Pi 5 has this chip")
    return sum(volts[rail] * current for rail, current in amperes.items())


class Pmic:
    """The Pi 5's rails, with the fit.

    Args:
        program: ``vcgencmd``.
        slope, offset: Watts = slope · sum + offset; given ones are taken for a calibration of this board.
        clock: Nanoseconds.

    Raises:
        MeasurementError: The program is not there, or tells no rails.
    """

    def __init__(
        self,
        program: str = "vcgencmd",
        slope: float | None = None,
        offset: float | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        found = shutil.which(program)
        if found is None:
            raise MeasurementError(
                f"no program {program}", where="pmic", fix="it is Raspberry Pi OS's; a Pi 5 is needed"
            )
        self._program, self._clock = found, clock
        self._fit = (SLOPE if slope is None else slope, OFFSET_W if offset is None else offset)
        is_own = slope is not None or offset is not None
        self.facts = SensorFacts(
            name="pmic of the Raspberry Pi 5",
            method="pmic_est",
            rate_hz=_RATE_HZ,
            accuracy="this board's fit" if is_own else "10 % until calibrated on this board",
            calibration=f"{self._fit[0]:g} x sum of rails + {self._fit[1]:g} W",
        )
        self.read()

    def read(self) -> Sample:
        """Return the estimate.

        Raises:
            MeasurementError: The program fails, or tells no rails.
        """
        before = self._clock()
        try:
            done = subprocess.run(
                [self._program, "pmic_read_adc"], capture_output=True, text=True, timeout=5, check=True
            )
        except subprocess.SubprocessError as error:
            raise MeasurementError(f"vcgencmd pmic_read_adc failed ({error})", where="pmic") from error
        slope, offset = self._fit
        return Sample((before + self._clock()) // 2, slope * rails_w(done.stdout) + offset)

    def close(self) -> None:
        """Nothing is held open."""
