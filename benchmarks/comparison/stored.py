# SPDX-License-Identifier: Apache-2.0
"""Two results that were kept, of one board: their launches, once it is sure that they may be compared."""

from pathlib import Path

from benchmarks.record import Measurement
from benchmarks.result.raw import measurement_of
from benchmarks.result.schema import Result
from benchmarks.result.store import load, same_bytes, samples_of
from edge_contract.errors import MeasurementError

__all__ = ["is_result", "stored"]


def is_result(operand: str) -> bool:
    """Whether an operand names the file of a result.

    Example:
        >>> is_result("results/rpi5/0011.json"), is_result("model.tflite")
        (False, False)
    """
    return operand.endswith(".json") and Path(operand).is_file()


def stored(a: Path, b: Path, *, same_artefact: bool) -> tuple[Measurement, Measurement]:
    """Return the launches of two results.

    Raises:
        MeasurementError: Different boards or scenarios; results without times or without raw samples; or, if it has to
            be the same artefact, different ones.
        ContractError: A file is no result, or its raw samples are not those that it names.
    """
    results = load(a), load(b)
    if same_artefact:
        same_bytes(*results)
    _comparable(results, (a, b))
    found = [_measurement(path, result) for path, result in zip((a, b), results, strict=True)]
    return found[0], found[1]


def _comparable(results: tuple[Result, Result], paths: tuple[Path, Path]) -> None:
    one, other = results
    where = f"{paths[0].name} and {paths[1].name}"
    if one.device.key != other.device.key:
        what = f"different boards: {one.device.key} and {other.device.key}"
        raise MeasurementError(what, where=where, fix="measure both on one board: strop bench compare A B")
    first, second = one.scenario, other.scenario
    if (first.name, first.mode, first.batch, first.fps) != (second.name, second.mode, second.batch, second.fps):
        what = f"different scenarios: {first.name} {first.mode} and {second.name} {second.mode}"
        raise MeasurementError(what, where=where, fix="measure both in the same one")


def _measurement(path: Path, result: Result) -> Measurement:
    if result.status == "correctness":
        what = "an emulated machine made it: it has no times"
        raise MeasurementError(what, where=path.name, fix="measure on the board")
    data = samples_of(path, result)
    if data is None or result.raw is None:
        what = "its raw samples are not here, and medians alone cannot be compared"
        raise MeasurementError(what, where=path.name, fix="copy the file beside it, too, or measure again")
    return measurement_of(result.record, result.raw, data, path.name)
