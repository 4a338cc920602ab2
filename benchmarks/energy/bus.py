# SPDX-License-Identifier: Apache-2.0
"""Registers of a chip on an I2C bus, through Linux's ``/dev/i2c-N`` alone: no package is needed.

A read is one transaction of two messages (``I2C_RDWR``): the register's number is written, and behind a repeated start
its bytes are read, so that no other program can come between. Values are big-endian, as the INA2xx send them.

Reference: Documentation/i2c/dev-interface.rst of the Linux kernel; include/uapi/linux/i2c.h, i2c-dev.h
"""

import ctypes
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from edge_contract.errors import MeasurementError

__all__ = ["Bus", "LinuxBus", "Message", "Messages", "buses", "read_unsigned", "to_signed"]

I2C_RDWR: Final = 0x0707
I2C_M_RD: Final = 0x0001


class Message(ctypes.Structure):
    """``struct i2c_msg``."""

    _fields_ = (
        ("address", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("length", ctypes.c_uint16),
        ("data", ctypes.POINTER(ctypes.c_uint8)),
    )


class Messages(ctypes.Structure):
    """``struct i2c_rdwr_ioctl_data``."""

    _fields_ = (("messages", ctypes.POINTER(Message)), ("count", ctypes.c_uint32))


class Bus(Protocol):
    """Registers of one chip."""

    name: str

    def read(self, register: int, size: int) -> bytes:
        """Return the bytes of a register; raises OSError when the chip does not answer."""
        ...

    def write(self, register: int, data: bytes) -> None:
        """Write a register; raises OSError when the chip does not answer."""
        ...

    def close(self) -> None:
        """Let go of the bus."""
        ...


class LinuxBus:
    """One chip on ``/dev/i2c-N``.

    Args:
        number: N.
        address: 7 bits.
        ioctl: The system call; another one in tests.
        device: The device file; default: of the number.

    Raises:
        MeasurementError: The device file cannot be opened: I2C is off, or this user may not.
    """

    def __init__(
        self, number: int, address: int, *, ioctl: Callable[[int, int, Any], Any] = fcntl.ioctl, device: str = ""
    ) -> None:
        self.name = f"i2c-{number} at 0x{address:02x}"
        self._address, self._ioctl = address, ioctl
        path = device or f"/dev/i2c-{number}"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            fix = "switch I2C on: on a Raspberry Pi 'sudo raspi-config nonint do_i2c 0'"
            raise MeasurementError("there is no such I2C bus", where=path, fix=fix) from error
        except PermissionError as error:
            fix = "sudo usermod -aG i2c $USER, and log in again"
            raise MeasurementError("this user may not use the I2C bus", where=path, fix=fix) from error

    def read(self, register: int, size: int) -> bytes:
        """Return the bytes of a register."""
        number, answer = (ctypes.c_uint8 * 1)(register), (ctypes.c_uint8 * size)()
        self._send([self._message(number, 0), self._message(answer, I2C_M_RD)])
        return bytes(answer)

    def write(self, register: int, data: bytes) -> None:
        """Write a register."""
        self._send([self._message((ctypes.c_uint8 * (1 + len(data)))(register, *data), 0)])

    def close(self) -> None:
        """Close the device file."""
        os.close(self._file)

    def _message(self, data: "ctypes.Array[ctypes.c_uint8]", flags: int) -> Message:
        return Message(self._address, flags, len(data), ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8)))

    def _send(self, messages: list[Message]) -> None:
        block = (Message * len(messages))(*messages)
        self._ioctl(self._file, I2C_RDWR, Messages(block, len(messages)))


def read_unsigned(bus: Bus, register: int, size: int = 2) -> int:
    """Return a register as an unsigned number."""
    return int.from_bytes(bus.read(register, size), "big")


def to_signed(value: int, bits: int) -> int:
    """Return the two's complement of a number.

    Example:
        >>> to_signed(0x7FFF, 16), to_signed(0x8300, 16)
        (32767, -32000)
    """
    return value - (1 << bits) if value >> (bits - 1) else value


def buses(root: Path = Path("/")) -> tuple[int, ...]:
    """Return the numbers of the I2C buses that a program can reach."""
    return tuple(sorted(int(path.name[4:]) for path in (root / "dev").glob("i2c-*") if path.name[4:].isdigit()))
