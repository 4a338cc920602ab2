# SPDX-License-Identifier: Apache-2.0
"""Does a TFLite file that TensorFlow made answer as the model does, in every TFLite runtime at hand?"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import MissingDependencyError, ParityError
from edge_contract.manifest import Artefact, TensorSpec
from export.keras.faults import FLOAT_INSTEAD
from export.parity.fidelity import FLOAT, INT8, Fidelity, compare
from export.runtimes import execution
from export.tflite.reader import Tensor, read

__all__ = ["Check", "artefact_of", "measure"]

_LAYOUTS: Final = {4: "NHWC", 3: "NWC"}
_LIMITS: Final = {"int8": INT8, "float32": FLOAT}


@dataclass(frozen=True)
class Check:
    """How one runtime answered.

    Attributes:
        runtime, version, delegate: Who computed.
        output: Name of the output.
        fidelity: Its answers against the model's own float answers.
    """

    runtime: str
    version: str
    delegate: str
    output: str
    fidelity: Fidelity

    def to_json(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "version": self.version,
            "delegate": self.delegate,
            "output": self.output,
            "fidelity": self.fidelity.to_json(),
        }

    def __str__(self) -> str:
        return f"{self.runtime} {self.version}: {self.output}: {self.fidelity}"


def artefact_of(data: bytes, *, precision: str, target: str, where: str) -> Artefact:
    """Return the description of a TFLite file of one input: what the manifest of a bundle says of it.

    Every output has the role ``output``: a file does not tell logits from other numbers.

    Raises:
        ModelError: The file is damaged.
    """
    graph = read(data, where).main
    source = _spec(graph.tensors[graph.inputs[0]], "input")
    outputs = tuple(_spec(graph.tensors[index], "output") for index in graph.outputs)
    return Artefact("model.tflite", "tflite", (), target, precision, "", source, outputs)


def _spec(tensor: Tensor, role: str) -> TensorSpec:
    layout = _LAYOUTS.get(len(tensor.shape), "NC")
    scale, zero = (tensor.scales[0], tensor.zero_points[0]) if tensor.scales else (0.0, 0)
    return TensorSpec(tensor.name, role, tensor.shape, tensor.dtype, layout, scale, zero)


def measure(
    data: bytes, artefact: Artefact, inputs: NDArray[np.float32], reference: Mapping[str, NDArray[Any]], *, where: str
) -> tuple[Artefact, tuple[Check, ...]]:
    """Run a file in LiteRT, and in tflite-runtime where it is installed; compare it with the model's own answers.

    Args:
        data: The file.
        artefact: Its description.
        inputs: float32 [N, ...].
        reference: Output name → the model's float answers [N, ...].
        where: The model's path, for errors.

    Returns:
        The description with the runtimes that ran the file, and what each answered.

    Raises:
        MissingDependencyError: LiteRT is not installed.
        ParityError: A runtime's answers are too far from the model's.
        RuntimeAdapterError: A runtime refuses the file.
    """
    names = execution.available("tflite")
    if "litert" not in names:
        fix = 'pip install "strop[workstation]"'
        raise MissingDependencyError("LiteRT is not installed, so the file cannot be checked", where=where, fix=fix)
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / artefact.path
        path.write_bytes(data)
        for name in names:
            found = execution.run(path, artefact, name, inputs, execution.python_for(name))
            checks += _checks(found, artefact, reference)
    for check in checks:
        _judge(check, artefact.precision, where)
    return replace(artefact, runtimes=names), tuple(checks)


def _checks(found: execution.Execution, artefact: Artefact, reference: Mapping[str, NDArray[Any]]) -> list[Check]:
    who = found.runtime, found.version, found.delegate
    return [
        Check(*who, spec.name, compare(reference[spec.name], _like(found.values[key], reference[spec.name])))
        for key, spec in artefact.keyed().items()
    ]


def _like(answer: NDArray[Any], reference: NDArray[Any]) -> NDArray[Any]:
    """A runtime's answers come flat, [N, K]."""
    return answer.reshape(reference.shape) if answer.size == reference.size else answer


def _judge(check: Check, precision: str, where: str) -> None:
    broken = _LIMITS[precision].broken(check.fidelity)
    if broken:
        what = f"output '{check.output}' is wrong in {check.runtime} {check.version}: {broken}"
        raise ParityError(what, where=where, fix=f"give calibration data like the real inputs, or {FLOAT_INSTEAD}")
