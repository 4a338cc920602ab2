# SPDX-License-Identifier: Apache-2.0
"""Say what is in a model file without running it: operators with versions, tensors, scales, weights, the plan's digest.

Both formats are read by readers of our own, so that a damaged or hostile file costs one line and little memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_contract.errors import BudgetError, ModelError, UnsupportedOperatorError
from edge_contract.targets import Target
from export.inspection import onnx as inspection_onnx
from export.inspection import tflite
from export.inspection.facts import ModelFacts
from export.memory import onnx as memory_onnx
from export.memory import prediction
from export.onnx import reader as onnx_reader
from export.tflite import reader as flatbuffer

__all__ = ["ModelFacts", "check", "check_memory", "check_operators", "constants", "describe", "is_tflite", "places"]

_MARK = b"TFL3"  # at byte 4 of a TFLite file


def describe(path: Path) -> ModelFacts:
    """Return what a ``.onnx`` or ``.tflite`` file holds.

    Raises:
        ModelError: It cannot be read, or is neither.
    """
    if is_tflite(path):
        return tflite.facts(flatbuffer.read_file(path))
    return inspection_onnx.facts(onnx_reader.read_file(path))


def constants(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield (name, numbers) of every constant of a model file; raises as ``describe`` does."""
    if is_tflite(path):
        return tflite.constants(flatbuffer.read_file(path))
    return inspection_onnx.constants(onnx_reader.read_file(path))


def places(path: Path) -> dict[str, str]:
    """Return tensor → an operator with its number, such as ``CONV_2D 3``: a constant's reader, else what writes it.

    Names inside a file are short or arbitrary; this is how people find a tensor. Raises as ``describe`` does.
    """
    if is_tflite(path):
        return tflite.places(flatbuffer.read_file(path))
    return inspection_onnx.places(onnx_reader.read_file(path))


def is_tflite(path: Path) -> bool:
    """Return whether a file bears the mark of TFLite; raises ModelError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(8)[4:] == _MARK
    except OSError as error:
        fix = "give an .onnx or .tflite file"
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path), fix=fix) from error


def check(path: Path, target: Target, *, where: str) -> None:
    """Refuse a model file that does not fit a target.

    Raises:
        ModelError: It cannot be read.
        UnsupportedOperatorError: The target lacks an operator, or a version of one.
        BudgetError: It needs more memory than the target has for a model.
    """
    check_operators(describe(path), target, where=where)
    check_memory(path, target, where=where)


def check_memory(path: Path, target: Target, *, where: str) -> None:
    """Refuse a model file that needs more memory than a target has for one; raises as ``check`` does.

    What a TFLite file needs is predicted (``export.memory.prediction``). An ONNX file needs its constants at the least;
    what else ONNX Runtime takes cannot be told from the file.
    """
    needed = (
        prediction.predict(flatbuffer.read_file(path)).total_bytes if is_tflite(path) else describe(path).weights_bytes
    )
    allowed = target.memory.model_kib * 1024
    if needed > allowed:
        what = f"needs {-(-needed // 1024)} KiB, target '{target.name}' has {allowed // 1024} KiB for a model"
        raise BudgetError(what, where=where, fix="prune or shrink the model, or choose a larger target")


def _onnx_bytes(path: Path) -> int:
    weights = describe(path).weights_bytes  # refuses what is no ONNX file before onnx itself parses it
    try:
        return memory_onnx.predict(path.read_bytes(), str(path)).total_bytes
    except ModelError:
        return weights


def check_operators(facts: ModelFacts, target: Target, *, where: str) -> None:
    """Refuse a file with an operator, or a version of one, that a target does not have.

    Raises:
        UnsupportedOperatorError: Names the operator and the target.
    """
    if facts.format not in target.integers:
        known = ", ".join(target.integers)
        raise UnsupportedOperatorError(f"target '{target.name}' reads {known}", where=where, fix="export that format")
    integers = target.integers[facts.format]
    allowed = integers.operators | integers.packed
    for name, version, _ in facts.operators:
        # An ONNX file has one opset for all its operators; the target lists each operator's own last change.
        if name not in allowed or (facts.format == "tflite" and version > allowed[name]):
            what = f"operator {name} version {version} is not on target '{target.name}'"
            raise UnsupportedOperatorError(what, where=where, fix="rewrite the layer or choose another target")
