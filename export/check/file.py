# SPDX-License-Identifier: Apache-2.0
"""Check any model file against a target before anything is shipped: format, operators, runtimes, memory, Edge TPU.

A refusal is something that cannot work on the target; a warning is something that works in part or with doubt.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import ModelError
from edge_contract.targets import Target
from export.check import runtimes as check_runtimes
from export.check.runtimes import RuntimeAnswer
from export.edgetpu import compiler, general, preflight
from export.edgetpu.compiler import Comparison, CompilerLog
from export.edgetpu.preflight import TpuReport
from export.inspection import inspect
from export.memory import onnx, prediction
from export.memory.prediction import MemoryReport
from export.tflite import reader
from export.tflite.model import Tensor, TFLiteModel

__all__ = ["CheckReport", "check_file"]

OPSET: Final = 21  # what our tests ran on every runtime


@dataclass(frozen=True)
class CheckReport:
    """What a target says of a model file.

    Attributes:
        file, format, size: The file.
        target: Name of the target.
        precision: ``int8``, ``float32``, ``mixed`` or other type words found in activations.
        operators: (name, version, count).
        runtimes: Per runtime that reads the format.
        memory: Predicted memory.
        tpu: The Edge TPU prediction; None without one.
        quantized: The same for a float model as if it were int8 already: what would then be left to change.
        log, comparison: The real compiler's answer where it is installed.
        refusals, warnings: In words.
    """

    file: str
    format: str
    size: int
    target: str
    precision: str
    operators: tuple[tuple[str, int, int], ...]
    runtimes: tuple[RuntimeAnswer, ...]
    memory: MemoryReport | None
    tpu: TpuReport | None
    quantized: TpuReport | None
    log: CompilerLog | None
    comparison: Comparison | None
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def is_refused(self) -> bool:
        """The target cannot use the file."""
        return bool(self.refusals)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "file": self.file,
            "format": self.format,
            "size": self.size,
            "target": self.target,
            "refused": self.is_refused,
            "refusals": list(self.refusals),
            "warnings": list(self.warnings),
            "precision": self.precision,
            "operators": [{"name": n, "version": v, "count": c} for n, v, c in self.operators],
            "runtimes": [runtime.to_json() for runtime in self.runtimes],
            "memory": self.memory.to_json() if self.memory else None,
            "edgetpu": self.tpu.to_json() if self.tpu else None,
            "edgetpu_if_quantized": self.quantized.to_json() if self.quantized else None,
            "compiler": self.log.to_json() if self.log else None,
            "agreement": self.comparison.to_json() if self.comparison else None,
        }


def check_file(path: Path, target: Target, *, runtime: int | None = None) -> CheckReport:
    """Check a ``.tflite`` or ``.onnx`` file against a target; nothing is run but the Edge TPU compiler, if it is there.

    Args:
        path: The file; its content decides what it is.
        target: The target.
        runtime: Number of an older Edge TPU runtime library to aim at.

    Raises:
        ModelError: The file cannot be read or is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if data[4:8] == b"TFL3":
        return _tflite(data, str(path), target, runtime)
    return _onnx(data, path, target)


def _tflite(data: bytes, where: str, target: Target, runtime: int | None) -> CheckReport:
    model = reader.read(data, where)
    used = prediction.predict(model)
    runtimes = check_runtimes.answers(model, target)
    tpu = preflight.check(model, target, runtime=runtime) if target.accelerator else None
    log = compiler.compile_model(data, runtime=runtime) if tpu else None
    comparison = compiler.compare(tpu.histogram(), log.rows) if tpu and log and log.rows else None
    refusals = [*_format_faults("tflite", target), *_memory_faults(used, target), *_runtime_faults(runtimes, tpu)]
    refusals += _tpu_faults(tpu, _precision(model))
    warnings = [*_runtime_doubts(runtimes), *_graph_doubts(model, target), *(tpu.doubts if tpu else ())]
    counts = Counter((operator.kind, operator.version) for operator in model.main.operators)
    operators = tuple((name, version, count) for (name, version), count in sorted(counts.items()))
    return CheckReport(
        where, "tflite", len(data), target.name, _precision(model), operators, runtimes, used, tpu,
        _if_quantized(model, target, runtime), log, comparison, tuple(refusals), tuple(warnings),
    )  # fmt: skip


