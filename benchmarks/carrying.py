# SPDX-License-Identifier: Apache-2.0
"""From a plan to a result: measure, ask how good the answers are, judge. The same on a device and on a workstation.

numpy and one runtime; nothing here prints.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import measure
from benchmarks.plan import BenchPlan
from benchmarks.quality import quality_of
from benchmarks.record import Measurement
from benchmarks.result import Quality, Result, build
from edge_contract.errors import StropError

__all__ = ["Carried", "carry_out", "unfinished_folder"]

_UNFINISHED: Final = ".unfinished"
Carried = tuple[Measurement, Result]


def carry_out(
    plan: BenchPlan,
    *,
    progress: Callable[[str], object] | None = None,
    energy: str = "",
    kept: Path | None = None,
) -> Carried:
    """Measure a plan and return what came of it.

    Args:
        plan: What to measure.
        progress: Hears one line for each step.
        energy: A power sensor as ``benchmarks.energy.open_sensor`` takes it; empty: none.
        kept: Folder that keeps launches of an unfinished measurement; it is gone once all of them are there.

    Raises:
        MeasurementError: No launch came to its end, or the sensor is not there.
        StropError: What opening the bundle raises.
    """
    with _meter(energy) as meter:
        measurement = measure(plan, progress=progress, energy=meter, out=kept)
    tell = progress or (lambda line: None)
    tell("accuracy")
    quality, note = _quality(plan)
    measurement = replace(measurement, notes=(*measurement.notes, *note))
    result = build(measurement, quality)
    if kept is not None and len(measurement.launches) == plan.launches:
        _forget(kept)
    return measurement, result


def unfinished_folder(folder: Path, plan: BenchPlan) -> Path:
    """Return where the launches of a plan are kept below a folder of results until all of them are there."""
    return folder / _UNFINISHED / f"{plan.sha256[:12]}-{plan.configuration}"


def _forget(kept: Path) -> None:
    """Remove the launches of a measurement that is whole, and the folders that were made for them."""
    shutil.rmtree(kept / "launches", ignore_errors=True)
    if kept.parent.name == _UNFINISHED:
        with suppress(OSError):  # others are unfinished still
            kept.rmdir()
            kept.parent.rmdir()


def _meter(spec: str) -> AbstractContextManager[Any]:
    if not spec:
        return nullcontext()
    from benchmarks.energy import open_sensor

    return open_sensor(spec)


def _quality(plan: BenchPlan) -> tuple[Quality | None, tuple[str, ...]]:
    """Return how good the answers are, or None and why nobody can say: the times of an hour are not thrown away."""
    data = Path(plan.data) if plan.data and Path(plan.data).is_file() else None
    try:
        return quality_of(plan, data), ()
    except StropError as error:
        return None, (f"accuracy was not found: {error}",)
