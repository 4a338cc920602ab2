# SPDX-License-Identifier: Apache-2.0
"""From a few words to an open sensor: ``ina226:bus=1,address=0x40,shunt=0.1``, ``rapl``, ``hwmon:ina3221/power1``.

I2C chips are not searched for: a look at a foreign chip's register can be a command to it. Their buses are listed, and
the words to name the chip.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.energy import ina219, ina226, ina228
from benchmarks.energy.bus import Bus, LinuxBus, buses
from benchmarks.energy.faults import MIN_WINDOW_S
from benchmarks.energy.meter import PowerMeter
from benchmarks.energy.pmic import Pmic
from benchmarks.energy.reading import Sensor
from benchmarks.energy.sysfs import Hwmon, Rapl, hwmon_channels, rapl_zones
from benchmarks.energy.um25c import Um25c
from edge_contract.errors import UsageError

__all__ = ["KINDS", "Words", "found", "open_sensor"]

KINDS: Final = ("ina219", "ina226", "ina228", "rapl", "hwmon", "pmic", "um25c")
_CHIPS: Final[Mapping[str, tuple[Any, Any]]] = {
    "ina219": (ina219.Ina219, ina219.Setup),
    "ina226": (ina226.Ina226, ina226.Setup),
    "ina228": (ina228.Ina228, ina228.Setup),
}
_SETUP: Final = {"shunt": "shunt_ohm", "max": "max_a", "average": "average", "time": "time_us", "factor": "factor"}
_ACCUMULATOR_HZ: Final = 50.0
"""An INA228 sums by itself: it is asked often enough to see that it is there."""


class Words:
    """The words behind a sensor's kind, each read once.

    Args:
        spec: ``kind:plain,key=value,…``.

    Raises:
        UsageError: An unknown kind, or a word twice.
    """

    def __init__(self, spec: str) -> None:
        self.kind, _, rest = spec.partition(":")
        if self.kind not in KINDS:
            raise UsageError(f"unknown power sensor '{self.kind}'", where=spec, fix=f"one of {', '.join(KINDS)}")
        parts = [part.strip() for part in rest.split(",") if part.strip()]
        self.spec, self.plain = spec, ",".join(part for part in parts if "=" not in part)
        pairs = [part.partition("=")[::2] for part in parts if "=" in part]
        self._left = dict(pairs)
        if len(self._left) < len(pairs):
            raise UsageError("a word is there twice", where=spec)

    def number(self, key: str, default: float | None = None) -> float | None:
        """Return a number, decimal or 0x…; raises UsageError if it is none."""
        text = self._left.pop(key, None)
        if text is None:
            return default
        try:
            return float(int(text, 16)) if text.lower().startswith("0x") else float(text)
        except ValueError as error:
            raise UsageError(f"'{text}' is no number", where=f"{self.spec}: {key}") from error

    def end(self) -> None:
        """Raise UsageError for a word that nobody asked for."""
        if self._left:
            raise UsageError(
                f"unknown word '{next(iter(self._left))}'", where=self.spec, fix="see docs/benchmarking-energy.md"
            )


def open_sensor(
    spec: str, *, root: Path = Path("/"), bus_of: Callable[[int, int], Bus] = LinuxBus, least_s: float | None = None
) -> PowerMeter:
    """Open a sensor and return what reads it.

    Args:
        spec: ``ina219``, ``ina226`` or ``ina228`` with ``bus`` (1), ``address`` (0x40), ``shunt`` (ohm), ``max``
            (amperes), ``average``, ``time`` (µs of a conversion; not of ina219), ``factor``; ``rapl``;
            ``hwmon:CHIP/CHANNEL``; ``pmic`` with ``slope`` and ``offset``; ``um25c:DEVICE``. Each takes ``rate`` (Hz).
        root: Where ``/sys`` and ``/dev`` are.
        bus_of: Opens a chip on an I2C bus by bus number and address.
        least_s: The shortest window that is believed; default 10 s.

    Raises:
        UsageError: The words are wrong.
        MeasurementError: The sensor is not there, is another one, or may not be read.

    Example:
        >>> open_sensor("ina3221")
        Traceback (most recent call last):
        edge_contract.errors.UsageError: ina3221: unknown power sensor 'ina3221'; one of ina219, ina226, ina228, rapl, \
hwmon, pmic, um25c
    """
    words = Words(spec)
    rate = words.number("rate", _ACCUMULATOR_HZ if words.kind == "ina228" else None)
    sensor = _chip(words, bus_of) if words.kind in _CHIPS else _other(words, root)
    return PowerMeter(sensor, rate_hz=rate, least_s=MIN_WINDOW_S if least_s is None else least_s)


def _chip(words: Words, bus_of: Callable[[int, int], Bus]) -> Sensor:
    kind, setup = _CHIPS[words.kind]
    number, address = int(words.number("bus", 1) or 0), int(words.number("address", 0x40) or 0)
    if not 0x40 <= address <= 0x4F:
        raise UsageError(f"address 0x{address:02x}", where=words.spec, fix="an INA2xx is at 0x40 to 0x4f")
    given = {name: words.number(key) for key, name in _SETUP.items()}
    chosen = {
        name: int(value) if name in ("average", "time_us") else value
        for name, value in given.items()
        if value is not None
    }
    words.end()
    if words.kind == "ina219" and "time_us" in chosen:
        raise UsageError("the INA219's conversion time goes with 'average'", where=words.spec, fix="leave 'time' out")
    made = setup(**chosen)
    bus = bus_of(number, address)
    try:
        sensor: Sensor = kind(bus, made)
    except BaseException:
        bus.close()
        raise
    return sensor


def _other(words: Words, root: Path) -> Sensor:
    if words.kind == "pmic":
        slope, offset = words.number("slope"), words.number("offset")
        words.end()
        return Pmic(words.plain or "vcgencmd", slope, offset)
    words.end()
    if words.kind == "rapl":
        return Rapl(root)
    if words.kind == "hwmon":
        return Hwmon(words.plain, root)
    return Um25c(words.plain or "/dev/rfcomm0")


def found(root: Path = Path("/"), program: str = "vcgencmd") -> list[tuple[str, str]]:
    """Return (the words for ``open_sensor``, what it is) of everything that could be a power sensor here."""
    there = [("rapl", "energy of the processor's packages")] if rapl_zones(root) else []
    there += [(f"hwmon:{name}", "a channel of the kernel's hwmon") for name, _ in hwmon_channels(root)]
    model = root / "proc/device-tree/model"
    if model.is_file() and "Raspberry Pi 5" in model.read_text(errors="replace"):
        there.append(("pmic", f"estimate of {program} pmic_read_adc"))
    there += [
        (f"ina226:bus={number}", "if an INA226 is wired to this bus; also ina219, ina228") for number in buses(root)
    ]
    there += [
        (f"um25c:/dev/{p.name}", "if a UM24C, UM25C or UM34C is bound") for p in sorted((root / "dev").glob("rfcomm*"))
    ]
    return there
