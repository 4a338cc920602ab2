# SPDX-License-Identifier: Apache-2.0
"""Power that the kernel knows: RAPL's energy counters of x86 packages, and hwmon's power, voltage and current.

RAPL counts microjoules up to ``max_energy_range_uj`` and begins again at 0, within a minute or so under full load; only
the packages are summed, since their sub-zones lie within them. The files belong to root since 2020 (CVE-2020-8694).
hwmon gives microwatts (``power1_input``), or millivolts and milliamperes (``in1_input``, ``curr1_input``): the kernel's
ina2xx driver and many boards and USB-C controllers are found so.

Reference: Documentation/power/powercap/powercap.rst and Documentation/hwmon/sysfs-interface.rst of the Linux kernel
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.energy.reading import Sample, SensorFacts
from edge_contract.errors import MeasurementError

__all__ = ["Hwmon", "Rapl", "hwmon_channels", "rapl_zones"]

_RAPL: Final = "sys/class/powercap"
_HWMON: Final = "sys/class/hwmon"
_RAPL_HZ: Final = 100.0
_HWMON_HZ: Final = 10.0
Clock = Callable[[], int]


def rapl_zones(root: Path = Path("/")) -> list[Path]:
    """Return the folders of the packages: of ``intel-rapl:0``, not of its parts and not of ``psys`` around it."""
    zones = sorted((root / _RAPL).glob("intel-rapl:*"))
    return [zone for zone in zones if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")]


class Rapl:
    """The energy of all packages, as one counter that never goes back.

    Raises:
        MeasurementError: There is none, or this user may not read it.
    """

    def __init__(self, root: Path = Path("/"), clock: Clock = time.monotonic_ns) -> None:
        self._zones, self._clock = rapl_zones(root), clock
        if not self._zones:
            what, fix = "this machine has no RAPL counters", "they are x86's; a virtual machine hides them"
            raise MeasurementError(what, where=str(root / _RAPL), fix=fix)
        try:
            self._ranges = [_number(zone / "max_energy_range_uj") for zone in self._zones]
            self._last = [_number(zone / "energy_uj") for zone in self._zones]
        except PermissionError as error:
            fix = "run as root, or: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
            raise MeasurementError(
                "this user may not read RAPL's counters", where=str(error.filename), fix=fix
            ) from error
        self._sums = [0] * len(self._zones)
        names = "+".join(_text(zone / "name") for zone in self._zones)
        self.facts = SensorFacts(
            name=f"rapl {names}",
            method="rapl",
            rate_hz=_RAPL_HZ,
            accuracy="the processor's own model or shunt; not calibrated",
            calibration="none",
            domain="package",
        )

    def read(self) -> Sample:
        """Return the joules since this object was made; raises OSError when a file is gone."""
        before = self._clock()
        for k, zone in enumerate(self._zones):
            found = _number(zone / "energy_uj")
            step = found - self._last[k]
            # One wrap is told apart from none; two between two looks are not, which takes a minute and more.
            self._sums[k] += step if step >= 0 else step + self._ranges[k] + 1
            self._last[k] = found
        return Sample((before + self._clock()) // 2, joules=sum(self._sums) / 1e6)

    def close(self) -> None:
        """Nothing is held open."""


def hwmon_channels(root: Path = Path("/")) -> list[tuple[str, tuple[Path, ...]]]:
    """Return (``chip/channel``, its files): one of power, or voltage and current of the same number."""
    found: list[tuple[str, tuple[Path, ...]]] = []
    for chip in sorted((root / _HWMON).glob("hwmon*")):
        name = _text(chip / "name") or chip.name
        for kind in ("input", "average"):
            found += [(f"{name}/{p.name.split('_')[0]}", (p,)) for p in sorted(chip.glob(f"power*_{kind}"))]
        told = {label for label, _ in found if label.startswith(f"{name}/power")}
        for current in sorted(chip.glob("curr*_input")):
            volts = chip / f"in{current.name.removeprefix('curr').removesuffix('_input')}_input"
            if volts.exists() and not told:
                found.append((f"{name}/{current.name.removesuffix('_input')}", (volts, current)))
    return found


class Hwmon:
    """One channel of hwmon.

    Args:
        which: ``chip`` or ``chip/channel``; empty: the only one there is.
        root: Where ``/sys`` is.
        clock: Nanoseconds.

    Raises:
        MeasurementError: No such channel, or more than one.
    """

    def __init__(self, which: str = "", root: Path = Path("/"), clock: Clock = time.monotonic_ns) -> None:
        there = hwmon_channels(root)
        fits = [(name, files) for name, files in there if not which or which in (name, name.split("/")[0])]
        if len(fits) != 1:
            names = ", ".join(name for name, _ in there) or "none"
            what = f"{len(fits)} channels of power are called '{which}'" if which else f"{len(fits)} channels of power"
            raise MeasurementError(what, where=str(root / _HWMON), fix=f"there are: {names}")
        (name, self._files), self._clock = fits[0], clock
        interval = _text(self._files[0].parent / "update_interval")  # milliseconds
        rate = min(1000.0 / int(interval), 1000.0) if interval.isdigit() and int(interval) else _HWMON_HZ
        step = 1e-6 if len(self._files) == 1 else 1e-3
        self.facts = SensorFacts(
            f"hwmon {name}", "hwmon", rate, "as the driver's chip; see its data sheet", "none", None, step
        )

    def read(self) -> Sample:
        """Return the power; raises OSError when the driver does not answer."""
        before = self._clock()
        values = [_number(path) for path in self._files]
        watts = values[0] / 1e6 if len(values) == 1 else values[0] * values[1] / 1e6
        return Sample((before + self._clock()) // 2, watts)

    def close(self) -> None:
        """Nothing is held open."""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        return int(text)
    except ValueError as error:
        raise MeasurementError(f"'{text[:40]}' is no number", where=str(path)) from error
