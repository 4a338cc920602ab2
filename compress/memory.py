# SPDX-License-Identifier: Apache-2.0
"""How much memory the activations of a network need at the same time, and what its weights weigh in a zip."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import nn

from compress.quantize.graph import FloatGraph
from compress.quantize.plan import QuantizationPlan

__all__ = ["Peak", "peak", "zipped_kb"]

_LEVEL = 9


@dataclass(frozen=True)
class Peak:
    """The worst moment of one inference: which layer runs, and how many values live, its output among them."""

    layer: str
    values: int

    def kb(self, bits: int) -> float:
        """Return bytes / 1000 with activations of so many bits: 32 in float, 8 in a plan."""
        return self.values * bits / 8000


def peak(graph: FloatGraph) -> Peak:
    """Return how many activation values of one input live at once at worst, a lower bound for a runtime's arena.

    A tensor lives from the operation that computes it to the last one that reads it; flatten only looks at it anew.

    Example:
        >>> import torch
        >>> from compress.quantize.step import folded
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
        >>> peak(folded(net, torch.zeros(1, 1, 8, 8)))  # four maps in, two maps out
        Peak(layer='1', values=384)
    """
    last = {name: i for i, op in enumerate(graph.operations) for name in op.inputs}
    last[graph.output] = len(graph.operations)
    living = {graph.input: math.prod(graph.input_shape)}
    worst = Peak("input", living[graph.input])
    for i, op in enumerate(graph.operations):
        size = math.prod(op.shape)
        together = sum(living.values()) + (0 if op.kind == "flatten" else size)
        worst = max(worst, Peak(op.name, together), key=lambda one: one.values)
        living = {name: values for name, values in living.items() if last.get(name, -1) > i}
        if last.get(op.output, -1) > i:
            living[op.output] = size
    return worst


def zipped_kb(weights: nn.Module | QuantizationPlan) -> float:
    """Return the weights after deflate, bytes / 1000: what an update sends and a package stores.

    Of a network the parameters in float32, of each normalisation one half as folding leaves them; of a plan its
    integers. Clustered and sparse weights show here, not in the size in memory.

    Example:
        >>> layer = nn.Linear(100, 100, bias=False)
        >>> _ = nn.init.zeros_(layer.weight)
        >>> zipped_kb(layer) < 0.1 < 40.0  # a zero compresses well
        True
    """
    squeezer = zlib.compressobj(_LEVEL)
    arrays = _of_plan(weights) if isinstance(weights, QuantizationPlan) else _of_model(weights)
    total = sum(len(squeezer.compress(array.tobytes())) for array in arrays)
    return (total + len(squeezer.flush())) / 1000


def _of_plan(plan: QuantizationPlan) -> Iterator[NDArray[Any]]:
    return (constant.codes for constant in plan.constants.values())


def _of_model(model: nn.Module) -> Iterator[NDArray[Any]]:
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        is_norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        yield from (parameter.detach().cpu().numpy() for parameter in (own[:1] if is_norm else own))
