# SPDX-License-Identifier: Apache-2.0
"""Run an artefact in a runtime, here or in another interpreter, and return its integers.

Some runtimes cannot share an environment with the workstation (tflite-runtime wants numpy below 2), so they are run by
``python -m edge_agent.runner.probe`` in a Python of their own: the same code path as on the device.
"""

import importlib.util
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.runtimes import open_session
from edge_agent.runner.tensors import encode, signed
from edge_contract import canonical
from edge_contract.errors import MissingDependencyError, RuntimeAdapterError, UsageError
from edge_contract.manifest import Artefact

__all__ = ["EXTERNAL_PYTHON", "Execution", "available", "parse_pythons", "python_for", "run"]

EXTERNAL_PYTHON: Final = "STROP_TFLITE_PYTHON"
_MODULES: Final = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "tflite-runtime": "tflite_runtime"}
_FORMATS: Final = {"litert": "tflite", "onnxruntime": "onnx", "tflite-runtime": "tflite"}
_TIMEOUT_S: Final = 600
_ROOT: Final = Path(__file__).resolve().parents[1]

Codes = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Execution:
    """What one runtime answered.

    Attributes:
        runtime, version, delegate: Who computed; the three decide the integers.
        codes: Role → the plan's signed codes [N, ...], whatever type the file has.
    """

    runtime: str
    version: str
    delegate: str
    codes: Mapping[str, Codes]

    def digest(self, role: str = "logits") -> str:
        """Return the SHA-256 of an output's int8 codes: what a golden entry pins."""
        return canonical.digest(np.ascontiguousarray(self.codes[role].astype(np.int8)).tobytes())


def parse_pythons(options: list[str]) -> dict[str, Path]:
    """Return runtime → interpreter of options such as ``tflite-runtime=/venv/bin/python``.

    Raises:
        UsageError: Not NAME=PATH, or an unknown runtime.
    """
    found: dict[str, Path] = {}
    for option in options:
        name, _, path = option.partition("=")
        if name not in _MODULES or not path:
            fix = f"write NAME=PATH with NAME one of {', '.join(_MODULES)}"
            raise UsageError(f"{option!r} names no interpreter", where="--runtime-python", fix=fix)
        found[name] = Path(path)
    return found


def _is_importable(runtime: str) -> bool:
    return importlib.util.find_spec(_MODULES[runtime]) is not None


def python_for(runtime: str, pythons: Mapping[str, Path] | None = None) -> Path | None:
    """Return the interpreter that runs a runtime: None for this process.

    Order: the caller's choice; this process; for tflite-runtime ``$STROP_TFLITE_PYTHON``, then ``.venv-tflite`` in the
    working directory or beside the project.

    Raises:
        MissingDependencyError: There is none.
    """
    if pythons and runtime in pythons:
        return pythons[runtime]
    if runtime not in _MODULES:
        raise UsageError(f"unknown runtime '{runtime}'", fix=f"use one of {', '.join(_MODULES)}")
    if _is_importable(runtime):
        return None
    named = os.environ.get(EXTERNAL_PYTHON)
    places = [Path(named)] if named else [base / ".venv-tflite/bin/python" for base in (Path.cwd(), _ROOT)]
    if runtime == "tflite-runtime":
        for place in places:
            if place.exists():
                return place
    fix = f"install it, or give --runtime-python {runtime}=PATH to a Python that has it"
    raise MissingDependencyError(f"runtime '{runtime}' is not installed", fix=fix)


def available(format_name: str, pythons: Mapping[str, Path] | None = None) -> tuple[str, ...]:
    """Return the runtimes of a file format that can be run from here."""
    found = []
    for runtime, handled in _FORMATS.items():
        if handled == format_name:
            try:
                python_for(runtime, pythons)
            except MissingDependencyError:
                continue
            found.append(runtime)
    return tuple(found)


def run(path: Path, artefact: Artefact, runtime: str, inputs: NDArray[Any], python: Path | None = None) -> Execution:
    """Return what a runtime computes for model inputs float32 [N, h, w, c].

    Args:
        path: The model file.
        artefact: Its description.
        runtime: One of ``litert``, ``onnxruntime``, ``tflite-runtime``.
        inputs: Preprocessed inputs, channels last whatever the artefact's layout.
        python: Another interpreter that has the runtime; None for this process.

    Raises:
        RuntimeAdapterError: The runtime refuses the file, fails, or has other tensors than described.
        MissingDependencyError: The runtime is not installed.
        DataError: The inputs do not have the artefact's shape.
    """
    if python is not None:
        return _run_elsewhere(path, artefact, runtime, inputs, python)
    session = open_session(Path(path), artefact, runtime)
    encoded = encode(artefact.input, np.ascontiguousarray(inputs, np.float32))
    # One by one, as the device does: a TFLite file has batch 1.
    answers = [session.run(encoded[i : i + 1]) for i in range(len(encoded))]
    codes = {spec.role: _stacked([answer[spec.name] for answer in answers], spec.shape) for spec in artefact.outputs}
    return Execution(session.runtime, session.version, session.delegate, codes)


def _stacked(rows: list[NDArray[Any]], shape: tuple[int, ...]) -> Codes:
    if not rows:
        return np.zeros((0, int(np.prod(shape[1:]))), np.int16)
    return np.stack([signed(row).reshape(-1).astype(np.int16) for row in rows])


def _run_elsewhere(path: Path, artefact: Artefact, runtime: str, inputs: NDArray[Any], python: Path) -> Execution:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / artefact.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / artefact.path).write_bytes(Path(path).read_bytes())
        (folder / "artefact.json").write_bytes(canonical.dumps(artefact.to_json()))
        np.save(folder / "inputs.npy", np.ascontiguousarray(inputs, np.float32))
        words = ["--runtime", runtime, "--inputs", str(folder / "inputs.npy"), "--outputs", str(folder / "out.npz")]
        facts = _probe(python, [str(folder / "artefact.json"), *words], runtime)
        with np.load(folder / "out.npz", allow_pickle=False) as archive:
            codes = {role: signed(archive[role]).astype(np.int16) for role in archive.files}
    return Execution(str(facts["runtime"]), str(facts["version"]), str(facts["delegate"]), codes)


def _probe(python: Path, words: list[str], runtime: str) -> dict[str, Any]:
    """Run the probe in another interpreter; it sees this copy of the code, never this environment's packages."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "VIRTUAL_ENV")}
    environment["PYTHONPATH"] = str(_ROOT)
    command = [str(python), "-m", "edge_agent.runner.probe", *words]
    where = f"runtime '{runtime}' in {python}"
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except OSError as error:
        raise MissingDependencyError(f"cannot be started ({error.strerror})", where=where) from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeAdapterError(f"gave no answer in {_TIMEOUT_S} s", where=where) from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = [line for line in done.stderr.strip().splitlines() if line]
        reason = said[-1].removeprefix("error: ") if said else f"exit code {done.returncode}"
        raise RuntimeAdapterError(reason[:500], where=where, fix="run the same command by hand")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
