# SPDX-License-Identifier: Apache-2.0
"""Run an artefact in a runtime, here or in another interpreter, and return its integers.

Some runtimes cannot share an environment with the workstation (tflite-runtime wants numpy below 2), so they are run by
``python -m edge_agent.runner.probe`` in a Python of their own: the same code path as on the device.
"""

import importlib.util
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.runtimes import open_session
from edge_agent.runner.tensors import encode, signed
from edge_contract import canonical
from edge_contract.errors import MissingDependencyError, RuntimeAdapterError, UsageError
from edge_contract.manifest import Artefact, TensorSpec
from export.runtimes.probes import ask, environment

__all__ = [
    "EXTERNAL_PYTHON",
    "FORMATS",
    "MODULES",
    "Execution",
    "available",
    "parse_pythons",
    "python_for",
    "run",
    "run_old",
]

EXTERNAL_PYTHON: Final = "STROP_TFLITE_PYTHON"
MODULES: Final = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "tflite-runtime": "tflite_runtime"}
FORMATS: Final = {"litert": "tflite", "onnxruntime": "onnx", "tflite-runtime": "tflite"}
_ROOT: Final = Path(__file__).resolve().parents[2]

_OLD_PROBE: Final = Path(__file__).with_name("old_probe.py")
_CODES: Final = ("int8", "uint8", "int16")

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Execution:
    """What one runtime answered.

    Attributes:
        runtime, version, delegate: Who computed; the three decide the integers.
        codes: Output → the plan's signed codes, int16 [N, K], whatever type the file has; an output that is no code has
            the file's own numbers.
        specs: Output → its description in the file, for ``values``.
        label: What tables call it; empty where the runtime's name says enough.
    """

    runtime: str
    version: str
    delegate: str
    codes: Mapping[str, Array]
    specs: Mapping[str, TensorSpec] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.label or self.runtime

    @property
    def title(self) -> str:
        """Name and version."""
        return self.name if self.version in self.name else f"{self.name} {self.version}"

    @cached_property
    def values(self) -> Mapping[str, NDArray[np.float32]]:
        """Output → real values, float32 [N, K]; of an output without a description its codes."""
        return {key: _real(codes, self.specs.get(key)) for key, codes in self.codes.items()}

    def digest(self, role: str = "logits") -> str:
        """Return the SHA-256 of an output's int8 codes: what a golden entry pins."""
        return canonical.digest(np.ascontiguousarray(self.codes[role].astype(np.int8)).tobytes())


def _real(codes: Array, spec: TensorSpec | None) -> NDArray[np.float32]:
    real: NDArray[np.float32] = codes.astype(np.float32)
    if spec is not None and spec.scale:
        real -= np.float32(spec.zero_point - (128 if spec.dtype == "uint8" else 0))  # the codes are signed
        real *= np.float32(spec.scale)
    return real


def parse_pythons(options: list[str]) -> dict[str, Path]:
    """Return runtime → interpreter of options such as ``tflite-runtime=/venv/bin/python``.

    Raises:
        UsageError: Not NAME=PATH, or an unknown runtime.
    """
    found: dict[str, Path] = {}
    for option in options:
        name, _, path = option.partition("=")
        if name not in MODULES or not path:
            fix = f"write NAME=PATH with NAME one of {', '.join(MODULES)}"
            raise UsageError(f"{option!r} names no interpreter", where="--runtime-python", fix=fix)
        found[name] = Path(path)
    return found


def _is_importable(runtime: str) -> bool:
    return importlib.util.find_spec(MODULES[runtime]) is not None


def python_for(runtime: str, pythons: Mapping[str, Path] | None = None) -> Path | None:
    """Return the interpreter that runs a runtime: None for this process.

    Order: the caller's choice; this process; for tflite-runtime ``$STROP_TFLITE_PYTHON``, then ``.venv-tflite`` in the
    working directory or beside the project.

    Raises:
        MissingDependencyError: There is none.
    """
    if pythons and runtime in pythons:
        return pythons[runtime]
    if runtime not in MODULES:
        raise UsageError(f"unknown runtime '{runtime}'", fix=f"use one of {', '.join(MODULES)}")
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
    for runtime, handled in FORMATS.items():
        if handled == format_name:
            try:
                python_for(runtime, pythons)
            except MissingDependencyError:
                continue
            found.append(runtime)
    return tuple(found)


