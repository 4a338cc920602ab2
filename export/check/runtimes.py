# SPDX-License-Identifier: Apache-2.0
"""Which versions of a target's runtimes read a TFLite file, and which of them would compute nonsense silently.

The first is a matter of operator versions (``operator_versions``). The second are four traps of real runtimes, found
by running files on them (docs/quantization.md); a file that steps into one is not refused by the runtime, only here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.targets import RuntimeRange, Target
from export.check.versions import LITERT_RELEASE, first_release, numbers, reads
from export.tflite.model import Operator, Subgraph, TFLiteModel

__all__ = ["RuntimeAnswer", "answers"]

_WEIGHTED: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Custom operators that every Python wheel of TFLite and LiteRT registers.
_KNOWN_CUSTOM: Final = ("AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess")
_HONEST_HYBRID: Final = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}


@dataclass(frozen=True)
class RuntimeAnswer:
    """What becomes of a file in one runtime.

    Attributes:
        name: Such as ``litert``.
        versions: The versions that the target claims, as people write them.
        verdict: ``runs``, ``from`` (newer versions of the claimed ones alone), ``wrong`` (silently, in some) or ``no``.
        detail: Since when, and why.
    """

    name: str
    versions: str
    verdict: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"runtime": self.name, "versions": self.versions, "verdict": self.verdict, "detail": self.detail}


def answers(model: TFLiteModel, target: Target) -> tuple[RuntimeAnswer, ...]:
    """Return an answer for each runtime of the target that reads TFLite, but the accelerator's."""
    chosen = (runtime for runtime in target.runtimes if "tflite" in runtime.formats and runtime.name != "edgetpu")
    return tuple(_answer(model, runtime) for runtime in chosen)


def _answer(model: TFLiteModel, runtime: RuntimeRange) -> RuntimeAnswer:
    versions = f"{runtime.minimum} to below {runtime.below}"
    custom = sorted({o.kind for o in model.main.operators if o.is_custom and o.kind not in _KNOWN_CUSTOM})
    if custom:
        return RuntimeAnswer(runtime.name, versions, "no", f"custom operator {', '.join(custom)}")
    if runtime.name == "litert":
        return _litert(model, versions, runtime.name)
    if any(_types(operator, model.main)[:2] == ("int8", "int4") for operator in model.main.operators):
        return RuntimeAnswer(runtime.name, versions, "no", "4-bit weights: up to 2.14 it refuses them")
    needed, operator = _needed(model.main)
    if numbers(needed) >= numbers(runtime.below):
        return RuntimeAnswer(runtime.name, versions, "no", f"{operator} came with TFLite {needed}")
    traps = [text for until, text in _traps(model.main) if numbers(until) > numbers(runtime.minimum)]
    if traps:
        return RuntimeAnswer(runtime.name, versions, "wrong", "; ".join(traps))
    if numbers(needed) > numbers(runtime.minimum):
        return RuntimeAnswer(runtime.name, versions, "from", f"{needed} on, because of {operator}")
    return RuntimeAnswer(runtime.name, versions, "runs", "")


def _litert(model: TFLiteModel, versions: str, name: str) -> RuntimeAnswer:
    newer = next((o for o in model.main.operators if not reads(LITERT_RELEASE, o.kind, o.version)), None)
    if newer is None:
        return RuntimeAnswer(name, versions, "runs", "")
    return RuntimeAnswer(name, versions, "no", f"{newer.kind} version {newer.version} is newer than its operators")


def _needed(graph: Subgraph) -> tuple[str, str]:
    """Return the first TFLite release that reads every operator, and the operator that asks for it."""
    needed, name = "1.5", ""
    for operator in graph.operators:
        release = first_release(operator.kind, operator.version)
        if release is None and not reads("99", operator.kind, operator.version):
            release = "99"
        if release is not None and numbers(release) > numbers(needed):
            needed, name = release, f"{operator.kind} version {operator.version}"
    return needed, name


def _traps(graph: Subgraph) -> Iterator[tuple[str, str]]:
    """Yield (first release without the trap, what happens before it)."""
    if any(_is_per_channel_linear(operator, graph) for operator in graph.operators):
        yield "2.10", "per-channel FULLY_CONNECTED: constant output, with no error, before 2.10"
    if any(_is_dishonest_hybrid(operator, graph) for operator in graph.operators):
        yield "2.15", "float activations with int8 weights under an old operator version: nonsense, with no error"
    if any(tensor.is_external for tensor in graph.tensors):
        yield "2.14", "constants outside the flatbuffer: 'lacks data' before 2.14"


def _types(operator: Operator, graph: Subgraph) -> tuple[str, str, int]:
    """Types of activation and weights, and the number of weight scales."""
    if len(operator.inputs) < 2 or min(operator.inputs[:2]) < 0:
        return "", "", 0
    source, weights = graph.tensors[operator.inputs[0]], graph.tensors[operator.inputs[1]]
    return source.dtype, weights.dtype, len(weights.scales)


def _is_per_channel_linear(operator: Operator, graph: Subgraph) -> bool:
    source, weights, scales = _types(operator, graph)
    return operator.kind == "FULLY_CONNECTED" and (source, weights) == ("int8", "int8") and scales > 1


def _is_dishonest_hybrid(operator: Operator, graph: Subgraph) -> bool:
    if operator.kind not in _WEIGHTED:
        return False
    source, weights, scales = _types(operator, graph)
    is_hybrid = source == "float32" and weights == "int8" and scales > 1
    return is_hybrid and operator.version < _HONEST_HYBRID[operator.kind]
