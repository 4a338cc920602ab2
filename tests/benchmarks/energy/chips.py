# SPDX-License-Identifier: Apache-2.0
"""INA219, INA226 and INA228 as their data sheets describe them, register by register, behind the ``Bus`` interface.

A chip is given volts and amperes as functions of the time since it was made. It computes in whole numbers, as silicon
does: the shunt voltage is cut to the steps of its converter, current and power follow from the registers by the data
sheet's equations, and what does not fit sets the overflow bit.
"""

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.energy import bus as linux
from benchmarks.energy import ina219, ina226, ina228
from benchmarks.energy.bus import to_signed

__all__ = ["Chip219", "Chip226", "Chip228", "Gone", "kernel_of", "signed"]

Curve = Callable[[float], float]


class Gone(OSError):
    """EIO: the chip does not acknowledge."""


class _Chip:
    name = "simulated"
    sizes: ClassVar[dict[int, int]] = {}

    def __init__(
        self, volts: float | Curve, amperes: float | Curve, shunt_ohm: float, clock: Callable[[], int]
    ) -> None:
        self._volts: Curve = volts if callable(volts) else lambda _: volts
        self._amperes: Curve = amperes if callable(amperes) else lambda _: amperes
        self.shunt_ohm, self._clock, self._since = shunt_ohm, clock, clock()
        self.registers: dict[int, int] = {}
        self.is_gone = self.is_closed = False
        self.reset()

    def reset(self) -> None:
        raise NotImplementedError

    def convert(self) -> None:
        """Fill the result registers from what is at the pins now."""
        raise NotImplementedError

    @property
    def t(self) -> float:
        return (self._clock() - self._since) / 1e9

    @property
    def bus_v(self) -> float:
        return self._volts(self.t)

    @property
    def shunt_v(self) -> float:
        return self._amperes(self.t) * self.shunt_ohm

    def read(self, register: int, size: int) -> bytes:
        if self.is_gone:
            raise Gone(5, "Input/output error")
        self.convert()
        assert size == self.sizes.get(register, 2), "the chip would send other bytes"
        return (self.registers[register] % (1 << 8 * size)).to_bytes(size, "big")

    def write(self, register: int, data: bytes) -> None:
        if self.is_gone:
            raise Gone(5, "Input/output error")
        assert len(data) == 2
        value = int.from_bytes(data, "big")
        if register == 0 and value & 0x8000:
            self.reset()
        else:
            self.store(register, value)

    def store(self, register: int, value: int) -> None:
        self.registers[register] = value

    def close(self) -> None:
        self.is_closed = True


def _clip(value: float, limit: int) -> int:
    return max(-limit, min(limit, round(value)))


class Chip219(_Chip):
    """SBOS448: registers 0 to 5; bit 0 of the calibration reads 0; OVF when current or power do not fit 16 bits."""

    def reset(self) -> None:
        self.registers = {0: 0x399F, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0}

    def store(self, register: int, value: int) -> None:
        assert register in (0, 5), "the others are read-only"
        self.registers[register] = value & 0xFFFE if register == 5 else value

    def convert(self) -> None:
        full = (4000, 8000, 16000, 32000)[self.registers[0] >> 11 & 3]  # steps of 10 µV
        shunt = _clip(self.shunt_v / 10e-6, full)
        bus = max(0, min(0x1FFF, round(self.bus_v / 4e-3)))
        current = int(shunt * self.registers[ina219.CALIBRATION] / 4096)
        power = abs(current) * bus // 5000
        overflow = abs(current) > 0x7FFF or power > 0xFFFF
        self.registers |= {1: shunt, 2: bus << 3 | 2 | overflow, 3: power & 0xFFFF, 4: current}


