# SPDX-License-Identifier: Apache-2.0
"""What is shown: results under names that tell them apart, with their measurements where the raw samples are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import Launch, Measurement
from benchmarks.result.raw import measurement_of
from benchmarks.result.schema import Latency, Result
from benchmarks.result.store import samples_of

__all__ = ["Shown", "microseconds", "shown_of"]


@dataclass(frozen=True)
class Shown:
    """One configuration.

    Attributes:
        name: Tells it from the others of the page.
        path: Its file.
        result: What is written in it.
        measurement: Of its raw samples; None where they are not there.
    """

    name: str
    path: Path
    result: Result
    measurement: Measurement | None

    @property
    def stage(self) -> str:
        """The stage that stands for the configuration: the model alone, or the whole way."""
        return "total" if self.result.scenario.mode == "realistic" or self.result.scenario.name == "paced" else "invoke"

    @property
    def latency(self) -> Latency | None:
        """Times of that stage; None where no time is claimed."""
        return self.result.latency_us.get(self.stage)

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Launches with raw samples; none where they are not there."""
        return self.measurement.launches if self.measurement else ()


def shown_of(found: Sequence[tuple[Path, Result]]) -> list[Shown]:
    """Return results with their raw samples, under names of only what differs between them.

    Raises:
        ContractError: The raw samples are not those that a result names.
    """
    found = sorted(found, key=lambda pair: (_parts(pair[1]), str(pair[0])))
    names = _names([_parts(result) for _, result in found])
    shown = []
    for (path, result), name in zip(found, _unique(names), strict=True):
        data = samples_of(path, result)
        raw = result.raw
        whole = measurement_of(result.record, raw, data, path.name) if raw is not None and data is not None else None
        shown.append(Shown(name, path, result, whole))
    return shown


def _parts(result: Result) -> tuple[str, ...]:
    scenario = result.scenario
    rate = f" {scenario.fps:g} fps" if scenario.fps else f" batch {scenario.batch}" if scenario.batch > 1 else ""
    return (
        result.artifact.name or result.artifact.sha256[:12],
        result.artifact.precision,
        result.runtime.name,
        f"{result.runtime.threads} thread{'s' if result.runtime.threads > 1 else ''}",
        f"{scenario.name}{rate}",
        scenario.mode,
        result.device.key if result.device.emulated else result.device.board or result.device.key,
        result.runtime.version,
        result.artifact.sha256[:8],
        result.started,
    )


def _names(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the model's name and so many of the other parts as tell all apart, the first ones first.

    Example:
        >>> _names([("net", "int8", "a", "x"), ("net", "int8", "b", "x"), ("net", "float32", "a", "x")])
        ['net · int8 · a', 'net · int8 · b', 'net · float32 · a']
    """
    if not parts:
        return []
    taken, apart = [0], len({one[0] for one in parts})
    for i in range(1, len(parts[0])):
        further = len({tuple(one[k] for k in (*taken, i)) for one in parts})
        if further > apart:
            taken, apart = [*taken, i], further
    return [" · ".join(one[i] for i in taken if one[i]) for one in parts]


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def microseconds(value: float) -> str:
    """Return a time for people.

    Example:
        >>> microseconds(183.24), microseconds(2412.0), microseconds(1.25e6)
        ('183 µs', '2.41 ms', '1.25 s')
    """
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} µs"
