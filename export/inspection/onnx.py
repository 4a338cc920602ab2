# SPDX-License-Identifier: Apache-2.0
"""The facts of an ONNX file, from ``export.onnx.reader``'s safe reading of it."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.inspection.facts import ModelFacts, Scales, Weight
from export.onnx.constant import Constant
from export.onnx.model import OnnxGraph, OnnxModel, OnnxNode, OnnxValue
from export.onnx.writer import PLAN_KEY

__all__ = ["constants", "facts", "places"]

_EDGES: Final = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_REAL: Final = ("float32", "float16", "float64", "bfloat16")
_ABSORBED: Final = ("Relu", "Clip")  # a QuantizeLinear behind them saturates alike, and the runtime drops them
_MOST_ABSORBED: Final = 2
_INTEGERS: Final = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger")  # by name, they stay integer
_BOOLEANS_AND_SIZES: Final = ("Shape", "Size", "Equal", "Less", "Greater", "NonZero", "Not", "And", "Or")
# Operator → where its operands stand, each as tensor, scale, zero point; and where those of its result do.
_OPERANDS: Final[dict[str, tuple[tuple[int, ...], int | None]]] = {
    "QuantizeLinear": ((), 1), "DequantizeLinear": ((0,), None),
    "QLinearConv": ((0, 3), 6), "QLinearMatMul": ((0, 3), 6), "QGemm": ((0, 3), 7),
    "QLinearAdd": ((0, 3), 6), "QLinearMul": ((0, 3), 6),
    "QLinearSigmoid": ((0,), 3), "QLinearLeakyRelu": ((0,), 3), "QLinearSoftmax": ((0,), 3),
    "QLinearGlobalAveragePool": ((0,), 3), "QLinearAveragePool": ((0,), 3),
    "QLinearConcat": ((2, 5, 8, 11), 0),
}  # fmt: skip
_NOWHERE: Final = OnnxNode("", "", "", (), (), {})
_SCALES_BYTES: Final = 1 << 20  # of one tensor's scales; the widest layers have some thousand channels


def facts(model: OnnxModel) -> ModelFacts:
    """Return what the file says of itself; operators inside control flow and functions count too."""
    nodes = [*model.graph.everywhere(), *model.functions]
    counts = Counter((_spelling(node), model.opsets.get(node.domain, 0)) for node in nodes)
    held = [*model.graph.constants.values(), *(constant for _, constant in _inline(model.graph))]
    return ModelFacts(
        "onnx",
        model.size,
        model.metadata.get(PLAN_KEY, ""),
        tuple((name, version, count) for (name, version), count in sorted(counts.items())),
        _named(model.graph.inputs),
        _named(model.graph.outputs),
        tuple(sorted({_spelling(node) for node in nodes if node.domain})),
        tuple(sorted(Counter(_spelling(node) for node in _Types(model.graph).real_nodes()).items())),
        tuple(Weight(constant.name, constant.dtype, constant.shape, constant.size) for constant in held),
        tuple(_scales(model.graph)),
        tuple(sorted(model.metadata.items())),
        model.outside,
        tuple(_makers(model.graph)),
    )


def _makers(graph: OnnxGraph) -> Iterator[tuple[str, str]]:
    writer = {name: node for node in graph.nodes for name in node.outputs}
    for value in graph.outputs:
        node = writer.get(value.name)
        if node is not None and node.kind in _EDGES and node.inputs:
            node = writer.get(node.inputs[0], node)
        if node is not None:
            yield value.name, _spelling(node)


def _spelling(node: OnnxNode) -> str:
    return f"{node.domain}.{node.kind}" if node.domain else node.kind


def _named(values: tuple[OnnxValue, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {value.name: (value.dtype, value.shape) for value in values}


def _inline(graph: OnnxGraph) -> Iterator[tuple[str, Constant]]:
    """Yield what Constant nodes hold, under the name of their output."""
    for node in graph.nodes:
        value = node.attributes.get("value")
        if node.kind == "Constant" and isinstance(value, Constant) and node.outputs:
            yield node.outputs[0], value


def constants(model: OnnxModel) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield (name, numbers) of every constant; raises ModelError when one is not what its shape says."""
    for name, constant in [*model.graph.constants.items(), *_inline(model.graph)]:
        yield name, constant.array()


