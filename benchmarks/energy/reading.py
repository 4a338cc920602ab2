# SPDX-License-Identifier: Apache-2.0
"""What a power sensor is, gives, and what is made of it: plain values. Standard library only.

``E_inf = (∫ P dt - P_idle · T) / N`` is *net*: what the inferences added to the idle board. *Gross* leaves the idle
power in: what the battery loses. Both are told, per inference, in millijoules. A reading with a fault has neither: a
wrong number is worse than none, and the latency beside it stays.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from edge_contract.errors import MeasurementError
from edge_contract.fields import Fields

__all__ = ["EnergyReading", "Sample", "Sensor", "SensorFacts", "Window"]

Window = tuple[int, int]
"""From and to, nanoseconds of the monotonic clock."""


@dataclass(frozen=True)
class Sample:
    """One look at the sensor.

    Attributes:
        at_ns: Monotonic clock, the middle of the read.
        watts: Power; None of a sensor that only counts.
        joules: Energy since some moment, never less than before; None of a sensor that does not count.
    """

    at_ns: int
    watts: float | None = None
    joules: float | None = None


@dataclass(frozen=True)
class SensorFacts:
    """What a sensor promises.

    Attributes:
        name: With its place: ``ina226 at 0x40 on i2c-1``.
        method: For the result: ``ina226``, ``pmic_est``, ``rapl``, ``hwmon`` …
        rate_hz: New values a second.
        accuracy: In words, from the data sheet; of an estimate, what it is good for.
        calibration: What the numbers were made with: shunt, factor.
        full_scale_w: More than this it cannot tell; None: unknown.
        lsb_w: The smallest step of its power; 0: unknown.
        domain: What is measured: ``board``, ``package`` …
    """

    name: str
    method: str
    rate_hz: float
    accuracy: str
    calibration: str = ""
    full_scale_w: float | None = None
    lsb_w: float = 0.0
    domain: str = "board"


class Sensor(Protocol):
    """An open sensor. Not thread-safe."""

    facts: SensorFacts

    def read(self) -> Sample:
        """Return what it says now; raises OSError or MeasurementError when it does not answer."""
        ...

    def close(self) -> None:
        """Let go of the device."""
        ...


@dataclass(frozen=True)
class EnergyReading:
    """The energy of one inference, or why there is none.

    Attributes:
        gross_mj, net_mj: Per inference, millijoules; None when there is a fault.
        idle_w: Mean power of the idle board before the first launch; None when it was not measured.
        mean_w: Mean power in the windows.
        samples, missed: Looks in the windows, and slots in which the reader came too late.
        rate_hz: Looks a second that were reached.
        seconds, runs: Of the windows together.
        method, sensor, accuracy, calibration, domain: See ``SensorFacts``.
        faults: Each one sentence; not empty means refused.
    """

    gross_mj: float | None
    net_mj: float | None
    idle_w: float | None
    mean_w: float | None
    samples: int
    missed: int
    rate_hz: float
    seconds: float
    runs: int
    method: str
    sensor: str
    accuracy: str
    calibration: str
    domain: str
    faults: tuple[str, ...] = ()

    @property
    def is_refused(self) -> bool:
        """No energy is told."""
        return bool(self.faults)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {**asdict(self), "faults": list(self.faults)}

    @classmethod
    def from_json(cls, document: Any, where: str = "energy") -> "EnergyReading":
        """Read what ``to_json`` wrote; raises MeasurementError with the field that is wrong."""
        if not isinstance(document, dict) or set(document) != set(cls.__dataclass_fields__):
            odd = sorted(set(document) ^ set(cls.__dataclass_fields__)) if isinstance(document, dict) else "no object"
            raise MeasurementError(f"not an energy reading: {odd}", where=where)
        Fields(document, where, MeasurementError).integer("samples", minimum=0)
        return cls(**{**document, "faults": tuple(document["faults"])})

    def to_text(self) -> str:
        """Return it for people: one line, or one line per fault.

        Example:
            >>> numbers = 8.1, 3.0, 2.5, 4.0, 2000, 0, 200.0, 10.0, 4938
            >>> EnergyReading(*numbers, "ina226", "", "0.1 %", "", "board").to_text()
            '8.1 mJ gross, 3 mJ net per inference (4938 in 10.0 s; idle 2.500 W; ina226, 200 Hz, 0.1 %)'
        """
        if self.faults:
            return "\n".join(f"energy refused: {fault}" for fault in self.faults)
        net = f"{self.net_mj:.4g} mJ net" if self.net_mj is not None else "no net (idle was not measured)"
        idle = f"idle {self.idle_w:.3f} W; " if self.idle_w is not None else ""
        words = f"{self.method}, {self.rate_hz:.0f} Hz, {self.accuracy}"
        return f"{self.gross_mj:.4g} mJ gross, {net} per inference ({self.runs} in {self.seconds:.1f} s; {idle}{words})"
