# SPDX-License-Identifier: Apache-2.0
"""Keras and SavedModel to TFLite by TensorFlow's own converter, in a child process, then our normaliser and checks.

The int8 file is calibrated by minimum and maximum over the caller's samples, has int8 input and output, and
fully-connected weights with one scale (see ``keras_child``). What comes back was run: in LiteRT, and in tflite-runtime
where it is installed, against the model's own float outputs on the same inputs.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract import targets
from edge_contract.errors import DataError, MissingDependencyError, ModelError, UnsupportedOperatorError, UsageError
from edge_contract.manifest import Artefact
from export.keras import check as keras_check
from export.keras import operators
from export.keras.check import Check
from export.keras.faults import INSTALL, Ending, explain
from export.normalise.normaliser import normalise

__all__ = ["PRECISIONS", "Converted", "Limits", "convert"]

PRECISIONS: Final = ("int8", "float32")
LEAST_MIB: Final = 1024
_ROOT: Final = Path(__file__).resolve().parents[2]
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_WORDS: Final = 64 * 1024

Inputs = NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """What the child process may take: seconds, and MiB of private memory (TensorFlow alone takes 600)."""

    timeout_s: int = 900
    memory_mib: int = 6144


@dataclass(frozen=True)
class Converted:
    """A finished TFLite file.

    Attributes:
        data: The file.
        notes: What a person should know: operators left in float, operators that the target does not list.
        changes: What the normaliser rewrote.
        artefact: Its tensors, and the runtimes that ran it.
        checks: How each runtime answered, against the model's float outputs.
    """

    data: bytes
    notes: tuple[str, ...]
    changes: tuple[str, ...]
    artefact: Artefact
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the file itself."""
        return {
            "size": len(self.data),
            "notes": list(self.notes),
            "changes": list(self.changes),
            "artefact": self.artefact.to_json(),
            "checks": [check.to_json() for check in self.checks],
        }


def convert(
    path: Path,
    *,
    calibration: Inputs | None,
    precision: str,
    target: str,
    limits: Limits = Limits(),
) -> Converted:
    """Return a TFLite file of a Keras model, converted by TensorFlow and run in every TFLite runtime at hand.

    Args:
        path: A ``.keras`` file or a SavedModel folder; convert only what you trust (docs/keras.md).
        calibration: The model's own inputs, preprocessed, float32 [N, ...]: ranges are taken from them, and answers
            are compared on the first 256. Float files may go without; they are then compared on random inputs.
        precision: ``int8`` (input and output too) or ``float32``.
        target: A target's name, for its operators and for the normaliser.
        limits: What the converter's process may take.

    Raises:
        UsageError, TargetError: An unknown precision or target.
        MissingDependencyError: TensorFlow or LiteRT is not installed.
        DataError: The inputs are empty, not float32, or not finite.
        ModelError: No model is there, it cannot be loaded, it has several inputs, or TensorFlow fails or crashes on it.
        UnsupportedOperatorError: An operator that TFLite does not have, or not in int8; names the node.
        ParityError: A runtime's answers are not the model's.
    """
    chosen = targets.load(target)
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision '{precision}'", fix=f"use {' or '.join(PRECISIONS)}")
    if "tflite" not in chosen.integers:
        fix = "choose one that reads TFLite, such as rpi4"
        raise UnsupportedOperatorError(f"target '{chosen.name}' reads no TFLite", where=str(path), fix=fix)
    _check_model(path)
    _check_inputs(calibration, precision, str(path))
    if limits.memory_mib < LEAST_MIB:
        raise UsageError(f"{limits.memory_mib} MiB of memory", fix=f"TensorFlow alone needs {LEAST_MIB} MiB")
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingDependencyError("TensorFlow is not installed", where=str(path), fix=INSTALL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = _run(folder, path, calibration, precision, limits)
        inputs = np.load(folder / "checked.npy", allow_pickle=False)
        with np.load(folder / "reference.npz", allow_pickle=False) as archive:
            reference = {key: archive[key] for key in archive.files}
    fixed = normalise(operators.named(raw, where=str(path)), where=str(path), target=chosen)
    notes = operators.examine(fixed.data, chosen, precision, where=str(path)) + fixed.warnings
    if calibration is None:
        notes = (*notes, f"no calibration data: compared on {len(inputs)} random inputs")
    artefact = keras_check.artefact_of(fixed.data, precision=precision, target=chosen.name, where=str(path))
    artefact, checks = keras_check.measure(fixed.data, artefact, inputs, reference, where=str(path))
    return Converted(fixed.data, notes, fixed.changes, artefact, checks)


def _check_model(path: Path) -> None:
    """Refuse what is no Keras file before TensorFlow is started."""
    where = str(path)
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            fix = "give the folder that model.export(FOLDER) wrote, or a .keras file"
            raise ModelError("no SavedModel: saved_model.pb is missing", where=where, fix=fix)
        return
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=where) from error
    if start == _HDF5 or path.suffix in {".h5", ".hdf5"}:
        fix = "write it again: keras.models.load_model('x.h5').save('x.keras')"
        raise ModelError("HDF5 is Keras's old format, which loses layers on the way", where=where, fix=fix)
    if not start.startswith(b"PK\x03\x04") or path.suffix != ".keras":
        raise ModelError("no Keras file", where=where, fix="give a .keras file or a SavedModel folder")