def _precision(model: TFLiteModel) -> str:
    """What the operators that multiply compute in; of all activations where none does."""
    graph = model.main
    weighted = [o for o in graph.operators if o.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    kinds = {graph.tensors[o.inputs[0]].dtype for o in weighted or graph.operators if o.inputs and o.inputs[0] >= 0}
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "unknown"


def _if_quantized(model: TFLiteModel, target: Target, runtime: int | None) -> TpuReport | None:
    """Predict for a float model as if it were int8 with fixed sizes; None for one that is, or without an Edge TPU."""
    if target.accelerator is None or _precision(model) in general.MAPPED_TYPES:
        return None
    graph = model.main
    unpacked = prediction.kept(graph)  # weights kept as float16 or sparse would be int8 constants
    limit = 16 * model.size  # whatever sizes a hostile file claims
    tensors = tuple(_as_int8(tensor, limit, is_constant=tensor.index in unpacked) for tensor in graph.tensors)
    operators = tuple(o for o in graph.operators if not unpacked.issuperset(o.outputs))
    main = replace(graph, tensors=tensors, operators=operators)
    return preflight.check(replace(model, subgraphs=(main, *model.subgraphs[1:])), target, runtime=runtime)


def _as_int8(tensor: Tensor, limit: int, *, is_constant: bool) -> Tensor:
    """A float tensor as int8 of the same shape; a constant has a byte per element, at most ``limit``."""
    if not tensor.dtype.startswith(("float", "bfloat")):
        return replace(tensor, shape_signature=tensor.shape)
    data = bytes(min(tensor.elements, limit)) if is_constant or tensor.data is not None else None
    return replace(tensor, dtype="int8", shape_signature=tensor.shape, data=data)


def _format_faults(name: str, target: Target) -> list[str]:
    if name in target.integers:
        return []
    return [f"the target reads {', '.join(target.integers)}, not {name}: export that format"]


def _memory_faults(used: MemoryReport, target: Target) -> list[str]:
    limit = target.memory.model_kib * 1024
    if used.total_bytes <= limit:
        return []
    need = f"{used.total_bytes} bytes (weights {used.weights_bytes}, arena {used.arena_bytes})"
    at = f"most at operator {used.at_operator}, {used.peak_kind}"
    return [f"needs {need}, {at}; the target gives a model {limit} bytes: make the input smaller, or prune"]


def _runtime_faults(runtimes: tuple[RuntimeAnswer, ...], tpu: TpuReport | None) -> list[str]:
    """No runtime of the target reads the file (an accelerator's own runtime needs one for the rest of the graph)."""
    if not runtimes or any(answer.verdict != "no" for answer in runtimes):
        return []
    if tpu and not any(operator.verdict == "cpu" for operator in tpu.operators):
        return []
    return [f"no runtime reads it: {answer.name}: {answer.detail}" for answer in runtimes]


def _tpu_faults(tpu: TpuReport | None, precision: str) -> list[str]:
    if tpu is None:
        return []
    if tpu.faults:
        return [f"the Edge TPU compiler would refuse the file: {fault}" for fault in tpu.faults]
    cut = tpu.first_cut()
    if tpu.mapped == 0 and precision.startswith("float"):
        return [f"nothing would run on the Edge TPU: the model computes in {precision}; quantize it to int8"]
    if tpu.mapped == 0 and cut is not None:
        what = f"operator {cut.index} {cut.kind}: {cut.status} ({cut.detail})"
        return [f"nothing would run on the Edge TPU; first {what}" + (f": {cut.advice}" if cut.advice else "")]
    return []


def _runtime_doubts(runtimes: tuple[RuntimeAnswer, ...]) -> list[str]:
    words = {"from": "runs from", "wrong": "would be WRONG with some versions:", "no": "does not read it:"}
    return [f"{answer.name} {words[answer.verdict]} {answer.detail}" for answer in runtimes if answer.verdict in words]


def _graph_doubts(model: TFLiteModel, target: Target) -> list[str]:
    """What works but was not proven: operators that our tests do not run on the target, high ranks, float."""
    integers = target.integers.get("tflite")
    if integers is None:
        return []
    kinds = sorted({o.kind for o in model.main.operators if o.kind not in integers.operators and not o.is_custom})
    found = []
    if kinds and target.accelerator is None:
        found.append(f"not among the operators that Strop proves on this target: {', '.join(kinds)}")
    rank = max((len(tensor.shape) for tensor in model.main.tensors), default=0)
    if rank > integers.max_rank and target.accelerator is None:
        found.append(f"a tensor has rank {rank}, more than {integers.max_rank}")
    return found


def _onnx(data: bytes, path: Path, target: Target) -> CheckReport:
    facts = inspect.describe(path)
    refusals = _format_faults(facts.format, target)
    warnings: list[str] = []
    used = onnx.predict(data, str(path))
    refusals += _memory_faults(used, target)
    integers = target.integers.get("onnx")
    opset = max((version for _, version, _ in facts.operators), default=0)
    if opset > OPSET:
        warnings.append(f"opset {opset} is newer than {OPSET}, the newest that Strop proves")
    if integers is not None:
        unproven = sorted({name for name, _, _ in facts.operators if name not in integers.operators})
        if unproven:
            warnings.append(f"not among the operators that Strop proves on this target: {', '.join(unproven)}")
    chosen = [runtime for runtime in target.runtimes if "onnx" in runtime.formats]
    runtimes = tuple(RuntimeAnswer(r.name, f"{r.minimum} to below {r.below}", "runs", "") for r in chosen)
    names = {name for name, _, _ in facts.operators}
    precision = "int8" if "QuantizeLinear" in names else "float32"
    return CheckReport(
        str(path), facts.format, len(data), target.name, precision, facts.operators, runtimes, used,
        None, None, None, None, tuple(refusals), tuple(warnings),
    )  # fmt: skip
