# SPDX-License-Identifier: Apache-2.0
"""Count the multiplications of each operator of a TFLite file: what decides how long it computes.

Only operators that multiply by weights are counted, as the literature does; the rest is 0.
"""

import math
from collections.abc import Callable
from typing import Final

from export.tflite.model import Operator, Subgraph, Tensor

__all__ = ["macs"]

_Tensors = tuple[Tensor | None, ...]


def macs(operator: Operator, graph: Subgraph) -> int:
    """Return the multiply-accumulates of one operator.

    A convolution: output elements × weights per output channel. A fully-connected layer: rows × weights.
    """
    count = _COUNT.get(operator.kind)
    if count is None or operator.is_custom:
        return 0
    inputs = tuple(graph.tensors[i] if i >= 0 else None for i in operator.inputs)
    outputs = tuple(graph.tensors[i] if i >= 0 else None for i in operator.outputs)
    return count(inputs, outputs) if outputs and outputs[0] is not None else 0


def _at(tensors: _Tensors, position: int) -> tuple[int, ...]:
    tensor = tensors[position] if position < len(tensors) else None
    return tensor.shape if tensor is not None else ()


def _convolution(inputs: _Tensors, outputs: _Tensors) -> int:
    """Weights [out, h, w, in / groups]."""
    return math.prod(_at(outputs, 0)) * math.prod(_at(inputs, 1)[1:]) if _at(inputs, 1) else 0


def _depthwise(inputs: _Tensors, outputs: _Tensors) -> int:
    """Weights [1, h, w, channels]."""
    return math.prod(_at(outputs, 0)) * math.prod(_at(inputs, 1)[1:3]) if _at(inputs, 1) else 0


def _fully_connected(inputs: _Tensors, _: _Tensors) -> int:
    """Weights [units, features]; as many rows as the input holds features."""
    weights = _at(inputs, 1)
    return math.prod(_at(inputs, 0)) // max(weights[-1], 1) * math.prod(weights) if weights else 0


def _transposed(inputs: _Tensors, _: _Tensors) -> int:
    """Inputs: output shape, weights [out, h, w, in], activation: each input element meets out × h × w weights."""
    return math.prod(_at(inputs, 2)) * math.prod(_at(inputs, 1)[:3]) if _at(inputs, 1) else 0


def _product(inputs: _Tensors, outputs: _Tensors) -> int:
    """A matrix product sums over the first operand's last dimension (as it is stored without adj_x)."""
    shared = _at(inputs, 0)[-1:]
    return math.prod(_at(outputs, 0)) * math.prod(shared) if shared else 0


def _recurrent(inputs: _Tensors, _: _Tensors) -> int:
    """An LSTM over [batch, time, features]: at each step all of its weight matrices."""
    steps = math.prod(_at(inputs, 0)[:-1])
    matrices = (shape for shape in (_at(inputs, i) for i in range(1, 9)) if len(shape) == 2)
    return steps * sum(math.prod(shape) for shape in matrices)


_COUNT: Final[dict[str, Callable[[_Tensors, _Tensors], int]]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transposed,
    "BATCH_MATMUL": _product,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent,
}
