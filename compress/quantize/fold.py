# SPDX-License-Identifier: Apache-2.0
"""Rewrite a FloatGraph so that only operations with integers of their own remain.

Batch normalisation goes into the layer before it (Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2); a clamp becomes the range of the tensor that it
clamps. Where a tensor has other readers too, both become depthwise 1×1 convolutions, which every runtime rounds alike.
"""

from dataclasses import replace

import torch

from compress.quantize.graph import FloatGraph, FloatOp
from edge_contract.errors import UnsupportedOperatorError

__all__ = ["fold"]

_ABSORBS = ("conv2d", "linear", "add", "mul", "global_pool", "batch_norm", "clamp")  # have an output range of their own
_TRANSPARENT = ("max_pool", "flatten")  # pass codes on unchanged
_FREE = (float("-inf"), float("inf"))


def fold(graph: FloatGraph) -> FloatGraph:
    """Return an equal graph (to float32 rounding) without batch_norm, clamp and pad.

    Raises:
        UnsupportedOperatorError: A clamp or BatchNorm on a flat tensor that nothing before it can absorb, or a padding
            that no convolution takes over.
    """
    for index in range(len(graph.operations) - 1, -1, -1):
        # Backwards, so that in conv → BN → ReLU the ReLU has met the BN's output before the BN is folded away.
        operation = graph.operations[index]
        if operation.kind == "clamp":
            graph = _fold_clamp(graph, index)
    for kind, rewrite in (("batch_norm", _fold_batch_norm), ("pad", _fold_pad), ("concat", _part_clamps)):
        for name in [op.output for op in graph.operations if op.kind == kind]:
            current = graph.producer(name)  # one rewrite renames what the next one reads
            assert current is not None
            graph = rewrite(graph, current)
    return _without_unread(graph)


def _absorber(graph: FloatGraph, operation: FloatOp, kinds: tuple[str, ...]) -> FloatOp | None:
    """The operation before, if ``operation`` is its only reader and it may change its output."""
    source = operation.inputs[0]
    producer = graph.producer(source)
    is_free = len(graph.users(source)) == 1 and graph.output != source
    return producer if producer is not None and is_free and producer.kind in kinds else None


def _fold_clamp(graph: FloatGraph, index: int) -> FloatGraph:
    clamp = graph.operations[index]
    producer = _absorber(graph, clamp, (*_ABSORBS, *_TRANSPARENT))
    while producer is not None and producer.kind in _TRANSPARENT:  # clamp(max(x)) = max(clamp(x))
        producer = _absorber(graph, producer, (*_ABSORBS, *_TRANSPARENT))
    if producer is None:
        ones = torch.ones(clamp.shape[0])
        return _replaced(graph, clamp, _as_depthwise(clamp, ones, torch.zeros_like(ones)))
    merged = replace(producer, low=max(producer.low, clamp.low), high=min(producer.high, clamp.high))
    return _replaced(_without(graph, clamp), producer, merged)


def _fold_batch_norm(graph: FloatGraph, norm: FloatOp) -> FloatGraph:
    producer = _absorber(graph, norm, ("conv2d", "linear"))
    assert norm.weight is not None
    assert norm.bias is not None
    if producer is None or (producer.low, producer.high) != _FREE:
        return _replaced(graph, norm, _as_depthwise(norm, norm.weight, norm.bias))
    assert producer.weight is not None
    assert producer.bias is not None
    factor = norm.weight.view(-1, *([1] * (producer.weight.dim() - 1)))
    weight = (producer.weight.double() * factor).float()
    bias = (producer.bias.double() * norm.weight + norm.bias).float()
    merged = replace(producer, weight=weight, bias=bias, low=norm.low, high=norm.high)
    return _replaced(_without(graph, norm), producer, merged)


def _fold_pad(graph: FloatGraph, pad: FloatOp) -> FloatGraph:
    readers = graph.users(pad.output)
    if pad.output == graph.output or any(reader.kind != "conv2d" for reader in readers):
        fix = "pad directly before a convolution"
        raise UnsupportedOperatorError("a padding that no convolution takes over", where=f"layer '{pad.name}'", fix=fix)
    for reader in readers:
        both = zip(reader.attributes["padding"], pad.attributes["padding"], strict=True)
        attributes = {**reader.attributes, "padding": tuple(a + b for a, b in both)}
        graph = _replaced(graph, reader, replace(reader, attributes=attributes))
    return _without(graph, pad)


def _part_clamps(graph: FloatGraph, concat: FloatOp) -> FloatGraph:
    """Tensors that are joined share one range: it can stand for a clamp only where all of them have the same one."""
    sources = [_source(graph, name) for name in concat.inputs]
    bounds = [_FREE if op is None else (op.low, op.high) for op in sources]
    if len(set(bounds)) == 1:
        return graph
    names = list(concat.inputs)
    for i, name in enumerate(concat.inputs):
        if bounds[i] != _FREE:
            names[i] = f"{concat.output}_part{i}"
            graph = _before(graph, concat, _copy(graph, concat, name, names[i]))
    return _replaced(graph, concat, replace(concat, inputs=tuple(names)))


def _source(graph: FloatGraph, name: str) -> FloatOp | None:
    """The operation whose codes a tensor holds."""
    producer = graph.producer(name)
    while producer is not None and producer.kind in _TRANSPARENT:
        producer = graph.producer(producer.inputs[0])
    return producer


def _copy(graph: FloatGraph, concat: FloatOp, name: str, output: str) -> FloatOp:
    producer = graph.producer(name)
    assert producer is not None  # only an operation clamps
    ones = torch.ones(producer.shape[0])
    like = replace(concat, inputs=(name,), output=output, shape=producer.shape)
    return _as_depthwise(like, ones, torch.zeros_like(ones))


def _before(graph: FloatGraph, place: FloatOp, new: FloatOp) -> FloatGraph:
    at = next(i for i, op in enumerate(graph.operations) if op.output == place.output)
    return replace(graph, operations=(*graph.operations[:at], new, *graph.operations[at:]))


def _as_depthwise(op: FloatOp, factor: torch.Tensor, offset: torch.Tensor) -> FloatOp:
    if len(op.shape) != 3:
        what = f"a {op.kind} on a flat tensor that other layers read too"
        fix = "put it directly after one linear layer, or before the flatten"
        raise UnsupportedOperatorError(what, where=f"layer '{op.name}'", fix=fix)
    weight = factor.float().reshape(-1, 1, 1, 1)
    attributes = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": (op.shape[0],)}
    return replace(op, kind="conv2d", weight=weight, bias=offset.float(), attributes=attributes)


def _replaced(graph: FloatGraph, old: FloatOp, new: FloatOp) -> FloatGraph:
    return replace(graph, operations=tuple(new if op.output == old.output else op for op in graph.operations))


def _without(graph: FloatGraph, gone: FloatOp) -> FloatGraph:
    rest = tuple(op for op in graph.operations if op.output != gone.output)
    return replace(graph, operations=rest).rename(gone.output, gone.inputs[0])


def _without_unread(graph: FloatGraph) -> FloatGraph:
    """Drop operations whose result nobody reads, from the end to the start."""
    kept: list[FloatOp] = []
    read = {graph.output}
    for op in reversed(graph.operations):
        if op.output in read:
            kept.append(op)
            read.update(op.inputs)
    return replace(graph, operations=tuple(reversed(kept)))