class Chip226(_Chip):
    """SBOS547: registers 0 to 7, identification at 0xFE and 0xFF."""

    def reset(self) -> None:
        self.registers = {0: 0x4127, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 0xFE: 0x5449, 0xFF: 0x2260}

    def store(self, register: int, value: int) -> None:
        assert register in (0, 5, 6, 7), "the others are read-only"
        self.registers[register] = value & 0x7FFF if register == 5 else value

    def convert(self) -> None:
        shunt, bus = _clip(self.shunt_v / 2.5e-6, 0x7FFF), max(0, min(0x7FFF, round(self.bus_v / 1.25e-3)))
        current = int(shunt * self.registers[ina226.CALIBRATION] / 2048)
        power = abs(current) * bus // 20000
        overflow = abs(current) > 0x7FFF or power > 0xFFFF
        mask = self.registers[6] & ~ina226.OVERFLOW | (ina226.OVERFLOW if overflow else 0) | 8
        self.registers |= {1: shunt, 2: bus, 3: power & 0xFFFF, 4: current, 6: mask}


class Chip228(_Chip):
    """SLYS021: 20 bits in registers of 24, and the energy accumulator of 40, which sums at every conversion."""

    sizes: ClassVar[dict[int, int]] = {4: 3, 5: 3, 7: 3, 8: 3, 9: 5, 10: 5}
    start_energy = 0

    def reset(self) -> None:
        self.registers = dict.fromkeys(range(0x12), 0) | {1: 0xFB68, 2: 0x1000, 11: 1, 0x3E: 0x5449, 0x3F: 0x2281}
        self._energy, self._at = float(self.start_energy), self.t

    def store(self, register: int, value: int) -> None:
        assert register in (0, 1, 2, 3, 11, 12, 13, 14, 15, 16, 17), "the others are read-only"
        if register == 0 and value & ina228.CLEAR:
            self._energy, self._at, value = float(self.start_energy), self.t, value & ~ina228.CLEAR
        self.registers[register] = value & 0x7FFF if register == 2 else value

    @property
    def _lsb(self) -> float:
        fine = 4 if self.registers[0] & ina228.FINE else 1
        return self.registers[2] / (13107.2e6 * self.shunt_ohm * fine)

    def convert(self) -> None:
        step = 78.125e-9 if self.registers[0] & ina228.FINE else 312.5e-9
        shunt, bus = _clip(self.shunt_v / step, 0x7FFFF), max(0, round(self.bus_v / 195.3125e-6))
        # In real numbers the equations are the data sheet's; the register keeps 20 bits of them.
        lsb = self._lsb or 1.0
        current = _clip(shunt * step / self.shunt_ohm / lsb, 0x7FFFF)
        power = round(abs(current) * bus * 195.3125e-6 / 3.2)
        self._accumulate(lsb)
        overflow = ina228.MATH_OVERFLOW if power > 0xFFFFFF else 0
        self.registers |= {4: shunt << 4, 5: bus << 4, 7: current << 4, 8: power & 0xFFFFFF, 11: 1 | overflow}
        self.registers[9] = int(self._energy) % (1 << 40)

    def _accumulate(self, lsb: float) -> None:
        """Sum in steps of 2 ms, as fine as the chip's own conversions are."""
        end, dt = self.t, 0.002
        while self._at < end:
            h = min(dt, end - self._at)
            middle = self._at + h / 2
            self._energy += abs(self._volts(middle) * self._amperes(middle)) * h / (16 * 3.2 * lsb)
            self._at += h


def kernel_of(chips: dict[int, _Chip]) -> Callable[[int, int, Any], int]:
    """Return an ioctl that takes the kernel's structures apart and serves the chips by their addresses."""
    pointers: dict[int, int] = {}

    def ioctl(_: int, request: int, block: Any) -> int:
        assert request == linux.I2C_RDWR and isinstance(block, linux.Messages)
        for k in range(block.count):
            message = block.messages[k]
            if message.address not in chips:
                raise OSError(121, "Remote I/O error")  # nobody acknowledges
            chip = chips[message.address]
            if message.flags & linux.I2C_M_RD:
                ctypes.memmove(message.data, chip.read(pointers[message.address], message.length), message.length)
                continue
            data = bytes(message.data[: message.length])
            pointers[message.address] = data[0]
            if len(data) > 1:
                chip.write(data[0], data[1:])
        return block.count

    return ioctl


def signed(chip: _Chip, register: int, bits: int = 16) -> int:
    """Return a result register after a conversion."""
    chip.convert()
    return to_signed(chip.registers[register] % (1 << bits), bits)
