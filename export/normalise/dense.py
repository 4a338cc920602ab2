# SPDX-License-Identifier: Apache-2.0
"""int8 FULLY_CONNECTED with one weight scale per output becomes something that every runtime computes alike.

tflite-runtime 2.7 to 2.9 read the first scale for all outputs and give wrong numbers without an error; no operator
version tells. Where all scales are equal, one remains. Else the layer becomes a 1×1 CONV_2D on a 1×1 image: the same
int32 sums, the same multiplier for each output, so the same codes; per-channel convolutions are right everywhere.
Rounding the weights anew to one scale, as other tools do, would change the model.
"""

import math

import numpy as np

from export.normalise.draft import Draft, Graph, quantization
from export.tflite.schema import ENUMS
from export.tflite.walk import Table

__all__ = ["dense_per_tensor"]

_VALID = ENUMS["Padding"].index("VALID")


def per_channel_dense(draft: Draft, graph: Graph) -> list[Table]:
    """Return the operators that old runtimes get wrong: int8 activations, constant int8 weights with several scales."""
    found = [op for op in graph.operators if draft.kind(op) == "FULLY_CONNECTED"]
    found = [op for op in found if {graph.dtype(t) for t in (*op["inputs"][:2], op["outputs"][0])} == {"int8"}]
    return [op for op in found if len(graph.quantized(op["inputs"][1]).scales) > 1]


def dense_per_tensor(draft: Draft) -> tuple[list[str], list[str]]:
    """Rewrite every per-channel FULLY_CONNECTED; return what changed, and what could not be."""
    changes, warnings = {"one scale": 0, "a 1×1 convolution": 0}, 0
    for graph in draft.graphs:
        for op in per_channel_dense(draft, graph):
            if _share_scale(graph, op):
                changes["one scale"] += 1
            elif _as_convolution(draft, graph, op):
                changes["a 1×1 convolution"] += 1
            else:
                warnings += 1
        graph.settle()
    told = [f"{n} per-channel FULLY_CONNECTED → {what}, the same integers" for what, n in changes.items() if n]
    return told, [warning(warnings)] if warnings else []


def warning(count: int) -> str:
    """Return the sentence about per-channel operators that remain."""
    return f"{count} per-channel int8 FULLY_CONNECTED: tflite-runtime 2.7 to 2.9 compute them wrong without an error"


def _share_scale(graph: Graph, op: Table) -> bool:
    """Where all scales are one number, write it once."""
    weights = op["inputs"][1]
    found = graph.quantized(weights)
    if len(set(found.scales)) > 1 or any(found.zero_points):
        return False
    changed = [_with_one_scale(graph, index) for index in op["inputs"][1:] if index >= 0]
    op["inputs"] = (op["inputs"][0], *changed, *op["inputs"][1 + len(changed) :])
    return True


def _with_one_scale(graph: Graph, tensor: int) -> int:
    found = graph.quantized(tensor)
    return graph.copy(tensor, quantization=quantization(found.scales[:1], (0,))) if found.scales else tensor


def _as_convolution(draft: Draft, graph: Graph, op: Table) -> bool:
    (source, weights), output, options = op["inputs"][:2], op["outputs"][0], op["builtin_options"] or {}
    shape, found = graph.shape(weights), graph.quantized(weights)
    rows = _rows(graph, source, shape[1]) if len(shape) == 2 else None
    is_plain = found.axis == 0 and not any(found.zero_points) and not options.get("weights_format")
    if rows is None or not is_plain or graph.numbers(weights) is None or len(found.scales) != shape[0]:
        return False
    image, result = (rows, 1, 1, shape[1]), (rows, 1, 1, shape[0])
    inner = graph.like(source, image, graph.tensors[source]["quantization"])
    outer = graph.like(output, result, graph.tensors[output]["quantization"])
    scaled = quantization(found.scales, (0,) * shape[0])
    kernel = graph.copy(weights, shape=(shape[0], 1, 1, shape[1]), shape_signature=None, quantization=scaled)
    fields = {"padding": _VALID, "stride_w": 1, "stride_h": 1}
    fields["fused_activation_function"] = options.get("fused_activation_function", 0)
    bias = _bias(graph, op, source, found.scales)
    convolution = draft.operator("CONV_2D", (inner, kernel, bias), outer, "Conv2DOptions", **fields)
    reshapes = _reshape(draft, graph, source, inner), _reshape(draft, graph, outer, output)
    graph.replace(op, (reshapes[0], convolution, reshapes[1]))
    return True


def _rows(graph: Graph, source: int, features: int) -> int | None:
    """How often the layer is applied; -1 if the batch is free, None if the shape does not say."""
    shape = graph.shape(source)
    if shape[:1] == (-1,):
        return -1 if math.prod(shape[1:]) == features and -1 not in shape[1:] else None
    size = math.prod(shape)
    return size // features if features > 0 and -1 not in shape and size % features == 0 else None


def _bias(graph: Graph, op: Table, source: int, scales: tuple[float, ...]) -> int:
    """The layer's bias with a scale for each output; zeros where it has none."""
    (input_scale, *_) = graph.quantized(source).scales or (1.0,)
    scaled = quantization([input_scale * scale for scale in scales], (0,) * len(scales))
    if len(op["inputs"]) > 2 and op["inputs"][2] >= 0:
        return graph.copy(op["inputs"][2], quantization=scaled)
    return graph.constant(np.zeros(len(scales), np.int32), scaled)


def _reshape(draft: Draft, graph: Graph, source: int, output: int) -> Table:
    shape = graph.shape(output)
    sizes = graph.constant(np.array(shape, np.int32))
    return draft.operator("RESHAPE", (source, sizes), output, "ReshapeOptions", new_shape=shape)