def run(path: Path, artefact: Artefact, runtime: str, inputs: Array, python: Path | None = None) -> Execution:
    """Return what a runtime computes for model inputs float32 [N, ...].

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
    raw = {key: _stacked([answer[spec.name] for answer in answers], spec) for key, spec in artefact.keyed().items()}
    return _execution(artefact, raw, session.runtime, session.version, session.delegate)


def run_old(path: Path, artefact: Artefact, inputs: Array, command: Sequence[str]) -> Execution:
    """Return what a TFLite interpreter computes in a Python that is too old for the rest of Strop.

    Args:
        path, artefact, inputs: As for ``run``.
        command: Starts that Python.

    Raises:
        RuntimeAdapterError: It refuses the file, fails, or the file has not the outputs that are described.
        MissingDependencyError: It cannot be started.
        DataError: The inputs do not have the artefact's shape.
    """
    encoded = encode(artefact.input, np.ascontiguousarray(inputs, np.float32))
    where = f"{artefact.path} in {command[-1]}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A copy, because a script's own folder stands first on its path, and ours holds a keras.py.
        (folder / "probe.py").write_bytes(_OLD_PROBE.read_bytes())
        np.save(folder / "inputs.npy", encoded)
        words = [
            str(folder / "probe.py"),
            str(Path(path).resolve()),
            str(folder / "inputs.npy"),
            str(folder / "out.npz"),
        ]
        facts = ask([*command, *words], environment(), where=where)
        with np.load(folder / "out.npz", allow_pickle=False) as archive:
            found = {name: archive[str(i)] for i, name in enumerate(facts["outputs"])}
    raw = {key: _named(found, spec, len(encoded), where) for key, spec in artefact.keyed().items()}
    runtime = next(name for name, module in MODULES.items() if module == facts["package"])
    return _execution(artefact, raw, runtime, str(facts["version"]), str(facts["delegate"]))


def _named(found: Mapping[str, Array], spec: TensorSpec, count: int, where: str) -> Array:
    if spec.name not in found:
        raise RuntimeAdapterError(f"no output '{spec.name}'; the file has {', '.join(found)}", where=where)
    rows = found[spec.name].reshape(count, -1)
    if str(rows.dtype) != spec.dtype or (0 not in spec.shape and rows.shape[1] != int(np.prod(spec.shape[1:]))):
        told = f"{spec.dtype} {list(spec.shape)}"
        what = f"output '{spec.name}' is {rows.dtype} [{rows.shape[1]}] in the file, {told} by its word"
        raise RuntimeAdapterError(what, where=where, fix="export the artefact again")
    return rows


def _execution(artefact: Artefact, raw: Mapping[str, Array], runtime: str, version: str, delegate: str) -> Execution:
    specs = artefact.keyed()
    codes = {key: signed(v).astype(np.int16) if specs[key].dtype in _CODES else v for key, v in raw.items()}
    return Execution(runtime, version, delegate, codes, specs)


def _stacked(rows: list[Array], spec: TensorSpec) -> Array:
    if not rows:
        return np.zeros((0, int(np.prod(spec.shape[1:]))), spec.dtype)
    return np.stack([row.reshape(-1) for row in rows])


def _run_elsewhere(path: Path, artefact: Artefact, runtime: str, inputs: Array, python: Path) -> Execution:
    """Run the device's own code in another interpreter; it sees this copy of the code, never our packages."""
    where = f"runtime '{runtime}' in {python}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / artefact.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / artefact.path).write_bytes(Path(path).read_bytes())
        (folder / "artefact.json").write_bytes(canonical.dumps(artefact.to_json()))
        np.save(folder / "inputs.npy", np.ascontiguousarray(inputs, np.float32))
        words = ["--runtime", runtime, "--inputs", str(folder / "inputs.npy"), "--outputs", str(folder / "out.npz")]
        command = [str(python), "-m", "edge_agent.runner.probe", str(folder / "artefact.json"), *words]
        facts = ask(command, environment(PYTHONPATH=str(_ROOT)), where=where)
        with np.load(folder / "out.npz", allow_pickle=False) as archive:
            raw = {key: archive[key].reshape(len(inputs), math.prod(archive[key].shape[1:])) for key in archive.files}
    return _execution(artefact, raw, str(facts["runtime"]), str(facts["version"]), str(facts["delegate"]))