def _check_inputs(calibration: Inputs | None, precision: str, where: str) -> None:
    if calibration is None:
        if precision == "int8":
            fix = "give --calibration data.npz with some hundred of the model's own inputs"
            raise DataError("int8 needs calibration data", where=where, fix=fix)
        return
    if calibration.dtype != np.float32:
        fix = "give the model's own inputs: preprocessed, float32, batch first"
        raise DataError(f"calibration data of type {calibration.dtype}", where=where, fix=fix)
    if calibration.ndim < 2 or not len(calibration):
        what = f"calibration data of shape {list(calibration.shape)}"
        raise DataError(what, where=where, fix="give one input or more, batch first")
    if not np.isfinite(calibration).all():
        raise DataError("calibration data with NaN or an infinity", where=where, fix="leave those inputs out")


def _run(folder: Path, path: Path, calibration: Inputs | None, precision: str, limits: Limits) -> bytes:
    """Run the child in a job folder and return TensorFlow's file; its other answers lie beside."""
    shape = None if calibration is None else list(calibration.shape[1:])
    job = {"model": str(path.resolve()), "precision": precision, "shape": shape, "memory_mib": limits.memory_mib}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    if calibration is not None:
        np.save(folder / "inputs.npy", calibration)
    command = [sys.executable, "-m", "export.keras.child", str(folder)]
    code: int | None = None
    # To a file, not a pipe: the converter may print whole models, and only the end is wanted.
    with (folder / "words.txt").open("wb") as words, contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            cwd=folder,  # not the caller's: a file named keras.py there would be taken for Keras
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            timeout=limits.timeout_s,
            check=False,
        )
        code = done.returncode
    file = folder / "model.tflite"
    if code == 0 and file.is_file():
        return file.read_bytes()
    ending = Ending(code, _end(folder / "words.txt"), folder, limits.timeout_s, limits.memory_mib)
    raise explain(ending, str(path))


def _environment(folder: Path) -> dict[str, str]:
    """A plain TensorFlow: no GPU, no messages, none of the person's own Keras settings, temporary files in the job."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(folder),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TMPDIR": str(folder),
    }


def _end(file: Path) -> str:
    data = file.read_bytes() if file.stat().st_size <= _WORDS else _tail(file)
    return data.decode("utf-8", "replace")


def _tail(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(-_WORDS, os.SEEK_END)
        return stream.read()
