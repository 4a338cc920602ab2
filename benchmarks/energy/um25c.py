# SPDX-License-Identifier: Apache-2.0
"""RDTech UM24C, UM25C and UM34C: USB meters that are asked over a serial line (Bluetooth bound to ``/dev/rfcomm0``).

One byte 0xF0 asks for a record of 130 bytes, big-endian: model at 0, voltage at 2, current at 4, power in milliwatts at
6, and much that is not needed here. Volts have steps of 1 mV on the UM25C and of 10 mV
on the others, amperes of 0.1 mA and of 1 mA. A record takes some 0.3 s, so two looks a second: enough for a mean over a
minute, too few for a short window. The meter does not know the board from its cable: the cable's loss is in it.

Nothing but the standard library is used: the line is opened raw by ``termios``.
"""

import os
import select
import struct
import termios
import time
import tty
from collections.abc import Callable
from typing import Final

from benchmarks.energy.reading import Sample, SensorFacts
from edge_contract.errors import MeasurementError

__all__ = ["RECORD_BYTES", "Um25c", "watts_of"]

RECORD_BYTES: Final = 130
ASK: Final = b"\xf0"
_MODELS: Final = {0x0963: ("UM24C", 0.01, 0.001), 0x09C9: ("UM25C", 0.001, 0.0001), 0x0D4C: ("UM34C", 0.01, 0.001)}
"""Number → name, volts and amperes of a step."""
_RATE_HZ: Final = 2.0
_TIMEOUT_S: Final = 1.0


def watts_of(record: bytes) -> tuple[str, float]:
    """Return the meter's model and the power: its volts times its amperes, which are finer than its own milliwatts.

    Raises:
        MeasurementError: No record of a known model, or volts times amperes is not the power that it tells.

    Example:
        >>> record = struct.pack(">HHHI", 0x09C9, 5063, 6124, 3100) + bytes(120)
        >>> watts_of(record)
        ('UM25C', 3.1005812)
    """
    model, volts, amperes, milliwatts = struct.unpack_from(">HHHI", record.ljust(RECORD_BYTES, b"\0"))
    if len(record) != RECORD_BYTES or model not in _MODELS:
        what = f"no record of a UM24C, UM25C or UM34C: {len(record)} bytes, model 0x{model:04x}"
        raise MeasurementError(what, where="um25c", fix="is this the meter's line? bind it with rfcomm")
    name, volt, ampere = _MODELS[model]
    watts = volts * volt * amperes * ampere
    if abs(watts - milliwatts / 1000) > 0.02 + 0.02 * watts:
        raise MeasurementError(f"{watts:.3f} W by its volts and amperes, {milliwatts} mW by its power", where="um25c")
    return name, watts


class Um25c:
    """A meter on a serial line.

    Args:
        device: Such as ``/dev/rfcomm0``.
        clock: Nanoseconds.

    Raises:
        MeasurementError: The line cannot be opened, or no meter answers.
    """

    def __init__(self, device: str = "/dev/rfcomm0", clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._device, self._clock = device, clock
        try:
            self._line = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            fix = "bind the meter: sudo rfcomm bind 0 AA:BB:CC:DD:EE:FF"
            raise MeasurementError(f"cannot be opened ({error.strerror})", where=device, fix=fix) from error
        try:
            tty.setraw(self._line)
            model, _ = watts_of(self._record())
        except (OSError, MeasurementError, termios.error) as error:
            os.close(self._line)
            raise MeasurementError(f"no meter answers ({error})", where=device) from error
        self.facts = SensorFacts(f"{model} at {device}", "um25c", _RATE_HZ, "about 1 %", "the maker's", 75.0, 1e-3)

    def read(self) -> Sample:
        """Return the power; raises MeasurementError for what is no record, OSError when the line is gone."""
        before = self._clock()
        _, watts = watts_of(self._record())
        return Sample((before + self._clock()) // 2, watts)

    def close(self) -> None:
        """Close the line."""
        os.close(self._line)

    def _record(self) -> bytes:
        termios.tcflush(self._line, termios.TCIFLUSH)
        os.write(self._line, ASK)
        found, until = b"", time.monotonic() + _TIMEOUT_S
        while len(found) < RECORD_BYTES:
            ready, _, _ = select.select([self._line], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise MeasurementError(
                    f"{len(found)} of {RECORD_BYTES} bytes within {_TIMEOUT_S:g} s", where=self._device
                )
            found += os.read(self._line, RECORD_BYTES - len(found))
        return found
