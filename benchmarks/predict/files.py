# SPDX-License-Identifier: Apache-2.0
"""Where measurements for a predictor come from: edgebench results, and the model files whose bytes they timed.

A result knows its model by its digest, so the files may lie anywhere below the folder that is named. The folder in
which a file lies is its family: ``models/mobilenet-v2/w0.5.tflite`` belongs to ``mobilenet-v2``.
"""

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.predict.board import Board, named
from benchmarks.predict.learning import learn
from benchmarks.predict.predictor import Measured
from benchmarks.result.schema import Result
from benchmarks.result.store import load_all
from edge_contract.errors import MeasurementError, MissingDependencyError
from edge_contract.operator_work import OperatorWork

__all__ = ["gather", "learn_board", "operators_of"]

_SUFFIXES = (".tflite", ".onnx")
_READER = "export.inspection.work"


def operators_of(path: Path) -> tuple[OperatorWork, ...]:
    """Return the operators of a model file.

    Raises:
        MissingDependencyError: The packages of the workstation are not installed here.
        ModelError: The file cannot be read.
    """
    try:
        reader = importlib.import_module(_READER)  # a device has no ``export``, and this module is on its path
    except ImportError as error:
        fix = "run: pip install 'strop[workstation]'"
        raise MissingDependencyError("model files are read on the workstation", where=str(path), fix=fix) from error
    found: tuple[OperatorWork, ...] = reader.operators(path)
    return found


def gather(results: Sequence[Path], models: Path) -> tuple[str, dict[str, list[Measured]]]:
    """Return the board's key, and the measurements of each way to run.

    Results that time something else than one bare inference after the other, and those that are invalid for another
    reason than a missing accuracy, are left out.

    Args:
        results: Files, or folders of them.
        models: Folder of folders, one for each family.

    Raises:
        MeasurementError: Results of several boards, or none that counts, or a model that is not below ``models``.
    """
    found = [(path, result) for path, result in load_all(results)[0] if _counts(result)]
    boards = sorted({result.device.key for _, result in found})
    if len(boards) != 1:
        what = f"results of {len(boards)} boards: {', '.join(boards)}" if boards else "no result that counts"
        raise MeasurementError(what, where="learn", fix="give the results of one board")
    files = _digests(models)
    ways: dict[str, list[Measured]] = {}
    for path, result in found:
        model = files.get(result.artifact.sha256)
        if model is None:
            what = f"the model {result.artifact.sha256[:12]} of {path.name} is not there"
            raise MeasurementError(what, where=str(models), fix="name the folder with the files that were measured")
        way = named(result.runtime.name, result.runtime.threads)
        ms = result.latency_us["invoke"].p50 / 1000
        ways.setdefault(way, []).append(Measured(model.name, model.parent.name, operators_of(model), ms))
    return boards[0], ways


def _counts(result: Result) -> bool:
    is_plain = result.scenario.name == "single" and result.scenario.mode == "bare" and result.scenario.batch == 1
    broken = [reason for reason in result.reasons if reason.status == "invalid" and reason.kind != "quality"]
    return is_plain and not broken and not result.device.emulated and "invoke" in result.latency_us


def _digests(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}


def learn_board(results: Sequence[Path], models: Path) -> Board:
    """Return what results teach about their board; raises as ``gather`` and ``learning.learn``."""
    key, ways = gather(results, models)
    return Board(key, {way: learn(measured) for way, measured in ways.items()})
