# SPDX-License-Identifier: Apache-2.0
"""Say what is in a model file without running it: operators with versions, inputs, outputs, the plan's digest."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_contract.errors import MissingDependencyError, ModelError, UnsupportedOperatorError
from edge_contract.targets import Target
from export.onnx_writer import PLAN_KEY

__all__ = ["ModelFacts", "check_operators", "describe"]


@dataclass(frozen=True)
class ModelFacts:
    """What a model file says of itself.

    Attributes:
        format: ``onnx`` or ``tflite``.
        size: Bytes.
        plan_digest: Digest of the plan that it was written from; empty if not by us.
        operators: (name, version, count); for ONNX the version is that of the operator set.
        inputs, outputs: Name → (type, shape); a free dimension is 0.
    """

    format: str
    size: int
    plan_digest: str
    operators: tuple[tuple[str, int, int], ...]
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: dict[str, tuple[str, tuple[int, ...]]]

    def to_json(self) -> dict[str, Any]:
        def tensors(found: dict[str, tuple[str, tuple[int, ...]]]) -> list[dict[str, Any]]:
            return [{"name": name, "dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in found.items()]

        operators = [{"name": name, "version": version, "count": count} for name, version, count in self.operators]
        return {
            "format": self.format,
            "size": self.size,
            "plan": self.plan_digest,
            "operators": operators,
            "inputs": tensors(self.inputs),
            "outputs": tensors(self.outputs),
        }


def describe(path: Path) -> ModelFacts:
    """Return what a ``.onnx`` or ``.tflite`` file holds.

    Raises:
        ModelError: It cannot be read, or is neither.
        MissingDependencyError: The package that reads it is not installed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path)) from error
    try:
        return _tflite(data) if data[4:8] == b"TFL3" else _onnx(data)
    except ImportError as error:
        fix = 'pip install "strop[workstation]"'
        raise MissingDependencyError(f"the package '{error.name}' is not installed", fix=fix) from error
    except Exception as error:  # a damaged file fails anywhere inside protobuf or flatbuffers
        what = f"not a model file: {type(error).__name__}"
        raise ModelError(what, where=str(path), fix="give an .onnx or .tflite file") from error


def _onnx(data: bytes) -> ModelFacts:
    import onnx

    model = onnx.load_model_from_string(data)
    if not model.graph.node:
        raise ValueError("no operator")
    opset = {entry.domain: entry.version for entry in model.opset_import}
    counts = Counter((node.op_type, opset.get(node.domain, 0)) for node in model.graph.node)
    digest = next((entry.value for entry in model.metadata_props if entry.key == PLAN_KEY), "")

    def tensors(infos: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
        found = {}
        for info in infos:
            kind = info.type.tensor_type
            name = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
            found[info.name] = (name, tuple(dim.dim_value for dim in kind.shape.dim))
        return found

    operators = tuple((name, version, count) for (name, version), count in sorted(counts.items()))
    return ModelFacts("onnx", len(data), digest, operators, tensors(model.graph.input), tensors(model.graph.output))


def _tflite(data: bytes) -> ModelFacts:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    graph = model.subgraphs[0]
    codes = [(_spelling(schema.BuiltinOperator, c.builtinCode), int(c.version)) for c in model.operatorCodes]
    counts = Counter(codes[operator.opcodeIndex] for operator in graph.operators)

    def tensors(indices: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
        chosen = [graph.tensors[index] for index in indices]
        return {
            _text(t.name): (_spelling(schema.TensorType, t.type).lower(), tuple(int(n) for n in t.shape))
            for t in chosen
        }

    operators = tuple((name, version, count) for (name, version), count in sorted(counts.items()))
    digest = _plan_digest(model)
    return ModelFacts("tflite", len(data), digest, operators, tensors(graph.inputs), tensors(graph.outputs))


def _plan_digest(model: Any) -> str:
    for entry in model.metadata or []:
        if _text(entry.name) == PLAN_KEY:
            document = json.loads(bytes(model.buffers[entry.buffer].data))
            return str(document.get("digest", ""))
    return ""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _spelling(enumeration: Any, number: int) -> str:
    return next((name for name, value in vars(enumeration).items() if value == number), str(number))


def check_operators(facts: ModelFacts, target: Target, *, where: str) -> None:
    """Refuse a file with an operator, or a version of one, that a target does not have.

    Raises:
        UnsupportedOperatorError: Names the operator and the target.
    """
    if facts.format not in target.integers:
        known = ", ".join(target.integers)
        raise UnsupportedOperatorError(f"target '{target.name}' reads {known}", where=where, fix="export that format")
    allowed = target.integers[facts.format].operators
    for name, version, _ in facts.operators:
        # An ONNX file has one opset for all its operators; the target lists each operator's own last change.
        if name not in allowed or (facts.format == "tflite" and version > allowed[name]):
            what = f"operator {name} version {version} is not on target '{target.name}'"
            raise UnsupportedOperatorError(what, where=where, fix="rewrite the layer or choose another target")
