# SPDX-License-Identifier: Apache-2.0
"""Is an ONNX file in ONNX Runtime what the module is in torch? Only then it is put where it was wanted."""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError, ModelError, ParityError
from export.module.faults import first_line
from export.module.trace import Evidence, missing
from export.parity.fidelity import FLOAT, INT8, Fidelity, Limits, compare

__all__ = ["LIMITS", "SIMULATED", "FloatOnnx", "drafted", "judged", "placed", "save"]

LIMITS: Final = {
    **dict.fromkeys(("float32", "weight-only-int8", "weight-only-int4"), FLOAT),
    "float16": Limits(relative_error=0.01, explained=0.99, drop=FLOAT.drop),
    "dynamic-int8": Limits(relative_error=0.1, explained=0.8, drop=INT8.drop),
}
"""What is wrong rather than coarse: float measured relative errors of 1e-7 to 2e-5, float16 with a folded BatchNorm
.0002, dynamic int8 .0002 to .013."""

SIMULATED: Final = Limits(relative_error=0.02, explained=0.98, drop=1.0, negligible=1e-6)
"""Dynamic int8 against its simulation: measured 0 to 1e-7; one activation that rounds the other way costs .0005."""

_ERRORS_ONLY: Final = 3


@dataclass(frozen=True)
class FloatOnnx:
    """A finished ONNX file.

    Attributes:
        path: The file; its weights may lie in ``<name>.data`` beside it.
        precision: ``float32``, or ``dynamic-int8``: float input and output, int8 weights.
        opset: Of the default domain.
        size: Bytes, weights beside it included.
        operators: Name → count.
        inputs, outputs: Name → shape; 0 is the free batch.
        fidelity: Output name → its answers in ONNX Runtime against torch's.
        notes: What a person should know.
    """

    path: Path
    precision: str
    opset: int
    size: int
    operators: dict[str, int]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    fidelity: dict[str, Fidelity]
    notes: tuple[str, ...]

    @property
    def has_free_batch(self) -> bool:
        """Every input takes any batch."""
        return all(shape[0] == 0 for shape in self.inputs.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "precision": self.precision,
            "opset": self.opset,
            "size": self.size,
            "operators": self.operators,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "outputs": {name: list(shape) for name, shape in self.outputs.items()},
            "fidelity": {name: found.to_json() for name, found in self.fidelity.items()},
            "notes": list(self.notes),
        }


@contextlib.contextmanager
def drafted(out: Path) -> Iterator[Path]:
    """Give a path for a draft in a folder of its own beside ``out``, so that a finished file only moves.

    Raises:
        DataError: There is no such folder, or it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=out.parent) as folder:
            yield Path(folder) / out.name
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=str(out), fix="make its folder") from error


def save(proto: Any, path: Path, external_bytes: int) -> None:
    """Write a model; weights of more than ``external_bytes`` in all go into ``<name>.data`` beside it."""
    import onnx

    if sum(tensor.ByteSize() for tensor in proto.graph.initializer) <= external_bytes:
        onnx.save_model(proto, str(path))
        return
    onnx.save_model(
        proto,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=_data(path).name,
        size_threshold=1024,
    )


def _data(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def judged(path: Path, precision: str, evidence: Evidence, *, limits: Limits | None = None) -> FloatOnnx:
    """Run a file in ONNX Runtime and return what it is; ``limits`` are the precision's by default.

    Raises:
        ParityError: It answers otherwise than torch.
        ModelError: ONNX Runtime refuses it.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    import onnx

    facts = onnx.load_model(str(path), load_external_data=False)
    names = [value.name for value in facts.graph.output]
    found = _run(path, evidence)
    fidelity = {name: _compared(name, a, b) for name, a, b in zip(names, evidence.answers, found, strict=True)}
    for name, one in fidelity.items():
        broken = (limits or LIMITS[precision]).broken(one)
        if broken:
            what = f"output '{name}' in ONNX Runtime is not torch's: {broken}"
            fix = "ship the float file" if precision != "float32" else "give another --opset"
            raise ParityError(what, where=path.name, fix=fix)
    opset = next(entry.version for entry in facts.opset_import if not entry.domain)
    size = sum(file.stat().st_size for file in (path, _data(path)) if file.exists())
    operators = dict(sorted(Counter(node.op_type for node in facts.graph.node).items()))
    shapes = _shapes(facts.graph.input), _shapes(facts.graph.output)
    return FloatOnnx(path, precision, opset, size, operators, *shapes, fidelity, ())


def _shapes(values: Any) -> dict[str, tuple[int, ...]]:
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}


def _compared(name: str, reference: NDArray[Any], answer: NDArray[Any]) -> Fidelity:
    if reference.shape != answer.shape:
        what = f"output '{name}' has shape {list(answer.shape)}, torch's {list(reference.shape)}"
        raise ParityError(what, fix="use no size that depends on data")
    return compare(reference, answer, where=f"output '{name}'")


def _run(path: Path, evidence: Evidence) -> list[NDArray[Any]]:
    """Return ONNX Runtime's outputs [N, ...]."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise missing(error) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    arrays = [tensor.cpu().numpy() for tensor in evidence.inputs]
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]
        rows = [session.run(None, {n: a[g] for n, a in zip(names, arrays, strict=True)}) for g in _groups(evidence)]
    except Exception as error:  # its errors share no base class
        what = f"onnxruntime {ort.__version__} refuses it: {first_line(error)}"
        raise ModelError(what, where=path.name, fix="give another --opset") from error
    return [np.concatenate([row[i] for row in rows]) for i in range(len(rows[0]))]


def _groups(evidence: Evidence) -> list[slice]:
    """One half as a batch, the others one by one: a batch size that was baked in, or a mixing of rows, shows."""
    count = len(evidence.inputs[0])
    together = (count + 1) // 2 if evidence.batched else 0
    first = [slice(0, together)] if together else []
    return first + [slice(i, i + 1) for i in range(together, count)]


def placed(made: FloatOnnx, out: Path) -> FloatOnnx:
    """Move a proven file, and the weights beside it, to where they were wanted."""
    data = _data(made.path)
    if data.exists():
        data.chmod(made.path.stat().st_mode)  # onnx makes it for its owner alone
        data.replace(_data(out))
    else:
        _data(out).unlink(missing_ok=True)  # of an earlier export
    made.path.replace(out)
    return replace(made, path=out)