def places(model: OnnxModel) -> dict[str, str]:
    """Return tensor → the node that reads it first (a constant; behind its DequantizeLinear) or that writes it."""
    graph, first = model.graph, dict[str, tuple[int, OnnxNode]]()
    found: dict[str, str] = {}
    for number, node in enumerate(graph.nodes):
        found.update((name, f"{_spelling(node)} {number}") for name in node.outputs)
        for name in node.inputs:
            first.setdefault(name, (number, node))
    for name in [*graph.constants, *(name for name, _ in _inline(graph))]:
        number, node = first.get(name, (-1, _NOWHERE))
        if node.kind == "DequantizeLinear" and node.outputs:
            number, node = first.get(node.outputs[0], (number, node))
        found[name] = f"{_spelling(node)} {number}" if number >= 0 else ""
    return found


def _scales(graph: OnnxGraph) -> Iterator[Scales]:
    """Yield each tensor whose scale the nodes name, once."""
    held, seen = {**graph.constants, **dict(_inline(graph))}, set[str]()
    for node in graph.nodes:
        for name, scale, zero in _quantized(node):
            steps = held.get(scale)
            if name in seen or steps is None or not 0 < steps.size <= _SCALES_BYTES:
                continue
            seen.add(name)
            with np.errstate(invalid="ignore"):  # a signalling NaN in a damaged file
                values = steps.array().astype(np.float64).reshape(-1)
            is_known = zero in held and held[zero].size <= _SCALES_BYTES
            zeros = held[zero].array().astype(np.int64).reshape(-1) if is_known else np.zeros(1, np.int64)
            axis = node.attributes.get("axis", 1 if node.kind in _EDGES else 0) if len(values) > 1 else None
            kind = held[zero].dtype if zero in held else "uint8"
            yield Scales(name, kind, name in held, tuple(values.tolist()), tuple(zeros.tolist()), axis)


def _quantized(node: OnnxNode) -> Iterator[tuple[str, str, str]]:
    """Yield (tensor, scale, zero point) of every quantized tensor of a node, by their names."""
    inputs = (*node.inputs, "", "")
    if node.kind in _OPERANDS and node.outputs:
        operands, result = _OPERANDS[node.kind]
        for place in operands:
            yield from _triples(inputs[place : place + 3])
        yield from _triples((node.outputs[0], *inputs[result : result + 2]) if result is not None else ())


def _triples(names: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    if len(names) == 3 and names[1]:
        yield names[0], names[1], names[2]


class _Types:
    """Which tensors of a graph hold real numbers, as far as the nodes tell."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._held = {**graph.constants, **dict(_inline(graph))}
        self._readers: dict[str, list[OnnxNode]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.outputs}
        self._real = {value.name for value in graph.inputs if value.dtype in _REAL}
        self._absorbed: dict[str, bool] = {}
        self._quantized = set[str]()  # real numbers that are integers times a scale

    def real_nodes(self) -> Iterator[OnnxNode]:
        """Yield the nodes that compute with real numbers and are not fused to integers."""
        for node in self._graph.nodes:
            if node.kind == "DequantizeLinear":
                self._real.update(node.outputs)
                self._quantized.update(node.outputs)
            elif node.kind not in _EDGES and self._is_real(node):
                self._real.update(node.outputs)
                if self._is_fused(node):
                    self._quantized.update(node.outputs)
                elif node.kind != "Constant":
                    yield node

    def _is_real(self, node: OnnxNode) -> bool:
        if node.kind.startswith(_INTEGERS) or node.kind in _BOOLEANS_AND_SIZES:
            return False
        if node.kind == "Cast":
            return node.attributes.get("to") in (1, 10, 11, 16)
        # The first input decides: what follows may be indices and sizes. Where begins with its condition.
        deciding = node.inputs[1:] if node.kind == "Where" else node.inputs[:1]
        return any(name in self._real or self._is_real_constant(name) for name in deciding)

    def _is_real_constant(self, name: str) -> bool:
        return name in self._held and self._held[name].dtype in _REAL

    def _is_fused(self, node: OnnxNode) -> bool:
        sources = [name for name in node.inputs if name in self._real]
        return all(name in self._quantized for name in sources) and all(self._is_requantized(n) for n in node.outputs)

    def _is_requantized(self, name: str, depth: int = 0) -> bool:
        if name not in self._absorbed:  # asked once for each name: a hostile file may have one output many times
            readers = self._readers.get(name, [])
            inside = bool(readers) and name not in self._outputs and depth <= _MOST_ABSORBED
            self._absorbed[name] = inside and all(self._absorbs(reader, depth) for reader in readers)
        return self._absorbed[name]

    def _absorbs(self, reader: OnnxNode, depth: int) -> bool:
        if reader.kind == "QuantizeLinear":
            return True
        return reader.kind in _ABSORBED and all(self._is_requantized(name, depth + 1) for name in reader.outputs)
